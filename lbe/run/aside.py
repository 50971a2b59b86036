"""Which of its checkpoints a run goes on from; what it passes over is kept.

That lies in WORKDIR/set_aside, where no program looks for it.
"""

import json
import os
import pathlib
from collections.abc import Callable

import jax
from absl import flags

from lbe.mesh import hosts
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.run import verified

FOLDER = 'set_aside'

_RESTORE = flags.DEFINE_integer(
  'restore',
  None,
  'Go on from the checkpoint of this step: newer ones are set aside, once.',
)


def choose(workdir: str, say: Callable[[str], None]):
  """Leaves as the newest checkpoint of a run the one that it goes on from.

  That of --restore, or the newest that is as it was written. Damaged ones are
  set aside, each with a line. Raises ValueError where none is whole, or the
  one that was asked for is not. All hosts call it.
  """
  if '://' in workdir:
    if _RESTORE.value is not None:
      raise ValueError(
        f'--restore={_RESTORE.value}: checkpoints in a bucket are not moved; '
        'delete the newer ones there.'
      )
    return
  root = pathlib.Path(workdir)
  steps = _shared('checkpoints', checkpoint.steps(root))
  wanted, newer = _wanted(root, steps, say), []
  if wanted is not None:
    newer = [step for step in steps if step > wanted]
    steps = [step for step in steps if step <= wanted]
  damaged, whole = {}, None
  for step in reversed(steps) if checksums.asked else ():
    what = _damage(root / 'checkpoints' / str(step), say)
    if not what:
      whole = step
      break
    damaged[step] = what
    if step in (wanted, steps[0]):
      raise ValueError(_nothing_whole(root, damaged))
  for step, what in damaged.items():
    say(
      f'WARNING: checkpoint {step} of {root} is damaged: {what}. It is kept in '
      f'{move(root, step, root / FOLDER)}; the run goes on from step {whole}.'
    )
  if wanted is not None:
    _set_behind(root, wanted, newer, say)
  if not steps and (root / 'metrics.jsonl').exists():
    say(f'{root} has metrics, but no checkpoint: the run begins anew.')
  hosts.wait_for_others('checkpoints chosen')


def _shared(name, value):
  """What process 0 sees, on all."""
  told = json.dumps(value) if jax.process_index() == 0 else None
  return json.loads(hosts.share(name, told))


def _wanted(root, steps, say):
  """The step of --restore; None without, and the second time.

  The same command, given again, goes on from what it has done since.
  """
  step = _RESTORE.value
  if step is None:
    return None
  done = _behind(root, step)
  if _shared('restored before', done.exists()):
    say(f'--restore={step} was done before, as {done} shows.')
    return None
  if step not in steps:
    raise ValueError(
      f'--restore={step}: {root} has checkpoints of '
      f'{", ".join(map(str, steps)) or "no step"}; take one of these.'
    )
  return step


def _behind(root, step):
  return root / FOLDER / f'behind-{step}'


def _set_behind(root, wanted, newer, say):
  """Sets the newer steps aside; the folder has its name when all are there."""
  into = _behind(root, wanted)
  part = into.with_name(f'{into.name}.part')
  for step in newer:
    move(root, step, part)
  if jax.process_index() == 0:
    part.mkdir(parents=True, exist_ok=True)
    os.rename(part, into)
  say(f'going back to step {wanted}; newer ones {newer} are kept in {into}')


def _damage(step, say):
  """What is wrong with a checkpoint, or ''."""
  compared = verified.compare(step)
  if compared.damage:
    return compared.told()
  if compared.kept:
    missing = '' if compared.complete else '; some hosts kept none'
    say(f'checkpoint {step.name}: {compared.cost()}{missing}')
    return ''
  say(
    f'checkpoint {step.name} has no checksums (an older lbe wrote it, or it '
    'was stopped just then): it is taken as it is.'
  )
  try:
    checkpoint.read_meta(step)
    checkpoint.params_metadata(step)
  except ValueError as error:
    return str(error)
  return ''


def _nothing_whole(root, damaged):
  told = '; '.join(f'{step}: {what}' for step, what in damaged.items())
  return (
    f'no checkpoint of {root} that the run could go on from is whole ({told}). '
    'They stay where they are. Copy them again, take another with '
    '--restore=STEP, or begin anew in another --workdir; '
    '--verify_stored=False takes the newest as it is.'
  )


def move(root: pathlib.Path, step: int, into: pathlib.Path) -> pathlib.Path:
  """Where process 0 has put a checkpoint of a run; all hosts call it."""
  source, target = root / 'checkpoints' / str(step), into / str(step)
  if jax.process_index() == 0:
    into.mkdir(parents=True, exist_ok=True)
    number = 1
    while target.exists():
      number += 1
      target = into / f'{step}.{number}'
    os.rename(source, target)
  return target
