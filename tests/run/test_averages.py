"""Averages by hand, and their intervals."""

import numpy as np
from scipy import stats

from lbe.run import averages


def test_the_bootstrap_interval_covers_as_often_as_it_says():
  """95% of intervals hold the true ratio; documents are drawn whole."""
  rng = np.random.default_rng(1)
  covered = 0
  for _ in range(100):
    sizes = rng.integers(50, 150, 80)
    nats = sizes * rng.normal(2.0, 0.5, 80)
    low, high = averages.bootstrap(nats, sizes)
    covered += low < 2.0 < high
  assert 88 <= covered <= 100
  low, high = averages.bootstrap([1, 1, 1], [1, 1, 1], scale=3.0)
  assert (low, high) == (3.0, 3.0)


def test_shares_have_the_interval_of_wilson():
  """A bootstrap of what is wrong, or right, everywhere has no width."""
  theirs = stats.binomtest(10, 50).proportion_ci(method='wilson')
  ours = averages.wilson([1] * 10 + [0] * 40, [1] * 50)
  np.testing.assert_allclose(ours, theirs, rtol=1e-6)
  low, high = averages.mean(np.zeros(20)).interval95()
  assert low == 0.0 and 0.16 < high < 0.162
  # Two weights of 1 among small ones: as if there were few.
  weights_N = np.array([1.0] * 2 + [0.01] * 98)
  low, high = averages.Average(weights_N, weights_N).interval95()
  assert low < 0.54 and high == 1.0
  # Points that are no share of all or nothing are drawn.
  low, high = averages.mean([0.5] * 20).interval95()
  assert (low, high) == (0.5, 0.5)


def test_few_units_have_no_interval():
  """Of five documents it would hold the truth 82 times of 100."""
  few = averages.mean(np.arange(averages.FEWEST_UNITS - 1))
  assert few.interval95() is None
  assert 'interval95' not in averages.row('acc', few)
  enough = averages.mean(np.arange(averages.FEWEST_UNITS))
  assert len(averages.row('acc', enough)['interval95']) == 2


def test_parts_are_averaged_as_their_names_say():
  """A group has the headline's average, a subject never the macro one."""
  subjects = averages.masks('aab')
  weights_N = np.array([0.5, 0.5, 1.0])
  right_N = np.array([1.0, 0.0, 1.0])
  of = {
    'micro': averages.mean(right_N),
    'macro': averages.Average(right_N * weights_N, weights_N),
  }
  rows = averages.rows(
    'acc',
    of,
    headline='macro',
    groups=averages.masks('xxx'),
    subjects=subjects,
    of_all={'num_cut': 7},
    of_part=lambda mine_N: {'right': float(right_N[mine_N].sum())},
  )
  assert [
    (r['name'], r['value'], r['count'], r['average'], r['right']) for r in rows
  ] == [
    ('acc', 0.75, 3, 'macro', 2.0),
    ('acc_micro', 2 / 3, 3, 'micro', 2.0),
    ('acc/x', 0.75, 3, 'macro', 2.0),
    ('acc/a', 0.5, 2, 'micro', 1.0),
    ('acc/b', 1.0, 1, 'micro', 1.0),
  ]
  assert [list(r)[5:] for r in rows] == [
    ['num_cut'],
    [],
    [],
    ['of_subject'],
    ['of_subject'],
  ]
  assert list(averages.metrics(rows)) == ['acc', 'acc_micro', 'acc/x']
