"""Differences between models, with intervals that hold over texts and seeds.

Models that are scored on the same texts are paired by them, and models that are
trained with the same seeds by those. Both are drawn: a claim is about other
texts of the kind, and about other seeds. Seeds are few, and that is most of an
interval's width: `contrast` takes texts and seeds as two crossed random factors
and takes each variance at the quantile of its own degrees of freedom (Cochran
and Cox 1950). That covers what it says with three seeds, where drawing seeds
anew, or one number of degrees for both, does not
(benchmarks/study_calibration.py).
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import stats

from lbe.run import averages

_NUM_DRAWS = 10_000
# Of the chances that an effect which is there is seen.
_POWER = 0.8


class Term(NamedTuple):
  """One of the models of a contrast: what it weighs, and its scores by seed.

  Every `averages.Average` is of the same units in the same order. A model that
  has one seed where others have several (a common base) is taken for each.
  """

  weight: float
  by_seed: list


@dataclasses.dataclass(frozen=True)
class Contrast:
  """A weighted sum of scores: of a − b where weights are 1 and −1.

  `by_seed` are its values of each seed, `value` their mean, which has the
  `standard_error`; `detectable` is the smallest effect that such a contrast
  sees in four of five studies. One seed says nothing of others, and these are
  then over units alone.
  """

  value: float
  interval95: tuple[float, float]
  by_seed: tuple[float, ...]
  num_units: int
  standard_error: float
  detectable: float


def by_cluster(average: averages.Average, clusters) -> averages.Average:
  """Sums over whole clusters, [N] names: units that are not independent."""
  clusters = np.asarray(clusters)
  if len(clusters) != len(average.numerators_N):
    raise ValueError(
      f'{len(clusters)} names of clusters for {len(average.numerators_N)} '
      'units; each unit needs one.'
    )
  _, mine_N = np.unique(clusters, return_inverse=True)
  return averages.Average(*(np.bincount(mine_N, x) for x in average))


def _influence(average):
  """What each unit adds to a ratio of sums, about the ratio: [N]."""
  n, d = (np.asarray(x, np.float64) for x in average)
  ratio = n.sum() / d.sum()
  return ratio, ratio + (n - ratio * d) / d.mean()


def contrast(terms: list[Term]) -> Contrast:
  """The weighted sum of the terms' scores, with an interval.

  With several seeds: mean ± t · standard error, where the variances of seeds
  and of units are from a two-way table of the units' influence on each seed's
  value, and t is the mean of their own, by variance. With one seed:
  percentiles of 10,000 draws of units, the same ones for all terms.

  Raises ValueError where terms differ in their units or their seeds.
  """
  num_seeds = max(len(t.by_seed) for t in terms)
  sizes = {len(x.numerators_N) for t in terms for x in t.by_seed}
  if {len(t.by_seed) for t in terms} - {1, num_seeds}:
    raise ValueError(
      'models are compared seed by seed: they have '
      f'{", ".join(str(len(t.by_seed)) for t in terms)} seeds.'
    )
  if len(sizes) != 1 or min(sizes) < 2:
    raise ValueError(
      'models are compared unit by unit, two at least: they have '
      f'{", ".join(map(str, sorted(sizes)))}.'
    )
  (num_units,) = sizes
  values_S = np.zeros(num_seeds)
  y_SN = np.zeros((num_seeds, num_units))
  for weight, by_seed in terms:
    for s in range(num_seeds):
      ratio, influence_N = _influence(by_seed[s if len(by_seed) > 1 else 0])
      values_S[s] += weight * ratio
      y_SN[s] += weight * influence_N
  value = float(values_S.mean())
  of_seeds, of_units = _variances(y_SN)
  error = float(np.sqrt(of_seeds + of_units))

  def reach(share):
    """How many standard errors hold so much of the distribution below them."""
    dfs = max(num_seeds - 1, 1), num_units - 1
    t_seeds, t_units = (float(stats.t.ppf(share, df)) for df in dfs)
    parts = of_seeds * t_seeds + of_units * t_units
    return parts / (of_seeds + of_units) if error else 0.0

  if num_seeds == 1:
    interval95 = _drawn(terms, num_units)
  else:
    half = error * reach(0.975)
    interval95 = (value - half, value + half)
  return Contrast(
    value=value,
    interval95=interval95,
    by_seed=tuple(map(float, values_S)),
    num_units=num_units,
    standard_error=error,
    detectable=error * (reach(0.975) + reach(_POWER)),
  )


def _variances(y_SN):
  """Of the mean: what seeds add to its variance, and what units add to it.

  What is of both together is in the first, counted once.
  """
  S, N = y_SN.shape
  if S == 1:
    return 0.0, float(y_SN.var(ddof=1) / N)
  mean = y_SN.mean()
  seeds_S, units_N = y_SN.mean(1) - mean, y_SN.mean(0) - mean
  rest_SN = y_SN - mean - seeds_S[:, None] - units_N
  of_both = (rest_SN**2).sum() / ((S - 1) * (N - 1))
  of_seeds = (seeds_S**2).sum() / (S - 1) / S
  of_units = (units_N**2).sum() / (N - 1) / N - of_both / (S * N)
  return float(of_seeds), max(float(of_units), 0.0)


def _drawn(terms, num_units):
  rng = np.random.default_rng(0)
  values = np.zeros(_NUM_DRAWS)
  for i in range(0, _NUM_DRAWS, 500):
    counts = rng.multinomial(
      num_units, np.full(num_units, 1 / num_units), size=500
    )
    for weight, (average,) in terms:
      n, d = (counts @ np.asarray(x, np.float64) for x in average)
      values[i : i + 500] += weight * n / d
  low, high = np.quantile(values, [0.025, 0.975])
  return float(low), float(high)
