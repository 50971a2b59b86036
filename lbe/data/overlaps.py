"""Scored texts that training texts share a long run of characters with.

A run of OVERLAP characters holds a whole block of half that length at a
multiple of it, wherever it lies: blocks of the training texts are looked up
among all windows of the scored ones.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator

import numpy as np

from lbe.data import order
from lbe.data import sources as sources_lib

# A text that shares so many characters in a row with a training document
# counts as overlapping, and a shorter one that is the same as one.
OVERLAP = 50
_HALF = OVERLAP // 2
_BASE = np.uint64(0x9E3779B97F4A7C15)


def texts(source: sources_lib.Source, hashes: np.ndarray) -> Iterator[str]:
  """What is said in the source's documents of these hashes."""
  known = np.sort(np.asarray(hashes, np.uint64))
  whole = dataclasses.replace(source, cleaning=None)
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
  keys, found_in, short = [], [], {}
  for name, scored_texts in scored.items():
    for number, text in enumerate(scored_texts):
      if len(text) < OVERLAP:
        short.setdefault(text, []).append((name, number))
      else:
        keys.append((name, number))
        found_in.append(text)
  windows = _Windows(keys, found_in)
  found = {}
  for source, text in training:
    known = found.setdefault(source, set())
    known.update(short.get(text, ()))
    known |= windows.sharing(text, known)
  return {
    name: {
      source: {number for which, number in known if which == name}
      for source, known in found.items()
    }
    for name in scored
  }


class _Windows:
  """All windows of _HALF characters of some texts, to look blocks up in."""

  def __init__(self, keys, found_in):
    self._keys, self._texts = keys, found_in
    hashes = [_hashes(text) for text in found_in]
    self._starts = np.cumsum([0, *map(len, hashes)])
    whole = np.concatenate([np.zeros(0, np.uint64), *hashes])
    self._order = np.argsort(whole, kind='stable')
    self._sorted = whole[self._order]

  def sharing(self, text, known) -> set:
    """Keys, but the known, of the texts that share OVERLAP characters."""
    blocks = _hashes(text)[::_HALF]
    first = np.searchsorted(self._sorted, blocks, 'left')
    last = np.searchsorted(self._sorted, blocks, 'right')
    result = set()
    for block in np.flatnonzero(first < last):
      start = int(block) * _HALF
      places = self._order[first[block] : last[block]]
      owners = np.searchsorted(self._starts, places, 'right') - 1
      for place, owner in zip(places, owners, strict=True):
        key = self._keys[owner]
        if key not in known and key not in result:
          i = int(place - self._starts[owner])
          if _shares(text, start, self._texts[owner], i):
            result.add(key)
    return result


def _hashes(text):
  """uint64 of each window of _HALF characters: a polynomial, modulo 2^64."""
  number = len(text) - _HALF + 1
  if number < 1:
    return np.zeros(0, np.uint64)
  codes = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
  codes = codes.astype(np.uint64)
  result = np.zeros(number, np.uint64)
  for k in range(_HALF):
    result = result * _BASE + codes[k : k + number]
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
