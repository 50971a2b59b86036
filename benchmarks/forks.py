"""Programs as forks of one process, which signal themselves for kills.py.

And where several of them meet.
"""

import contextlib
import json
import mmap
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import time

_EVENTS = (
  *('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate'),
)
_LIMIT_SECONDS = 600


def free_port():
  """A port of this machine for processes that have to meet."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


class Fork:
  """A program in a fork, which signals itself at its n-th operation."""

  def __init__(self, command, work, log, *, at=0, number=0):
    self.counts = mmap.mmap(-1, 16)  # operations, and whether it was signalled
    self.status = self.ended = None
    self.pid = os.fork()
    if not self.pid:
      _become(command, work, log, self.counts, at, number)

  def look(self):
    """Its status or -signal once it has ended; what has stopped goes on."""
    if self.status is None:
      pid, told = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
      if pid and os.WIFSTOPPED(told):
        time.sleep(0.1)
        os.kill(self.pid, signal.SIGCONT)
      elif pid:
        self.status = os.waitstatus_to_exitcode(told)
        self.ended = time.monotonic()
    return self.status

  def end(self):
    os.kill(self.pid, signal.SIGKILL)
    os.waitpid(self.pid, 0)

  def counted(self):
    """(operations, whether it was signalled)."""
    return struct.unpack('qq', self.counts[:16])


def wait(forks):
  """Whether all have ended in time; what has not is ended."""
  end = time.monotonic() + _LIMIT_SECONDS
  while time.monotonic() < end:
    if None not in [fork.look() for fork in forks]:
      return True
    time.sleep(0.02)
  for fork in forks:
    if fork.look() is None:
      fork.end()
  return False


def _become(command, work, log, counts, at, number):
  """Never returns."""
  status = 1
  try:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for x in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      signal.signal(x, signal.SIG_DFL if x != signal.SIGINT else _interrupt)
    done, prefix = 0, os.fspath(work)

    def hook(event, arguments):
      nonlocal done
      if event not in _EVENTS or not arguments:
        return
      path = arguments[0]
      path = os.fsdecode(path) if isinstance(path, str | bytes) else ''
      if path.startswith(prefix):
        done += 1
        counts[:8] = struct.pack('q', done)
        if done == at:
          counts[8:16] = struct.pack('q', 1)
          os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    sys.argv = list(command)
    runpy.run_module(command[0], run_name='__main__', alter_sys=True)
    status = 0
  except SystemExit as end:
    status = end.code if isinstance(end.code, int) else int(bool(end.code))
  except KeyboardInterrupt:
    status = 130
  finally:
    with contextlib.suppress(BaseException):
      threading._shutdown()
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(status)


_interrupt = signal.default_int_handler


def asked(function, *arguments):
  """What a function says in a fork, as JSON."""
  reader, writer = os.pipe()
  pid = os.fork()
  if not pid:
    with contextlib.suppress(BaseException):
      os.close(reader)
      with os.fdopen(writer, 'w') as file:
        json.dump(function(*arguments), file)
      os._exit(0)
    os._exit(1)
  os.close(writer)
  with os.fdopen(reader) as file:
    said = file.read()
  os.waitpid(pid, 0)
  return json.loads(said) if said else 'cannot be read'
