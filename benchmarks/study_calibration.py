"""Are a study's verdicts right as often as they say? Studies with known truth.

  PYTHONPATH=. python benchmarks/study_calibration.py --studies=1000

Each simulated study scores two models on documents of unequal length, with
three seeds; models differ by a known amount, in general, by seed, by document,
and by both together. Recorded are how often the 95% interval covers the truth
(beside that of a bootstrap that draws seeds and then units), and how often a
claim is "supported" that is just not true: an effect as large as the margin,
of which `greater` says that it is larger and `equal` that it is smaller.
"""

import time

import numpy as np
from absl import app
from absl import flags

from benchmarks import record
from lbe.run import averages
from lbe.studies import statistics
from lbe.studies import verdicts

_STUDIES = flags.DEFINE_integer('studies', 1000, 'How many of each kind.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Of each model.')

_MARGIN = 0.05
# Standard deviations, in bits per byte: of seeds, of documents, of both.
_KINDS = {
  'documents alone': (0.0, 0.2, 0.1),
  'documents and seeds': (0.02, 0.2, 0.1),
  'more of seeds': (0.05, 0.2, 0.1),
  'seeds alone': (0.2, 0.1, 0.1),
  'both together': (0.02, 0.0, 0.3),
  'noise alone': (0.0, 0.0, 0.3),
}


def _study(rng, kind, truth, units):
  of_seed, of_unit, noise = _KINDS[kind]
  size_N = rng.lognormal(5, 0.8, units)
  hard_N, liked_N = rng.normal(3, 0.5, units), rng.normal(0, of_unit, units)
  a, b = [], []
  for _ in range(_SEEDS.value):
    b_N = hard_N + rng.normal(0, noise, units)
    a_N = hard_N + rng.normal(truth, of_seed) + liked_N
    a_N = a_N + rng.normal(0, noise, units)
    a.append(averages.Average(a_N * size_N, size_N))
    b.append(averages.Average(b_N * size_N, size_N))
  return [statistics.Term(1, a), statistics.Term(-1, b)]


def _two_level(rng, terms, draws=400):
  """The interval of a bootstrap that draws seeds, then units."""
  (na_SN, d_N), (nb_SN, _) = (
    (np.array([x.numerators_N for x in t.by_seed]), t.by_seed[0][1])
    for t in terms
  )
  S, N = na_SN.shape
  seeds_DS = rng.multinomial(S, np.full(S, 1 / S), draws)
  units_DN = rng.multinomial(N, np.full(N, 1 / N), draws)
  sums_D = ((seeds_DS @ (na_SN - nb_SN)) * units_DN).sum(1)
  return np.quantile(sums_D / (S * (units_DN @ d_N)), [0.025, 0.975])


def main(_):
  rng = np.random.default_rng(0)
  for units in (40, 200):
    for kind in _KINDS:
      start = time.perf_counter()
      covered, drawn, words = [], [], {'greater': [], 'equal': []}
      for _ in range(_STUDIES.value):
        terms = _study(rng, kind, _MARGIN, units)
        found = statistics.contrast(terms)
        low, high = found.interval95
        covered.append(low <= _MARGIN <= high)
        low, high = _two_level(rng, terms)
        drawn.append(low <= _MARGIN <= high)
        for expect, of in words.items():
          word, _ = verdicts.judge(found, expect, _MARGIN)
          of.append(word == verdicts.SUPPORTED)
      record.write(
        'study_calibration',
        {
          'differ': kind,
          'units': units,
          'seeds': _SEEDS.value,
          'studies': _STUDIES.value,
          'coverage': float(np.mean(covered)),
          'coverage_two_level_bootstrap': float(np.mean(drawn)),
          'false_greater': float(np.mean(words['greater'])),
          'false_equal': float(np.mean(words['equal'])),
          'seconds': round(time.perf_counter() - start, 1),
        },
      )


if __name__ == '__main__':
  app.run(main)
