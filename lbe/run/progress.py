"""A run while it runs: its line, its speed, and its end on demand."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import jax

from lbe.run import metrics
from lbe.text import bars

# Shorter work is over before anybody asks.
_PATIENCE = 2.0
# Nobody is left without a word for longer than five seconds; in a file, after
# the first minute, for half a minute.
_ON_TERMINAL, _IN_FILE, _LATER = 1.0, 4.0, 30.0


@contextlib.contextmanager
def doing(what: str, *, quiet: bool = False, file=None):
  """Within, `what` is done, and said where it takes more than two seconds.

  With the seconds: on a terminal they run, elsewhere a line is added now and
  then. A bar that is made within stands in its place. By process 0 alone,
  which the others ask to be `quiet`. On standard error, or in `file`.
  """
  if quiet:
    yield
    return
  clock, done = bars.Clock(what, file), threading.Event()
  teller = threading.Thread(target=_tell, args=(clock, done), daemon=True)
  teller.start()
  try:
    yield
  finally:
    done.set()
    teller.join()
    clock.close()


def _tell(clock, done):
  pause = _PATIENCE
  while not done.wait(pause):
    if clock.tell():
      pause = _ON_TERMINAL
    else:
      pause = _IN_FILE if clock.seconds() < 60 else _LATER


class Line:
  """A bar with ETA on a terminal, plain lines elsewhere, on process 0."""

  def __init__(self, num_steps: int, *, first_step: int):
    self._quiet = jax.process_index() != 0
    self._bar = bars.make(
      total=num_steps,
      initial=first_step,
      unit='step',
      dynamic_ncols=True,
      file=sys.stderr,
      disable=self._quiet or not sys.stderr.isatty(),
    )
    self._num_steps = num_steps

  def update(self, step: int, row: dict):
    """Shows `step`; `row` are new metrics, empty where there are none."""
    if self._quiet:
      return
    self._bar.update(step - self._bar.n)
    if not row:
      return
    parts = [f'loss {row["train/loss"]:.4f}']
    parts.append(f'lr {row["train/learning_rate"]:.2e}')
    speed = row['speed/tokens_per_second_per_chip']
    parts.append(f'{speed:,.0f} tokens/s/chip')
    if 'speed/mfu' in row:
      parts.append(f'MFU {row["speed/mfu"]:.1%}')
    parts.append(f'data wait {row["speed/data_wait_share"]:.0%}')
    if not self._bar.disable:
      self._bar.set_postfix_str('  '.join(parts))
    else:
      left = (self._num_steps - step) * row['speed/seconds_per_step']
      hours, rest = divmod(int(left), 3600)
      eta = f'{hours}:{rest // 60:02}:{rest % 60:02}'
      print(
        f'step {step:,}/{self._num_steps:,}  {"  ".join(parts)}  ETA {eta}',
        flush=True,
      )
    if 'train/skipped_steps' in row:
      self.say(
        f'step {step:,}: {row["train/skipped_steps"]} steps since the last '
        'line had no finite gradient, or a spike, and changed nothing; what '
        'they read stands in skipped.jsonl.'
      )

  def say(self, text: str):
    """A line above the bar."""
    if not self._quiet:
      bars.say(text)

  def close(self):
    self._bar.close()


# So many steps without a finite gradient in a row end a run.
_MOST_SKIPPED = 10


class Meter:
  """Sums of the steps since the last row; the device is read only there.

  `peak_flops` of one chip give the MFU; where it is None there is none. Of
  steps that changed nothing `tell_skipped` gets how many came since each.
  """

  def __init__(
    self,
    *,
    num_chips: int,
    flops_per_token: float,
    peak_flops: float | None,
    tell_skipped: Callable[[list[int]], None] = lambda ago: None,
  ):
    self._num_chips = num_chips
    self._tell_skipped = tell_skipped
    self._flops_per_token = flops_per_token
    self._peak_flops = peak_flops
    self._skipped = 0  # steps up to the last one
    self.restart()

  def restart(self):
    self._steps = []
    self._waited = 0.0
    self._start = time.perf_counter()

  def skip(self, seconds: float):
    """So long nothing was trained."""
    self._start += seconds

  @contextlib.contextmanager
  def waiting(self):
    """Within, the step waits for its data."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  def add(self, step_metrics: dict):
    """What a train step gives; it may still be on its way."""
    self._steps.append(step_metrics)

  def row(self) -> dict:
    """The metrics of the steps since the last row; waits for the device.

    Raises ValueError where too many steps in a row changed nothing, and where
    weights are NaN.
    """
    steps = jax.device_get(self._steps)
    seconds = time.perf_counter() - self._start
    # Squares of large ones overflow: inf is none of their numbers.
    if any(math.isnan(s['param_norm']) for s in steps):
      raise ValueError(
        'weights are NaN, by an update that was or a memory that fails; '
        'nothing is saved from here on. Go back by --restore=STEP, to one of '
        'WORKDIR/checkpoints, and lower optim.peak_lr if it comes again.'
      )
    ago = [
      len(steps) - 1 - i for i, s in enumerate(steps) if metrics.is_skipped(s)
    ]
    if ago:
      self._tell_skipped(ago)
    for s in steps:
      skipped = metrics.is_skipped(s)
      self._skipped = self._skipped + 1 if skipped else 0
      if self._skipped == _MOST_SKIPPED:
        raise ValueError(
          f'the last {_MOST_SKIPPED} steps had no finite gradient, or one that '
          'optim.skip_above refuses (loss '
          f'{s["loss_sum"] / s["weight_sum"]:.4g}) and changed nothing; look '
          'at the data, or go on from the last checkpoint in another workdir '
          '(--config.init_from=THIS_WORKDIR) with a lower optim.peak_lr.'
        )
    row = metrics.reduce(steps)
    speed = sum(s['weight_sum'] for s in steps) / seconds / self._num_chips
    row['speed/tokens_per_second_per_chip'] = float(speed)
    row['speed/seconds_per_step'] = seconds / len(steps)
    row['speed/data_wait_share'] = self._waited / seconds
    if self._peak_flops:
      mfu = float(speed) * self._flops_per_token / self._peak_flops
      row['speed/mfu'] = mfu
    self.restart()
    return row


