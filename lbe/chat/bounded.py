"""Foreign templates rendered within bounds of time and memory.

Jinja's sandbox keeps a template from reading and running what is not its own,
and lets it run for ever: `range` is limited, loops in loops and macros that
call themselves are not, and nor is `'x' * 10**10`.
"""

import contextlib
import ctypes
import os
import threading
import time

import psutil

SECONDS = 10.0
GIB = 1.0
_LOOK_S = 0.1
# A product or power of more is no text of a conversation.
_MOST = 10_000_000


class TooMuch(BaseException):
  """Raised within a template by the watcher; no handler of it may take it."""


class _Watcher:
  """One thread a process that looks at who is rendering."""

  def __init__(self):
    self._lock = threading.Lock()
    self._pid = self._process = None
    self._watched = {}  # thread → (until, bytes that it may have)
    self._fired = set()

  def begin(self, thread):
    with self._lock:
      if self._pid != os.getpid():  # a fork has no threads of its parent
        self._pid, self._process = os.getpid(), psutil.Process()
        self._watched = {}
        threading.Thread(target=self._look, daemon=True).start()
      most = self._process.memory_info().rss + GIB * 2**30
      self._watched[thread] = (time.monotonic() + SECONDS, most)

  def end(self, thread):
    with self._lock:
      self._watched.pop(thread, None)
      fired = thread in self._fired
      self._fired.discard(thread)
    if fired:
      _take_back(thread)

  def _look(self):
    while True:
      time.sleep(_LOOK_S)
      if not self._watched:
        continue
      rss = self._process.memory_info().rss
      with self._lock:
        for thread, (until, most) in list(self._watched.items()):
          if time.monotonic() > until or rss > most:
            del self._watched[thread]
            self._fired.add(thread)
            _raise_in(thread)


def _raise_in(thread):
  ctypes.pythonapi.PyThreadState_SetAsyncExc(
    ctypes.c_ulong(thread), ctypes.py_object(TooMuch)
  )


def _take_back(thread):
  """What has not arrived in this thread yet would hit whoever comes next.

  None in its place is what CPython up to 3.12 looks for in every thread and
  never finds: Python is slower from then on, and under a profiler hangs.
  """
  try:
    while True:  # one, whether or not there was one
      _raise_in(thread)
      time.sleep(0)
  except TooMuch:
    pass


_WATCHER = _Watcher()


@contextlib.contextmanager
def bounds():
  """Within, ValueError is raised for more than SECONDS or GIB."""
  thread = threading.get_ident()
  _WATCHER.begin(thread)
  try:
    try:
      yield
    finally:
      _WATCHER.end(thread)  # within which it may arrive as well
  except TooMuch:
    raise ValueError(
      f'it takes more than {SECONDS:g} seconds or {GIB:g} GiB for one '
      'conversation; mend it, or take a template by name.'
    ) from None


def product(operator: str, left, right):
  """left * right or left ** right, if it is of a size that texts have.

  Raises OverflowError for more: one that Python alone works on cannot be
  broken off.
  """
  sizes = [
    len(x) if hasattr(x, '__len__') else abs(x) if isinstance(x, int) else 1
    for x in (left, right)
  ]
  if operator == '*':
    much = sizes[0] * sizes[1] > _MOST
  else:
    much = isinstance(left, int) and sizes[1] * sizes[0].bit_length() > _MOST
  if much:
    raise OverflowError(f'{operator} would make more than any text has')
  return left * right if operator == '*' else left**right
