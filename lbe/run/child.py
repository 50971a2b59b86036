"""Programs that another one starts and waits for: they end with it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

_PARENT = 'LBE_PARENT'
_PR_SET_PDEATHSIG = 1


def run(module: str, *arguments: str, **variables: str) -> int:
  """The status of `python -m MODULE ARGUMENTS`, on the CPU."""
  own = {'JAX_PLATFORMS': 'cpu', _PARENT: str(os.getpid())}
  return subprocess.run(
    [sys.executable, '-m', module, *arguments],
    env={**os.environ, **own, **variables},
  ).returncode


def end_with_parent():
  """In a process that `run` started: nothing of it goes on writing alone.

  However the other one ends, by SIGKILL too.
  """
  parent = os.environ.pop(_PARENT, None)
  if not parent:
    return
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  else:  # no other system tells
    threading.Thread(target=_look, args=(int(parent),), daemon=True).start()
  if os.getppid() != int(parent):
    os._exit(1)


def _look(parent):
  while os.getppid() == parent:
    time.sleep(1.0)
  os._exit(1)
