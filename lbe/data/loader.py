"""Batches as a pure function of (config, step)."""

import functools
import hashlib

import grain
import numpy as np

from lbe.data import build
from lbe.data import mixing
from lbe.data import packing


class Loader:
  """Rows of the mixture by step, random access, on any host.

  `prepared` and `proportions` are by source name. The state is one integer:
  the number of steps done.
  """

  def __init__(
    self, prepared, proportions, *, seq_len, batch_size, seed, tokenizer
  ):
    self._names = list(prepared)
    self._prepared = prepared
    self._data = [prepared[name].train for name in self._names]
    self._proportions = [float(proportions[name]) for name in self._names]
    self._num_rows = [
      packing.num_rows(d.num_tokens, seq_len) for d in self._data
    ]
    self._seq_len = seq_len
    self._batch_size = batch_size
    self._seed = seed
    self._tokenizer = tokenizer
    self._byte_lengths = np.asarray(tokenizer.byte_lengths, np.int64)
    self._block = functools.lru_cache(maxsize=8)(
      functools.partial(mixing.block, self._proportions, seed)
    )

  def place(self, place):
    """(source index, epoch, row of the source) at a place of the training."""
    number, within = divmod(place, mixing.BLOCK)
    sources, rank = self._block(number)
    source = int(sources[within])
    per_block = mixing.counts(self._proportions)[source]
    index = int(number * per_block + rank[within])
    epoch, k = divmod(index, self._num_rows[source])
    row = mixing.shuffled(
      k,
      self._num_rows[source],
      seed=self._seed * 1000 + source,
      epoch=epoch,
    )
    return source, epoch, row

  def row(self, place):
    """One row as numpy arrays [T]; packing.make_row says which."""
    source, _, row = self.place(place)
    start = row * self._seq_len
    tokens, documents = self._data[source].tokens(
      start, start + self._seq_len + 1
    )
    result = packing.make_row(tokens, documents, self._seq_len)
    scored = result['weights'] > 0
    result['num_bytes'] = np.int32(
      self._byte_lengths[result['targets'][scored]].sum()
    )
    return result

  def rows(self, step, rows=None):
    """The batch of the step from `step` to `step + 1`; of it, a slice.

    ids_BT, targets_BT, positions_BT, segments_BT int32, weights_BT float32,
    and num_bytes_B int32, the UTF-8 bytes of the scored targets.
    """
    rows = rows or slice(0, self._batch_size)
    first = step * self._batch_size
    found = [self.row(first + i) for i in range(rows.start, rows.stop)]
    batch = {
      f'{name}_BT': np.stack([row[name] for row in found])
      for name in ('ids', 'targets', 'positions', 'segments', 'weights')
    }
    batch['num_bytes_B'] = np.array(
      [row['num_bytes'] for row in found], np.int32
    )
    return batch

  def digest(self, step):
    """sha256 of the whole batch of a step."""
    digest = hashlib.sha256()
    for name, x in sorted(self.rows(step).items()):
      digest.update(name.encode() + x.tobytes())
    return digest.hexdigest()

  def iterator(self, first_step, num_steps, rows=None):
    """Batches from `first_step` on, made ahead in threads."""
    if num_steps < 1:
      return iter(())
    dataset = grain.MapDataset.range(first_step, first_step + num_steps).map(
      lambda step: self.rows(int(step), rows)
    )
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))

  def state(self, step):
    """What a checkpoint of `step` keeps of the data."""
    return {
      'step': step,
      'fingerprints': {
        name: self._prepared[name].fingerprint for name in self._names
      },
    }

  # ---------------------------------------------------------------- report

  def report(self, num_steps):
    """The table that a run prints first, and its warnings."""
    rows_used = mixing.rows_before(
      self._proportions, self._seed, num_steps * self._batch_size
    )
    head = (
      'source',
      'documents',
      'bytes',
      'tokens',
      'bytes/token',
      'byte fallback',
      'mean',
      'median',
      'asked',
      'achieved',
      'epochs',
    )
    table = [head]
    for i, name in enumerate(self._names):
      d = self._data[i]
      table.append(
        (
          name,
          f'{d.num_documents:,}',
          f'{d.num_bytes:,}',
          f'{d.num_tokens:,}',
          f'{d.num_bytes / d.num_tokens:.2f}',
          f'{d.num_fallback / d.num_tokens:.1%}',
          f'{d.document_lengths.mean():.0f}',
          f'{np.median(d.document_lengths):.0f}',
          f'{self._proportions[i]:.1%}',
          f'{rows_used[i] / max(rows_used.sum(), 1):.1%}',
          f'{rows_used[i] / self._num_rows[i]:.2f}',
        )
      )
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
      '  '.join(
        cell.ljust(w) if i == 0 else cell.rjust(w)
        for i, (cell, w) in enumerate(zip(row, widths, strict=True))
      )
      for row in table
    ]
    notes = [build.describe(self._prepared[name], name) for name in self._names]
    return '\n'.join(lines + [note for note in notes if note])

  def decoded_row(self, step, row, *, max_characters=1000):
    """One packed row as text, each document's part between ⟦ and ⟧."""
    found = self.row(step * self._batch_size + row)
    parts = []
    for segment in range(1, found['segments'].max() + 1):
      ids = found['ids'][found['segments'] == segment]
      parts.append(f'⟦{self._tokenizer.decode(ids.tolist())}⟧')
    padding = int((found['segments'] == 0).sum())
    text = '\n'.join(parts)
    if len(text) > max_characters:
      text = f'{text[:max_characters]}… ({len(parts)} documents in all)'
    return text + (f' + {padding} padding' if padding else '')
