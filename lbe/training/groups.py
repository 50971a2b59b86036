"""Which parameters learn, from which step, and what decays.

A group has the parameters whose whole name (as 'layers/q_LDNH') its pattern
matches; of the vocabulary's matrices it may have the old or the new rows only.
Of the groups that match a parameter the first by name has it. What is frozen
has no gradient and no optimizer state: the step sees two trees, and joins them
to compute.
"""

import dataclasses
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lbe.models import weights

ROWS = ('all', 'old', 'new')


@dataclasses.dataclass(frozen=True)
class Group:
  """Parameters that learn alike, from `from_step` on.

  How fast is said by the group's name, in a schedule that counts from there:
  it needs the length of the run, and what learns is known before. `rows` other
  than 'all' means the vocabulary's matrices alone, cut at the first new row;
  padding rows belong to the new ones.
  """

  name: str
  weight_decay: float
  params: str
  rows: str
  frozen: bool
  from_step: int


class Partition:
  """Every parameter in its group; trees cut and joined accordingly.

  `dims` is the tree of logical dims, `num_old` the vocabulary's old rows. A
  matrix whose rows are in two groups is two arrays in the cut tree, under
  NAME/old and NAME/new. Raises ValueError for a group without parameters, and
  where nothing learns.
  """

  def __init__(
    self, groups: list[Group], dims: dict, *, num_old: int | None = None
  ):
    self._num_old = num_old
    self._vocabulary = []  # names of the matrices with a row for each piece
    self._axes = {}  # of the matrices that are cut
    self._groups = {}  # by the names of the cut tree
    for g in groups:
      _check(g, num_old)
    flat = weights.flatten(dims)
    for name, names in flat.items():
      rows = ('all',)
      if 'vocab' in names:
        rows = ('old', 'new')
        self._vocabulary.append(name)
      owners = {
        part: next(
          g
          for g in groups
          if g.rows in ('all', part) and re.fullmatch(g.params, name)
        )
        for part in rows
      }
      if len(set(map(id, owners.values()))) == 1:
        self._groups[name] = owners[rows[0]]
        continue
      self._axes[name] = names.index('vocab')
      for part, group in owners.items():
        self._groups[f'{name}/{part}'] = group
    for g in groups[:-1]:  # the last one has what is left
      if not any(g is owner for owner in self._groups.values()):
        raise ValueError(
          f'optim.groups.{g.name} has no parameter: params={g.params!r} with '
          f'rows={g.rows!r} matches none that a group with an earlier name '
          f'does not have; the parameters are {", ".join(flat)}.'
        )
    self.groups = [
      g for g in groups if any(g is owner for owner in self._groups.values())
    ]
    self.learning = [g for g in self.groups if not g.frozen]
    if not self.learning:
      raise ValueError(
        'every parameter is frozen (optim.groups); let one group learn.'
      )

  def split(self, params: dict) -> tuple[dict, dict]:
    """(what learns, what is frozen), two trees in which matrices are cut."""
    flat = {}
    for name, x in weights.flatten(params).items():
      if name not in self._axes:
        flat[name] = x
        continue
      axis, cut = self._axes[name], self._num_old
      flat[f'{name}/old'] = jax.lax.slice_in_dim(x, 0, cut, axis=axis)
      flat[f'{name}/new'] = jax.lax.slice_in_dim(x, cut, None, axis=axis)
    frozen = {n for n in flat if self._groups[n].frozen}
    return tuple(
      weights.unflatten(
        {n: x for n, x in flat.items() if (n in frozen) == side}
      )
      for side in (False, True)
    )

  def join(self, learning: dict, frozen: dict) -> dict:
    """The parameters again: the inverse of `split`."""
    flat = weights.flatten(learning)
    flat |= weights.flatten(frozen)
    for name, axis in self._axes.items():
      parts = [flat.pop(f'{name}/old'), flat.pop(f'{name}/new')]
      flat[name] = jnp.concatenate(parts, axis=axis)
    return weights.unflatten(flat)

  def frozen_names(self) -> list[str]:
    """Names of the parameters that never learn, whole ones only."""
    return [
      name
      for name, group in self._groups.items()
      if group.frozen and name.rpartition('/')[0] not in self._axes
    ]

  def frozen_new_rows(self) -> dict[str, str]:
    """{matrix of the vocabulary: the group that keeps its new rows}."""
    owners = {
      name: self._groups[f'{name}/new' if name in self._axes else name]
      for name in self._vocabulary
    }
    return {name: g.name for name, g in owners.items() if g.frozen}

  def labels(self, learning: dict) -> dict:
    """The tree of what learns, with its groups' names."""
    flat = weights.flatten(learning)
    return weights.unflatten({name: self._groups[name].name for name in flat})

  def begun(self, d_learning: dict, step: jax.Array) -> dict:
    """The gradients, zero where a group does not learn yet."""
    if not any(g.from_step for g in self.learning):
      return d_learning
    flat = weights.flatten(d_learning)
    for name, d_x in flat.items():
      first = self._groups[name].from_step
      if first:
        flat[name] = jnp.where(step >= first, d_x, 0)
    return weights.unflatten(flat)

  def begins(self, step: jax.Array) -> jax.Array:
    """Whether a group learns from this step on, and did not before."""
    later = {g.from_step for g in self.learning} - {0}
    return jnp.any(step == jnp.array(sorted(later), jnp.int32))

  def learning_rates(
    self, schedules: dict[str, Callable], step: jax.Array
  ) -> dict[str, jax.Array]:
    """{group's name: its rate at this step}; 0 before it begins."""
    return {
      g.name: jnp.where(
        step >= g.from_step,
        schedules[g.name](jnp.maximum(step - g.from_step, 0)),
        0.0,
      )
      for g in self.learning
    }

  def describe(self, shapes: dict) -> str:
    """Lines that say how many parameters learn, and when."""
    learning, frozen = jax.eval_shape(self.split, shapes)
    sizes = dict.fromkeys((g.name for g in self.groups), 0)
    for tree in (learning, frozen):
      for name, x in weights.flatten(tree).items():
        sizes[self._groups[name].name] += x.size
    total = sum(sizes.values())
    learns = sum(sizes[g.name] for g in self.learning)
    lines = [f'{learns:,} of {total:,} parameters learn ({learns / total:.2%})']
    if len(self.groups) > 1:
      for g in self.groups:
        when = f'from step {g.from_step:,}' if g.from_step else 'from the start'
        lines.append(
          f'  {g.name}: {sizes[g.name]:,}, {"frozen" if g.frozen else when}'
        )
    return '\n'.join(lines)


def _check(g, num_old):
  if g.rows not in ROWS:
    raise ValueError(
      f'optim.groups.{g.name}.rows={g.rows!r} is unknown; take one of '
      f'{", ".join(ROWS)}.'
    )
  if g.rows != 'all' and num_old is None:
    raise ValueError(
      f'optim.groups.{g.name}.rows={g.rows!r}, but no vocabulary was extended '
      'here; give an extended tokenizer, or rows=all.'
    )
  try:
    re.compile(g.params)
  except re.error as error:
    raise ValueError(
      f'optim.groups.{g.name}.params={g.params!r} is no regular expression '
      f'({error}).'
    ) from error
