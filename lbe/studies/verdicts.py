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
import itertools
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
# Of responses with letters, in languages that are told apart (code_switching).
_OF_LETTERS = ('switched', 'letters_outside')


class _Unscored(LookupError):
  """Why a claim stays open; other errors of look-ups are not for a report."""


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

  Their sums, divided, are the score that is reported; an item that it leaves
  out adds (0, 0). Raises ValueError for a score that the items do not have,
  with those they do.
  """
  result = {}
  try:
    for r in predictions:
      numerator, denominator = _parts(r, metric)
      before = result.get(r['id'], (0.0, 0.0))  # of a text that stands twice
      result[r['id']] = before[0] + numerator, before[1] + denominator
  except KeyError as error:
    known = sorted(
      k for k, v in predictions[0].items() if isinstance(v, int | float)
    )
    raise ValueError(
      f'items have no {error.args[0]!r} to make {metric!r} of; they have '
      f'{", ".join(known)}.'
    ) from error
  return result


def _parts(record, metric):
  """What an item adds to a score: to its numerator and its denominator."""
  if metric == 'bits_per_byte':
    return record['nats'] / math.log(2), record['bytes']
  if _is_of_judge(record):
    return _of_judge(record, metric)
  weight = record.get('weight', 1.0)
  if metric == 'score_rate':
    return record['points'] * weight, record['of_points'] * weight
  if metric in _OF_LETTERS and not (
    record.get('told', True) and record.get('letters', 1)
  ):
    return 0.0, 0.0
  if metric == 'letters_outside':
    return record['letters_outside'], record['letters']
  value = record[metric]
  return (0.0, 0.0) if value is None else (float(value) * weight, weight)


def _is_of_judge(record):
  return isinstance(record.get('scores'), dict)


def _of_judge(record, metric):
  scores, highest = record['scores'], record.get('highest')
  if None in scores.values():
    return 0.0, 0.0
  if metric != 'overall':
    return float(scores[metric]), 1.0
  most = sum(highest.values()) if highest else len(scores)
  return sum(scores.values()) / most, 1.0


def aligned(
  items: list[dict], *, paired: bool = False
) -> tuple[list, list[averages.Average]]:
  """(ids, an Average of each model, in their order) of models' `average`s.

  What no model counts is no unit; with `paired` what some model does not.
  """
  counts = all if paired else any
  ids = [i for i in items[0] if counts(of[i][1] for of in items)]
  ids.sort(key=str)
  parts = [np.array([of[i] for i in ids], np.float64) for of in items]
  return ids, [averages.Average(*x.reshape(-1, 2).T) for x in parts]


def cells_of(cells: list[dict], axes: dict) -> list[dict]:
  """The cells that have these axes (a value that is absent counts as None)."""
  return [
    cell
    for cell in cells
    if all(cell['axes'].get(axis) == value for axis, value in axes.items())
  ]


def decide(
  claim: dict, cells: list[dict], predictions, *, reported: dict | None = None
) -> Verdict:
  """The verdict of a claim.

  `cells` are those that have been scored; `predictions(cell, evaluator)` gives
  the items of one, [] where it has not been scored; `reported` has the values
  of rows by (cell, evaluator, score), which items are to make. Raises
  ValueError for a claim that names what no cell has.
  """
  try:
    terms, names, left_out = _terms(claim, cells, predictions, reported or {})
    failed = [
      reason
      for guard in claim.get('guards', ())
      if (reason := _GUARDS[guard['kind']](guard, claim, cells, predictions))
    ]
  except _Unscored as error:
    return Verdict(claim, OPEN, f'{error}.')
  contrast = statistics.contrast(terms)
  if not all(map(math.isfinite, contrast.interval95)):
    why = f'Too few items have {claim["metric"]} for an interval.'
    return Verdict(claim, OPEN, why)
  margin = claim['margin']
  if claim.get('margin_of') is not None:
    of = terms[claim['margin_of']].by_seed
    margin *= abs(float(np.mean([x.of() for x in of])))
  if failed:
    word, why = NOT_MEASURABLE, '; '.join(failed) + '.'
  else:
    word, why = judge(contrast, claim['expect'], margin)
    why = f'{why[0].upper()}{why[1:]}.'
  return Verdict(claim, word, why + left_out, contrast, margin, names)


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


def _terms(claim, cells, predictions, reported):
  """The terms with their items in one order, and the cells of each.

  Last comes a sentence of what was left out, or ''.
  """
  chosen = []
  for term in claim['terms']:
    mine = _some_cells(cells, term['cells'])
    seeds = [cell['axes'].get('seed') for cell in mine]
    if len(set(seeds)) != len(seeds):
      told = _told(term['cells'])
      raise ValueError(
        f'claim {claim["name"]}: {told} names {len(mine)} cells, several of '
        f'one seed ({", ".join(c["name"] for c in mine)}); name more axes.'
      )
    chosen.append(dict(zip(seeds, mine, strict=True)))
  # What was trained with one seed says nothing of others; what has none does.
  several = [set(of) for of in chosen if set(of) != {None}]
  seeds = sorted(set.intersection(*several), key=str) if several else [None]
  if not seeds:
    raise _Unscored('Its models share no seed')
  by_term = [
    list(of.values()) if set(of) == {None} else [of[s] for s in seeds]
    for of in chosen
  ]
  evaluator = claim['evaluator']
  records = [
    _some_items(cell['name'], evaluator, predictions)
    for mine in by_term
    for cell in mine
  ]
  items = [average(of, claim['metric']) for of in records]
  if len({frozenset(of) for of in items}) != 1:
    raise _Unscored(
      f'Its models were not scored on the same items of {evaluator}; remove '
      'their scores (cells/NAME/scores) and run the study again'
    )
  names = tuple(tuple(cell['name'] for cell in mine) for mine in by_term)
  for name, of in zip(itertools.chain(*names), items, strict=True):
    _check_value(name, claim, of, reported)
  # A judge that gave no score said nothing of the item, for any model.
  of_judge = _is_of_judge(records[0][0])
  ids, models = aligned(items, paired=of_judge)
  if len(ids) < 2:
    raise _Unscored(
      f'{evaluator} has fewer than two items with {claim["metric"]} of all '
      'models'
    )
  left_out = ''
  if of_judge and len(ids) < len(items[0]):
    left_out = (
      f' {len(items[0]) - len(ids):,} of {len(items[0]):,} items have no score '
      'of some model and are left out.'
    )
  if claim.get('clusters'):
    of = {r['id']: r[claim['clusters']] for r in records[0]}
    clusters = [of[i] for i in ids]
    models = [statistics.by_cluster(x, clusters) for x in models]
  rest = iter(models)
  terms = [
    statistics.Term(term['weight'], list(itertools.islice(rest, len(mine))))
    for term, mine in zip(claim['terms'], by_term, strict=True)
  ]
  return terms, names, left_out


def _told(axes):
  return ', '.join(f'{k}={v}' for k, v in axes.items())


def _some_cells(cells, axes):
  found = cells_of(cells, axes)
  if not found:
    raise _Unscored(f'No cell with {_told(axes)} has been scored')
  return found


def _some_items(name, evaluator, predictions):
  records = predictions(name, evaluator)
  if not records:
    raise _Unscored(f'{name} has not been scored by {evaluator}')
  return records


def _check_value(name, claim, items, reported):
  """Items that make another number than the one that is told decide nothing.

  An older lbe did not write what they weigh.
  """
  evaluator, metric = claim['evaluator'], claim['metric']
  numerator, denominator = np.sum(list(items.values()), axis=0)
  if not denominator:
    raise _Unscored(f'{evaluator} has no {metric} of {name}')
  value = reported.get((name, evaluator, metric))
  made = float(numerator / denominator)
  if value is not None and not math.isclose(made, value, abs_tol=1e-6):
    raise _Unscored(
      f'{evaluator} tells {metric} {value:.4f} of {name}, and its items make '
      f'{made:.4f}; remove cells/{name}/scores/{evaluator}.json and run the '
      'study again, which scores it anew'
    )


# ---------------------------------------------------------------------- guards


def _scores(guard, claim, cells, predictions):
  """(cell, its items) of the guard's cells; of the claim's if it names none."""
  named = [guard['cells']] if 'cells' in guard else None
  evaluator = guard.get('evaluator', claim['evaluator'])
  for axes in named or [term['cells'] for term in claim['terms']]:
    for cell in _some_cells(cells, axes):
      name = cell['name']
      yield name, _some_items(name, evaluator, predictions)


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
    parts = average(records, claim['metric']).values()
    values = [n / d for n, d in parts if d]
    if values:
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
