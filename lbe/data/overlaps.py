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
  windows, short = {}, {}
  for name, scored_texts in scored.items():
    for number, text in enumerate(scored_texts):
      if len(text) < OVERLAP:
        short.setdefault(text, []).append((name, number))
      for i in range(len(text) - _HALF + 1):
        place = (name, number, i)
        windows.setdefault(text[i : i + _HALF], []).append(place)
  found = {name: {} for name in scored}
  for source, text in training:
    for name, number in short.get(text, ()):
      found[name].setdefault(source, set()).add(number)
    for start in range(0, len(text) - _HALF + 1, _HALF):
      for name, number, i in windows.get(text[start : start + _HALF], ()):
        numbers = found[name].setdefault(source, set())
        if number not in numbers and _shares(
          text, start, scored[name][number], i
        ):
          numbers.add(number)
  return found


def _shares(a, i, b, j):
  """Whether a around i and b around j are the same for OVERLAP characters."""
  left = 0
  while (
    i - left > 0
    and j - left > 0
    and left < _HALF
    and a[i - left - 1] == b[j - left - 1]
  ):
    left += 1
  right = _HALF
  while (
    left + right < OVERLAP
    and i + right < len(a)
    and j + right < len(b)
    and a[i + right] == b[j + right]
  ):
    right += 1
  return left + right >= OVERLAP
