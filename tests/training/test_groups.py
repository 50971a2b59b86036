"""Groups: what is frozen stays to the bit, what waits waits."""

import jax
import numpy as np
import optax
import pytest

from lbe.assemble import model
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.mesh import sharding
from lbe.models import weights

import tiny

NUM_OLD = 40
STEPS = 20


def config(*, skip_above=0.0, **changes):
  """Every named group by its changed fields."""
  made = common.base()
  made.optim.skip_above = skip_above
  made.data.batch_size, made.data.seq_len = 4, 8
  made.execution.compute_dtype = 'float32'
  made.optim.peak_lr = 0.01
  for name, fields in changes.items():
    if name not in made.optim.groups:
      made.optim.groups[name] = common.group()
    made.optim.groups[name].update(fields)
  return made


def train(num_steps, shape=(1, 1, 1), **changes):
  """[state's parameters after each step], metrics, the last state."""
  made = config(**changes)
  data, fsdp, tensor = shape
  mesh = sharding.make_mesh(
    dict(data=data, fsdp=fsdp, context=1, tensor=tensor),
    devices=jax.devices()[: data * fsdp * tensor],
  )
  partition = step_lib.make_partition(made, tiny.TINY, num_old=NUM_OLD)
  training = step_lib.make_training(made, tiny.TINY, mesh, partition, STEPS)
  state = step_lib.new_state(
    training, model.init_params(tiny.TINY, mesh, made.seed)
  )
  path, metrics = [jax.device_get(state['params'])], []
  for step in range(num_steps):
    rows = jax.device_put(
      tiny.batch(step),
      {k: x.sharding for k, x in training.abstract_batch.items()},
    )
    state, found = training.step(state, rows, training.rates(state['step']))
    path.append(jax.device_get(state['params']))
    metrics.append(jax.device_get(found))
  return path, metrics, state


def bits(x):
  return np.asarray(x).view(np.uint32)


NEW_ONLY = dict(old_rows=dict(frozen=True), body=dict(frozen=True))


@pytest.mark.parametrize('shape', [(1, 1, 1), (2, 2, 2)])
def test_new_rows_alone_leave_everything_else_to_the_bit(shape):
  """Weight decay or a moment that reaches an old row moves old text."""
  (before, *_, after), _, state = train(3, shape, **NEW_ONLY)
  for name, x in weights.flatten(before).items():
    y = weights.flatten(after)[name]
    if name in ('embed_VD', 'head_DV'):
      x, y = (z if name == 'embed_VD' else z.T for z in (x, y))
      assert np.any(x[NUM_OLD:50] != y[NUM_OLD:50]), name
      assert not np.any(y[50:]), 'padding rows'
      x, y = x[:NUM_OLD], y[:NUM_OLD]
    np.testing.assert_array_equal(bits(x), bits(y), err_msg=name)
  new_rows = (tiny.TINY.padded_vocab_size - NUM_OLD) * tiny.TINY.dim
  moments = [x.size for x in jax.tree.leaves(state['opt_state']) if x.ndim]
  assert moments == [new_rows] * 4, 'two of each matrix, and of nothing else'


def test_groups_that_say_the_same_change_nothing():
  """Cutting matrices and partitioning Adam is only bookkeeping."""
  alone = train(4)[0][-1]
  same = dict(peak_lr=0.01)
  cut = train(4, old_rows=same, body=same)[0][-1]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
    alone,
    cut,
  )


def test_a_group_begins_at_its_step_as_if_that_were_its_first():
  """Moments gathered before would make the first steps too small."""
  path, metrics, _ = train(4, body=dict(from_step=2))
  for name, x in path[0]['layers'].items():
    np.testing.assert_array_equal(bits(x), bits(path[2]['layers'][name]))
    assert np.any(x != path[3]['layers'][name]), name
  assert np.any(path[0]['embed_VD'] != path[1]['embed_VD'])
  rates = [m['learning_rates']['body'] for m in metrics]
  own = step_lib.make_schedules(config(), STEPS - 2)['rest']
  np.testing.assert_allclose(rates, [0, 0, own(0), own(1)], rtol=1e-6)
  # Adam's first update is the rate itself, whatever the gradient's size.
  step = path[3]['layers']['q_LDNH'] - path[2]['layers']['q_LDNH']
  decay = own(0) * 0.1 * np.abs(path[2]['layers']['q_LDNH']).max()
  assert np.isclose(np.abs(step), own(0), atol=decay, rtol=1e-2).mean() > 0.95


def test_the_usual_norm_begins_anew_with_a_group():
  """The norm of all layers beside that of the new rows: every step was skipped
  as a spike, until the run ended for good."""
  made = dict(body=dict(from_step=2), old_rows=dict(frozen=True))
  path, metrics, state = train(4, skip_above=1.0001, **made)
  alone, whole = metrics[1]['grad_norm'], metrics[2]['grad_norm']
  assert whole > 1.0001 * alone
  assert not metrics[2]['is_spike']
  assert np.any(path[2]['layers']['q_LDNH'] != path[3]['layers']['q_LDNH'])
  assert state['usual_norm'] >= np.float32(whole) * 0.9


