"""What a study says of a claim: a word, by a rule that stood before it ran.

A claim is a record of the study's file:

  name       'C1'
  claim      a sentence, as the report prints it
  evaluator  whose score decides, by its name in the study's evals
  metric     which of its scores
  terms      [{'weight': 1, 'cells': AXES}, {'weight': -1, 'cells': AXES}]: the
             contrast; cells are those with these axes, one a seed
  expect     'less' or 'greater': the contrast lies beyond the margin there;
             'equal': it lies within it
  margin     what is too small to matter, in units of the score; with
  margin_of  0, 1, …: a share of the value of that term
  guards     [{'kind': …}]: what must hold, else nothing can be measured here

The rules, where the interval is the 95% one of `statistics.contrast`:
  supported       wholly beyond the margin where it was expected (of `equal`:
                  wholly within), with at least three seeds
  contradicted    wholly beyond it on the other side (of `equal`: on either),
                  with at least three seeds
  no difference   wholly within the margin, where a difference was claimed
  open            all else: an interval that holds 0 supports nothing
  not measurable here   a guard failed
"""

import dataclasses
import math

import numpy as np

from lbe.run import averages
from lbe.studies import statistics

SUPPORTED, CONTRADICTED = 'supported', 'contradicted'
NO_DIFFERENCE, OPEN = 'no difference', 'open'
NOT_MEASURABLE = 'not measurable here'
FEWEST_SEEDS = 3
# A score beyond chance by so many standard errors is not chance.
_BEYOND_CHANCE = 3.0
_SAME_ANSWER = 0.95


@dataclasses.dataclass(frozen=True)
class Verdict:
  """`word`, the numbers it rests on, and `why`, a sentence with the rule."""

  claim: dict
  word: str
  why: str
  contrast: statistics.Contrast | None = None
  margin: float | None = None
  cells: tuple[tuple[str, ...], ...] = ()


def average(predictions: list[dict], metric: str) -> dict:
  """{id: (numerator, denominator)} of a score over an evaluator's items.

  Raises ValueError for a score that the items do not have, with those they do.
  """
  try:
    return {r['id']: _parts(r, metric) for r in predictions}
  except KeyError as error:
    known = sorted(
      k for k, v in predictions[0].items() if isinstance(v, int | float)
    )
    raise ValueError(
      f'items have no {error.args[0]!r} to make {metric!r} of; they have '
      f'{", ".join(known)}.'
    ) from error


def _parts(record, metric):
  """What an item adds to a score: to its numerator and its denominator."""
  if metric == 'bits_per_byte':
    return record['nats'] / math.log(2), record['bytes']
  if metric == 'score_rate':
    return record['points'], record['of_points']
  if isinstance(record.get('scores'), dict):  # a judge's
    return _of_judge(record['scores'], metric), 1.0
  return float(record[metric]), 1.0


def _of_judge(scores, metric):
  return float(
    np.mean(list(scores.values())) if metric == 'overall' else scores[metric]
  )


def cells_of(cells: list[dict], axes: dict) -> list[dict]:
  """The cells that have these axes (a value that is absent counts as None)."""
  return [
    cell
    for cell in cells
    if all(cell['axes'].get(axis) == value for axis, value in axes.items())
  ]


def decide(claim: dict, cells: list[dict], predictions) -> Verdict:
  """The verdict of a claim.

  `cells` are those that have been scored; `predictions(cell, evaluator)` gives
  the items of one. Raises ValueError for a claim that names what no cell has.
  """
  try:
    terms, names = _terms(claim, cells, predictions)
  except LookupError as error:
    why = error.args[0]
    return Verdict(claim, OPEN, f'{why[0].upper()}{why[1:]}.')
  failed = [
    reason
    for guard in claim.get('guards', ())
    if (reason := _GUARDS[guard['kind']](guard, claim, cells, predictions))
  ]
  contrast = statistics.contrast(terms)
  margin = claim['margin']
  if claim.get('margin_of') is not None:
    of = terms[claim['margin_of']].by_seed
    margin *= abs(float(np.mean([x.of() for x in of])))
  if failed:
    word, why = NOT_MEASURABLE, '; '.join(failed) + '.'
  else:
    word, why = judge(contrast, claim['expect'], margin)
    why = f'{why[0].upper()}{why[1:]}.'
  return Verdict(claim, word, why, contrast, margin, names)


