"""Contrasts and verdicts, against scipy and studies with known truth."""

import numpy as np
import pytest
from scipy import stats

from lbe.run import averages
from lbe.studies import statistics
from lbe.studies import verdicts


def drawn(rng, *, seeds, units, truth=0.0, of_seed=0.0, of_unit=0.2, noise=0.1):
  """Terms of a − b on documents of unequal length, with known difference."""
  size_N = rng.lognormal(5, 0.8, units)
  hard_N, liked_N = rng.normal(3, 0.5, units), rng.normal(0, of_unit, units)
  a, b = [], []
  for _ in range(seeds):
    b_N = hard_N + rng.normal(0, noise, units)
    a_N = hard_N + truth + rng.normal(0, of_seed) + liked_N
    a_N = a_N + rng.normal(0, noise, units)
    a.append(averages.Average(a_N * size_N, size_N))
    b.append(averages.Average(b_N * size_N, size_N))
  return [statistics.Term(1, a), statistics.Term(-1, b)]


def test_one_seed_is_the_paired_bootstrap_of_scipy():
  """Catches units that are drawn apart for a and for b."""
  terms = drawn(np.random.default_rng(0), seeds=1, units=60)
  (a,), (b,) = (t.by_seed for t in terms)

  def ratio(na, da, nb, db, axis=-1):
    return na.sum(axis) / da.sum(axis) - nb.sum(axis) / db.sum(axis)

  theirs = stats.bootstrap(
    (*a, *b),
    ratio,
    paired=True,
    method='percentile',
    n_resamples=10_000,
    rng=np.random.default_rng(1),
  )
  ours = statistics.contrast(terms)
  assert ours.value == pytest.approx(ratio(*a, *b), abs=1e-12)
  np.testing.assert_allclose(
    ours.interval95, theirs.confidence_interval, atol=0.004
  )
  assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.05)


def test_where_seeds_alone_differ_it_is_the_t_test():
  """Catches an interval that takes three seeds for many."""
  a = [averages.mean(np.full(50, x)) for x in (1.0, 1.3, 1.9)]
  ours = statistics.contrast(
    [statistics.Term(1, a), statistics.Term(-1, [averages.mean(np.zeros(50))])]
  )
  theirs = stats.ttest_1samp([1.0, 1.3, 1.9], 0).confidence_interval(0.95)
  np.testing.assert_allclose(ours.interval95, theirs, rtol=1e-9)
  assert ours.by_seed == pytest.approx((1.0, 1.3, 1.9))


