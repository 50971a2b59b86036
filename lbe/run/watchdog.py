"""What takes far too long shows where it stands, while it still does."""

import collections
import contextlib
import faulthandler
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable

import jax

# Nothing shorter is told of, nor what is new and shorter than the second.
LEAST_SECONDS = 60
NEW_SECONDS = 600
# So many times its median counts as far too long, and so many times what it
# ever took: a step that waits for those before it is no alarm.
_TIMES_MEDIAN = 10
_TIMES_LONGEST = 3
_KEPT = 100


class Watchdog:
  """Writes the stacks of all threads where a part of the run hangs.

  with watchdog('saving'):
    ...

  Within is also `watch`, a compilation.Watch. Parts are told apart by name and
  measured by the clock alone: nothing waits for a device. It tells again each
  time that the part has taken twice as long.
  """

  def __init__(
    self,
    watch: Callable[[str], contextlib.AbstractContextManager],
    *,
    look_seconds: float = 1.0,
  ):
    self._watch = watch
    self._who = f'process {jax.process_index()} ({socket.gethostname()})'
    self._look_seconds = look_seconds
    self._seconds = collections.defaultdict(
      lambda: collections.deque(maxlen=_KEPT)
    )
    self._at = None  # (part, since when, next told after so many seconds)
    threading.Thread(target=self._look, daemon=True).start()

  @contextlib.contextmanager
  def __call__(self, part: str):
    start = time.monotonic()
    outer, self._at = self._at, (part, start, self._limit(part))
    try:
      with self._watch(part):
        yield
    finally:
      self._at = outer
    self._seconds[part].append(time.monotonic() - start)

  def _limit(self, part):
    took = self._seconds[part]
    if not took:
      return NEW_SECONDS
    return max(
      LEAST_SECONDS,
      _TIMES_MEDIAN * statistics.median(took),
      _TIMES_LONGEST * max(took),
    )

  def _look(self):
    while True:
      time.sleep(self._look_seconds)
      at = self._at
      if at is None:
        continue
      part, start, limit = at
      so_far = time.monotonic() - start
      if so_far > limit:
        self._tell(part, so_far)
        if self._at is at:
          self._at = (part, start, 2 * so_far)

  def _tell(self, part, so_far):
    took = self._seconds[part]
    usual = (
      f'its median is {statistics.median(took):.3g} s' if took else 'it is new'
    )
    print(
      f'watchdog: {part} has taken {so_far:,.0f} s so far on {self._who}, '
      f'{usual}; all threads stand here:',
      file=sys.stderr,
      flush=True,
    )
    # A stream of its own where pytest or a notebook has none.
    with contextlib.suppress(OSError, ValueError, AttributeError):
      faulthandler.dump_traceback(sys.stderr)
