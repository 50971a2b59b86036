"""Which items of a benchmark a text holds, by words that both have in a row.

GPT-3's rule (arXiv:2005.14165, appendix C; lm-evaluation-harness takes it
over): 13 words, case and punctuation aside. A shorter text of an item counts
where it lies in the other as a whole, from 8 words on; what is shorter still
is not looked for. Where words are written without spaces a character counts
for half a word, so these are 26 and 16 characters.
"""

import csv
import functools
import pathlib
import unicodedata
from collections.abc import Iterator

import numpy as np

from lbe.text import files as files_lib
from lbe.text import lines
from lbe.text import packed
from lbe.text import scripts

WORDS = 13
SHORTEST = 8
_ENDINGS = ('.jsonl', '.json', '.csv')
# Hashes are polynomials in an odd number, which can be divided by.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)


def files(path) -> list[pathlib.Path]:
  """A benchmark's files: the path itself, or what its folder holds."""
  root = pathlib.Path(path)
  if root.is_file():
    return [root]
  return sorted(p for p in root.rglob('*') if p.suffix.lower() in _ENDINGS)


def items(name: str, path, columns) -> Iterator[tuple[str, list[str]]]:
  """(where, texts of the named columns) of each item of a benchmark's files.

  A .jsonl file has an object on each line, a .json file a list of them or an
  object around one such list. The columns of a .csv file are named by its
  first line; columns that are all numbers count from 0, in files without
  such a line. Raises ValueError for what does not fit, naming file and item.
  """
  if not columns:
    raise ValueError(
      f'benchmark {name}: columns=() names none; give those that hold its '
      "texts, as ('question',)."
    )
  root = pathlib.Path(path)
  paths = files(root)
  if not paths or paths[0].suffix.lower() not in _ENDINGS:
    raise ValueError(
      f'benchmark {name}: {root} is no {", ".join(_ENDINGS)} file and no '
      'folder with one.'
    )
  for path in paths:
    for number, row in enumerate(_rows(name, path, columns), 1):
      where = f'{name}: {path.relative_to(root.parent)}, item {number}'
      yield where, [_text(where, row, column) for column in columns]


def _rows(name, path, columns):
  try:
    if path.suffix.lower() == '.jsonl':
      return _values(path)
    if path.suffix.lower() == '.csv':
      f = files_lib.stream(path)
      if all(str(c).isdigit() for c in columns):
        return [dict(enumerate(row)) for row in csv.reader(f)]
      return list(csv.DictReader(f))
    read = lines.loads(files_lib.text(path))
  except (ValueError, csv.Error) as error:
    raise ValueError(
      f'benchmark {name}: {path} cannot be read ({error}); mend it or leave it '
      'out.'
    ) from error
  if isinstance(read, dict):
    lists = [v for v in read.values() if isinstance(v, list)]
    read = lists[0] if len(lists) == 1 else None
  if not isinstance(read, list):
    raise ValueError(
      f'benchmark {name}: {path} is no list of items, nor an object with one '
      'list; write it as JSONL.'
    )
  return read


def _values(path):
  with packed.opened(path) as file:
    rows = list(lines.values(file))
  for row, number in rows:
    if isinstance(row, lines.Bad):
      raise ValueError(f'line {number}: {row}')
  return [row for row, _ in rows]


def _text(where, row, column):
  if not isinstance(row, dict):
    raise ValueError(f'{where} is no object with columns, but {row!r:.60}.')
  key = int(column) if str(column).isdigit() and column not in row else column
  if key not in row:
    known = ', '.join(map(str, row))
    raise ValueError(
      f'{where} has no column {column!r}; it has {known}. Name those that hold '
      'its texts.'
    )
  value = row[key]
  if isinstance(value, list):
    value = '\n'.join(map(str, value))
  return str(value or '')


class _Table(dict):
  """For str.translate: words and single characters apart, nothing else."""

  def __missing__(self, number):
    character = chr(number)
    if unicodedata.category(character)[0] in 'PSZC':
      self[number] = ' '
    elif scripts.has_spaces(character):
      self[number] = character
    else:
      self[number] = f' {character} '
    return self[number]


_TABLE = _Table()


@functools.cache
def _halves(character):
  return 2 if scripts.has_spaces(character) else 1


class _Words:
  """`num` words and single characters of a text, and hashes of runs."""

  def __init__(self, text):
    text = unicodedata.normalize('NFKC', text).casefold()
    words = text.translate(_TABLE).split()
    self.num = len(words)
    halves = [_halves(word[0]) for word in words]
    self._ends = np.concatenate([[0], np.cumsum(halves, dtype=np.int64)])
    powers, self._inverse = _powers(self.num)
    hashed = np.fromiter(map(hash, words), np.int64, self.num)
    self._sums = np.zeros(self.num + 1, np.uint64)
    np.cumsum(hashed.view(np.uint64) * powers, out=self._sums[1:])

  def runs(self, num_words):
    """Hash of the shortest run of so many words from each word on."""
    stops = np.searchsorted(self._ends, self._ends[:-1] + 2 * num_words)
    stops = stops[stops < len(self._ends)]
    return self._hashes(np.arange(len(stops)), stops)

  def run(self, start, length):
    """Hash of `length` words and single characters; None behind the end."""
    if start + length > self.num:
      return None
    return int(self._hashes(np.array([start]), np.array([start + length]))[0])

  def _hashes(self, starts, stops):
    return (self._sums[stops] - self._sums[starts]) * self._inverse[starts]


def _powers(number):
  """The first powers of _BASE and of its inverse, modulo 2^64."""
  powers = np.full((2, number), [[_BASE], [_INVERSE]], np.uint64)
  powers[:, :1] = 1
  return np.cumprod(powers, axis=1, dtype=np.uint64)


class Index:
  """Benchmark items to look for; about 12 bytes for each of their words.

  `num_items`; `num_too_short` items have no text that can be looked for.
  """

  def __init__(self, items):
    self._where = []
    self.num_too_short = 0
    runs, numbers, self._short = [np.zeros(0, np.uint64)], [], {}
    for number, (where, texts) in enumerate(items):
      self._where.append(where)
      lost = True
      for text in texts:
        words = _Words(text)
        long = words.runs(WORDS)
        begin = words.runs(SHORTEST)[:1]
        runs.append(long)
        numbers.append(np.full(len(long), number, np.int32))
        lost = lost and not len(begin)
        if len(begin) and not len(long):
          whole = (words.num, words.run(0, words.num), number)
          self._short.setdefault(int(begin[0]), []).append(whole)
      self.num_too_short += lost
    runs = np.concatenate(runs)
    order = np.argsort(runs, kind='stable')
    self._runs = runs[order]
    self._numbers = np.concatenate([np.zeros(0, np.int32), *numbers])[order]
    self._begins = np.array(sorted(self._short), np.uint64)
    self.num_items = len(self._where)

  def find(self, text):
    """Where the first item stands that the text holds a part of, or ''."""
    words = _Words(text)
    _, indices = _common(words.runs(WORDS), self._runs)
    if len(indices):
      return self._where[self._numbers[indices[0]]]
    begins = words.runs(SHORTEST)
    for start in _common(begins, self._begins)[0]:
      for length, run, number in self._short[int(begins[start])]:
        if words.run(start, length) == run:
          return self._where[number]
    return ''


def _common(wanted, known):
  """Places in `wanted`, and in the sorted `known`, of what is in both."""
  indices = np.searchsorted(known, wanted)
  at = np.flatnonzero(indices < len(known))
  at = at[known[indices[at]] == wanted[at]]
  return at, indices[at]
