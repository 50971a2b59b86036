"""Does the replay check find bits that flip while a model trains?

  PYTHONPATH=. python benchmarks/bit_flips.py  # behind `taskset -c 0`: faster
  PYTHONPATH=. python benchmarks/bit_flips.py --pairs=7   # what it costs, alone

A small model learns the bytes of the English sample. In each trial one bit
flips: of weights or moments that lie between two steps (in memory, in place),
or of weights, moments or gradients that a step takes (in one computation of
it, inside the compiled program). Numbers, bits and steps are drawn evenly from
a seed. A trial goes on from the undisturbed run's state to the end of its 100
steps; what held-out rows lose there says what the flip did. Harmful is one that
moves that loss by more than HARMFUL nats a token.

With every step computed twice (k = 1) all that changes a bit has to be found,
and nothing in 10,000 undisturbed steps. With one step in 100 the rows say what
found which flips, and what nothing found.
"""

import collections
import ctypes
import importlib.resources
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app
from absl import flags

from benchmarks import record
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.run import rollback
from lbe.training import groups
from lbe.training import optim
from lbe.training import replay
from lbe.training import step as step_lib

_TRIALS = flags.DEFINE_integer('trials', 1000, 'Flips, of all kinds together.')
_STEPS = flags.DEFINE_integer('steps', 10_000, 'Of the undisturbed run.')
_PAIRS = flags.DEFINE_integer('pairs', 0, 'Of alternating spans: the cost.')

HARMFUL = 0.01
_KINDS = (
  'weights at rest',
  'moments at rest',
  'weights in a step',
  'moments in a step',
  'gradients in a step',
)
_BEFORE, _SPAN = 100, 100  # steps that all trials share, and of each
_LOG_EVERY = 10
_RATE = 3e-3
_ADAM = dict(kind='adamw', b1=0.9, b2=0.95)
_SMALL = dict(
  vocab_size=256,
  dim=32,
  num_layers=2,
  num_heads=2,
  num_kv_heads=2,
  head_dim=16,
  mlp_dim=64,
)
_LARGER = dict(
  vocab_size=256,
  dim=256,
  num_layers=6,
  num_heads=8,
  num_kv_heads=8,
  head_dim=32,
  mlp_dim=688,
)
_NO_FLIP = {'array': -1, 'number': 0, 'bit': 0}
_EXECUTION = forward.Execution(compute_dtype='float32')


def _bits(x):
  kinds = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
  return kinds[x.dtype.itemsize]


def _flipped(tree, flip, *, first):
  """The tree with the bit flipped, if it is in one of its arrays.

  Arrays count from `first`.
  """
  arrays, treedef = jax.tree.flatten(tree)
  for i, x in enumerate(arrays):
    bits = jax.lax.bitcast_convert_type(x, _bits(x)).ravel()
    one = jnp.left_shift(1, flip['bit']).astype(bits.dtype)
    one = jnp.where(flip['array'] == first + i, one, 0).astype(bits.dtype)
    at = jnp.minimum(flip['number'], bits.size - 1)
    bits = bits.at[at].set(bits[at] ^ one)
    arrays[i] = jax.lax.bitcast_convert_type(bits, x.dtype).reshape(x.shape)
  return jax.tree.unflatten(treedef, arrays)


class _Partition(groups.Partition):
  """Every parameter in one group; gradients pass `flip` on their way."""

  def __init__(self, dims, flip, first):
    group = groups.Group(
      'rest', 0.1, params='.*', rows='all', frozen=False, from_step=0
    )
    super().__init__([group], dims)
    self._flip, self._first = flip, first

  def begun(self, d_learning, step):
    return _flipped(d_learning, self._flip, first=self._first)


