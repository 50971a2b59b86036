"""What hangs is told with its name and the stacks of its threads."""

import contextlib
import time

import pytest

from lbe.run import watchdog


@pytest.fixture
def watch(monkeypatch):
  monkeypatch.setattr(watchdog, 'LEAST_SECONDS', 0.1)
  return watchdog.Watchdog(
    lambda part: contextlib.nullcontext(), look_seconds=0.01
  )


def hangs(seconds):
  time.sleep(seconds)


def test_a_step_far_beyond_its_median_shows_where_it_stands(watch, capfd):
  """A run that stood for a night, and nobody who knew where."""
  watch._seconds['saving'].extend([0.01] * 5)
  with watch('saving'):
    with watch('saving a part'):  # it does not take the watch away
      pass
    hangs(0.5)
  told = capfd.readouterr().err
  assert 'watchdog: saving has taken 0 s so far on process 0 (' in told
  assert 'its median is 0.01 s; all threads stand here:' in told
  assert 1 <= told.count('in hangs') == told.count('watchdog: ') <= 3


def test_what_is_as_slow_as_ever_or_new_is_no_alarm(watch):
  """An alarm at each log line, which waits for the steps since the last."""
  assert watch._limit('new') == watchdog.NEW_SECONDS
  watch._seconds['a'].extend([0.001] * 9)
  assert watch._limit('a') == 0.1
  watch._seconds['a'].append(0.5)
  assert watch._limit('a') == 1.5
  watch._seconds['b'].extend([2.0, 3.0, 4.0])
  assert watch._limit('b') == 30
