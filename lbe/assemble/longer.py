"""A run that is made longer, or branched off: what its schedule allows.

Batches depend on the step alone, and so does the learning rate until the end
comes into it. Where the rates of the steps behind a run are those of the new
plan, it goes on bit for bit as one that was planned so from the start.
"""

import ml_collections
import numpy as np

from lbe.assemble import step as step_lib
from lbe.run import checkpoint


def rates(facts: dict, step: int) -> dict[str, np.ndarray]:
  """{group: learning rate [step] of the first steps} of a run's facts."""
  config = ml_collections.ConfigDict(facts['config'])
  result = {}
  schedules = step_lib.make_schedules(config, facts['num_steps'])
  for name, schedule in schedules.items():
    begins = 0 if name == 'rest' else config.optim.groups[name].from_step
    rate = np.zeros(step, np.float32)
    counts = np.arange(max(step - begins, 0))
    rate[begins:] = np.asarray(schedule(counts))
    result[name] = rate
  return result


def check(old: dict, new: dict, step: int, where: str):
  """Refuses a plan under which the `step` steps so far would be others.

  `old` and `new` are facts of a run, which differ in their plan alone; `where`
  is its workdir. Raises ValueError.
  """
  num_old, num_new = old['num_steps'], new['num_steps']
  if num_new < step:
    raise ValueError(
      f'{where} has {step:,} steps behind it, and the budget is {num_new:,}; '
      'raise it, or go back with --config.branch_from='
      f'{where}/checkpoints/STEP in another --workdir.'
    )
  before, planned = rates(old, step), rates(new, step)
  for name, rate in before.items():
    differ = np.flatnonzero(rate != planned[name])
    if not len(differ):
      continue
    first = int(differ[0])
    group = '' if name == 'rest' else f' of the group {name}'
    raise ValueError(
      f'{where} has {step:,} steps behind it, planned for {num_old:,}. In the '
      f'run of {num_new:,} that is now asked for step {first + 1:,} would have '
      f'had the learning rate {planned[name][first]:.6g}{group}, and it had '
      f'{rate[first]:.6g}: {_reason(old, new, name, first, where)}\nOr start '
      f'anew from its weights, with --config.init_from={where} in another '
      '--workdir: data and moments begin again there.'
    )


def _reason(old, new, name, first, where):
  """Why the rates differ at the step `first`, and what to do."""

  def plan(facts):
    o = facts['config']['optim']
    begins, kind = 0, o['schedule']
    if name != 'rest':
      begins = o['groups'][name]['from_step']
      kind = o['groups'][name]['schedule'] or kind
    left = facts['num_steps'] - begins
    stable = left - round(o['decay_fraction'] * left) + begins
    return kind, round(o['warmup_fraction'] * left), stable, left

  kind, warm_up, stable, _ = plan(old)
  new_kind, new_warm_up, _, left = plan(new)
  falling = {kind, new_kind} & {'cosine', 'linear'}
  if falling:
    return (
      f'{falling.pop()!r} falls from the warm-up to the last step, so the end '
      'cannot be moved. A run that may be made longer has '
      "optim.schedule='constant' or 'wsd'."
    )
  if warm_up != new_warm_up:
    return (
      f'the warm-up had {warm_up:,} steps and would have {new_warm_up:,}; keep '
      f'it with --config.optim.warmup_fraction={warm_up / left:.9g}.'
    )
  if kind == 'wsd' and first >= stable:
    steps = checkpoint.steps(where)
    listed = ', '.join(str(s) for s in steps if s <= stable + 1)
    return (
      f'its decay began at step {stable + 1:,}. Branch off before that: '
      f'--config.branch_from={where}/checkpoints/STEP in another --workdir '
      f'(there is {listed or "none left; checkpoint.keep holds more of them"}).'
    )
  return 'set back what differs.'
