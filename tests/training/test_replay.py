"""The replay check: flips are found and named, and nothing else is."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.mesh import sharding
from lbe.run import rollback
from lbe.training import optim
from lbe.training import replay
from lbe.vocab import tokenizers

import flips

REACH = optim.reach('adamw', b1=0.9, b2=0.95)
# Parameters that are cut four times and there twice, and norms on all devices.
MESHES = {1: {}, 8: dict(data=2, fsdp=4)}


@functools.cache
def built(num_devices):
  """(the step's shapes, the compiled step, a function that makes states)."""
  config = common.base()
  config.model.update(dim=16, num_layers=2, num_heads=2, mlp_dim=24)
  config.execution.compute_dtype = 'float32'
  config.data.update(seq_len=16, batch_size=8)
  config.optim.update(first_moment_dtype='bfloat16', skip_above=5.0)
  config.vocab_multiple = 8
  mesh = sharding.make_mesh(
    MESHES[num_devices], devices=jax.devices()[:num_devices]
  )
  c = model_lib.make_config(config, tokenizers.load('bytes'))
  partition = step_lib.make_partition(config, c)
  training = step_lib.make_training(config, c, mesh, partition, 100)
  traced = training.step.trace(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  )
  step = step_lib.compile_step(config, traced)

  def new_state():
    params = model_lib.init_params(c, mesh, seed=0)
    return step_lib.new_state(training, params)

  return training, step, new_state


def batch(training, step):
  rng = np.random.default_rng(step)
  return {
    name: jax.device_put(
      rng.integers(0, 50, x.shape).astype(x.dtype)
      if name in ('ids_BT', 'targets_BT')
      else np.ones(x.shape, x.dtype),
      x.sharding,
    )
    for name, x in training.abstract_batch.items()
  }


def take(check, training, train_step, state, steps):
  """The state and the metrics behind these steps."""
  for step in steps:
    rates = training.rates(state['step'])
    state, metrics = check(
      step, train_step, state, batch(training, step), rates
    )
  return state, metrics


def make(training, every):
  return replay.Replay(
    training.mesh, training.abstract_state, every=every, reach=REACH
  )


def begun(num_devices, *, every):
  training, train_step, new_state = built(num_devices)
  check = make(training, every)
  state = new_state()
  check.begin(state)
  return check, training, train_step, state


@pytest.mark.parametrize('num_devices', MESHES)
def test_without_a_fault_there_is_no_alarm_and_no_other_number(num_devices):
  """An alarm of its own would throw a sound run back again and again."""
  check, training, train_step, state = begun(num_devices, every=2)
  off = make(training, 0)
  plain = take(off, training, train_step, built(num_devices)[2](), range(1, 6))
  looked_at = take(check, training, train_step, state, range(1, 6))
  check.look(5, looked_at[0])
  jax.tree.map(np.testing.assert_array_equal, looked_at, plain)


@pytest.mark.parametrize('num_devices', MESHES)
def test_a_flip_at_rest_is_named_in_each_part_of_the_state(num_devices):
  """Weights, moments (here in 16 bits, too), counts: array, bit and device."""
  check, training, train_step, state = begun(num_devices, every=100)
  state, _ = take(check, training, train_step, state, [1])
  found = set()
  for i, (path, x) in enumerate(jax.tree_util.tree_leaves_with_path(state)):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    check.look(1, state)
    at = dict(device=i % num_devices, byte=1, bit=i % 8)
    flips.flip(x, **at)
    told = (
      f'before step 2: the state is not as the step before left it: {name} (as '
      f'by bit {8 + i % 8} of one number) on device {at["device"]} (cpu) of '
      'process 0 ('
    )
    with pytest.raises(rollback.Alarm, match=re.escape(told)) as alarm:
      check.look(1, state)
    assert alarm.value.passes
    assert ' and ' not in str(alarm.value), 'nothing else differs'
    flips.flip(x, **at)  # back
    found.add(name.split('/')[0])
  assert found == {'params', 'opt_state', 'step', 'usual_norm'}


def test_a_flip_between_steps_is_told_where_it_is_looked_for():
  """The device is not waited for: what was seen is kept until then."""
  check, training, train_step, state = begun(1, every=100)
  state, _ = take(check, training, train_step, state, [1, 2])
  check.look(2, state)
  flips.flip(state['params']['head_DV'], byte=3, bit=6)
  state, _ = take(check, training, train_step, state, [3, 4])
  with pytest.raises(rollback.Alarm, match='before step 3: .* params/head_DV'):
    check.look(4, state)


def test_one_copy_that_is_not_like_the_others_is_named():
  """One device computes another update: as each left it, so it was found."""
  check, training, train_step, state = begun(8, every=100)
  state, _ = take(check, training, train_step, state, [1])
  check.look(1, state)
  flips.flip(state['params']['final_norm_D'], device=6, byte=2, bit=3)
  check.begin(state)
  told = r'copies .* differ .*: params/final_norm_D on device 6 \(cpu\)'
  with pytest.raises(rollback.Alarm, match=told):
    check.look(1, state)


def wrong(train_step, of, *, calls):
  """The step with a bit of its result flipped in these calls."""
  count = 0

  def computed(state, batch, rates):
    nonlocal count
    count += 1
    result = train_step(state, batch, rates)
    if count in calls:
      flips.flip(of(*result), byte=2, bit=count % 8)
    return result

  return computed


@pytest.mark.parametrize('num_devices', MESHES)
@pytest.mark.parametrize(
  'name, of',
  [
    ('params/embed_VD', lambda state, metrics: state['params']['embed_VD']),
    ('metrics/loss_sum', lambda state, metrics: metrics['loss_sum']),
  ],
)
@pytest.mark.parametrize('call', [2, 3])
def test_a_step_that_computes_wrongly_once_is_found(
  num_devices, name, of, call
):
  """In either computation; the fault has passed, so that going back helps."""
  check, training, train_step, state = begun(num_devices, every=2)
  faulty = wrong(train_step, of, calls=[call])
  told = f'step 2: computed twice .* two results: {name} on device 0 .* 3 more'
  with pytest.raises(rollback.Alarm, match=told) as alarm:
    take(check, training, faulty, state, [1, 2])
  assert alarm.value.passes


def test_a_device_or_a_program_that_never_agrees_is_told_as_such():
  """Going back by itself would alarm again, and again."""
  check, training, train_step, state = begun(1, every=2)
  faulty = wrong(
    train_step, lambda state, _: state['params']['head_DV'], calls=range(99)
  )
  told = '3 of 3 more pairs differ as well: .*xla_gpu_deterministic_ops=true'
  with pytest.raises(rollback.Alarm, match=told) as alarm:
    take(check, training, faulty, state, [1, 2])
  assert not alarm.value.passes


def test_a_copy_that_differs_is_no_fault_of_computing():
  """Memory that garbles while the step computes."""
  check, training, train_step, state = begun(1, every=2)
  made = check._copy

  def garbled(state):
    copy = made(state)
    jax.block_until_ready(check._digest(state))
    flips.flip(copy['params']['head_DV'])
    return copy

  check._copy = garbled
  with pytest.raises(rollback.Alarm, match='step 2: a copy of the state .*'):
    take(check, training, train_step, state, [1, 2])


@pytest.mark.parametrize('value', [1e3, -4.0])
@pytest.mark.parametrize('num_devices', MESHES)
def test_a_weight_beyond_what_the_optimizer_does_is_found(num_devices, value):
  """A bit that flips inside a step that is computed once, as any other did."""
  check, training, train_step, state = begun(num_devices, every=100)

  def garbled(state, batch, rates):
    x = state['params']['head_DV']
    at = jnp.arange(x.size).reshape(x.shape) == 5
    x = jax.device_put(jnp.where(at, value, x), x.sharding)
    state = {**state, 'params': {**state['params'], 'head_DV': x}}
    return train_step(state, batch, rates)

  state, _ = take(check, training, train_step, state, [1, 2])
  check.look(2, state)
  state, _ = take(check, training, garbled, state, [3])
  state, _ = take(check, training, train_step, state, [4])
  told = 'step 4: a weight is larger than .* looked at: params/head_DV'
  with pytest.raises(rollback.Alarm, match=told) as alarm:
    check.look(4, state)
  assert alarm.value.passes


def test_off_it_looks_at_nothing():
  """Who does not ask for it does not pay for it."""
  training, *_ = built(1)
  off = make(training, 0)
  given = object(), object(), object()  # no arrays: nothing could add them up
  assert off(7, lambda *step: step, *given) == given
  off.begin(given[0])
  off.look(7, given[0])
  assert off.part(7) == 'the step'
