"""Scores of two models side by side, with intervals of what differs.

Items that both were scored on are paired by their ids: a difference is that of
the same documents or questions, and its interval draws those anew
(`statistics.contrast`). It says nothing of other seeds.
"""

import dataclasses
import math
import pathlib

from lbe.evals import core
from lbe.inference import sampling
from lbe.run import averages
from lbe.studies import statistics
from lbe.studies import verdicts
from lbe.text import lines
from lbe.text import tables

# How a score was asked for: with another of these it is another measure. What
# one side alone has says nothing (responses from a file have no template), and
# a seed, a type of numbers or the room for a prompt is no other measure.
_SETTINGS = (
  *('protocol', 'average', 'num_shots', 'num_fewshot', 'bos', 'cut', 'filter'),
  *('template', 'max_new_tokens', 'stop', *sampling.Settings._fields),
  *('f1_script', 'language_identifier', 'detector', 'english_words'),
  *('rubric', 'judge', 'reference'),
)
# Runs that have read so much more than each other are told of.
_MOST_APART = 0.05


@dataclasses.dataclass(frozen=True)
class Side:
  """A folder at one step: its rows by evaluator and score, and its items.

  `num_bytes` is what was read by then; None of a stored model, whose step is
  None.
  """

  folder: pathlib.Path
  step: int | None
  num_bytes: int | None
  rows: dict
  items: list


def tell(a: pathlib.Path, b: pathlib.Path) -> str:
  """What the sides are, and the table.

  Raises ValueError for a folder without scores.
  """
  read = [_read(folder) for folder in (a, b)]
  ends = [max(num_bytes.values()) for num_bytes in read if num_bytes]
  sides = [
    _side(folder, num_bytes, min(ends) if len(ends) == 2 else None)
    for folder, num_bytes in zip((a, b), read, strict=True)
  ]
  told = [_says('a', sides[0]), _says('b', sides[1])]
  sizes = [side.num_bytes for side in sides]
  if None not in sizes and max(sizes) - min(sizes) > _MOST_APART * max(sizes):
    told.append(
      f'warning: one has read {max(sizes):,} bytes and the other '
      f'{min(sizes):,}; score them where they have read as many.'
    )
  rows, apart, otherwise = _rows(*sides)
  if apart:
    told.append(
      f'not compared, for one side has other data or none: {", ".join(apart)}'
    )
  if otherwise:
    told.append(
      'not compared, for they were scored under other settings: '
      f'{", ".join(otherwise)}; score both under one config'
    )
  heads = ['evaluator', 'score', 'a', 'b', 'b − a', '95% of b − a', 'N', '']
  table = tables.markdown(heads, 'llrrrlrl', rows)
  return '\n'.join([*told, '', table, _LEGEND])


_LEGEND = (
  '↑ higher is better, ↓ lower is better. Intervals draw the units of N anew, '
  f'the same ones of both; below {averages.FEWEST_UNITS} there is none, nor of '
  'scores that are no mean over items. They say nothing of other seeds.'
)


def _read(folder):
  """{scored step: bytes read by then}; {} for the scores of a stored model."""
  if not (folder / 'results.jsonl').is_file():
    raise ValueError(
      f'{folder} has no results.jsonl; give the workdir of lbe.train or '
      'lbe.evaluate.'
    )
  rows = lines.rows(folder / 'results.jsonl')
  if not rows:
    raise ValueError(f'{folder} has no scores yet.')
  return {r['step']: r['bytes_seen'] for r in rows if 'bytes_seen' in r}


def _side(folder, num_bytes, asked):
  """The folder at the step nearest to `asked` bytes, at its last for None."""
  rows = lines.rows(folder / 'results.jsonl')
  step = rows[-1]['step']
  if asked is not None:
    step = min(num_bytes, key=lambda s: abs(num_bytes[s] - asked))
  items = folder / 'predictions.jsonl'
  return Side(
    folder,
    step,
    num_bytes.get(step),
    {
      (r['evaluator'], r['name']): r
      for r in rows
      if r['step'] == step and not r.get('of_subject')
    },
    [
      r
      for r in (lines.rows(items) if items.is_file() else ())
      if r['step'] == step
    ],
  )


def _says(name, side):
  told = f'{name}: {side.folder}'
  if side.step is not None:
    told += f', step {side.step:,}'
  if side.num_bytes is not None:
    told += f', {side.num_bytes:,} bytes read'
  return told


def _rows(a, b):
  """(cells of each score, names of what only one has, of what differs)."""
  rows, apart, otherwise = [], [], []
  for key in dict.fromkeys([*a.rows, *b.rows]):
    of_a, of_b = a.rows.get(key), b.rows.get(key)
    if not of_a or not of_b or of_a['data_hash'] != of_b['data_hash']:
      apart.append('/'.join(key))
    elif fields := _differing(a, b, of_a, of_b):
      told = (f'{f} {of_a[f]!r} and {of_b[f]!r}' for f in fields)
      otherwise.append(f'{"/".join(key)} ({", ".join(told)})')
    elif None not in (of_a['value'], of_b['value'], of_a['count']):
      difference = of_b['value'] - of_a['value']
      rows.append(_row(of_a, of_b, difference, _interval(a, b, *key)))
  return rows, apart, otherwise


def _differing(a, b, of_a, of_b):
  """The fields that make one score of two rows another measure."""
  fields = list(_SETTINGS)
  if of_a['name'] in core.OF_ONE_TOKENIZER:
    fields.append('tokenizer')
  if of_a['protocol'] == 'perplexity@rolling' and not (
    _is_whole(a, of_a) and _is_whole(b, of_b)
  ):
    fields.append('max_len')
  return [f for f in fields if f in of_a and f in of_b and of_a[f] != of_b[f]]


def _is_whole(side, row):
  """Whether each document is one window, which then may be of any length."""
  sizes = [
    r.get('tokens', math.inf)
    for r in side.items
    if r['evaluator'] == row['evaluator']
  ]
  return max(sizes, default=math.inf) <= row.get('max_len', 0)


def _row(a, b, difference, contrast):
  better, low_high, who = core.better(a), '', ''
  # An official score may be another mean than that over items.
  if contrast and math.isclose(contrast.value, difference, abs_tol=1e-6):
    low, high = contrast.interval95
    low_high = f'{low:+.4f} to {high:+.4f}'
    if better and low * high > 0:
      who = f'{"ab"[(low > 0) == (better == core.HIGHER)]} is better'
  return [
    a['evaluator'],
    f'{a["name"]} {core.MARKS[better]}',
    core.short(a['value']),
    core.short(b['value']),
    '+' * (difference >= 0) + core.short(difference),
    low_high,
    core.units(a),
    who,
  ]


def _interval(a, b, evaluator, metric):
  """The contrast b − a over the items of both.

  None where they are too few, not the same, or do not make the score.
  """
  found = []
  for side in (a, b):
    items = [r for r in side.items if r['evaluator'] == evaluator]
    try:
      found.append(verdicts.average(items, metric))
    except (ValueError, TypeError, IndexError):
      return None
  if found[0].keys() != found[1].keys():
    return None
  ids, (of_a, of_b) = verdicts.aligned(found)
  if len(ids) < averages.FEWEST_UNITS:
    return None
  contrast = statistics.contrast(
    [statistics.Term(1, [of_b]), statistics.Term(-1, [of_a])]
  )
  # Where one side counts very few of them, some draws have none.
  return contrast if all(map(math.isfinite, contrast.interval95)) else None
