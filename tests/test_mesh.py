"""However a step is cut, over devices, layers or microbatches: same numbers."""

import functools

import jax
import numpy as np
import pytest

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import lora
from lbe.models import weights
from lbe.training import loss
from lbe.vocab import tokenizers

STEPS = 20


def batches(vocab_size):
  """Rows of uneven loss weights: microbatches of 8 to 200 targets."""
  B, T = 8, 32
  for step in range(STEPS):
    rng = np.random.default_rng(step % 4)  # so that there is much to learn
    lengths = rng.integers(1, T + 1, B)
    lengths[rng.integers(B)] = 0
    at = np.arange(T)
    inside = at < lengths[:, None]
    border = rng.integers(1, T, (B, 1))
    yield {
      'ids_BT': rng.integers(0, vocab_size, (B, T)).astype(np.int32),
      'targets_BT': rng.integers(0, vocab_size, (B, T)).astype(np.int32),
      'weights_BT': (inside & (at != border - 1)).astype(np.float32),
      'positions_BT': np.where(at < border, at, at - border).astype(np.int32),
      'segments_BT': np.where(at < border, 1, 2).astype(np.int32),
      'num_bytes_B': lengths.astype(np.int32),
    }


@functools.cache
def losses(
  mesh=(1, 1, 1, 1),
  num_microbatches=1,
  scan=False,
  remat='none',
  kind='adamw',
  gradient_dtype='float32',
):
  """The loss of each step: sum over the batch through its weights' sum."""
  config = common.base()
  config.model.update(dim=32, num_layers=2, num_heads=4, mlp_dim=64)
  config.model.num_kv_heads = 2
  config.model.init_std = 0.1
  config.execution.update(compute_dtype='float32', scan=scan, remat=remat)
  config.data.update(seq_len=32, batch_size=8)
  config.num_microbatches = num_microbatches
  config.optim.update(kind=kind, peak_lr=1e-2, gradient_dtype=gradient_dtype)
  size = int(np.prod(mesh))
  made = sharding.make_mesh(
    dict(zip(sharding.AXES, mesh, strict=True)), devices=jax.devices()[:size]
  )

  model = model_lib.make_config(config, tokenizers.load('bytes'))
  training = step_lib.make_training(
    config, model, made, step_lib.make_partition(config, model), STEPS
  )
  params = model_lib.init_params(model, made, seed=0)
  state = step_lib.new_state(training, params)
  result = []
  for batch in batches(model.vocab_size):
    placed = place.batch(training.abstract_batch, batch, slice(0, 8))
    state, metrics = training.step(state, placed, training.rates(state['step']))
    result.append(float(metrics['loss_sum'] / metrics['weight_sum']))
  assert result[-1] < result[0] - 1, 'equal losses would say little'
  return np.array(result)


@pytest.mark.parametrize('mesh', [(8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 1, 2)])
def test_a_mesh_trains_as_one_device_does(mesh):
  """A loss averaged per device, or weights that differ after a gather."""
  np.testing.assert_allclose(losses(mesh), losses(), rtol=0, atol=1e-5)


def test_rows_cut_over_devices_have_the_same_loss_and_gradients():
  """Positions, segments or dropout of another token than the one at hand."""
  c = architecture.Config(
    vocab_size=64,
    dim=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=24,
    vocab_multiple=64,
    init_std=0.3,
    lora=lora.make('layers/q_LDNH', rank=2, alpha=4.0),
  )
  params = weights.init(c, jax.random.key(0))
  params['lora'] = jax.tree.map(lambda x: x + 0.1, params['lora'])
  batch = next(batches(c.vocab_size))

  @functools.partial(jax.jit, static_argnums=1)
  def loss_and_gradients(params, mesh):
    def total(params):
      x_BTD = forward.hidden(
        params,
        c,
        batch['ids_BT'],
        positions_BT=batch['positions_BT'],
        segments_BT=batch['segments_BT'],
        execution=forward.Execution(compute_dtype='float32'),
        mesh=mesh,
        lora_dropout=0.5,
        dropout_key=jax.random.key(1),
      )
      return loss.sums(
        x_BTD,
        params['head_DV'],
        batch['targets_BT'],
        batch['weights_BT'],
        vocab_size=c.vocab_size,
        mesh=mesh,
      )['objective']

    return jax.value_and_grad(total)(params)

  over = {'context': 2, 'fsdp': 1, 'tensor': 2}
  mesh = sharding.make_mesh(over, devices=jax.devices()[:4])
  expected = loss_and_gradients(params, None)
  got = loss_and_gradients(params, mesh)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4),
    got,
    expected,
  )


@pytest.mark.parametrize('kind', ['lion', 'adafactor'])
def test_other_optimizers_train_over_a_mesh_as_on_one_device(kind):
  """Moments of another shape than their weights, laid out where they do not."""
  over_mesh = losses((1, 4, 1, 2), kind=kind)
  np.testing.assert_allclose(over_mesh, losses(kind=kind), rtol=0, atol=1e-4)


@pytest.mark.parametrize('how', [dict(scan=True), dict(remat='full')])
def test_scan_and_remat_train_alike(how):
  """A layer order or a recomputation that changes what is learnt."""
  np.testing.assert_allclose(losses(**how), losses(), rtol=0, atol=1e-5)


@pytest.mark.parametrize('mesh', [(1, 1, 1, 1), (2, 2, 1, 1)])
def test_microbatches_with_uneven_weights_train_as_the_whole_batch(mesh):
  """A mean of microbatch means weights tokens of short rows too much."""
  cut = losses(mesh, num_microbatches=2)
  np.testing.assert_allclose(cut, losses(), rtol=0, atol=1e-5)


def test_the_state_lies_in_shards():
  """A state that is replicated fits no large model."""
  config = common.base()
  config.model.update(dim=32, num_layers=2, num_heads=4, mlp_dim=64)
  config.data.update(seq_len=32, batch_size=8)
  mesh = sharding.make_mesh(dict(data=1, fsdp=4, context=1, tensor=2))

  model = model_lib.make_config(config, tokenizers.load('bytes'))
  training = step_lib.make_training(
    config, model, mesh, step_lib.make_partition(config, model), STEPS
  )
  state = step_lib.new_state(
    training, model_lib.init_params(model, mesh, seed=0)
  )
  big = [x for x in jax.tree.leaves(state) if x.size > 1000]
  assert len(big) == 3 * 9, 'parameters and two moments of 9 matrices'
  for x in big:
    assert x.addressable_shards[0].data.size * 8 == x.size


def test_bfloat16_gradients_learn_as_much_and_take_half():
  """Catches sums that are lost in the short dtype."""
  whole, half = losses(), losses(gradient_dtype='bfloat16')
  assert whole[0] - whole[-1] > 0.5
  np.testing.assert_allclose(half, whole, rtol=0.01)
  assert not np.array_equal(half, whole)