def judge(
  contrast: statistics.Contrast, expect: str, margin: float
) -> tuple[str, str]:
  """(word, the rule in words) for an interval and a margin."""
  low, high = contrast.interval95
  side = 'greater' if low > margin else 'less' if high < -margin else ''
  inside = -margin < low and high < margin
  if inside:
    word = SUPPORTED if expect == 'equal' else NO_DIFFERENCE
    why = 'the whole interval lies within the margin'
  elif side:
    word = SUPPORTED if side == expect else CONTRADICTED
    why = f'the whole interval is {side} than what is too small to matter'
  else:
    word = OPEN
    why = (
      'the interval reaches across the margin; such a contrast sees effects '
      f'from {contrast.detectable + margin:.3g} on'
    )
  seeds = len(contrast.by_seed)
  if word in (SUPPORTED, CONTRADICTED) and seeds < FEWEST_SEEDS:
    return OPEN, (
      f'{why}, but {seeds} seed{"s" * (seeds > 1)} cannot say what other seeds '
      f'give: {FEWEST_SEEDS} are needed'
    )
  return word, why


def _terms(claim, cells, predictions):
  """The terms with their items in one order, and the cells of each."""
  chosen = []
  for term in claim['terms']:
    mine = cells_of(cells, term['cells'])
    seeds = [cell['axes'].get('seed') for cell in mine]
    told = ', '.join(f'{k}={v}' for k, v in term['cells'].items())
    if not mine:
      raise LookupError(f'no cell with {told} has been scored')
    if len(set(seeds)) != len(seeds):
      raise ValueError(
        f'claim {claim["name"]}: {told} names {len(mine)} cells, several of '
        f'one seed ({", ".join(c["name"] for c in mine)}); name more axes.'
      )
    chosen.append(dict(zip(seeds, mine, strict=True)))
  # What was trained with one seed says nothing of others; what has none does.
  several = [set(of) for of in chosen if set(of) != {None}]
  seeds = sorted(set.intersection(*several), key=str) if several else [None]
  if not seeds:
    raise LookupError('its models share no seed')
  by_term = [
    list(of.values()) if set(of) == {None} else [of[s] for s in seeds]
    for of in chosen
  ]
  items = [
    [
      average(predictions(cell['name'], claim['evaluator']), claim['metric'])
      for cell in mine
    ]
    for mine in by_term
  ]
  ids = {frozenset(of) for mine in items for of in mine}
  if len(ids) != 1:
    raise ValueError(
      f'claim {claim["name"]}: its models were not scored on the same items of '
      f'{claim["evaluator"]}; score them again on one set.'
    )
  order = sorted(*ids)
  if not order:
    raise LookupError(f'{claim["evaluator"]} has no items')
  clusters = _clusters(claim, by_term, predictions, order)
  terms = []
  for term, mine in zip(claim['terms'], items, strict=True):
    by_seed = [
      averages.Average(*np.array([of[i] for i in order], np.float64).T)
      for of in mine
    ]
    if clusters:
      by_seed = [statistics.by_cluster(x, clusters) for x in by_seed]
    terms.append(statistics.Term(term['weight'], by_seed))
  names = tuple(tuple(cell['name'] for cell in mine) for mine in by_term)
  return terms, names


def _clusters(claim, by_term, predictions, order):
  """What each item belongs to, where the claim names a field of items."""
  if not claim.get('clusters'):
    return []
  records = predictions(by_term[0][0]['name'], claim['evaluator'])
  of = {r['id']: r[claim['clusters']] for r in records}
  return [of[i] for i in order]