def test_a_cluster_is_one_unit():
  """Catches questions of one passage that count as independent ones."""
  rng = np.random.default_rng(0)
  values = np.repeat(rng.normal(size=40), 5)

  def terms(x):
    return [statistics.Term(1, [x])]

  alone = statistics.contrast(terms(averages.mean(values)))
  whole = statistics.by_cluster(averages.mean(values), np.arange(200) // 5)
  clustered = statistics.contrast(terms(whole))
  assert clustered.num_units == 40
  assert clustered.value == pytest.approx(alone.value, abs=1e-12)
  assert clustered.standard_error > 2 * alone.standard_error
  with pytest.raises(ValueError, match='3 names of clusters for 200 units'):
    statistics.by_cluster(averages.mean(values), [1, 2, 3])


@pytest.mark.parametrize('of_seed', [0.0, 0.02, 0.2])
def test_intervals_cover_the_truth(of_seed):
  """Catches an interval that leaves out the seeds, or counts units twice."""
  rng = np.random.default_rng(3)
  covered = 0
  for _ in range(400):
    found = statistics.contrast(
      drawn(rng, seeds=3, units=60, truth=0.1, of_seed=of_seed)
    )
    covered += found.interval95[0] <= 0.1 <= found.interval95[1]
  assert 0.93 <= covered / 400 <= 0.985


@pytest.mark.parametrize('expect', ['greater', 'equal'])
def test_a_claim_that_is_just_not_true_is_seldom_supported(expect):
  """Catches a verdict that takes what is too small to matter for an effect."""
  rng = np.random.default_rng(4)
  words = []
  for _ in range(400):
    found = statistics.contrast(
      drawn(rng, seeds=3, units=60, truth=0.05, of_seed=0.01)
    )
    words.append(verdicts.judge(found, expect, 0.05)[0])
  assert words.count(verdicts.SUPPORTED) <= 0.05 * 400


def test_wide_intervals_are_never_equality():
  """Catches "no difference" for what nobody could have seen."""
  rng = np.random.default_rng(5)
  for _ in range(50):
    found = statistics.contrast(
      drawn(rng, seeds=3, units=20, of_seed=1.0, of_unit=1.0)
    )
    assert verdicts.judge(found, 'equal', 0.05)[0] != verdicts.SUPPORTED
    assert found.detectable > 0.5


def contrast(low, high, seeds=3):
  return statistics.Contrast(
    (low + high) / 2, (low, high), (0.0,) * seeds, 100, 0.1, 0.3
  )


@pytest.mark.parametrize(
  ('low', 'high', 'expect', 'word'),
  [
    (0.02, 0.05, 'greater', verdicts.SUPPORTED),
    (0.02, 0.05, 'less', verdicts.CONTRADICTED),
    (0.02, 0.05, 'equal', verdicts.CONTRADICTED),
    (-0.005, 0.005, 'equal', verdicts.SUPPORTED),
    (0.001, 0.005, 'greater', verdicts.NO_DIFFERENCE),
    (0.005, 0.05, 'greater', verdicts.OPEN),
    (-0.05, 0.05, 'equal', verdicts.OPEN),
  ],
)
def test_words(low, high, expect, word):
  """Catches a verdict by an interval that merely leaves out 0."""
  assert verdicts.judge(contrast(low, high), expect, 0.01)[0] == word
  if word in (verdicts.SUPPORTED, verdicts.CONTRADICTED):
    few, why = verdicts.judge(contrast(low, high, seeds=2), expect, 0.01)
    assert few == verdicts.OPEN and '2 seeds cannot say' in why


def claim(**changes):
  return {
    'name': 'C1',
    'claim': 'It does not pay.',
    'evaluator': 'zh',
    'metric': 'bits_per_byte',
    'terms': [
      {'weight': 1, 'cells': {'vocabulary': 'extended'}},
      {'weight': -1, 'cells': {'vocabulary': 'base'}},
    ],
    'expect': 'greater',
    'margin': 0.01,
    'margin_of': 1,
    **changes,
  }


CELLS = [
  {'name': f'{v}-s{s}', 'axes': {'vocabulary': v, 'seed': s}}
  for v in ('base', 'extended')
  for s in range(3)
]


def perplexities(worse, *, of=3.0, ids=50):
  def predictions(cell, evaluator):
    rng = np.random.default_rng(int(cell[-1]))
    bits_N = of + worse * cell.startswith('extended')
    bits_N = bits_N + rng.normal(0, 0.002, ids)
    return [
      {'id': f'{i}', 'nats': x * 100 * np.log(2), 'bytes': 100}
      for i, x in enumerate(bits_N)
    ]

  return predictions


def test_a_claim_is_decided_from_items():
  """Catches seeds or documents that are paired by their place."""
  found = verdicts.decide(claim(), CELLS, perplexities(0.1))
  assert found.word == verdicts.SUPPORTED
  assert found.contrast.value == pytest.approx(0.1, abs=0.002)
  assert found.margin == pytest.approx(0.03, abs=1e-3)
  assert found.cells[1] == ('base-s0', 'base-s1', 'base-s2')

  def mixed(cell, name):
    items = perplexities(0.1)(cell, name)
    return items if cell.startswith('base') else items[::-1]

  assert verdicts.decide(claim(), CELLS, mixed).contrast == found.contrast


def test_one_trained_seed_stands_for_no_others():
  """Catches "supported" by three seeds of the one side and one of the other."""
  found = verdicts.decide(claim(), CELLS[:4], perplexities(0.1))
  assert found.word == verdicts.OPEN
  assert len(found.contrast.by_seed) == 1
  # A model from elsewhere has no seed, and is the same beside each of them.
  bases = [{'name': 'base-9', 'axes': {'vocabulary': 'base'}}]
  found = verdicts.decide(claim(), bases + CELLS[3:], perplexities(0.1))
  assert found.word == verdicts.SUPPORTED
  assert len(found.contrast.by_seed) == 3


def test_a_claim_without_its_cells_is_open():
  """Catches a report that cannot be made before a study has ended."""
  found = verdicts.decide(claim(), CELLS[:3], perplexities(0.1))
  assert (found.word, found.contrast) == (verdicts.OPEN, None)
  assert found.why == 'No cell with vocabulary=extended has been scored.'


def test_models_that_were_scored_on_other_items_decide_nothing():
  def other(cell, name):
    return perplexities(0.1)(cell, name)[cell.startswith('base') :]

  found = verdicts.decide(claim(), CELLS, other)
  assert found.word == verdicts.OPEN
  assert 'not scored on the same items of zh' in found.why
  twice = [*CELLS, {'name': 'other-s0', 'axes': CELLS[0]['axes']}]
  with pytest.raises(ValueError, match='several of one seed'):
    verdicts.decide(claim(), twice, perplexities(0.1))


def answers(acc, *, n=400, chosen='ABCD', unusable=''):
  def predictions(cell, evaluator):
    return [
      {
        'id': i,
        'acc': int(i < round(acc * n)),
        'chosen': chosen[i % len(chosen)],
        'unusable': unusable,
      }
      for i in range(n)
    ]

  return predictions


@pytest.mark.parametrize(
  ('guard', 'predictions', 'why'),
  [
    (
      {'kind': 'reads', 'below': 7.2},
      perplexities(0.1, of=7.15),
      'extended-s0 cannot read the language',
    ),
    (
      {'kind': 'above_chance', 'chance': 0.25},
      answers(0.28),
      'the best is 1.4 standard errors above it',
    ),
    ({'kind': 'varied'}, answers(0.5, chosen='A'), 'one answer to 400 of 400'),
    (
      {'kind': 'usable', 'fewest': 200, 'share': 0.8},
      answers(0.5, unusable='no letters'),
      '0 of 400 responses',
    ),
  ],
)
def test_what_cannot_be_measured_has_no_verdict(guard, predictions, why):
  """Catches a verdict by constant answers, garbage or chance."""
  metric = 'bits_per_byte' if guard['kind'] == 'reads' else 'acc'
  asked = claim(metric=metric, guards=[guard])
  found = verdicts.decide(asked, CELLS, predictions)
  assert found.word == verdicts.NOT_MEASURABLE and why in found.why
  good = perplexities(0.1) if metric == 'bits_per_byte' else answers(0.5)
  assert verdicts.decide(asked, CELLS, good).word != verdicts.NOT_MEASURABLE


def without(name):
  def predictions(cell, evaluator):
    return [] if cell == name else perplexities(0.1)(cell, evaluator)

  return predictions


def test_a_cell_without_items_leaves_a_claim_open():
  """Catches an error, or a guard that passes for nothing was looked at."""
  found = verdicts.decide(claim(), CELLS, without('extended-s1'))
  assert (found.word, found.contrast) == (verdicts.OPEN, None)
  assert found.why == 'extended-s1 has not been scored by zh.'


@pytest.mark.parametrize(
  'guard',
  [
    {'kind': 'reads', 'below': 7.2},
    {'kind': 'above_chance', 'chance': 0.25},
    {'kind': 'varied'},
    {'kind': 'usable', 'fewest': 1, 'share': 0.5},
  ],
)
def test_a_guard_without_items_leaves_a_claim_open(guard):
  """Catches a verdict while nobody knows whether it can be measured."""

  def predictions(cell, evaluator):
    return [] if evaluator == 'en' else perplexities(0.1)(cell, evaluator)

  cells = {'vocabulary': 'base'}
  asked = claim(guards=[guard | {'evaluator': 'en', 'cells': cells}])
  found = verdicts.decide(asked, CELLS, predictions)
  assert found.word == verdicts.OPEN
  assert found.why == 'base-s0 has not been scored by en.'
  asked = claim(guards=[guard | {'cells': {'vocabulary': 'none'}}])
  found = verdicts.decide(asked, CELLS, perplexities(0.1))
  assert found.word == verdicts.OPEN
  assert found.why == 'No cell with vocabulary=none has been scored.'


def of_judge(missing, *, better=0.4, n=453):
  """Scores of a judge that is silent on some responses of some models."""

  def predictions(cell, evaluator):
    rng = np.random.default_rng(int(cell[-1]))
    scores_N = 1 + better * cell.startswith('extended') + rng.normal(0, 0.1, n)
    return [
      {
        'id': i,
        'scores': dict.fromkeys(
          ('accuracy', 'fluency'), None if i in missing.get(cell, ()) else x
        ),
      }
      for i, x in enumerate(scores_N.tolist())
    ]

  return predictions


@pytest.mark.parametrize('metric', ['overall', 'fluency'])
def test_responses_without_a_score_are_left_out_and_told(metric):
  """Catches a TypeError, and one response of a model beside none."""
  asked = claim(metric=metric, margin_of=None)
  whole = verdicts.decide(asked, CELLS, of_judge({}))
  assert whole.word == verdicts.SUPPORTED and 'left out' not in whole.why
  missing = {'base-s0': (3, 5), 'extended-s2': (5, 400)}
  found = verdicts.decide(asked, CELLS, of_judge(missing))
  assert found.word == verdicts.SUPPORTED
  assert found.contrast.num_units == 450
  assert found.why.endswith(
    '3 of 453 items have no score of some model and are left out.'
  )
  silent = {'base-s1': range(453)}
  found = verdicts.decide(asked, CELLS, of_judge(silent))
  assert found.word == verdicts.OPEN
  assert found.why == f'zh has no {metric} of base-s1.'


def test_overall_of_criteria_with_scales_is_a_share_of_points():
  """Catches the mean of criteria beside a report of the share."""
  scores = {'scores': {'a': 1, 'b': 4}, 'highest': {'a': 5, 'b': 5}}
  items = [{'id': '1', **scores}]
  assert verdicts.average(items, 'overall') == {'1': (0.5, 1.0)}


@pytest.mark.parametrize(
  ('changes', 'why'),
  [
    ({'evaluator': 'zz'}, "no evaluator is called 'zz'; there are en, zh"),
    ({'expect': 'more'}, "expect='more'; it is 'less', 'greater' or 'equal'"),
    ({'expect': 'equal', 'margin': 0}, 'to be equal needs one above 0'),
    ({'margin': float('nan')}, 'margin=nan'),
    ({'guards': [{'kind': 'luck'}]}, "no guard is called 'luck'"),
  ],
)
def test_claims_that_nothing_could_decide(changes, why):
  with pytest.raises(ValueError, match=why):
    verdicts.check([claim(**changes)], {'zh', 'en'})
  without = claim()
  del without['margin']
  with pytest.raises(ValueError, match='claim C1 lacks margin'):
    verdicts.check([without], {'zh'})
  verdicts.check([claim()], {'zh'})


def test_an_item_without_the_score_is_an_error():
  with pytest.raises(ValueError, match=r"no 'f1' to make 'f1' of; they have"):
    verdicts.average(answers(0.5)('x', 'y'), 'f1')
