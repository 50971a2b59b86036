"""Differences between models, with intervals that hold over texts and seeds.

Models that are scored on the same texts are paired by them, and models that are
trained with the same seeds by those. Both are drawn: a claim is about other
texts of the kind, and about other seeds. Seeds are few, and that is most of an
interval's width: `contrast` takes texts and seeds as two crossed random factors
and adds their variances (Satterthwaite 1946), which covers what it says with
three seeds, where drawing the seeds anew does not
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

  `by_seed` are its values of each seed, `value` their mean. `standard_error`
  and `df` are those of the mean; one seed says nothing of others, and
  `interval95` is then one over units alone.
  """

  value: float
  interval95: tuple[float, float]
  by_seed: tuple[float, ...]
  num_units: int
  standard_error: float
  df: float

  def detectable(self) -> float:
    """The smallest effect that such a contrast sees in four of five studies."""
    t = stats.t(self.df)
    return self.standard_error * float(t.ppf(0.975) + t.ppf(_POWER))


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

  With several seeds: mean ± t · standard error, where the variance is that of
  seeds, of units and of both together, from a two-way table of the units'
  influence on each seed's value. With one seed: percentiles of 10,000 draws of
  units, the same ones for all terms.

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
  if num_seeds == 1:
    error = float(y_SN[0].std(ddof=1) / np.sqrt(num_units))
    df, interval95 = num_units - 1, _drawn(terms, num_units)
  else:
    error, df = _crossed(y_SN)
    reach = error * float(stats.t.ppf(0.975, df)) if error else 0.0
    interval95 = (value - reach, value + reach)
  return Contrast(
    value, interval95, tuple(map(float, values_S)), num_units, error, float(df)
  )


def _crossed(y_SN):
  """Standard error and degrees of freedom of the mean over seeds and units."""
  S, N = y_SN.shape
  mean = y_SN.mean()
  seeds_S, units_N = y_SN.mean(1) - mean, y_SN.mean(0) - mean
  rest_SN = y_SN - mean - seeds_S[:, None] - units_N
  df_seeds, df_units = S - 1, N - 1
  of_seeds = N * (seeds_S**2).sum() / df_seeds
  of_units = S * (units_N**2).sum() / df_units
  of_both = (rest_SN**2).sum() / (df_seeds * df_units)
  # Each of the two holds what is of both: it is counted once.
  units_alone = max(of_units - of_both, 0.0)
  total = of_seeds + units_alone
  if not total:
    return 0.0, df_units
  parts = of_seeds**2 / df_seeds
  if units_alone:
    parts += of_units**2 / df_units + of_both**2 / (df_seeds * df_units)
  return float(np.sqrt(total / (S * N))), total**2 / parts


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
