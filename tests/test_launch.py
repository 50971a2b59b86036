"""launch/: the environment is made once, right, or refused with reasons."""

import os
import shutil
import subprocess
import venv

import pytest

import conftest

FAKE_PIP = """import pathlib, sys
with open(pathlib.Path(sys.prefix) / 'pip.log', 'a') as f:
  print(*sys.argv[1:], file=f)
"""


@pytest.fixture
def project(tmp_path):
  """launch/ beside a program, an environment whose pip only takes notes."""
  shutil.copytree(conftest.ROOT / 'launch', tmp_path / 'launch')
  shutil.copy(conftest.ROOT / 'setup.py', tmp_path)
  (tmp_path / 'lbe').mkdir()
  (tmp_path / 'lbe' / '__init__.py').touch()
  (tmp_path / 'lbe' / 'hello.py').write_text(
    "import sys\nif __name__ == '__main__':\n  print('hello', sys.argv[1:])\n"
  )
  venv.create(tmp_path / '.venv', symlinks=True)
  (packages,) = tmp_path.glob('.venv/lib/python*/site-packages')
  (packages / 'pip').mkdir()
  (packages / 'pip' / '__main__.py').write_text(FAKE_PIP)
  (tmp_path / 'bin').mkdir()
  return tmp_path


def launch(project, *arguments, **variables):
  """The finished process of a script under launch/, fakes first on PATH."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith('LBE_')}
  path = f'{project / "bin"}:{os.environ["PATH"]}'
  return subprocess.run(
    ['bash', *arguments],
    cwd=project,
    env=kept | {'PATH': path} | variables,
    capture_output=True,
    text=True,
    timeout=60,
  )


def installs(project):
  log = project / '.venv' / 'pip.log'
  lines = log.read_text().splitlines() if log.exists() else []
  return [line.split()[-1] for line in lines if ' -e ' in line]


def test_installs_once_and_again_after_a_change(project):
  """Catches a second run that installs, and a stale environment."""
  for _ in range(2):
    done = launch(
      project, 'launch/local.sh', 'hello', '--x=1', LBE_ACCELERATOR='cpu'
    )
    assert "hello ['--x=1']" in done.stdout, done.stderr
  assert installs(project) == ['.']
  with open(project / 'setup.py', 'a') as f:
    f.write('# changed\n')
  launch(project, 'launch/local.sh', 'hello', LBE_ACCELERATOR='cpu')
  assert installs(project) == ['.', '.']


@pytest.mark.parametrize(
  'driver, extra', [('550.54', '.[cuda12]'), ('580.65', '.[cuda]')]
)
def test_a_gpu_is_found_and_its_driver_decides(project, driver, extra):
  """Catches CUDA 13 wheels under a driver that cannot run them."""
  smi = project / 'bin' / 'nvidia-smi'
  smi.write_text(
    f'#!/bin/sh\ncase "$1" in -L) echo "GPU 0: H";; *) echo {driver};; esac\n'
  )
  smi.chmod(0o755)
  launch(project, 'launch/local.sh', 'hello')
  assert installs(project) == [extra]


@pytest.mark.parametrize(
  'variables, error',
  [
    ({'LBE_ACCELERATOR': 'gpu'}, 'take cpu, cuda or tpu'),
    ({'LBE_PYTHON': '/bin/ls', 'LBE_VENV': 'new'}, 'LBE_PYTHON=/bin/ls is not'),
    ({'LBE_VENV': 'none', 'PATH': '/nowhere'}, 'no Python 3.11 or newer'),
  ],
)
def test_what_cannot_be_is_refused_by_name(project, variables, error):
  """Catches an environment made from the wrong thing, or a bare failure."""
  arguments = ('launch/local.sh', 'hello')
  if 'PATH' in variables:
    tools = project / 'tools'
    tools.mkdir()
    for name in ('bash', 'dirname', 'xargs', 'grep', 'cat', 'uname', 'tr'):
      (tools / name).symlink_to(shutil.which(name))
    variables = variables | {'PATH': str(tools)}
  done = launch(project, *arguments, **variables)
  assert done.returncode != 0
  assert error in done.stderr


def test_an_unknown_program_is_refused_with_the_known_ones(project):
  """Catches a Python traceback for a misspelt program."""
  done = launch(project, 'launch/local.sh', 'helo')
  assert done.returncode != 0
  assert 'take one of: hello.' in done.stderr


def test_processes_share_a_run_and_end_together(project):
  """Catches a process without its number, and an error that is swallowed."""
  done = launch(project, 'launch/multihost_local.sh', '2', 'hello', '--x=1')
  assert done.returncode == 0, done.stderr
  assert '--num_processes=2' in done.stdout and '--process_id=0' in done.stdout
  (project / 'lbe' / 'hello.py').write_text(
    "import sys\nif '--process_id=1' in sys.argv: sys.exit(7)\n"
    'import time; time.sleep(600)\n'
  )
  done = launch(project, 'launch/multihost_local.sh', '2', 'hello')
  assert done.returncode == 7
  assert 'failed with status 7' in done.stderr
