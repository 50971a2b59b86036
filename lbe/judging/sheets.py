"""Sheets on which people mark what a detector has or has not flagged."""

import csv
import json
import pathlib
import random

from lbe.text import files
from lbe.text import tables

_COLUMNS = ('id', 'language', 'prompt', 'response', 'switched')
_YES, _NO = ('1', 'yes', 'true', 'x'), ('0', 'no', 'false')


def check(path) -> None:
  """Raises ValueError where people have marked the sheet already."""
  if pathlib.Path(path).exists() and _marks(path):
    raise ValueError(
      f'sheet={str(path)!r} has marks, which would be lost; read them by '
      f'`python -m lbe.judge --sheet={path}`, and name another file.'
    )


def write(records, path, *, size, step=None, seed=0):
  """A CSV of `size` responses, half of them flagged, in a blind order.

  The last column is empty, for 1 or 0. What the detector said stands in
  PATH.key, which whoever marks does not see. With a step its number stands in
  the name, as NAME_200.csv. A sheet with marks is left as it is.
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
  if step is not None:
    path = path.with_stem(f'{path.stem}_{step}')
  if path.exists() and _marks(path):
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'w', encoding='utf-8-sig', newline='') as f:
    writer = csv.DictWriter(f, _COLUMNS)
    writer.writeheader()
    for r in chosen:
      row = {**r, 'switched': ''}
      writer.writerow({k: tables.as_text(row.get(k)) for k in _COLUMNS})
  key = {
    'flagged': len(flagged),
    'others': len(others),
    'said': {r['id']: bool(r['switched']) for r in chosen},
  }
  _key(path).write_text(json.dumps(key, ensure_ascii=False), encoding='utf-8')


def agreement(path) -> dict:
  """What people say of the detector, from a marked sheet.

  `num` marked rows, `agreement` and Cohen's `kappa` on these; `precision`,
  and `recall` and the `switched` share as they would be with all responses
  marked, since a sheet has more flagged ones than there are. None is for what
  has no base. Raises ValueError for a mark that is neither yes nor no, and for
  a sheet without marks or key, or of another key.
  """
  if not _key(path).is_file():
    raise ValueError(
      f'{path} has no {_key(path).name} beside it, where the evaluator wrote '
      'what the detector said; put it there.'
    )
  key = json.loads(_key(path).read_text(encoding='utf-8'))
  pairs = []
  for own, mark, line in _marks(path):
    if mark not in (*_YES, *_NO):
      raise ValueError(
        f'{path}, line {line}: the mark {mark!r} is neither of '
        f'{", ".join(_YES)} nor of {", ".join(_NO)}.'
      )
    if own not in key['said']:
      raise ValueError(
        f'{path}, line {line}: the id {own!r} is not in {_key(path).name}; '
        'they belong to different sheets.'
      )
    pairs.append((key['said'][own], mark in _YES))
  if not pairs:
    raise ValueError(f'{path} has no marks in the column `switched`.')
  n = len(pairs)
  flagged, marked = (sum(p[k] for p in pairs) for k in (0, 1))
  both = sum(a and b for a, b in pairs)
  same = sum(a == b for a, b in pairs) / n
  chance = (flagged * marked + (n - flagged) * (n - marked)) / n**2
  precision = both / flagged if flagged else None
  # Of all responses: what is rightly flagged, and what is missed.
  right = key['flagged'] * (precision or 0.0)
  missed = 0.0
  if key['others'] and n > flagged:
    missed = key['others'] * (marked - both) / (n - flagged)
  told = bool(flagged or not key['flagged']) and bool(
    n > flagged or not key['others']
  )
  total = key['flagged'] + key['others']
  return {
    'num': n,
    'agreement': same,
    'kappa': (same - chance) / (1 - chance) if chance < 1 else 1.0,
    'precision': precision,
    'recall': right / (right + missed) if told and right + missed else None,
    'switched': (right + missed) / total if told else None,
  }


def _key(path):
  return pathlib.Path(f'{path}.key')


def _marks(path):
  """[(id, mark, line)] of the rows that have one."""
  reader = csv.DictReader(files.stream(path))
  missing = {'id', 'switched'} - set(reader.fieldnames or ())
  if missing:
    raise ValueError(
      f'{path} has no column {", ".join(sorted(missing))}; a sheet has '
      f'{", ".join(_COLUMNS)}.'
    )
  return [
    (
      tables.as_it_was(row['id']),
      row['switched'].strip().lower(),
      reader.line_num,
    )
    for row in reader
    if (row['switched'] or '').strip()
  ]
