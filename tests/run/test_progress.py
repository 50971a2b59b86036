"""The line of a run, and the speed that it says."""

import math
import signal
import subprocess
import sys
import time

import pytest

from lbe.run import progress


def sums(grad_norm=1.0):
  return dict(
    loss_sum=20.0,
    weight_sum=10.0,
    num_bytes=10.0,
    grad_norm=grad_norm,
    param_norm=2.0,
    learning_rates={'rest': 0.5},
  )


def make():
  return progress.Meter(num_chips=2, flops_per_token=3.0, peak_flops=100.0)


def test_speed_counts_tokens_of_a_chip_and_no_evaluation():
  """Hours of an exam in the seconds of a step."""
  meter = make()
  for _ in range(4):
    meter.add(sums())
  meter.skip(-20.0)  # as if 20 seconds had gone by
  row = meter.row()
  assert row['train/tokens'] == 40
  assert row['speed/seconds_per_step'] == pytest.approx(5.0, rel=1e-2)
  speed = row['speed/tokens_per_second_per_chip']
  assert speed == pytest.approx(40 / 20 / 2, rel=1e-2)
  assert row['speed/mfu'] == pytest.approx(speed * 3 / 100)


def test_ten_steps_without_a_gradient_end_a_run_also_over_several_rows():
  """A night of steps with NaN."""
  meter = make()
  for norms in ([math.nan] * 9, [1.0], [math.nan] * 6):
    for norm in norms:
      meter.add(sums(norm))
    meter.row()
  for _ in range(4):
    meter.add(sums(math.inf))
  with pytest.raises(ValueError, match='the last 10 steps had no finite'):
    meter.row()


def test_weights_that_are_nan_end_a_run():
  """Only gradients were looked at: every kept checkpoint was NaN."""
  meter = make()
  meter.add(sums() | {'param_norm': math.nan})
  meter.add(sums())
  with pytest.raises(ValueError, match='weights are NaN'):
    meter.row()


def test_the_line_says_speed_and_what_is_left(capsys):
  line = progress.Line(10, first_step=0)
  row = {
    'train/loss': 2.0,
    'train/learning_rate': 1e-3,
    'train/skipped_steps': 2,
    'speed/tokens_per_second_per_chip': 1234.5,
    'speed/seconds_per_step': 400.0,
    'speed/data_wait_share': 0.25,
  }
  line.update(1, {})
  line.update(2, row)
  line.close()
  assert capsys.readouterr().out.splitlines() == [
    'step 2/10  loss 2.0000  lr 1.00e-03  1,234 tokens/s/chip  '
    'data wait 25%  ETA 0:53:20',
    'step 2: 2 steps since the last line had no finite gradient, or a spike, '
    'and changed nothing; what they read stands in skipped.jsonl.',
  ]


_HANGS = """
import os, signal, time
from lbe.run import progress
stop = progress.StopFlag()
os.kill(os.getpid(), signal.SIGINT)
assert stop.agreed(1)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


def test_the_second_interrupt_ends_at_once():
  """A save that hangs, and nobody who can end it."""
  done = subprocess.run(
    [sys.executable, '-c', _HANGS], capture_output=True, timeout=50
  )
  assert done.returncode == -signal.SIGINT, done.stderr
  assert b'Ctrl-C again ends at once' in done.stderr


def test_an_interrupt_that_nobody_can_read_saves_as_well():
  """Ctrl-C ends `| tee log`, too: the line could not be written, and the run
  ended with its steps."""
  script = """
import os, signal, sys
from lbe.run import progress
stop = progress.StopFlag()
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGINT)
os._exit(7 if stop.agreed(1) else 1)
"""
  process = subprocess.Popen(
    [sys.executable, '-c', script],
    stdin=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  process.stderr.close()
  process.stdin.write(b'\n')
  process.stdin.close()
  assert process.wait(timeout=50) == 7


def test_nohup_holds_and_behind_the_loop_signals_are_as_before():
  """A run under nohup that ends with its terminal; an export that nothing
  stops."""
  numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
  before = [signal.getsignal(number) for number in numbers]
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    stop = progress.StopFlag()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) != before[1]
    stop.close()
    assert [signal.getsignal(n) for n in numbers[1:]] == before[1:]
  finally:
    for number, handler in zip(numbers, before, strict=True):
      signal.signal(number, handler)


def test_what_takes_long_is_said_and_what_does_not_is_not(monkeypatch, capfd):
  """A program that is silent for a minute is killed by who waits."""
  monkeypatch.setattr(progress, '_PATIENCE', 0.01)
  with progress.doing('compiling'):
    time.sleep(0.2)
  with progress.doing('asked by another process', quiet=True):
    time.sleep(0.05)
  monkeypatch.setattr(progress, '_PATIENCE', 5.0)
  with progress.doing('what is over soon'):
    pass
  assert capfd.readouterr().err == 'compiling …\n'


def test_what_takes_longer_is_said_again_in_a_file_too(monkeypatch, capfd):
  """Seven seconds without a word, of programs that a pipe reads."""
  longest = max(progress._PATIENCE, progress._ON_TERMINAL, progress._IN_FILE)
  assert longest < 5
  monkeypatch.setattr(progress, '_PATIENCE', 0.01)
  monkeypatch.setattr(progress, '_IN_FILE', 0.05)
  with progress.doing('comparing'):
    time.sleep(0.4)
  first, *others = capfd.readouterr().err.splitlines()
  assert first == 'comparing …'
  assert len(others) > 2 and set(others) == {'comparing … 00:00'}