# ---------------------------------------------------------------------- guards


def _scores(guard, claim, cells, predictions):
  """(cell, its items) of the guard's cells; of the claim's if it names none."""
  named = [guard['cells']] if 'cells' in guard else None
  evaluator = guard.get('evaluator', claim['evaluator'])
  for axes in named or [term['cells'] for term in claim['terms']]:
    for cell in cells_of(cells, axes):
      yield cell['name'], predictions(cell['name'], evaluator)


def _reads(guard, claim, cells, predictions):
  """bits_per_byte below a bound: the model can read the language at all."""
  for name, records in _scores(guard, claim, cells, predictions):
    of = np.array(list(average(records, 'bits_per_byte').values())).T
    bits = averages.Average(*of).of()
    if bits >= guard['below']:
      return (
        f'{name} cannot read the language ({bits:.2f} bits per byte; below '
        f'{guard["below"]:g} would be more than counting bytes)'
      )
  return ''


def _above_chance(guard, claim, cells, predictions):
  """One model beyond chance by three standard errors: else none can change."""
  best = -np.inf
  chance = guard['chance']
  for _, records in _scores(guard, claim, cells, predictions):
    values = [n / d for n, d in average(records, claim['metric']).values()]
    error = math.sqrt(chance * (1 - chance) / len(values))
    best = max(best, (float(np.mean(values)) - chance) / error)
  if best < _BEYOND_CHANCE:
    return (
      f'all models answer as by chance ({chance:g}; the best is {best:.1f} '
      'standard errors above it)'
    )
  return ''


def _varied(guard, claim, cells, predictions):
  """No model says one thing to everything."""
  for name, records in _scores(guard, claim, cells, predictions):
    answers = [str(r['chosen']) for r in records]
    _, counts = np.unique(answers, return_counts=True)
    if counts.max() > _SAME_ANSWER * len(records):
      return f'{name} gives one answer to {counts.max():,} of {len(records):,}'
  return ''


def _usable(guard, claim, cells, predictions):
  """So many responses, and such a share of them that can be judged."""
  for name, records in _scores(guard, claim, cells, predictions):
    usable = sum(not r.get('unusable') for r in records)
    if len(records) < guard['fewest'] or usable < guard['share'] * len(records):
      return (
        f'{usable:,} of {len(records):,} responses of {name} can be judged '
        f'({guard["fewest"]:,} responses and {guard["share"]:.0%} are needed)'
      )
  return ''


_GUARDS = {
  'reads': _reads,
  'above_chance': _above_chance,
  'varied': _varied,
  'usable': _usable,
}


def check(claims: list[dict], evaluators):
  """Raises ValueError for a claim that no study could decide."""
  for claim in claims:
    where = f'claim {claim.get("name", "without a name")}'
    needed = set('name claim evaluator metric terms expect margin'.split())
    if missing := needed - set(claim):
      raise ValueError(f'{where} lacks {", ".join(sorted(missing))}.')
    if claim['evaluator'] not in evaluators:
      raise ValueError(
        f'{where}: no evaluator is called {claim["evaluator"]!r}; there are '
        f'{", ".join(sorted(evaluators))}.'
      )
    if claim['expect'] not in ('less', 'greater', 'equal'):
      raise ValueError(
        f"{where}: expect={claim['expect']!r}; it is 'less', 'greater' or "
        "'equal'."
      )
    if not 0 <= claim['margin'] < math.inf or (
      claim['expect'] == 'equal' and not claim['margin']
    ):
      raise ValueError(
        f'{where}: margin={claim["margin"]!r}; it is a number from 0 on, and '
        'to be equal needs one above 0.'
      )
    for guard in claim.get('guards', ()):
      if guard['kind'] not in _GUARDS:
        raise ValueError(
          f'{where}: no guard is called {guard["kind"]!r}; there are '
          f'{", ".join(_GUARDS)}.'
        )
