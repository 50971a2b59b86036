"""Batches as a pure function of (config, step)."""

import functools
import hashlib

import grain
import numpy as np

from lbe.data import mixing
from lbe.data import packing
from lbe.data import tokenized

# Of a text, in the examples that a run shows.
_SHOWN_TOKENS = 200


class Loader:
  """Rows of the mixture by step, random access, on any host.

  `prepared` and `proportions` (of the tokens) are by source name; `packed`
  names the sources whose documents stay whole, packed best-fit. The state is
  one integer: the number of steps done.
  """

  def __init__(
    self,
    prepared,
    proportions,
    *,
    seq_len,
    batch_size,
    seed,
    tokenizer,
    packed=(),
  ):
    self._names = list(prepared)
    self._prepared = prepared
    self._data = [prepared[name].train for name in self._names]
    self._asked = [float(proportions[name]) for name in self._names]
    self._packed = [name in packed for name in self._names]
    self._seq_len = seq_len
    self._batch_size = batch_size
    self._seed = seed
    self._packing = functools.lru_cache(maxsize=2 * len(self._names))(
      self._pack
    )
    # The number of packed rows is the same in every epoch.
    self._num_rows = [
      len(self._packing(i, 0)[0]) - 1
      if self._packed[i]
      else packing.num_rows(d.num_tokens, seq_len)
      for i, d in enumerate(self._data)
    ]
    # Packed rows have padding: so many more of them make the same tokens.
    shares = np.array(self._asked) / [self.fill(name) for name in self._names]
    self._proportions = (shares / shares.sum()).tolist()
    self._per_block = mixing.counts(self._proportions)
    self._tokenizer = tokenizer
    self._byte_lengths = np.asarray(tokenizer.byte_lengths, np.int64)
    self._block = functools.lru_cache(maxsize=8)(
      functools.partial(mixing.block, self._proportions, seed)
    )

  def _pack(self, source, epoch):
    """(starts, examples) of packing.best_fit."""
    return packing.best_fit(
      self._data[source].document_lengths,
      self._seq_len,
      seed=self._seed * 1000 + source,
      epoch=epoch,
    )

  def fill(self, name):
    """The share of a source's rows that is no padding; of a text 1."""
    i = self._names.index(name)
    if not self._packed[i]:
      return 1.0
    return self._data[i].num_tokens / (self._num_rows[i] * self._seq_len)

  def row_share(self, name):
    """The share of the training's rows that come from a source."""
    return self._proportions[self._names.index(name)]

  def place(self, place):
    """(source index, epoch, row of the source) at a place of the training."""
    number, within = divmod(place, mixing.BLOCK)
    sources, rank = self._block(number)
    source = int(sources[within])
    index = int(number * self._per_block[source] + rank[within])
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
    source, epoch, row = self.place(place)
    data = self._data[source]
    if self._packed[source]:
      starts, examples = self._packing(source, epoch)
      chosen = examples[starts[row] : starts[row + 1]]
      result = packing.pack([data.example(i) for i in chosen], self._seq_len)
    else:
      start = row * self._seq_len
      tokens, documents = data.tokens(start, start + self._seq_len + 1)
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

  def epochs(self, num_steps):
    """How often a run of so many steps sees each source, by name."""
    rows = self._rows_used(num_steps)
    return {
      name: rows[i] / self._num_rows[i] for i, name in enumerate(self._names)
    }

  def _rows_used(self, num_steps):
    return mixing.rows_before(
      self._proportions, self._seed, num_steps * self._batch_size
    )

  def report(self, num_steps):
    """The table that a run prints first, and its warnings."""
    rows_used = self._rows_used(num_steps)
    head = (
      'source',
      'documents',
      'bytes',
      'tokens',
      'bytes/token',
      'byte fallback',
      'learnt',
      'padding',
      'mean',
      'median',
      'longest',
      'asked',
      'achieved',
      'epochs',
    )
    table = [head]
    fills = np.array([self.fill(name) for name in self._names])
    achieved = rows_used * fills / max((rows_used * fills).sum(), 1)
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
          f'{d.num_learnt / d.num_tokens:.1%}',
          f'{1 - fills[i]:.1%}',
          f'{d.document_lengths.mean():.0f}',
          f'{np.median(d.document_lengths):.0f}',
          f'{d.document_lengths.max():,}',
          f'{self._asked[i]:.1%}',
          f'{achieved[i]:.1%}',
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
    notes = [
      tokenized.describe(self._prepared[name], name) for name in self._names
    ]
    return '\n'.join(lines + [note for note in notes if note])

  def decoded_examples(self, mark=('⟦', '⟧')):
    """One example of each source, what is learnt of it between marks.

    A whole conversation, or the first tokens of a text.
    """
    parts = []
    for i, name in enumerate(self._names):
      data = self._data[i]
      if self._packed[i]:
        text = self._marked(*data.example(0), mark)
      else:
        ids, documents = data.tokens(0, _SHOWN_TOKENS)
        ids = ids[documents == documents[0]]
        # The first token of a document is nobody's target.
        text = self._marked(ids, np.arange(len(ids)) > 0, mark)
        if len(ids) < data.document_lengths[0]:
          text += '…'
      parts.append(f'an example of {name}:\n{text}')
    return '\n\n'.join(parts)

  def _marked(self, ids, weights, mark):
    """The text of ids, special ones by name, runs of weight 1 in marks."""
    result, held, shown, inside = '', [], '', False
    for token, learnt in zip(ids.tolist(), weights.tolist(), strict=True):
      if bool(learnt) != inside:
        result += mark[inside]
        inside = bool(learnt)
      if not self._byte_lengths[token]:
        result += self._tokenizer.piece(token)
        held, shown = [], ''
        continue
      held.append(token)
      text = self._tokenizer.decode(held)
      if not text.endswith('\ufffd'):  # else a character is not whole yet
        result += text[len(shown) :]
        shown = text
    return result + mark[1] * inside

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
