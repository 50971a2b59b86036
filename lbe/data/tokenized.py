"""Tokenized sources on disk, read in the seeded order."""

import dataclasses
import functools
import json
import pathlib

import numpy as np

from lbe.data import order as order_lib
from lbe.data import overlaps
from lbe.data import shards
from lbe.run import checksums

# Of the records that were skipped, in what a run says.
_SHOWN_SKIPPED = 3
# So much of a source is read within a fraction of a second when it is opened.
CHECKED_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A source on disk: its splits, its fingerprint, and what was seen.

  `whole` is all that `train` could be, where a budget takes a part of it.
  `shared` says what of the held-out documents, and of other scored texts, is
  trained on.
  """

  train: 'TokenizedDataset'
  heldout: 'TokenizedDataset | None'
  fingerprint: str
  report: dict
  conversations: bool
  folder: pathlib.Path
  whole: 'TokenizedDataset | None' = None
  shared: dict = dataclasses.field(default_factory=dict)

  def first(self, **limits) -> 'Prepared':
    """Of the training documents the first ones: TokenizedDataset's limits."""
    train = self.train.first(**limits)
    return dataclasses.replace(
      self,
      train=train,
      whole=self.train,
      fingerprint=f'{self.fingerprint}, its first {train.num_documents}',
    )

  def heldout_documents(self):
    """The held-out documents in the seeded order, as they are scored.

    (their original texts, or of conversations (ids, weights); their hashes).
    """
    heldout = self.heldout
    if heldout is None:
      return [], []
    hashes = heldout.hashes.tolist()
    if self.conversations:
      return [heldout.example(i) for i in range(len(hashes))], hashes
    return heldout.texts(), hashes