class _Run:
  """A model, its compiled step, and batches of the sample's bytes."""

  def __init__(self, shape, *, rows, seq_len):
    self._rows, self._seq_len = rows, seq_len
    self._config = c = architecture.Config(**shape)
    self.mesh = sharding.make_mesh({}, devices=jax.devices()[:1])
    dims = weights.dims(c)
    partition = _Partition(dims, _NO_FLIP, 0)

    def make_tx(rates):
      schedules = {k: optax.constant_schedule(x) for k, x in rates.items()}
      return optim.make(
        partition,
        schedules,
        **_ADAM,
        eps=1e-8,
        clip_norm=1.0,
        first_moment_dtype='float32',
      )

    tx = make_tx({'rest': 0.0})
    shardings = step_lib.state_shardings(
      self.mesh, c, tx, partition, skips_spikes=True
    )
    self._init = jax.jit(
      lambda: step_lib.init_state(
        weights.init(c, jax.random.key(0)), tx, partition, skips_spikes=True
      ),
      out_shardings=shardings,
    )
    self.shapes = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      jax.eval_shape(self._init),
      shardings,
    )
    self.num_arrays = len(jax.tree.leaves(self.shapes))

    def step(state, batch, rates, flip):
      taken = step_lib.make_train_step(
        c,
        execution=_EXECUTION,
        make_tx=make_tx,
        partition=_Partition(dims, flip, self.num_arrays),
        mesh=self.mesh,
        num_microbatches=1,
        lora_dropout=0.0,
        z_loss=0.0,
        gradient_dtype='float32',
        seed=0,
        skip_above=5.0,
      )
      return taken(_flipped(state, flip, first=0), batch, rates)

    self._step = jax.jit(
      step, donate_argnums=0, out_shardings=(shardings, None)
    )
    self.copy = jax.jit(
      lambda state: jax.tree.map(jnp.copy, state), out_shardings=shardings
    )
    self.rates = {'rest': jnp.float32(_RATE)}
    path = importlib.resources.files('lbe') / 'data' / 'sample' / 'en.txt'
    text = np.frombuffer(path.read_bytes(), np.uint8).astype(np.int32)
    self._text, self._held_out = (
      text[: -len(text) // 8],
      text[-len(text) // 8 :],
    )
    self._batches = [
      self._batch(self._text, rows, seed) for seed in range(2 * _SPAN)
    ]
    self._scored = self._batch(self._held_out, 64, 0)
    self._loss = jax.jit(
      lambda params, batch: step_lib.batch_sums(
        params,
        batch,
        c,
        execution=_EXECUTION,
        mesh=self.mesh,
        z_loss=0.0,
      )['loss_sum']
    )

  def _batch(self, text, rows, seed):
    T = self._seq_len
    starts = np.random.default_rng(seed).integers(0, len(text) - T - 1, rows)
    ids_BS = text[starts[:, None] + np.arange(T + 1)]
    made = {
      'ids_BT': ids_BS[:, :-1],
      'targets_BT': ids_BS[:, 1:],
      'weights_BT': np.ones((rows, T), np.float32),
      'positions_BT': np.tile(np.arange(T, dtype=np.int32), (rows, 1)),
      'segments_BT': np.ones((rows, T), np.int32),
      'num_bytes_B': np.full(rows, T, np.int32),
    }
    shapes = place.batch_shapes(self.mesh, rows, T)
    return {k: jax.device_put(x, shapes[k].sharding) for k, x in made.items()}

  def new_state(self):
    return self._init()

  def batch(self, step):
    return self._batches[(step - 1) % len(self._batches)]

  def step(self, state, batch, rates):
    return self._step(state, batch, rates, _NO_FLIP)

  def flipping(self, flip, computation):
    """The step of which one computation, from 0, has the flip."""
    count = 0

    def step(state, batch, rates):
      nonlocal count
      count += 1
      its = flip if count - 1 == computation else _NO_FLIP
      return self._step(state, batch, rates, its)

    return step

  def loss(self, state):
    """Nats a token of held-out rows."""
    rows = self._scored['ids_BT'].size
    return float(self._loss(state['params'], self._scored)) / rows


def _flip_in_place(x, number, bit):
  byte = number * x.dtype.itemsize + bit // 8
  address = x.addressable_shards[0].data.unsafe_buffer_pointer() + byte
  ctypes.c_uint8.from_address(address).value ^= 1 << (bit % 8)


def _same(a, b):
  return all(
    np.asarray(x).tobytes() == np.asarray(y).tobytes()
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


class _Campaign:
  """The undisturbed run of all trials, and a check of each k."""

  def __init__(self):
    self._run = run = _Run(_SMALL, rows=4, seq_len=32)
    state = run.new_state()
    self._states, told = [], []  # before each step, and behind the last
    for step in range(1, _BEFORE + _SPAN + 1):
      if step > _BEFORE:
        self._states.append(run.copy(state))
      state, metrics = run.step(state, run.batch(step), run.rates)
      told.append(metrics)
    self._states.append(state)
    assert not _guarded(told[_BEFORE:]), 'the undisturbed run has spikes'
    self.losses = [run.loss(self._states[0]), run.loss(state)]
    self._checks = {k: _check(run, k) for k in (0, 1, _SPAN)}
    names = [
      jax.tree_util.keystr(path, simple=True, separator='/')
      for path, _ in jax.tree_util.tree_leaves_with_path(run.shapes)
    ]
    self._sizes = [x.size for x in jax.tree.leaves(run.shapes)]
    self.num_weights = weights.num_params(architecture.Config(**_SMALL))
    self._parts = {
      'weights': [i for i, x in enumerate(names) if x.startswith('params')],
      'moments': [i for i, x in enumerate(names) if x.startswith('opt_state')],
    }

  def draw(self, kind, rng):
    """(the step, the flip, and in which computation) of a trial."""
    step = _BEFORE + int(rng.integers(1, _SPAN + 1))
    of_gradient = kind.startswith('gradients')
    of = self._parts['weights' if of_gradient else kind.split()[0]]
    sizes = np.array([self._sizes[i] for i in of])
    number = int(rng.integers(sizes.sum()))
    which = int(np.searchsorted(np.cumsum(sizes), number, side='right'))
    flip = {
      # Gradients lie in the order of the weights, behind the state.
      'array': self._run.num_arrays + which if of_gradient else of[which],
      'number': number - int(sizes[:which].sum()),
      'bit': int(rng.integers(32)),
    }
    return step, flip, int(rng.integers(2))

  def _begun(self, k, kind, step, flip, computation):
    """(the check, the state before the step, what takes the step)."""
    run, check = self._run, self._checks[k]
    state = run.copy(self._states[step - _BEFORE - 1])
    check.begin(state)
    check.look(step - 1, state)  # what will change has been read
    if kind.endswith('rest'):
      array = jax.tree.leaves(state)[flip['array']]
      _flip_in_place(array, flip['number'], flip['bit'])
      return check, state, run.step
    only = k != 1 and step % _SPAN
    return check, state, run.flipping(flip, 0 if only else computation)

  def _taken(self, k, kind, drawn, last):
    """(the state, metrics of each step) behind the last step."""
    check, state, train_step = self._begun(k, kind, *drawn)
    run, told = self._run, []
    for step in range(drawn[0], last + 1):
      state, metrics = check(
        step, train_step, state, run.batch(step), run.rates
      )
      if step % _LOG_EVERY == 0 or step == last:
        check.look(step, state)
      told.append(metrics)
    return state, told

  def every_step(self, kind, drawn):
    """What found a flip where each step is computed twice."""
    try:
      state, _ = self._taken(1, kind, drawn, drawn[0])
    except rollback.Alarm as alarm:
      return _found_by(alarm)
    same = _same(state, self._states[drawn[0] - _BEFORE])
    return _UNCHANGED if same else 'nothing'

  def to_the_end(self, kind, drawn):
    """(what found a flip at k = 100, change of the loss without a check)."""
    last, found = _BEFORE + _SPAN, ''
    try:
      state, told = self._taken(_SPAN, kind, drawn, last)
    except rollback.Alarm as alarm:
      found = _found_by(alarm)
      state, told = self._taken(0, kind, drawn, last)
    if not found:
      found = _guarded(told)
    if not found:
      found = _UNCHANGED if _same(state, self._states[-1]) else 'nothing'
    return found, self._run.loss(state) - self.losses[1]

  def undisturbed(self, num_steps):
    """How many steps, each computed twice, passed without an alarm."""
    run, check = self._run, self._checks[1]
    state = run.new_state()
    check.begin(state)
    for step in range(1, num_steps + 1):
      state, _ = check(step, run.step, state, run.batch(step), run.rates)
    check.look(num_steps, state)
    return num_steps


_UNCHANGED = 'no bit of the result differs'


def _check(run, every):
  reach = optim.reach(**_ADAM)
  return replay.Replay(run.mesh, run.shapes, every=every, reach=reach)


def _found_by(alarm):
  for words, found in (
    ('not as the step before left it', 'digest at rest'),
    ('larger than the optimizer', 'bound of weights'),
  ):
    if words in str(alarm):
      return found
  return 'replay'


def _guarded(told):
  """Which of a run's other guards said something of these steps; '' is none."""
  told = jax.device_get(told)
  if any(np.isnan(x['param_norm']) for x in told):
    return 'NaN weights'
  if any(not np.isfinite(x['grad_norm']) for x in told):
    return 'gradient not finite'
  return 'skip_above' if any(x['is_spike'] for x in told) else ''


def _flips(num_trials):
  start, campaign = time.process_time(), _Campaign()
  rng = np.random.default_rng(0)
  trials = [_KINDS[i % len(_KINDS)] for i in range(num_trials)]
  trials = [(kind, campaign.draw(kind, rng)) for kind in trials]
  fixed = {
    'trials': num_trials,
    'weights': campaign.num_weights,
    'loss_before_and_behind': [round(x, 4) for x in campaign.losses],
    'harmful_above': HARMFUL,
  }
  found = collections.defaultdict(collections.Counter)
  for kind, drawn in trials:
    found[kind][campaign.every_step(kind, drawn)] += 1
  seconds = time.process_time() - start
  record.write(
    'bit_flips',
    {'setting': 'k = 1', **fixed, 'found_by': found}
    | {'cpu_seconds': round(seconds)},
    packages=('jax', 'optax'),
  )
  start = time.process_time()
  found, harmful, changes = (
    collections.defaultdict(make)
    for make in (collections.Counter, collections.Counter, list)
  )
  for kind, drawn in trials:
    by, change = campaign.to_the_end(kind, drawn)
    found[kind][by] += 1
    if not abs(change) <= HARMFUL:  # or no number
      harmful[kind][by] += 1
    if by == 'nothing':
      changes[kind].append(abs(change))
  seconds = time.process_time() - start
  record.write(
    'bit_flips',
    {'setting': 'k = 100', **fixed, 'found_by': found, 'harmful': harmful}
    | {
      'change_of_what_nothing_found': {
        kind: {
          'median': float(f'{statistics.median(x):.2g}'),
          'most': float(f'{max(x):.2g}'),
        }
        for kind, x in changes.items()
      },
      'cpu_seconds': round(seconds),
    },
    packages=('jax', 'optax'),
  )
  return campaign


def _undisturbed(campaign, num_steps):
  start = time.process_time()
  passed = campaign.undisturbed(num_steps)
  record.write(
    'bit_flips',
    {
      'setting': 'undisturbed, k = 1',
      'steps': passed,
      'alarms': 0,
      'cpu_seconds': round(time.process_time() - start),
    },
    packages=('jax', 'optax'),
  )


def _clock():
  # Other processes do not count there.
  on_cpu = jax.default_backend() == 'cpu'
  return time.process_time() if on_cpu else time.perf_counter()


def _cost(num_pairs):
  """Spans of ten steps without and with the check, in turns."""
  run = _Run(_LARGER, rows=4, seq_len=128)
  state, steps = run.new_state(), range(1, 11)
  checks = {k: _check(run, k) for k in (0, 10**9, 10)}

  def seconds(check):
    nonlocal state
    check.begin(state)
    jax.block_until_ready(state)
    start = _clock()
    for step in steps:
      state, _ = check(step, run.step, state, run.batch(step), run.rates)
    check.look(steps[-1], state)
    jax.block_until_ready(state)
    return _clock() - start

  for check in checks.values():  # compiled
    seconds(check)
  taken = {k: [] for k in checks}
  for _ in range(num_pairs):
    for k, check in checks.items():
      taken[k].append(seconds(check))
    print({k: round(x[-1], 2) for k, x in taken.items()}, flush=True)
  for k, setting in ((10**9, 'digests alone'), (10, 'k = 10')):
    ratios = sorted(
      on / off for on, off in zip(taken[k], taken[0], strict=True)
    )
    record.write(
      'bit_flips',
      {
        'setting': f'cost, {setting}',
        'peer': 'the same steps without the check',
        'weights': sum(x.size for x in jax.tree.leaves(state['params'])),
        'tokens_per_step': 4 * 128,
        'seconds_per_step': round(statistics.median(taken[0]) / len(steps), 4),
        'ratio_median': round(statistics.median(ratios), 3),
        'ratio_range': [round(ratios[0], 3), round(ratios[-1], 3)],
        'pairs': num_pairs,
      },
      packages=('jax', 'optax'),
    )


def main(argv):
  del argv
  if _PAIRS.value:
    _cost(_PAIRS.value)
    return
  campaign = _flips(_TRIALS.value)
  _undisturbed(campaign, _STEPS.value)


if __name__ == '__main__':
  app.run(main)
