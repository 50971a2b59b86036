"""The replay check: what a device keeps and computes, each looked at twice.

A bit that flips in a memory, or a unit that computes wrongly, changes numbers
without a word. The state is compared as a step left it with what the next one
finds, copies of it with each other, and some steps are computed twice. And no
weight may have become larger than the optimizer can make it.
"""

import socket
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lbe.mesh import hosts
from lbe.run import rollback

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
# Pairs that are computed behind a step with two results.
_MORE_PAIRS = 3
# Devices, and arrays of each, that an alarm names.
_NAMED = 4

_KEPT = 'the state is not as the step before left it'
_COPIES = 'copies that should be equal differ (of two either may be wrong)'
_COPIED = 'a copy of the state differs from it'
_RESULTS = 'computed twice from equal states, it has two results'
# What roundings may add to the bound of a weight: of itself, and of its way.
_ROUNDED, _MOMENTS_ROUNDED = 1e-5, 1.1
_ZERO = np.float32(0)


def make_digest(mesh: jax.sharding.Mesh, specs) -> Callable:
  """A jitted tree → uint32 [devices, arrays]: the sum of the bits of each.

  `specs` are the PartitionSpecs of the arrays. Each device adds up what it has
  itself, in its own row, so that of equal copies each has a sum of its own. A
  bit that flips always changes one; many garbled ones do but for one in 2^32.
  """

  def own(tree):
    return jnp.stack([_sum_of_bits(x) for x in jax.tree.leaves(tree)])[None]

  return jax.jit(
    jax.shard_map(
      own,
      mesh=mesh,
      in_specs=(specs,),
      out_specs=jax.sharding.PartitionSpec(mesh.axis_names),
      check_vma=False,  # else equal copies would be one
    )
  )


def _largest(params):
  """float32 [arrays]: the largest of each, without its sign."""
  return jnp.stack(
    [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in jax.tree.leaves(params)]
  )


def _sum_of_bits(x):
  if x.dtype == bool:
    x = x.astype(jnp.uint8)
  bits = jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize])
  return jnp.sum(bits, dtype=jnp.uint32)  # it wraps around


