"""Back to the last checkpoint: behind an alarm a run begins again by itself."""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable

from lbe.mesh import hosts
from lbe.run import aside
from lbe.run import checkpoint

# So often in a row it goes back to one checkpoint.
_MOST = 2
# 'STEP TIMES': where the process before this one went back to.
_DONE = 'LBE_ROLLED_BACK'


class Alarm(ValueError):
  """What a run holds or computes is not what it should be.

  `passes` is False where that was seen again: going back would not help.
  """

  def __init__(self, told: str, *, passes: bool = True):
    super().__init__(told)
    self.passes = passes


@contextlib.contextmanager
def on_alarm(workdir: str, *finish: Callable[[], None]):
  """Within, an Alarm brings the run back to its newest checkpoint.

  What was begun has its `finish`, and the process becomes its own command
  again: what goes on is what goes on after a kill. Alarm is raised, with what
  to do, where it does not pass, comes again, or the run has several processes
  (all of which raise it) or its checkpoints in a bucket: whoever started these
  starts them again.
  """
  try:
    yield
  except Alarm as alarm:
    for end in finish:
      end()
    step = (checkpoint.steps(workdir) or [0])[-1]
    where = f'step {step:,}' if step else 'where it began'
    if not alarm.passes:
      raise Alarm(
        f'{alarm} No checkpoint in use has it. With that mended, or on another '
        f'device, the same command goes on from {where}.'
      ) from None
    if not hosts.alone() or '://' in workdir:
      raise Alarm(
        f'{alarm} No checkpoint in use has it: the same command goes on from '
        f'{where}.'
      ) from None
    times = 1
    if os.environ.get(_DONE, '').split()[:1] == [str(step)]:
      times += int(os.environ[_DONE].split()[1])
    if times > _MOST:
      raise Alarm(
        f'{alarm} That is alarm {times} in a row behind {where}: look at the '
        'device (and its log), or take another one. No checkpoint in use has '
        'it: the same command goes on from there.'
      ) from None
    print(
      f'ALARM: {alarm} No checkpoint in use has it; the run goes back to '
      f'{where} by itself ({times} of at most {_MOST} times in a row).',
      file=sys.stderr,
      flush=True,
    )
    _begin_again({_DONE: f'{step} {times}', 'LBE_ENTERED': str(time.time())})


def _begin_again(variables):
  """Never returns."""
  sys.stdout.flush()
  # A device that the process still has open would be in use for itself.
  for fd in map(int, os.listdir('/dev/fd')):
    with contextlib.suppress(OSError):
      os.set_inheritable(fd, fd <= 2)
  os.execve(sys.executable, sys.orig_argv, {**os.environ, **variables})


def set_aside(workdir: str, step: int, alarm: Alarm) -> Alarm:
  """The alarm, with where the checkpoint went that may hold what it tells.

  All hosts call it, behind the save.
  """
  if '://' in workdir:
    told = f'Checkpoint {step} may hold it: delete that one.'
  else:
    root = pathlib.Path(workdir)
    kept = aside.move(root, step, root / aside.FOLDER)
    told = f'Checkpoint {step}, which may hold it, is kept in {kept}.'
  return Alarm(f'{alarm} {told}', passes=alarm.passes)
