"""What judged responses come to: means, failures, and a table.

A record is a line of predictions.jsonl: `category`, `language`, `response`,
`scores` (by criterion, each None where there is none) and `failure` ('',
'too_long', 'unanswered' or 'unreadable'); `highest`, by criterion, where each
has a scale of its own. Means are over what was judged;
nothing is put in for a failure.
"""

import numpy as np

from lbe.run import averages
from lbe.text import tables

# How a response can be without scores, and the count that tells it.
FAILURES = {
  'unreadable': 'parse_failures',
  'unanswered': 'judge_failures',
  'too_long': 'too_long_questions',
}


def is_judged(record: dict) -> bool:
  return all(value is not None for value in record['scores'].values())


def summarize(records: list[dict]) -> list[dict]:
  """[{name, value, count, …}]: rows without what they say of the model.

  `overall` is the mean of the criteria, and where these have scales of their
  own the share of all points that there are, 0 to 1; each name alone is the
  mean over responses (micro), with its interval; NAME_macro is the mean of the
  categories' means; NAME/CATEGORY and, where there are several languages,
  NAME/language=CODE are those of a part, marked `of_subject`. Counts come last.
  """
  judged = [record for record in records if is_judged(record)]
  rows = []
  if judged:
    categories = averages.masks(r['category'] for r in judged)
    languages = averages.masks(r['language'] for r in judged)
    parts = dict(categories)
    if len(languages) > 1:
      parts |= {f'language={x}': mine_N for x, mine_N in languages.items()}
    for name, values_N in _columns(judged).items():
      micro = averages.mean(values_N)
      means = [micro.of(mine_N) for mine_N in categories.values()]
      rows += averages.rows(
        name,
        {'micro': micro, 'macro': averages.mean(means)},
        headline='micro',
        groups={},
        subjects=parts,
        of_all={},
      )
  counts = {'empty_responses': sum(not r['response'].strip() for r in records)}
  for failure, name in FAILURES.items():
    counts[name] = sum(r['failure'] == failure for r in records)
  why = _why(records)
  return rows + [
    {
      'name': name,
      'value': number,
      'count': len(records),
      **({'warning': why[name]} if name in why else {}),
    }
    for name, number in counts.items()
  ]


def _why(records):
  """{count: what a judge that is down, or cannot be read, said first}."""
  told = {}
  for record in records:
    failure, why = record['failure'], record.get('why')
    name = FAILURES.get(failure)
    if failure in ('unanswered', 'unreadable') and why and name not in told:
      number = sum(r['failure'] == failure for r in records)
      told[name] = (
        f'{number:,} of {len(records):,} responses have no scores, since the '
        f'judge {_DOES[failure]}: {why}'
      )
  return told


_DOES = {'unanswered': 'gave no reply', 'unreadable': 'cannot be read'}


def _columns(judged):
  """{'overall' or criterion: float64 [N]}."""
  columns = {
    name: np.array([r['scores'][name] for r in judged], np.float64)
    for name in judged[0]['scores']
  }
  overall = np.mean(list(columns.values()), axis=0)
  highest = judged[0].get('highest')
  if highest:
    overall = sum(columns.values()) / sum(highest.values())
  return {'overall': overall, **columns}


def _distinct(records, field):
  return list(dict.fromkeys(record[field] for record in records))


def table(records: list[dict]) -> str:
  """Markdown: the criteria by category, always all of them, and their mean.

  `overall` alone would hide that harmlessness is near its top for any model.
  """
  rows = {row['name']: row for row in summarize(records)}
  criteria = list(records[0]['scores'])
  heads = ['category', 'N', *criteria, 'overall']
  lines = []

  def put(label, suffix, count):
    scores = [rows.get(f'{name}{suffix}') for name in heads[2:]]
    cells = ['–' if row is None else f'{row["value"]:.3f}' for row in scores]
    lines.append([label, count, *cells])

  for category in _distinct(records, 'category'):
    mine = [r for r in records if r['category'] == category]
    put(category, f'/{category}', sum(map(is_judged, mine)))
  num_judged = sum(map(is_judged, records))
  put('all (micro)', '', num_judged)
  put('all (macro)', '_macro', num_judged)
  counts = ', '.join(
    f'{rows[name]["value"]} {name.replace("_", " ")}'
    for name in ('empty_responses', *FAILURES.values())
  )
  means = tables.markdown(heads, 'l' + 'r' * (len(heads) - 1), lines)
  warnings = ''.join(f'\nwarning: {x}' for x in _why(records).values())
  return f'{means}\n\n{len(records)} responses: {counts}.{warnings}'
