"""Schedules by literals; what decays; clipping."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lbe.models import architecture
from lbe.models import weights
from lbe.training import groups
from lbe.training import optim

import tiny

RATES = {'rest': lambda step: 0.1}


def schedule(kind, **changes):
  settings = dict(
    peak_lr=1.0, num_steps=10, warmup_steps=2, final_fraction=0.1, decay_steps=4
  )
  made = optim.make_schedule(kind=kind, **settings | changes)
  return [round(float(made(step)), 6) for step in range(11)]


def test_warm_up_moves_at_step_0_and_reaches_the_peak():
  """A first step of rate 0 would be a step for nothing."""
  assert schedule('constant') == [0.5, 1.0] + [1.0] * 9
  assert schedule('constant', warmup_steps=0) == [1.0] * 11
  assert schedule('constant', warmup_steps=1) == [1.0] * 11


def test_decays_end_at_the_final_fraction():
  """Counted from the end of the warm-up to the last step."""
  linear = schedule('linear')
  assert linear[2] == 1.0 and linear[10] == 0.1
  assert linear[6] == pytest.approx(0.55)
  cosine = schedule('cosine')
  assert cosine[2] == 1.0 and cosine[10] == pytest.approx(0.1)
  assert cosine[6] == pytest.approx(0.55)
  assert cosine[3] > linear[3]


def test_wsd_stays_then_falls():
  """Warm-up, stable, decay over the last four steps."""
  assert schedule('wsd') == [0.5] + [1.0] * 6 + [0.775, 0.55, 0.325, 0.1]


def test_what_does_not_fit_is_refused():
  for kind, changes, words in (
    ('cosine', dict(warmup_steps=11), '11 steps of warm-up are more than'),
    ('wsd', dict(decay_steps=9), 'lower optim.decay_fraction'),
  ):
    with pytest.raises(ValueError, match=words):
      schedule(kind, **changes)


def test_what_fits_into_no_run_is_refused_before_its_length_is_known():
  """Hours of tokenizing, and then a typo."""
  fractions = dict(warmup_fraction=0.3, decay_fraction=0.7)
  for kind in optim.SCHEDULES:
    optim.check_schedule(kind, **fractions)
  for kind, changes, words in (
    ('cosin', {}, "schedule='cosin' is unknown; take one of cosine"),
    ('cosine', dict(warmup_fraction=1.1), 'warmup_fraction=1.1 is more than'),
    ('wsd', dict(decay_fraction=0.8), 'lower optim.decay_fraction'),
  ):
    with pytest.raises(ValueError, match=words):
      optim.check_schedule(kind, **fractions | changes)


@pytest.mark.parametrize('kind', optim.KINDS)
def test_weight_decay_is_of_matrices_and_scaled_by_the_rate(kind):
  """Weight decay on norms shrinks every layer's output."""
  c = architecture.Config(
    vocab_size=10,
    dim=8,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=8,
  )
  params = weights.init(c, jax.random.key(0))
  partition = groups.Partition([tiny.everything(0.5)], weights.dims(c))
  tx = optim.make(
    partition, RATES, **tiny.OPTIM | {'kind': kind, 'clip_norm': 0}
  )
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params)
  for name, update in (
    *updates['layers'].items(),
    *((k, v) for k, v in updates.items() if k != 'layers'),
  ):
    if 'norm' in name:
      assert not update.any(), name
  np.testing.assert_allclose(
    updates['layers']['q_LDNH'], -0.05 * params['layers']['q_LDNH'], rtol=1e-6
  )
  np.testing.assert_allclose(
    updates['embed_VD'], -0.05 * params['embed_VD'], rtol=1e-6
  )