class Stopped(BaseException):
  """A signal in the middle of an evaluation; not for evaluators to catch."""


# Preemption, Ctrl-C, and a terminal that is closed.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopFlag:
  """A signal asks for a save and an end, on every host at the same step.

  The second Ctrl-C ends the process at once. SIGHUP is left alone where
  whoever started the run ignores it, as nohup does.
  """

  def __init__(self):
    self._asked = self._interrupts = False
    self._alone = jax.process_count() == 1
    # jax.distributed takes SIGTERM itself and picks a step for all hosts.
    self._before = {
      number: signal.signal(number, self._ask)
      for number in _SIGNALS[0 if self._alone else 1 :]
      if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)
    }

  def _ask(self, signum, frame):
    del frame
    if signum == signal.SIGINT:
      signal.signal(signal.SIGINT, signal.SIG_DFL)
      # Not by print, in the middle of which a signal may come. Ctrl-C has ended
      # what reads the output, too.
      with contextlib.suppress(OSError):
        os.write(2, b'\nsaves after this step; Ctrl-C again ends at once.\n')
    if not self._alone:
      if not self._asked:
        os.kill(os.getpid(), signal.SIGTERM)
      self._asked = True
      return
    self._asked = True
    if self._interrupts:
      raise Stopped

  def close(self):
    """Signals do again what they did before."""
    for number, handler in self._before.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def interrupting(self):
    """Within, a signal raises Stopped: evaluations outlast a notice.

    Where a run has several processes they end together, at the next step.
    """
    if self._asked and self._alone:
      raise Stopped
    self._interrupts = True
    try:
      yield
    finally:
      self._interrupts = False

  def agreed(self, step: int) -> bool:
    """Whether all processes end behind `step`; each asks at every step."""
    if self._alone:
      return self._asked
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)
