"""The train step: sums divided once, metrics as documented."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.training import groups
from lbe.training import loss
from lbe.training import optim
from lbe.training import step as step_lib

import tiny

TINY = architecture.Config(
  vocab_size=50,
  dim=16,
  num_layers=2,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_dim=24,
)
FP32 = forward.Execution(compute_dtype='float32')


def batch():
  rng = np.random.default_rng(0)
  B, T = 4, 8
  weights_BT = np.ones((B, T), np.float32)
  weights_BT[0, 3:] = 0
  return {
    'ids_BT': rng.integers(0, 50, (B, T)),
    'targets_BT': rng.integers(0, 50, (B, T)),
    'weights_BT': weights_BT,
    'positions_BT': np.tile(np.arange(T), (B, 1)),
    'segments_BT': np.ones((B, T), np.int32),
    'num_bytes_B': np.array([3, 8, 9, 10], np.int32),
  }


def make(**changes):
  partition = groups.Partition(
    [tiny.everything(changes.pop('weight_decay', 0.1))],
    weights.dims(TINY),
  )
  spikes = {'skip_above': changes.pop('skip_above', 0.0)}
  make_tx = tiny.make_tx(partition, **{'clip_norm': 0.1} | changes)
  mesh = sharding.make_mesh(
    dict(data=1, fsdp=1, context=1, tensor=1), devices=jax.devices()[:1]
  )
  step = step_lib.make_train_step(
    TINY,
    execution=FP32,
    make_tx=make_tx,
    partition=partition,
    mesh=mesh,
    **tiny.STEP,
    **spikes,
  )
  params = weights.init(TINY, jax.random.key(0))
  state = step_lib.init_state(
    params,
    make_tx({'rest': 0.0}),
    partition,
    skips_spikes=bool(spikes['skip_above']),
  )

  @jax.jit
  def run(state, batch):
    return step(state, batch, {'rest': 0.01 * (state['step'] + 1)})

  return run, state


@jax.jit
def mean_loss(params, of):
  x_BTD = forward.hidden(
    params,
    TINY,
    of['ids_BT'],
    positions_BT=of['positions_BT'],
    segments_BT=of['segments_BT'],
    execution=FP32,
  )
  total = loss.sums(
    x_BTD,
    forward.head_DV(params, TINY),
    of['targets_BT'],
    of['weights_BT'],
    vocab_size=50,
  )
  return total['objective'] / total['weight_sum']


def test_one_step_is_adamw_on_the_mean_over_the_weighted_targets():
  """Written out with optax alone; the gradient is clipped, then scaled."""
  run, state = make()
  new, metrics = run(state, batch())
  grads = jax.grad(mean_loss)(state['params'], batch())
  norm = optax.tree.norm(grads)
  assert norm > 0.1, 'else nothing is clipped'
  np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-5)
  for name in ('embed_VD', 'head_DV', 'final_norm_D'):
    g, p = grads[name] * (0.1 / norm), state['params'][name]
    decay = 0 if 'norm' in name else 0.1 * p
    expected = p - 0.01 * (g / (jnp.abs(g) + 1e-8) + decay)
    np.testing.assert_allclose(
      new['params'][name], expected, rtol=1e-4, atol=1e-6
    )
  assert int(new['step']) == 1


def test_metrics_are_sums_and_the_state_before_the_update():
  """Whoever reads them divides; nothing is averaged twice."""
  run, state = make()
  _, metrics = run(state, batch())
  assert set(metrics) == {
    'loss_sum',
    'weight_sum',
    'num_bytes',
    'grad_norm',
    'param_norm',
    'learning_rates',
  }
  assert metrics['weight_sum'] == 27
  assert metrics['num_bytes'] == 30
  expected = mean_loss(state['params'], batch()) * 27
  np.testing.assert_allclose(metrics['loss_sum'], expected, rtol=1e-6)
  np.testing.assert_allclose(
    metrics['param_norm'], optax.tree.norm(state['params']), rtol=1e-6
  )
  np.testing.assert_allclose(metrics['learning_rates']['rest'], 0.01, rtol=1e-6)


@pytest.mark.parametrize('kind', optim.KINDS)
def test_a_gradient_that_is_not_finite_changes_nothing(kind):
  """A moment that takes NaN in: every weight is NaN from there on."""
  run, state = make(kind=kind)
  state, _ = run(state, batch())
  bad = batch()
  bad['weights_BT'][1, 1] = np.inf
  new, metrics = run(state, bad)
  assert not np.isfinite(metrics['grad_norm'])
  jax.tree.map(np.testing.assert_array_equal, new['params'], state['params'])
  for x, y in zip(
    jax.tree.leaves(new['opt_state']),
    jax.tree.leaves(state['opt_state']),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y if x.ndim else y + 1)
  assert new['step'] == 2
  after, metrics = run(new, batch())
  assert np.isfinite(metrics['grad_norm'])
  assert not np.array_equal(
    after['params']['head_DV'], new['params']['head_DV']
  )


def test_a_spike_changes_nothing_and_the_usual_norm_goes_on():
  """One bad document that throws a run back by hours."""
  run, state = make(skip_above=3.0)
  for _ in range(2):
    state, metrics = run(state, batch())
    assert not metrics['is_spike']
  usual = float(state['usual_norm'])
  np.testing.assert_allclose(usual, metrics['grad_norm'], rtol=0.2)
  spike = batch()
  spike['weights_BT'][:] = np.where(np.arange(8) % 2, 10, -9.9)
  new, metrics = run(state, spike)
  assert metrics['is_spike'] and metrics['grad_norm'] > 3 * usual
  jax.tree.map(np.testing.assert_array_equal, new['params'], state['params'])
  assert new['usual_norm'] == np.float32(usual) and new['step'] == 3
  after, metrics = run(new, batch())
  assert not metrics['is_spike']
  assert not np.array_equal(
    after['params']['head_DV'], new['params']['head_DV']
  )


def test_a_batch_without_targets_is_finite_and_moves_nothing():
  """0 / 0 would end the run in NaN."""
  run, state = make(weight_decay=0.0)
  empty = batch() | {'weights_BT': np.zeros((4, 8), np.float32)}
  new, metrics = run(state, empty)
  assert metrics['loss_sum'] == 0
  jax.tree.map(
    np.testing.assert_array_equal, new['params'], dict(state['params'])
  )


def test_padding_rows_stay_zero():
  """They are cut at export; grown, they would cost the norm."""
  run, state = make()
  for _ in range(3):
    state, _ = run(state, batch())
  assert not np.any(state['params']['embed_VD'][50:])
  assert not np.any(state['params']['head_DV'][:, 50:])
