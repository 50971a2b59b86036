"""Averages over items, of all and of parts, with intervals: rows of results."""

import math
from typing import NamedTuple

import numpy as np

# Of fewer units no interval is given: a bootstrap of 20 documents holds the
# true value 92 times of 100, of 10 documents 89 times, of 5 documents 82 times.
FEWEST_UNITS = 20
# Of a bootstrap: few items are drawn many times at once.
_DRAWN_AT_ONCE = 1 << 16


class Average(NamedTuple):
  """Sums over items [N], divided once: what they got, of what they could."""

  numerators_N: np.ndarray
  denominators_N: np.ndarray

  def of(self, mine_N=slice(None)) -> float:
    """The value over all items, or over those of a mask."""
    n, d = self.numerators_N[mine_N].sum(), self.denominators_N[mine_N].sum()
    return float(n / d)

  def interval95(self, mine_N=slice(None)) -> list | None:
    """None of fewer than FEWEST_UNITS; Wilson's of shares, else a bootstrap.

    A share is 0 or its denominator in each unit. A bootstrap of one that is
    0 or 1 everywhere would have no width.
    """
    n_N, d_N = (x[mine_N] for x in self)
    if len(n_N) < FEWEST_UNITS:
      return None
    if np.all((n_N == 0) | (n_N == d_N)):
      return wilson(n_N, d_N)
    return bootstrap(n_N, d_N)


# Of the normal distribution, 2.5% lie above it.
_Z = 1.959964


def wilson(numerators, denominators) -> list:
  """The 95% score interval of a share (Wilson 1927) over units of any weight.

  Weights that differ count as fewer units: the square of their sum over the
  sum of their squares (Kish 1965).
  """
  n, d = (np.asarray(x, np.float64) for x in (numerators, denominators))
  share, num = n.sum() / d.sum(), d.sum() ** 2 / (d**2).sum()
  middle = share + _Z**2 / (2 * num)
  half = _Z * math.sqrt(share * (1 - share) / num + (_Z / (2 * num)) ** 2)
  low, high = ((middle + x) / (1 + _Z**2 / num) for x in (-half, half))
  return [max(float(low), 0.0), min(float(high), 1.0)]


def bootstrap(numerators, denominators, *, scale=1.0, num_samples=1000) -> list:
  """The 95% interval of scale * sum(n) / sum(d) over documents drawn anew."""
  n = np.asarray(numerators, np.float64)
  d = np.asarray(denominators, np.float64)
  rng = np.random.default_rng(0)
  ratios = []
  at_once = max(1, _DRAWN_AT_ONCE // len(n))
  for start in range(0, num_samples, at_once):
    num = min(at_once, num_samples - start)
    drawn = rng.integers(len(n), size=(num, len(n)))
    ratios.append(n[drawn].sum(axis=1) / d[drawn].sum(axis=1))
  low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975]) * scale
  return [float(low), float(high)]


def mean(values) -> Average:
  values = np.asarray(values, np.float64)
  return Average(values, np.ones(len(values)))


def row(name: str, average: Average, **more) -> dict:
  """One score with its interval, where it has one."""
  return {
    'name': name,
    'value': average.of(),
    'count': len(average.numerators_N),
    **more,
    **interval(average.interval95()),
  }


def interval(low_high: list | None) -> dict:
  """The field of a row; {} where there is no interval."""
  return {} if low_high is None else {'interval95': low_high}


def masks(values) -> dict:
  """{value: which items have it, bool [N]}, in the order of the items."""
  number = {}
  numbers_N = np.array([number.setdefault(v, len(number)) for v in values], int)
  return {x: numbers_N == i for x, i in number.items()}


def rows(
  name: str,
  averages: dict,
  *,
  headline: str,
  groups: dict,
  subjects: dict,
  of_all: dict,
  of_part=lambda mine_N: {},
) -> list:
  """Rows of all items, and of parts, which are masks by their names.

  `averages` are two by what they are called; in one of them, 'macro', subjects
  weigh the same. NAME is the headline of them, with its interval and `of_all`;
  NAME_OTHER the other one; NAME/GROUP the headline of a group, with its
  interval; NAME/SUBJECT, marked `of_subject`, that which is not 'macro'. All
  rows have what `of_part` says of their mask.
  """
  (other,) = averages.keys() - {headline}
  (plain,) = averages.keys() - {'macro'}
  all_N = np.ones(len(averages[plain].numerators_N), bool)

  def row_of(label, average, mine_N=None):
    value = averages[average].of(slice(None) if mine_N is None else mine_N)
    mine_N = all_N if mine_N is None else mine_N
    return {
      'name': f'{name}{label}',
      'value': value,
      'count': int(mine_N.sum()),
      'average': average,
      **of_part(mine_N),
    }

  def with_interval(row, mine_N):
    return {**row, **interval(averages[headline].interval95(mine_N))}

  return [
    with_interval({**row_of('', headline), **of_all}, all_N),
    row_of(f'_{other}', other),
    *(
      with_interval(row_of(f'/{x}', headline, mine_N), mine_N)
      for x, mine_N in groups.items()
    ),
    *(
      {**row_of(f'/{x}', plain, mine_N), 'of_subject': True}
      for x, mine_N in subjects.items()
    ),
  ]


def metrics(rows) -> dict:
  """{name: value} of rows, for a run's curves: without the subjects."""
  return {r['name']: r['value'] for r in rows if not r.get('of_subject')}
