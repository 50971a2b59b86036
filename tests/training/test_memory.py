"""The memory of a train step: planned as compiled, refused where too much."""

import re

import jax
import jax.numpy as jnp
import pytest

from lbe.assemble import model as model_lib
from lbe.assemble import step as assembled
from lbe.configs import common
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.training import groups
from lbe.training import memory
from lbe.training import step as step_lib
from lbe.vocab import tokenizers

import tiny


def test_the_estimate_is_near_what_the_compiler_says():
  """A plan that is off by half ends in an hour's wait and no memory."""
  c = architecture.Config(
    vocab_size=4096,
    dim=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    mlp_dim=352,
  )
  partition = groups.Partition([tiny.everything(0.1)], weights.dims(c))
  make_tx = tiny.make_tx(partition)
  tx = make_tx({'rest': 0.1})
  mesh = sharding.make_mesh(
    dict(data=1, fsdp=1, context=1, tensor=1), devices=jax.devices()[:1]
  )
  B, T = 4, 256
  shapes = jax.eval_shape(
    lambda p: step_lib.init_state(p, tx, partition), weights.shapes(c)
  )
  rows = jax.ShapeDtypeStruct((B, T), jnp.int32)
  of = {k: rows for k in ('ids_BT', 'targets_BT')}
  of |= {k: rows for k in ('positions_BT', 'segments_BT')}
  of['weights_BT'] = jax.ShapeDtypeStruct((B, T), jnp.float32)
  of['num_bytes_B'] = jax.ShapeDtypeStruct((B,), jnp.int32)
  for remat in ('none', 'dots', 'attention', 'full'):
    execution = forward.Execution(compute_dtype='float32', remat=remat)
    run = step_lib.make_train_step(
      c,
      execution=execution,
      make_tx=make_tx,
      partition=partition,
      mesh=mesh,
      **tiny.STEP,
    )
    stated = (
      jax.jit(run, donate_argnums=0).lower(shapes, of, {'rest': 0.1}).compile()
    ).memory_analysis()
    said = stated.argument_size_in_bytes + stated.temp_size_in_bytes
    planned = sum(
      memory.estimate(
        shapes,
        c,
        partition=partition,
        mesh=mesh,
        batch_size=B,
        seq_len=T,
        num_microbatches=1,
        execution=execution,
        gradient_dtype='float32',
      ).values()
    )
    assert 0.6 < planned / said < 1.67, (remat, planned, said)


@pytest.mark.parametrize('axis', ['data', 'context', 'fsdp', 'tensor'])
def test_the_state_is_cut_as_the_mesh_cuts_it(axis):
  """Over data and context it lies whole on each device; it was divided."""
  c = tiny.TINY
  partition = groups.Partition([tiny.everything(0.1)], weights.dims(c))
  tx = tiny.make_tx(partition)({'rest': 0.1})
  state = jax.eval_shape(
    lambda p: step_lib.init_state(p, tx, partition), weights.shapes(c)
  )

  def estimated(**sizes):
    mesh = sharding.make_mesh(
      dict(data=1, fsdp=1, context=1, tensor=1) | sizes,
      devices=jax.devices()[: 2 if sizes else 1],
    )
    found = memory.estimate(
      state,
      c,
      partition=partition,
      mesh=mesh,
      batch_size=4,
      seq_len=16,
      num_microbatches=1,
      execution=forward.Execution(compute_dtype='float32'),
      gradient_dtype='float32',
    )
    return [found[x] for x in ('parameters', 'optimizer', 'gradients')]

  parts = 2 if axis in ('fsdp', 'tensor') else 1
  assert estimated(**{axis: 2}) == [x / parts for x in estimated()]


def test_a_donated_state_is_not_copied():
  """A CPU's compiler copied all of it at every step, for want of an order."""
  config = common.base()
  config.model.update(dim=16, num_layers=2, num_heads=2, mlp_dim=24)
  config.data.update(seq_len=16, batch_size=8)
  mesh = sharding.make_mesh({}, devices=jax.devices()[:1])
  c = model_lib.make_config(config, tokenizers.load('bytes'))
  partition = assembled.make_partition(config, c)
  training = assembled.make_training(config, c, mesh, partition, 100)
  compiled = training.step.lower(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  ).compile()
  arguments = len(jax.tree.leaves(training.abstract_state))
  text = compiled.as_text()
  assert len(set(re.findall(r'%(state\w+)', text))) >= arguments
  assert not re.findall(r' copy\(%(state\w+)', text)


def test_a_state_that_cannot_fit_is_refused_with_the_ways_out():
  """Catches a run out of memory an hour after its data was tokenized."""
  parts = dict(
    parameters=3 * 2**30, optimizer=6 * 2**30, gradients=2**30, activations=0
  )
  with pytest.raises(ValueError, match='take 10.0 GiB on each device, which'):
    memory.check(parts, 9 * 2**30)
  memory.check(parts, 11 * 2**30)
  memory.check(parts, None)