def load(folder, source, fingerprint, seed, counted):
  """The Prepared of a finished folder; `counted` is that of subset."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(str(folder))

  def dataset(split):
    if split not in builder.info.splits:
      return None
    index = {
      name: np.load(folder / f'{split}_{name}.npy', mmap_mode='r')
      for name in shards.INDEX
      # Data that an earlier version made lacks the newest columns.
      if (folder / f'{split}_{name}.npy').exists()
    }
    limits = {}
    if split == 'train':
      limits = dict(
        max_documents=source.max_documents,
        max_bytes=source.max_bytes,
        max_tokens=source.max_tokens,
        counted=counted,
      )
    return TokenizedDataset(
      builder.as_data_source(split), index, seed=seed, **limits
    )

  return Prepared(
    dataset('train'),
    dataset('heldout'),
    fingerprint,
    read_report(folder),
    bool(source.template),
    folder,
  )


def check(folder: pathlib.Path):
  """Raises ValueError where the files are not as they were written.

  Of more than CHECKED_BYTES the index alone is read, and the size of the rest:
  records have checksums of their own.
  """
  size = sum(path.stat().st_size for path in folder.iterdir())
  checksums.check(
    folder,
    f'Delete {folder.parent}: the same command tokenizes its source again',
    by_size=lambda name: size > CHECKED_BYTES and name.startswith('tokens-'),
  )


def read_report(folder: pathlib.Path) -> dict:
  """What was seen while a source was tokenized."""
  return json.loads((folder / 'report.json').read_text(encoding='utf-8'))


class TokenizedDataset:
  """One split in the seeded order, as one stream of tokens.

  Limits take the first documents; of conversations those of `counted`, an
  index of all before any was left out as too long: another tokenizer takes the
  same.

  `num_documents`, `num_tokens` (BOS and EOS counted), of these `num_learnt`,
  `num_bytes` of text, `num_fallback` and `num_unknown` tokens (None where it
  was not counted), `num_unlearnt` records of which nothing is learnt;
  `document_lengths` int64 in tokens; `hashes` of their contents. Of
  conversations each is one record: `example` reads it.
  """

  def __init__(
    self,
    records,
    index,
    *,
    seed,
    max_documents=None,
    max_bytes=None,
    max_tokens=None,
    counted=None,
  ):
    self._records = records
    self._made_of = dict(index=index, seed=seed, counted=counted)
    self._limits = dict(
      max_documents=max_documents, max_bytes=max_bytes, max_tokens=max_tokens
    )
    by_text = dict(max_documents=max_documents, size=max_bytes)
    if counted is None or not any(by_text.values()):
      order, number = _subset(index, seed, **by_text, max_tokens=max_tokens)
    else:
      chosen, _ = _subset(counted, seed, **by_text)
      counted = {name: x[chosen] for name, x in counted.items()}
      at = np.flatnonzero(np.isin(index['hashes'], counted['hashes']))
      if not len(at):
        raise ValueError(
          f'of the first {len(chosen):,} examples none is left: they were '
          'skipped, or are longer than a row; take longer rows, more examples, '
          'or another too_long.'
        )
      taken = {name: np.asarray(x)[at] for name, x in index.items()}
      order, number = _subset(taken, seed, max_tokens=max_tokens)
      order = at[order]
    self._order = order
    self._number = number
    # Rows in a row share a document; one record is read once.
    self._read = functools.lru_cache(maxsize=256)(self._read_record)
    lengths = np.asarray(index['lengths'], np.int64)[order]
    self._ends = np.cumsum(lengths)
    self.num_documents = int(number[-1]) + 1
    self.num_tokens = int(self._ends[-1])
    learnt = np.asarray(index['learnt'], np.int64)[order]
    self.num_learnt = int(learnt.sum())
    self.num_unlearnt = int((learnt == 0).sum())
    self.num_bytes = int(np.asarray(index['num_bytes'])[order].sum())
    # What limits and budgets in text count, and what an epoch holds by them.
    self.num_counted, self.counted_bytes = self.num_documents, self.num_bytes
    self.epoch_documents, self.epoch_bytes = self.num_documents, self.num_bytes
    if counted is not None:
      self.num_counted = len(counted['hashes'])
      self.counted_bytes = int(counted['num_bytes'].sum())
      # As many as if none had been left out: the same of every tokenizer.
      kept = np.isin(counted['hashes'], index['hashes'])
      num_kept = int(kept.sum())
      kept_bytes = int(counted['num_bytes'][kept].sum())
      self.epoch_documents = self.num_documents * self.num_counted / num_kept
      self.epoch_bytes = self.num_bytes * self.counted_bytes / kept_bytes
    self.num_fallback = int(
      np.asarray(index['fallback'], np.int64)[order].sum()
    )
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    self.hashes = np.asarray(index['hashes'])[order[starts]]
    self.num_unknown = None
    if 'unknown' in index:
      self.num_unknown = int(np.asarray(index['unknown'])[order].sum())
    self.document_lengths = np.bincount(number, weights=lengths).astype(
      np.int64
    )

  def first(self, **limits) -> 'TokenizedDataset':
    """The same within further limits, of which the lowest holds."""
    both = {
      name: min(filter(None, (ours, limits.get(name))), default=None)
      for name, ours in self._limits.items()
    }
    return TokenizedDataset(self._records, **self._made_of, **both)

  def tokens(self, start, stop):
    """(ids, document numbers) of the stream's tokens [start, stop)."""
    stop = min(stop, self.num_tokens)
    first = int(np.searchsorted(self._ends, start, side='right'))
    last = int(np.searchsorted(self._ends, stop, side='left'))
    ids = [self._read(i) for i in range(first, last + 1)]
    begin = int(self._ends[first]) - len(ids[0])
    numbers = np.repeat(
      self._number[first : last + 1], [len(piece) for piece in ids]
    )
    cut = slice(start - begin, stop - begin)
    return np.concatenate(ids)[cut], numbers[cut]

  def _read_record(self, i):
    return np.asarray(self._records[int(self._order[i])]['ids'], np.int32)

  def example(self, i):
    """(ids int32, weights uint8) of the i-th conversation."""
    record = self._records[int(self._order[i])]
    ids, weights = record['ids'], record['weights']
    return np.asarray(ids, np.int32), np.asarray(weights, np.uint8)

  def in_files(self, numbers):
    """Numbers of documents, as `tokens` counts them, in the files' order.

    Both count from 0. Data of an earlier version does not know the latter.
    """
    index = self._made_of['index']
    if 'documents' not in index:
      return [int(i) for i in numbers]
    starts = np.searchsorted(self._number, numbers)
    return np.asarray(index['documents'])[self._order[starts]].tolist()

  def texts(self):
    """The documents' texts, where the split keeps them (`heldout`)."""
    found = self._records.__getitems__([int(i) for i in self._order])
    texts = [record['text'] for record in found]
    starts = np.flatnonzero(np.diff(self._number, prepend=-1))
    return [
      t.decode() if isinstance(t, bytes) else str(t)
      for t in (texts[i] for i in starts)
    ]


