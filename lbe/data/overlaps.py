"""Scored texts that training texts share a long run of characters with.

A run of OVERLAP characters holds a whole block of half that length at a
multiple of it, wherever it lies: blocks of the training texts are looked up
among all windows of the scored ones.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator

import numpy as np

from lbe.data import cleaning
from lbe.data import order
from lbe.data import sources as sources_lib

# A text that shares so many characters in a row with a training document
# counts as overlapping, and a shorter one that is the same as one.
OVERLAP = 50
_HALF = OVERLAP // 2
_BASE = np.uint64(0x9E3779B97F4A7C15)
_PAIRS = 1 << 20


def texts(source: sources_lib.Source, hashes: np.ndarray) -> Iterator[str]:
  """What is said in the source's documents of these hashes."""
  known = np.sort(np.asarray(hashes, np.uint64))
  rules = source.cleaning
  if rules is not None:
    # The hashes say what the others left; without this one a record in which
    # nothing stands is an error.
    rules = cleaning.Rules(drop_empty=rules.drop_empty)
  whole = dataclasses.replace(source, cleaning=rules)
  for document, _ in sources_lib.documents(whole, []):
    number = np.uint64(order.text_hash(document))
    at = np.searchsorted(known, number)
    if at < len(known) and known[at] == number:
      yield sources_lib.plain(source, document)


def find(
  scored: dict[str, list[str]], training: Iterable[tuple[str, str]]
) -> dict[str, dict[str, set[int]]]:
  """By the name of a scored set and of a source: numbers of texts they share.

  `training` has the name of its source beside each text.
  """
  keys = [(name, i) for name, own in scored.items() for i in range(len(own))]
  windows = _Windows([text for own in scored.values() for text in own])
  found = {}
  for source, text in training:
    known = found.setdefault(source, np.zeros(len(keys), bool))
    windows.look_up(text, known)
  return {
    name: {
      source: {keys[i][1] for i in np.flatnonzero(known) if keys[i][0] == name}
      for source, known in found.items()
    }
    for name in scored
  }


class _Windows:
  """All windows of _HALF characters of some texts, to look blocks up in."""

  def __init__(self, texts):
    self._texts, self._short = texts, {}
    hashes = []
    for number, text in enumerate(texts):
      windows = np.zeros((0, _HALF), np.uint64)
      if len(text) < OVERLAP:
        self._short.setdefault(text, []).append(number)
      else:
        windows = np.lib.stride_tricks.sliding_window_view(_codes(text), _HALF)
      hashes.append(_hashes(windows))
    starts = np.cumsum([0, *map(len, hashes)])
    whole = np.concatenate([np.zeros(0, np.uint64), *hashes])
    order = np.argsort(whole, kind='stable')
    self._sorted = whole[order]
    # The text that each is of, and where it stands there.
    owner = np.searchsorted(starts, order, 'right') - 1
    self._place = (order - starts[owner]).astype(np.int32)
    self._owner = owner.astype(np.int32)

  def look_up(self, text: str, known: np.ndarray):
    """Adds to `known`, bool [texts], those that share OVERLAP characters."""
    known[self._short.get(text, [])] = True
    if known.all() or not len(self._sorted):
      return
    codes = _codes(text)
    blocks = _hashes(codes[: len(codes) // _HALF * _HALF].reshape(-1, _HALF))
    first = np.searchsorted(self._sorted, blocks, 'left')
    there = self._sorted[np.minimum(first, len(self._sorted) - 1)] == blocks
    hit = np.flatnonzero(there)
    if not len(hit):
      return
    first = first[hit]
    num = np.searchsorted(self._sorted, blocks[hit], 'right') - first
    # What stands everywhere has many pairs: so many at a time.
    parts = np.flatnonzero(np.diff(np.cumsum(num) // _PAIRS)) + 1
    for part in np.split(np.arange(len(hit)), parts):
      before = np.cumsum(num[part]) - num[part]
      at = np.repeat(first[part] - before, num[part])
      at += np.arange(len(at))
      block = np.repeat(hit[part], num[part])
      new = ~known[self._owner[at]]
      for start, i in zip(block[new] * _HALF, at[new], strict=True):
        owner = self._owner[i]
        if not known[owner]:
          other, place = self._texts[owner], int(self._place[i])
          known[owner] = _shares(text, int(start), other, place)


def _codes(text):
  """uint64 [characters]."""
  codes = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
  return codes.astype(np.uint64)


def _hashes(codes):
  """uint64 [n] of [n, _HALF] characters: a polynomial, modulo 2^64."""
  result = np.zeros(len(codes), np.uint64)
  for k in range(_HALF):
    result *= _BASE
    result += codes[:, k]
  return result


def _shares(a, i, b, j):
  """Whether a and b share OVERLAP characters around a block at i and j."""
  if a[i : i + _HALF] != b[j : j + _HALF]:
    return False
  left, right = 0, _HALF
  while left < min(i, j, _HALF) and a[i - left - 1] == b[j - left - 1]:
    left += 1
  while left + right < OVERLAP and (
    a[i + right : i + right + 1] == b[j + right : j + right + 1] != ''
  ):
    right += 1
  return left + right >= OVERLAP