class Replay:
  """A run's steps, every `every`-th computed twice; 0 looks at nothing.

  `reach` is how many times its rate a step moves a weight at most
  (optim.reach). What was seen stays on the devices until `look`, or a step that
  is computed twice, waits for it: then rollback.Alarm is raised, by all
  processes alike.
  """

  def __init__(
    self,
    mesh: jax.sharding.Mesh,
    abstract_state: dict,
    *,
    every: int,
    reach: float,
  ):
    self._mesh, self._every, self._reach = mesh, every, reach
    self._abstract_state = abstract_state
    self._names = _names(abstract_state)
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state)
    self._digest = make_digest(mesh, jax.tree.map(lambda s: s.spec, shardings))
    self._digest_metrics = None
    self._copy = jax.jit(
      lambda state: jax.tree.map(jnp.copy, state), out_shardings=shardings
    )
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    self._gather = jax.jit(lambda x: x, out_shardings=everywhere)
    self._largest = jax.jit(_largest, out_shardings=everywhere)
    self._sum_rates = jax.jit(
      lambda so_far, rates: so_far + jnp.max(jnp.stack([*rates.values()])),
      out_shardings=everywhere,
    )
    # The largest weight of each array when it was last looked at, and the rates
    # of the steps since.
    self._were, self._rates = None, None
    self._left = None  # digest of the state as the last step left it
    self._seen = []  # (step, what it is if they differ, names, two digests)

  def begin(self, state: dict):
    """From here on `state` has to stay as it is until a step takes it."""
    if self._every:
      self._seen = []
      self._left = self._digest(state)
      self._were, self._rates = self._largest(state['params']), _ZERO
      self._copy(state)  # now, and not in a later step, it is compiled

  def part(self, step: int) -> str:
    """What a watchdog may call the step: twice takes longer."""
    return 'the step, twice' if self._is_twice(step) else 'the step'

  def _is_twice(self, step):
    return bool(self._every) and step % self._every == 0

  def __call__(
    self, step: int, train_step: Callable, state: dict, batch: dict, rates: dict
  ) -> tuple[dict, dict]:
    """What `train_step` gives; it takes `state` over."""
    if not self._every:
      return train_step(state, batch, rates)
    found = self._digest(state)
    self._note(step, _KEPT, self._left, found)
    copy = self._copy(state) if self._is_twice(step) else None
    state, metrics = train_step(state, batch, rates)
    self._left = self._digest(state)
    self._rates = self._sum_rates(self._rates, rates)
    if copy is not None:
      self._note(step, _COPIED, found, self._digest(copy))
      again, metrics_again = train_step(copy, batch, rates)
      self._note(step, _RESULTS, self._left, self._digest(again))
      del again  # one state more is enough
      self._note_metrics(step, metrics, metrics_again)
      self._compare(lambda: self._pairs(train_step, state, batch, rates))
    return state, metrics

  def look(self, step: int, state: dict):
    """Raises rollback.Alarm where anything was not as it should be.

    `state` is what `step` left. It waits for the devices.
    """
    if self._every:
      self._note(step + 1, _KEPT, self._left, self._digest(state))
      self._compare()
      self._check_largest(step, state['params'])

  def _check_largest(self, step, params):
    """Raises Alarm where a weight is larger than its optimizer makes it."""
    found = self._largest(params)
    were, now, rates = map(np.asarray, (self._were, found, self._rates))
    most = were * (1 + _ROUNDED) + rates * self._reach * _MOMENTS_ROUNDED
    if (beyond := np.flatnonzero(~(now <= most))).size:
      names = _names({'params': params})
      told = ', '.join(
        f'{names[i]} ({now[i]:.3g}, at most {most[i]:.3g})'
        for i in beyond[:_NAMED]
      )
      more = len(beyond) - _NAMED
      raise rollback.Alarm(
        f'step {step:,}: a weight is larger than the optimizer can have made '
        f'it since this was last looked at: {told}'
        f'{f" and {more} more" if more > 0 else ""}.'
      )
    self._were, self._rates = found, _ZERO

  def _note(self, step, what, before, after):
    self._seen.append((step, what, self._names, before, after))

  def _note_metrics(self, step, metrics, again):
    if self._digest_metrics is None:
      specs = jax.tree.map(lambda _: jax.sharding.PartitionSpec(), metrics)
      self._digest_metrics = make_digest(self._mesh, specs)
    digests = self._digest_metrics(metrics), self._digest_metrics(again)
    self._seen.append((step, _RESULTS, _names({'metrics': metrics}), *digests))

  def _compare(self, more_pairs=None):
    """Looks at all that was seen. What is gathered is the same on all hosts."""
    seen, self._seen = self._seen, []
    for step, what, names, *digests in seen:
      before, after = (np.asarray(self._gather(x)) for x in digests)
      apart = before != after
      if what == _KEPT and not apart.any():
        what, apart = _COPIES, self._apart_from_copies(after)
      if not apart.any():
        continue
      when = f'{"before " * (what in (_KEPT, _COPIES))}step {step:,}'
      bits = after - before if what in (_KEPT, _COPIED) else None
      told = f'{when}: {what}: {self._told(names, apart, bits)}.'
      if what != _RESULTS:
        raise rollback.Alarm(told)
      differ = more_pairs()
      raise rollback.Alarm(f'{told} {_judged(differ)}', passes=not differ)

  def _apart_from_copies(self, digest):
    """bool [devices, arrays]: what differs from most of its equal copies."""
    apart = np.zeros(digest.shape, bool)
    devices = list(self._mesh.devices.flat)
    for i, x in enumerate(jax.tree.leaves(self._abstract_state)):
      if (digest[:, i] == digest[0, i]).all():
        continue
      parts = x.sharding.devices_indices_map(x.shape)
      parts = np.array([str(parts[device]) for device in devices])
      for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        sums, counts = np.unique(digest[rows, i], return_counts=True)
        apart[rows, i] = digest[rows, i] != sums[counts.argmax()]
    return apart

  def _pairs(self, train_step, state, batch, rates):
    """How many of more pairs of equal steps differ; it takes `state` over."""
    differ = 0
    for _ in range(_MORE_PAIRS):
      copy = self._copy(state)
      state, _ = train_step(state, batch, rates)
      again, _ = train_step(copy, batch, rates)
      digests = self._digest(state), self._digest(again)
      del copy, again
      one, other = (np.asarray(self._gather(x)) for x in digests)
      differ += bool((one != other).any())
    return differ

  def _told(self, names, apart, bits):
    """Where what differs lies: 'params/head_DV (bit 30) on device 3 ...'."""
    rows = np.flatnonzero(apart.any(axis=1))
    places = []
    for row in rows[:_NAMED]:
      columns = np.flatnonzero(apart[row])
      named = [
        names[i] + ('' if bits is None else _flipped(int(bits[row, i])))
        for i in columns[:_NAMED]
      ]
      more = len(columns) - len(named)
      device = self._mesh.devices.flat[row]
      places.append(
        f'{", ".join(named)}{f" and {more} more" if more else ""} on device '
        f'{device.id} ({device.device_kind}) of {_host(device.process_index)}'
      )
    more = len(rows) - len(places)
    return '; '.join(places) + (f'; and {more} more devices' if more else '')


def _names(tree):
  return [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree_util.tree_leaves_with_path(tree)
  ]


def _flipped(difference):
  """' (as by bit 30 of one number)' of sums that differ so; '' of others."""
  for x in (difference, -difference % 2**32):
    if x & (x - 1) == 0:
      return f' (as by bit {x.bit_length() - 1} of one number)'
  return ''


def _host(process):
  if hosts.alone():
    return f'process {process} ({socket.gethostname()})'
  return f'process {hosts.named([process])}'


def _judged(differ):
  """What more pairs, of which some differ or none does, say of a fault."""
  if not differ:
    return (
      f'{_MORE_PAIRS} more pairs agree: the fault has passed, and which of the '
      'two was right is not known.'
    )
  return (
    f'{differ} of {_MORE_PAIRS} more pairs differ as well: the device computes '
    'wrongly again and again, or the program has another result each time by '
    'itself (on NVIDIA set XLA_FLAGS=--xla_gpu_deterministic_ops=true).'
  )