def test_what_does_not_learn_yet_does_not_weigh_in_the_clipping():
  """The norm of layers that wait would scale the new rows' gradient."""
  metrics = train(1, body=dict(from_step=2))[1]
  frozen = train(1, body=dict(frozen=True))[1]
  everything = train(1)[1]
  assert metrics[0]['grad_norm'] == pytest.approx(frozen[0]['grad_norm'])
  assert metrics[0]['grad_norm'] < everything[0]['grad_norm']


def test_rate_and_decay_are_the_groups_own():
  """A decay of 0 is a setting, not the lack of one."""
  path, metrics, _ = train(
    1,
    body=dict(peak_lr=0.0),
    embed=dict(params='embed_VD', peak_lr=1.0, weight_decay=0.0),
  )
  rates = metrics[0]['learning_rates']
  assert rates['body'] == 0 and rates['embed'] == 100 * rates['rest']
  jax.tree.map(np.testing.assert_array_equal, *(p['layers'] for p in path))
  no_decay = path[1]['embed_VD'] - path[0]['embed_VD']
  gradient_free = np.setdiff1d(np.arange(50), tiny.batch(0)['ids_BT'])
  assert gradient_free.size and not no_decay[gradient_free].any()
  assert config(x=dict(weight_decay=0.0)).optim.groups.x.weight_decay == 0.0


def test_microbatches_accumulate_what_learns_only():
  """Sums of frozen gradients would need the memory of a whole model."""
  made = config(**NEW_ONLY)
  results = []
  for num_microbatches in (1, 2):
    made.num_microbatches = num_microbatches
    mesh = sharding.make_mesh(
      dict(data=1, fsdp=1, context=1, tensor=1), devices=jax.devices()[:1]
    )
    partition = step_lib.make_partition(made, tiny.TINY, num_old=NUM_OLD)
    training = step_lib.make_training(made, tiny.TINY, mesh, partition, STEPS)
    state = step_lib.new_state(training, model.init_params(tiny.TINY, mesh, 0))
    results.append(
      training.step(state, tiny.batch(), training.rates(state['step']))[0][
        'params'
      ]
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *results
  )


def test_of_groups_that_match_the_first_by_name_has_a_parameter():
  """Who trusts the order of a config would train what was to be frozen."""
  wanted = dict(params='embed_VD')
  for order in (('a', 'b'), ('b', 'a')):
    changes = {name: dict(wanted, peak_lr=0.1) for name in order}
    with pytest.raises(
      ValueError, match='b has no parameter: .* an earlier name'
    ):
      step_lib.make_partition(config(**changes), tiny.TINY, num_old=NUM_OLD)


def test_split_and_join_are_inverse_to_each_other():
  """Head and embedding are cut along different axes."""
  partition = step_lib.make_partition(
    config(old_rows=dict(frozen=True)), tiny.TINY, num_old=NUM_OLD
  )
  params = weights.init(tiny.TINY, jax.random.key(0))
  learning, frozen = partition.split(params)
  assert frozen['embed_VD']['old'].shape == (NUM_OLD, 32)
  assert frozen['head_DV']['old'].shape == (32, NUM_OLD)
  assert learning['head_DV']['new'].shape == (32, 128 - NUM_OLD)
  jax.tree.map(
    np.testing.assert_array_equal, params, partition.join(learning, frozen)
  )
  told = partition.describe(params)
  frozen_size = 2 * 32 * NUM_OLD
  assert f'old_rows: {frozen_size:,}, frozen' in told
  total = optax.tree.size(params)
  assert told.startswith(f'{total - frozen_size:,} of {total:,} parameters')


@pytest.mark.parametrize(
  'changes, words',
  [
    (
      dict(x=dict(params='layer/q', frozen=True)),
      'x has no parameter: .*embed',
    ),
    (dict(x=dict(params='(', frozen=True)), 'is no regular expression'),
    (dict(x=dict(rows='odd', frozen=True)), "rows='odd' is unknown; take one"),
    (dict(x=dict(from_step=-1)), 'from_step=-1 lies before the run'),
    (dict(rest=dict(peak_lr=0.1)), 'optim.groups.rest: that name has what no'),
    (dict(x=dict(frozen=True)), 'every parameter is frozen'),
    (dict(x=dict(schedule='cos')), "schedule='cos' is unknown"),
  ],
)
def test_groups_that_cannot_be_are_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    step_lib.make_partition(config(**changes), tiny.TINY, num_old=NUM_OLD)


def test_a_group_that_begins_behind_the_end_is_refused():
  """It would never learn, without a word."""
  with pytest.raises(ValueError, match='from_step=20 does not lie within the'):
    step_lib.make_schedules(config(x=dict(from_step=20)), 20)
  step_lib.make_schedules(config(x=dict(from_step=19)), 20)


def test_rows_without_an_extension_are_refused():
  """Half of a vocabulary that was never cut is nobody's half."""
  made = config(old_rows=dict(frozen=True))
  with pytest.raises(ValueError, match='no vocabulary was extended'):
    step_lib.make_partition(made, tiny.TINY)
