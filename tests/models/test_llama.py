"""The Flax door: an nnx.Module with the numbers of programs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from flax import nnx

from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import llama
from lbe.models import weights
from lbe.training import groups
from lbe.training import step as step_lib

import tiny

FP32 = forward.Execution(compute_dtype='float32')
# With 1e-8 Adam divides gradients that cancel by their last bits: one element
# of 4,096 then differs by 1.1e-6, with a learning rate of 0.01 to 0.03.
OPTIMIZER = dict(b1=0.9, b2=0.95, eps=1e-4)


def batch(seed):
  """Packed rows, of which some targets do not count."""
  result = tiny.batch(seed)
  result['weights_BT'][0, 3:] = 0
  for name, row in (
    ('positions_BT', [0, 1, 2, 0, 1, 2, 3, 0]),
    ('segments_BT', [1, 1, 1, 2, 2, 2, 2, 0]),
    ('weights_BT', [1, 1, 0, 1, 1, 1, 0, 0]),
  ):
    result[name][1] = row
  return result


def schedule(step):
  return 0.01 * (step + 1)


def by_programs(params):
  """(the loss of each of three steps, the parameters behind them)."""
  partition = groups.Partition([tiny.everything(0.1)], weights.dims(tiny.TINY))
  make_tx = tiny.make_tx(partition, **{'clip_norm': 0.1} | OPTIMIZER)
  run = step_lib.make_train_step(
    tiny.TINY,
    execution=FP32,
    make_tx=make_tx,
    partition=partition,
    mesh=sharding.make_mesh({}, devices=jax.devices()[:1]),
    **tiny.STEP,
  )
  losses, state = (
    [],
    step_lib.init_state(params, make_tx({'rest': 0.0}), partition),
  )
  for i in range(3):
    state, metrics = jax.jit(run)(state, batch(i), {'rest': schedule(i)})
    losses.append(metrics['loss_sum'] / metrics['weight_sum'])
  return losses, state['params']


def test_three_steps_under_nnx_have_the_numbers_of_our_own():
  """A module whose gradients or names are not those of programs."""
  model = llama.Llama(tiny.TINY, rngs=nnx.Rngs(0), execution=FP32)
  params = nnx.to_pure_dict(nnx.state(model))
  expected_losses, expected = by_programs(params)

  def is_decayed(params):
    return jax.tree_util.tree_map_with_path(
      lambda path, _: 'norm' not in jax.tree_util.keystr(path), params
    )

  optimizer = nnx.Optimizer(
    model,
    optax.chain(
      optax.clip_by_global_norm(0.1),
      optax.adamw(schedule, weight_decay=0.1, mask=is_decayed, **OPTIMIZER),
    ),
    wrt=nnx.Param,
  )

  @nnx.jit
  def train_step(model, optimizer, batch):
    def mean_loss(model):
      logits_BTV = model(
        batch['ids_BT'],
        positions_BT=batch['positions_BT'],
        segments_BT=batch['segments_BT'],
      )
      loss_BT = optax.softmax_cross_entropy_with_integer_labels(
        logits_BTV, batch['targets_BT']
      )
      return jnp.average(loss_BT, weights=batch['weights_BT'])

    loss, grads = nnx.value_and_grad(mean_loss)(model)
    optimizer.update(model, grads)
    return loss

  losses = [train_step(model, optimizer, batch(i)) for i in range(3)]
  # Not to the bit: optax sums over the vocabulary in another order.
  np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
  after = weights.flatten(nnx.to_pure_dict(nnx.state(model)))
  for name, x in weights.flatten(expected).items():
    assert np.abs(x - weights.flatten(params)[name]).max() > 1e-3, name
    np.testing.assert_allclose(after[name], x, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('tied', [False, True])
def test_its_state_is_the_parameter_tree_and_its_logits_are_ours(tied):
  """A module that needs a conversion, or another forward pass."""
  c = dataclasses.replace(tiny.TINY, tied=tied)
  params = weights.init(c, jax.random.key(1))
  model = llama.Llama.from_params(c, params, execution=FP32)
  jax.tree.map(
    np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), params
  )
  of = batch(0)
  rows = {name: of[name] for name in ('positions_BT', 'segments_BT')}

  @functools.partial(jax.jit, static_argnames='c')
  def ours(params, c):
    x_BTD = forward.hidden(params, c, of['ids_BT'], execution=FP32, **rows)
    return forward.logits(params, c, x_BTD)

  graph, state = nnx.split(model)
  found_BTV = jax.jit(
    lambda state: nnx.merge(graph, state)(of['ids_BT'], **rows)
  )(state)
  assert found_BTV.shape == (4, 8, 50) and found_BTV.dtype == jnp.float32
  np.testing.assert_array_equal(found_BTV, ours(params, c)[..., :50])


def test_it_loads_a_hugging_face_folder_with_the_logits_of_transformers(
  test_data,
):
  """A door that loses a weight, a row or an epsilon."""
  folder = test_data / 'ckpt_hf_tiny_random_llama'
  model = llama.Llama.load(folder)
  ids_BT = np.random.default_rng(0).integers(0, 32000, (2, 40))
  theirs = transformers.LlamaForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  ).eval()
  with torch.no_grad():
    theirs_BTV = theirs(torch.tensor(ids_BT)).logits.numpy()
  np.testing.assert_allclose(model(ids_BT), theirs_BTV, atol=1e-4)
  row = ids_BT[:1].tolist()
  np.testing.assert_allclose(model(row), theirs_BTV[:1], atol=1e-4)
