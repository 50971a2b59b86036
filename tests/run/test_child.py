"""A program that another one started does not outlive it."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

import conftest

_CHILD = """
import ctypes, os, sys, time
from lbe.run import child
sys.platform = {platform!r}
if sys.platform != 'linux':
  ctypes.CDLL = lambda name: object()  # without prctl
child.end_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize('platform', ['linux', 'darwin'])
def test_an_export_ends_with_the_run_that_started_it(tmp_path, platform):
  """A killed run whose export went on writing beside that of the next one."""
  (tmp_path / 'sleeping.py').write_text(_CHILD.format(platform=platform))
  parent = subprocess.Popen(
    [sys.executable, '-c', "from lbe.run import child; child.run('sleeping')"],
    env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{conftest.ROOT}'},
    stdout=subprocess.PIPE,
  )
  pid = int(parent.stdout.readline())
  parent.kill()
  parent.wait()
  end = time.monotonic() + 30
  while pathlib.Path(f'/proc/{pid}/status').exists():
    assert time.monotonic() < end
    time.sleep(0.01)
