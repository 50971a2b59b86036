"""Batches as a pure function of (config, step)."""

import functools
import hashlib

import grain
import numpy as np

from lbe.data import mixing
from lbe.data import packing


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
    self.names = list(prepared)
    self.prepared = prepared
    self.data = [prepared[name].train for name in self.names]
    self.asked = [float(proportions[name]) for name in self.names]
    self.packed = [name in packed for name in self.names]
    self.seq_len = seq_len
    self.batch_size = batch_size
    self._seed = seed
    self._packing = functools.lru_cache(maxsize=2 * len(self.names))(self._pack)
    # The number of packed rows is the same in every epoch.
    self.num_rows = [
      len(self._packing(i, 0)[0]) - 1
      if self.packed[i]
      else packing.num_rows(d.num_tokens, seq_len)
      for i, d in enumerate(self.data)
    ]
    # Packed rows have padding: so many more of them make the same tokens.
    shares = np.array(self.asked) / [self.fill(name) for name in self.names]
    self._proportions = (shares / shares.sum()).tolist()
    self._per_block = mixing.counts(self._proportions)
    self.tokenizer = tokenizer
    self.byte_lengths = np.asarray(tokenizer.byte_lengths, np.int64)
    self._block = functools.lru_cache(maxsize=8)(
      functools.partial(mixing.block, self._proportions, seed)
    )

  def _pack(self, source, epoch):
    """(starts, examples) of packing.best_fit."""
    return packing.best_fit(
      self.data[source].document_lengths,
      self.seq_len,
      seed=self._seed * 1000 + source,
      epoch=epoch,
    )

  def fill(self, name):
    """The share of a source's rows that is no padding; of a text 1."""
    i = self.names.index(name)
    if not self.packed[i]:
      return 1.0
    return self.data[i].num_tokens / (self.num_rows[i] * self.seq_len)

  def row_share(self, name):
    """The share of the training's rows that come from a source."""
    return self._proportions[self.names.index(name)]

  def rows_in_block(self, name):
    """Rows of a source in each mixing.BLOCK; 0 where it is too small."""
    return int(self._per_block[self.names.index(name)])

  def locate(self, position):
    """(source index, epoch, row of the source) at a position in training."""
    number, within = divmod(position, mixing.BLOCK)
    sources, rank = self._block(number)
    source = int(sources[within])
    index = int(number * self._per_block[source] + rank[within])
    epoch, k = divmod(index, self.num_rows[source])
    row = mixing.shuffled(
      k,
      self.num_rows[source],
      seed=self._seed * 1000 + source,
      epoch=epoch,
    )
    return source, epoch, row

  def row(self, position):
    """One row as numpy arrays [T]; packing.make_row says which."""
    source, epoch, row = self.locate(position)
    data = self.data[source]
    if self.packed[source]:
      starts, examples = self._packing(source, epoch)
      chosen = examples[starts[row] : starts[row + 1]]
      result = packing.pack([data.example(i) for i in chosen], self.seq_len)
    else:
      start = row * self.seq_len
      tokens, documents = data.tokens(start, start + self.seq_len + 1)
      result = packing.make_row(tokens, documents, self.seq_len)
    scored = result['weights'] > 0
    result['num_bytes'] = np.int32(
      self.byte_lengths[result['targets'][scored]].sum()
    )
    return result

  def documents(self, position):
    """(source, epoch, numbers of its documents) of the row at a position."""
    source, epoch, row = self.locate(position)
    data = self.data[source]
    if self.packed[source]:  # each conversation is a document
      starts, examples = self._packing(source, epoch)
      numbers = sorted(examples[starts[row] : starts[row + 1]])
    else:
      start = row * self.seq_len
      numbers = np.unique(data.tokens(start, start + self.seq_len)[1])
    return self.names[source], epoch, data.in_files(numbers)

  def rows(self, step, rows=None):
    """The batch of the step from `step` to `step + 1`; of it, a slice.

    ids_BT, targets_BT, positions_BT, segments_BT int32, weights_BT float32,
    and num_bytes_B int32, the UTF-8 bytes of the scored targets.
    """
    rows = rows or slice(0, self.batch_size)
    first = step * self.batch_size
    chosen = [self.row(first + i) for i in range(rows.start, rows.stop)]
    batch = {
      f'{name}_BT': np.stack([row[name] for row in chosen])
      for name in ('ids', 'targets', 'positions', 'segments', 'weights')
    }
    batch['num_bytes_B'] = np.array(
      [row['num_bytes'] for row in chosen], np.int32
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
        name: self.prepared[name].fingerprint for name in self.names
      },
    }

  def epochs(self, num_steps):
    """How often a run of so many steps sees each source, by name."""
    rows = self.rows_used(num_steps)
    return {
      name: rows[i] / self.num_rows[i] for i, name in enumerate(self.names)
    }

  def rows_used(self, num_steps: int) -> np.ndarray:
    """How many rows of each source a run of so many steps takes."""
    return mixing.rows_before(
      self._proportions, self._seed, num_steps * self.batch_size
    )

  def seen(self, num_steps: int) -> dict[str, dict[str, int]]:
    """{source: {'documents', 'bytes', 'tokens'}} of a run of so many steps.

    By the rows that it takes of each: what is seen twice counts twice.
    """
    result = {}
    for name, epochs in self.epochs(num_steps).items():
      data = self.prepared[name].train
      result[name] = {
        'documents': round(epochs * data.num_documents),
        'bytes': round(epochs * data.num_bytes),
        'tokens': round(epochs * data.num_tokens),
      }
    return result
