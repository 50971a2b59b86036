"""Averages over items, of all and of parts, with intervals: rows of results."""

from typing import NamedTuple

import numpy as np

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

  def interval95(self) -> list:
    return bootstrap(*self)


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
  """One score with its interval."""
  return {
    'name': name,
    'value': average.of(),
    'count': len(average.numerators_N),
    **more,
    'interval95': average.interval95(),
  }


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
    n_N, d_N = averages[headline]
    return {**row, 'interval95': bootstrap(n_N[mine_N], d_N[mine_N])}

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
