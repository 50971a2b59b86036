"""How programs start: what they may use of the machine."""

import resource
import subprocess
import sys

import pytest

import runs

_PROGRAM = """
import resource, sys
from lbe.run import program
sys.platform = {platform!r}
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, hard))
program.run(lambda argv: print(*resource.getrlimit(resource.RLIMIT_NOFILE)))
"""


@pytest.mark.parametrize('platform', ['linux', 'darwin'])
@pytest.mark.parametrize('before', ['few', 'all'])
def test_a_program_may_open_what_the_system_allows(platform, before):
  """A run on more than a thousand shards ended in the middle."""
  hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
  soft = 256 if before == 'few' else hard
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM.format(platform=platform, soft=soft)],
    env=runs.environment(),
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
  )
  few = before == 'few' and platform == 'darwin'
  expected = min(hard, 10_240) if few else hard
  assert done.stdout == f'{expected} {hard}\n', done.stderr
