"""The optimizer by optax, its schedule, what decays and what not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lbe.training import groups

SCHEDULES = ('cosine', 'linear', 'constant', 'wsd')


def check_schedule(kind: str, *, warmup_fraction: float, decay_fraction: float):
  """Raises ValueError for what fits into a run of no length."""
  if kind not in SCHEDULES:
    raise ValueError(
      f'optim.schedule={kind!r} is unknown; take one of {", ".join(SCHEDULES)}.'
    )
  if warmup_fraction > 1:
    raise ValueError(
      f'optim.warmup_fraction={warmup_fraction:g} is more than the run; lower '
      'it.'
    )
  # What is lost in adding two shares is no reason.
  if kind == 'wsd' and warmup_fraction + decay_fraction > 1 + 1e-6:
    raise ValueError(
      f'optim.warmup_fraction={warmup_fraction:g} and '
      f'optim.decay_fraction={decay_fraction:g} are more than the run; lower '
      'optim.decay_fraction.'
    )


def make_schedule(
  *,
  kind: str,
  peak_lr: float,
  num_steps: int,
  warmup_steps: int,
  final_fraction: float,
  decay_steps: int,
) -> optax.Schedule:
  """The learning rate by step, from 0 over `peak_lr` to the final share.

  'cosine' and 'linear' fall until the last step, 'constant' stays, and 'wsd'
  (warm-up, stable, decay) falls linearly over the last `decay_steps`. Raises
  ValueError where warm-up and decay do not fit.
  """
  final_lr = final_fraction * peak_lr
  left = max(num_steps - warmup_steps, 1)
  if warmup_steps > num_steps:
    raise ValueError(
      f'{warmup_steps} steps of warm-up are more than the {num_steps} of the '
      'run; lower optim.warmup_fraction.'
    )
  if kind == 'cosine':
    after = optax.cosine_decay_schedule(peak_lr, left, alpha=final_fraction)
  elif kind == 'linear':
    after = optax.linear_schedule(peak_lr, final_lr, left)
  elif kind == 'constant':
    after = optax.constant_schedule(peak_lr)
  else:
    assert kind == 'wsd', kind
    if decay_steps > left:
      raise ValueError(
        f'{warmup_steps} steps of warm-up and {decay_steps} of decay are '
        f'more than the {num_steps} of the run; lower optim.decay_fraction.'
      )
    after = optax.join_schedules(
      [
        optax.constant_schedule(peak_lr),
        optax.linear_schedule(peak_lr, final_lr, max(decay_steps, 1)),
      ],
      [left - decay_steps],
    )
  if not warmup_steps:
    return after
  # The first update already moves: step 0 has 1 / warmup_steps of the peak.
  warmup = optax.linear_schedule(
    peak_lr / warmup_steps, peak_lr, max(warmup_steps - 1, 1)
  )
  return optax.join_schedules([warmup, after], [warmup_steps])


def decays(params: dict) -> dict:
  """A tree of booleans: weight decay is for matrices, not for norms."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: 'norm' not in jax.tree_util.keystr(path), params
  )


KINDS = ('adamw', 'lion', 'adafactor')
# Steps after which moments are as they will be.
_SETTLED = 100_000


def reach(kind: str, *, b1: float, b2: float) -> float:
  """How many times its rate one step can move a weight at most.

  But for weight decay, which makes weights smaller. Of Adam the first moment
  is a mean of gradients and the second one of their squares, so that by
  Cauchy and Schwarz their quotient has a bound whatever the gradients were:
  1.17 for 0.9 and 0.95. Infinite where there is none: for 'adafactor', and
  where b1 squared is not below b2.
  """
  if kind == 'lion':
    return 1.0
  ratio = b1 * b1 / b2 if b2 else math.inf
  if kind != 'adamw' or ratio >= 1:
    return math.inf
  # With the corrections of the first t steps.
  t = np.arange(1, _SETTLED)
  squared = (1 - b1) ** 2 / (1 - b2) * (1 - ratio**t) / (1 - ratio)
  return float(np.sqrt(np.max(squared * (1 - b2**t) / (1 - b1**t) ** 2)))


def make(
  partition: groups.Partition,
  schedules: dict[str, optax.Schedule],
  *,
  kind: str,
  b1: float,
  b2: float,
  eps: float,
  clip_norm: float,
  first_moment_dtype: str,
) -> optax.GradientTransformation:
  """The optimizer of what learns, each group with its own schedule and decay.

  `schedules` are functions of the step, by the groups' names.
  Clipped by the global norm of all groups (0 is none). 'adamw' keeps two
  moments, the second in float32; 'lion' keeps one; 'adafactor' keeps a row and
  a column of the second moment and no first one, with updates clipped to an
  RMS of 1. Weight decay is decoupled and scaled by the rate in all. A group
  that begins later has its first moments, and counts, from there.

  Raises ValueError for another kind or dtype.
  """
  if kind not in KINDS:
    raise ValueError(
      f'optim.kind={kind!r} is unknown; take one of {", ".join(KINDS)}.'
    )
  if first_moment_dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f'optim.first_moment_dtype={first_moment_dtype!r} is unknown; take '
      "'float32' or 'bfloat16'."
    )

  def of_group(group):
    schedule = schedules[group.name]
    decay = dict(weight_decay=group.weight_decay, mask=decays)
    if kind == 'adamw':
      tx = optax.adamw(
        schedule,
        b1=b1,
        b2=b2,
        eps=eps,
        mu_dtype=first_moment_dtype,
        **decay,
      )
    elif kind == 'lion':
      tx = optax.lion(
        schedule, b1=b1, b2=b2, mu_dtype=first_moment_dtype, **decay
      )
    else:
      tx = optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.add_decayed_weights(**decay),
        optax.scale_by_learning_rate(schedule),
      )
    if not group.from_step:
      return tx
    return optax.transforms.conditionally_mask(
      tx, lambda step: step >= group.from_step
    )

  learning = partition.learning
  if len(learning) == 1:
    tx = of_group(learning[0])
  else:
    tx = optax.partition(
      {g.name: of_group(g) for g in learning}, partition.labels
    )
  parts = [_clipped(clip_norm)] if clip_norm else []
  return optax.chain(*parts, tx)


def _clipped(most):
  """optax.clip_by_global_norm, by one factor, as torch has it.

  A CPU makes products where they are used, but each quotient as an array first.
  """

  def update(updates, params):
    del params
    norm = optax.tree.norm(updates)
    factor = jnp.where(norm < most, 1.0, most / norm)
    return jax.tree.map(lambda x: x * factor, updates)

  return optax.stateless(update)
