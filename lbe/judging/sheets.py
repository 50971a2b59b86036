"""Sheets on which people mark what a detector has or has not flagged."""

import csv
import pathlib
import random

_COLUMNS = ('id', 'language', 'prompt', 'response', 'switched')
_YES, _NO = ('1', 'yes', 'true', 'x'), ('0', 'no', 'false')


def write(records, path, *, size, seed=0):
  """A CSV of `size` responses, half of them flagged, in a blind order.

  The last column is empty, for 1 or 0. What the detector said stands in
  PATH.key, which whoever marks does not see.
  """
  rng = random.Random(seed)
  flagged = [r for r in records if r['switched']]
  others = [r for r in records if not r['switched']]
  rng.shuffle(flagged)
  rng.shuffle(others)
  half = flagged[: max(size // 2, size - len(others))]
  chosen = half + others[: size - len(half)]
  rng.shuffle(chosen)
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'w', encoding='utf-8-sig', newline='') as f:
    writer = csv.DictWriter(f, _COLUMNS, extrasaction='ignore')
    writer.writeheader()
    writer.writerows({**r, 'switched': ''} for r in chosen)
  with open(f'{path}.key', 'w', encoding='utf-8', newline='') as f:
    writer = csv.writer(f)
    writer.writerows([r['id'], int(r['switched'])] for r in chosen)


def agreement(path):
  """Of a marked sheet: agreement, Cohen's kappa, precision and recall.

  Also `num`, the marked rows. Raises ValueError for a mark that is neither yes
  nor no, and for a sheet without marks.
  """
  with open(f'{path}.key', encoding='utf-8', newline='') as f:
    said = {own: flag == '1' for own, flag in csv.reader(f)}
  pairs = []
  with open(path, encoding='utf-8-sig', newline='') as f:
    reader = csv.DictReader(f)
    for row in reader:
      mark = (row['switched'] or '').strip().lower()
      if not mark:
        continue
      if mark not in (*_YES, *_NO):
        raise ValueError(
          f'{path}, line {reader.line_num}: the mark {mark!r} is neither of '
          f'{", ".join(_YES)} nor of {", ".join(_NO)}.'
        )
      pairs.append((said[row['id']], mark in _YES))
  if not pairs:
    raise ValueError(f'{path} has no marks in the column `switched`.')
  n = len(pairs)
  both = sum(a and b for a, b in pairs)
  flagged, marked = (sum(p[k] for p in pairs) for k in (0, 1))
  same = sum(a == b for a, b in pairs) / n
  chance = (flagged * marked + (n - flagged) * (n - marked)) / n**2
  return {
    'num': n,
    'agreement': same,
    'kappa': (same - chance) / (1 - chance) if chance < 1 else 1.0,
    'precision': both / flagged if flagged else None,
    'recall': both / marked if marked else None,
  }