@pytest.mark.parametrize('size', [0.1, 1.0, 1e4])
def test_clipping_is_optaxs(size):
  """Adam's first update is the same whatever a gradient is multiplied by: a
  wrong factor shows in the moments alone."""
  params = weights.init(tiny.TINY, jax.random.key(0))
  partition = groups.Partition([tiny.everything(0.5)], weights.dims(tiny.TINY))
  norm = optax.tree.norm(params)
  gradients = jax.tree.map(lambda x: x * (size / norm), params)
  tx = optim.make(partition, RATES, **tiny.OPTIM | {'clip_norm': 1.0})
  _, state = tx.update(gradients, tx.init(params), params)
  clip = optax.clip_by_global_norm(1.0)
  expected, _ = clip.update(gradients, clip.init(params))
  (moments,) = (
    s.mu
    for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, 'mu'))
    if hasattr(s, 'mu')
  )
  jax.tree.map(
    lambda mu, g: np.testing.assert_allclose(mu, 0.1 * g, rtol=1e-6),
    moments,
    expected,
  )


def test_optimizers_keep_what_they_say():
  """A bfloat16 moment that is float32 after the first update, or the second
  one rounded to 8 bits, where small squares are lost."""
  c = architecture.Config(
    vocab_size=128,
    dim=128,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    head_dim=64,
    mlp_dim=256,
  )
  params = weights.init(c, jax.random.key(0))
  partition = groups.Partition([tiny.everything(0.5)], weights.dims(c))

  def kept(**how):
    tx = optim.make(partition, RATES, **tiny.OPTIM | how)
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    sizes = {}
    for x in jax.tree.leaves(state):
      sizes[str(x.dtype)] = sizes.get(str(x.dtype), 0) + x.size
    return sizes

  num = sum(x.size for x in jax.tree.leaves(params))
  assert kept()['float32'] == 2 * num
  assert kept(first_moment_dtype='bfloat16') == {
    **kept(),
    'float32': num,
    'bfloat16': num,
  }
  assert kept(kind='lion')['float32'] == num
  assert kept(kind='adafactor')['float32'] < num / 2


@pytest.mark.parametrize(
  'kind, b1, b2, dtype',
  [
    ('adamw', 0.9, 0.95, 'float32'),
    ('adamw', 0.9, 0.95, 'bfloat16'),
    ('adamw', 0.8, 0.99, 'float32'),
    ('lion', 0.9, 0.95, 'float32'),
  ],
)
def test_no_gradients_move_a_weight_farther_than_is_said(kind, b1, b2, dtype):
  """A bound that is too low: a sound run is thrown back."""
  params = {'w': jnp.zeros(4)}
  partition = groups.Partition([tiny.everything(0.0)], {'w': (None,)})
  tx = optim.make(
    partition,
    {'rest': lambda step: 1.0},
    **tiny.OPTIM
    | dict(kind=kind, b1=b1, b2=b2, clip_norm=0, first_moment_dtype=dtype),
  )
  state, farthest = tx.init(params), 0.0
  for step in range(400):
    # The worst there is, by Cauchy and Schwarz; and others.
    worst = 1e-3 * (b2 / b1) ** (step - 200) if step < 300 else 1.0
    d_w = worst * jnp.array([1.0, -1.0, 1.0 * (step % 7 == 0), 1.0])
    d_w = d_w.at[3].set(1e6 if step == 399 else 1e-6)
    updates, state = tx.update({'w': d_w}, state, params)
    farthest = max(farthest, float(jnp.max(jnp.abs(updates['w']))))
  reach = optim.reach(kind, b1=b1, b2=b2)
  assert 0.97 * reach < farthest < 1.01 * reach


def test_where_nothing_bounds_a_step_is_said():
  assert optim.reach('adafactor', b1=0.9, b2=0.95) == math.inf
  assert optim.reach('adamw', b1=0.95, b2=0.9) == math.inf


def test_an_unknown_optimizer_is_refused():
  """A misspelt name that falls back to AdamW."""
  for how, words in (
    (dict(kind='adam'), "kind='adam' is unknown; take one of adamw, lion"),
    (dict(first_moment_dtype='int8'), "first_moment_dtype='int8' is unknown"),
  ):
    with pytest.raises(ValueError, match=words):
      optim.make(None, {}, **tiny.OPTIM | how)
