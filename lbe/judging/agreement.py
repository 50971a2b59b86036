"""How far two judges agree on the same responses."""

import itertools
import math

import numpy as np
from scipy import stats

from lbe.judging import scores
from lbe.text import lines
from lbe.text import tables

# Fields of a record that are texts where they are there; null is ''.
_TEXTS = (
  'category',
  'language',
  'question',
  'reference',
  'response',
  'failure',
)


def read(path) -> dict:
  """{(step, id): record} of predictions.jsonl, or of people's scores.

  'FILE@EVALUATOR' takes one evaluator's records, where the file has those of
  several. Raises ValueError with file and line for what has no scores field, or
  those of other criteria, and for a field that is to be a text and is none.
  """
  found, seen, criteria = {}, {}, []
  for record, where in lines.predictions(path, ('id', 'scores')):
    if not isinstance(record['scores'], dict) or not record['scores']:
      raise ValueError(f"{where}: the field 'scores' is no object of numbers.")
    for criterion, value in record['scores'].items():
      is_number = type(value) in (int, float) and math.isfinite(value)
      if value is not None and not is_number:
        raise ValueError(f'{where}: the score {criterion!r} is {value!r}.')
    criteria = criteria or list(record['scores'])
    if set(record['scores']) != set(criteria):
      raise ValueError(
        f'{where}: the scores are of {", ".join(record["scores"])}, and before '
        f'it of {", ".join(criteria)}; a file is of one rubric.'
      )
    for field in _TEXTS:
      if field in record:
        record[field] = lines.text(record, field, where, default='')
    step = record.get('step')
    if step is not None and type(step) is not int:
      raise ValueError(f'{where}: the step {step!r} is no whole number.')
    key = (step, lines.name(record, 'id', where))
    lines.once(key, seen, where)
    found[key] = record
  return found


def compare(a, b, *, names=('the first file', 'the second')):
  """[{name, count, spearman, kendall, exact}] of two `read` files.

  For each criterion and `overall`, on the responses that both have scored.
  Overall, the correlations are of the means of the criteria, and `exact` is
  the share of responses with all criteria alike. A correlation is None where
  one side never varies. Raises ValueError where they scored nothing in common,
  other responses, or by other criteria.
  """
  common = [key for key in a if key in b]
  if not common:
    raise ValueError(
      f'{names[0]} ({len(a)} responses) and {names[1]} ({len(b)}) have no step '
      'and id in common.'
    )
  for key in common:
    texts = [r[key].get('response') for r in (a, b)]
    if None not in texts and texts[0] != texts[1]:
      raise ValueError(
        f'{names[0]} and {names[1]} scored different responses to the question '
        f'{key[1]!r}; agreement is on the same ones.'
      )
    if set(a[key]['scores']) != set(b[key]['scores']):
      raise ValueError(
        f'{names[0]} scores {", ".join(a[key]["scores"])}, and {names[1]} '
        f'{", ".join(b[key]["scores"])}; take files of one rubric.'
      )
  both = [
    (a[key]['scores'], b[key]['scores'])
    for key in common
    if scores.is_judged(a[key]) and scores.is_judged(b[key])
  ]
  if not both:
    raise ValueError(f'{names[0]} and {names[1]} have scored no response both.')
  criteria = list(both[0][0])
  # [2, N, number of criteria]
  values = np.array(
    [[[side[c] for c in criteria] for side in pair] for pair in both],
    np.float64,
  ).transpose(1, 0, 2)
  alike = values[0] == values[1]
  rows = [
    _row(name, *values[:, :, i], alike[:, i]) for i, name in enumerate(criteria)
  ]
  return [*rows, _row('overall', *values.mean(axis=2), alike.all(axis=1))]


def _row(name, a, b, alike):
  varies = min(len(np.unique(a)), len(np.unique(b))) > 1
  return {
    'name': name,
    'count': len(a),
    'spearman': float(stats.spearmanr(a, b).statistic) if varies else None,
    'kendall': float(stats.kendalltau(a, b).statistic) if varies else None,
    'exact': float(alike.mean()),
  }


def table(paths: list) -> str:
  """Markdown: each pair of the files, criterion by criterion."""
  if len(paths) < 2:
    raise ValueError(
      f'agreement of {", ".join(paths) or "nothing"}: give two files or more, '
      'with commas between.'
    )
  records = {path: read(path) for path in paths}
  parts = []
  for one, other in itertools.combinations(paths, 2):
    rows = [
      [
        row['name'],
        row['count'],
        *(_figure(row[x]) for x in ('spearman', 'kendall', 'exact')),
      ]
      for row in compare(records[one], records[other], names=(one, other))
    ]
    heads = ['criterion', 'N', 'Spearman', 'Kendall tau-b', 'exact']
    parts += [f'{one} and {other}', tables.markdown(heads, 'lrrrr', rows)]
  return '\n\n'.join(parts)


def _figure(value):
  return '–' if value is None or math.isnan(value) else f'{value:.3f}'
