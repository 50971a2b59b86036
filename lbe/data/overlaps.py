"""Held-out documents that a training document shares a long run with."""

import dataclasses

import numpy as np

from lbe.data import order
from lbe.data import sources as sources_lib

# A held-out document that shares so many characters in a row with a training
# document counts as overlapping.
OVERLAP = 50


def count(source, kept):
  """How many held-out documents share OVERLAP characters with a training one.

  A run of OVERLAP characters holds a whole block of half that length at a
  multiple of it, wherever it lies: blocks of the training text are looked up
  among all windows of the held-out text. `kept` are the hashes of what the
  cleaning left.
  """
  if not source.holdout:
    return 0
  half = OVERLAP // 2
  heldout, windows = [], {}
  whole = dataclasses.replace(source, cleaning=None)

  def texts():
    found = sources_lib.documents(whole, [])
    return (text for text, _ in found if order.text_hash(text) in kept)

  def held(text):
    hashes = np.array([order.text_hash(text)], np.uint64)
    return bool(order.is_heldout(hashes, source.holdout)[0])

  for text in texts():
    if held(text):
      for i in range(len(text) - half + 1):
        windows.setdefault(text[i : i + half], []).append((len(heldout), i))
      heldout.append(text)
  found = set()
  for text in texts():
    if held(text):
      continue
    for start in range(0, len(text) - half + 1, half):
      for number, i in windows.get(text[start : start + half], ()):
        if number not in found and (
          _common_run(text, start, heldout[number], i, half) >= OVERLAP
        ):
          found.add(number)
  return len(found)


def _common_run(a, i, b, j, length):
  """Characters that a around i and b around j share in a row."""
  left = 0
  while i - left > 0 and j - left > 0 and a[i - left - 1] == b[j - left - 1]:
    left += 1
  right = length
  while (
    i + right < len(a) and j + right < len(b) and a[i + right] == b[j + right]
  ):
    right += 1
  return left + right