def _subset(index, seed, *, max_documents=None, size=None, max_tokens=None):
  limits = [(size, index['num_bytes'])] if size else []
  if max_tokens:
    limits.append((max_tokens, index['lengths']))
  return order_lib.subset(
    index['hashes'],
    seed=seed,
    documents=index.get('documents'),
    max_documents=max_documents,
    limits=limits,
  )


def describe(prepared, name):
  """Lines about what was skipped, cut short, or overlaps, or ''."""
  lines = []
  data = prepared.train
  mean = data.num_tokens / data.num_documents
  if mean < 64 and data.num_learnt == data.num_tokens:
    lines.append(
      f'warning: documents of {name} have {mean:.0f} tokens on average; is '
      'each line really a document? See `cut` of the source.'
    )
  total, kept = prepared.report['cleaned']
  if kept < total:
    lines.append(
      f'{name}: cleaning left {kept:,} of {total:,} records; '
      f'{prepared.folder}/cleaning.md says what went'
    )
  if prepared.whole is not None:
    lines.append(
      f'{name}: the budget takes the first {data.num_documents:,} of '
      f'{prepared.whole.num_documents:,} documents'
    )
  unread = prepared.report.get('unread')
  if unread:
    lines.append(
      f'{name}: {len(unread)} files are not read: {", ".join(unread[:5])}'
      + ', …' * (len(unread) > 5)
    )
  dropped, cut = prepared.report['dropped'], prepared.report['cut']
  if dropped or cut:
    lines.append(
      f'{name}: {dropped:,} examples longer than a row were left out, of '
      f'{cut:,} the prompt was cut from the left (too_long); the longest '
      f'has {prepared.report.get("longest") or "more"} tokens'
    )
  if prepared.report.get('trimmed'):
    lines.append(
      f'{name}: {prepared.report["trimmed"]:,} conversations lack '
      f'{prepared.report["turns"]:,} turns that do not follow one another or '
      'cannot be read (trim_turns)'
    )
  if data.num_unlearnt:
    lines.append(
      f'warning: of {data.num_unlearnt:,} of {data.num_documents:,} '
      f'conversations of {name} nothing is learnt: their responses have the '
      'weight 0'
    )
  if data.num_unknown:
    lines.append(
      f'warning: {data.num_unknown:,} tokens of {name} '
      f'({data.num_unknown / data.num_tokens:.2%}) are the unknown one: the '
      'tokenizer has no piece for what stands there'
    )
  if prepared.report['skipped']:
    shown = prepared.report['skipped_examples'][:_SHOWN_SKIPPED]
    lines.append(
      f'warning: {prepared.report["skipped"]} records of {name} were skipped, '
      f'the first: {shown[0]}'
    )
    lines += [f'  {line}' for line in shown[1:]]
    if prepared.report['skipped'] > len(shown):
      lines.append(f'  {prepared.folder}/skipped.txt has all of them')
  if prepared.heldout is not None:
    told = f'held out of {name}: {prepared.heldout.num_documents:,} documents'
    lines.append(told + _sharing(prepared.shared.get('')))
  for scored, found in prepared.shared.items():
    if scored and found['num']:
      lines.append(
        f'warning: of the {found["of"]:,} texts that evals.{scored} scores'
        + _sharing(found)
      )
  return '\n'.join(lines)


def _sharing(found):
  """How many of scored texts share text with training documents, and whose."""
  if not found:
    return ''
  whose = ', '.join(f'{n:,} of {name}' for name, n in found['with'].items())
  return (
    f', {found["num"]:,} of them ({found["num"] / found["of"]:.1%}) share '
    f'{overlaps.OVERLAP} characters with a training document'
    + f' ({whose})'
    * bool(whose)
  )
