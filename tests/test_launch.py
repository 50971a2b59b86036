"""launch/: the environment is made once, right, or refused with reasons."""

import contextlib
import json
import math
import os
import pty
import shutil
import subprocess
import sys
import time
import venv

import pytest
import yaml

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


def fake(project, name, script):
  path = project / 'bin' / name
  path.write_text(f'#!/bin/bash\n{script}')
  path.chmod(0o755)


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
  variables = {'LBE_ACCELERATOR': 'cpu', 'LBE_EXTRAS': 'plot,chat'}
  done = launch(project, 'launch/local.sh', 'hello', **variables)
  assert installs(project) == ['.', '.[plot,chat]']
  assert 'installing lbe[plot,chat] into .venv' in done.stdout
  assert 'enter it by: source .venv/bin/activate' in done.stdout


def test_an_installer_that_says_nothing_is_heard_on_a_terminal(project):
  """Minutes of silence, in which a newcomer gives up."""
  (pip,) = project.glob('.venv/lib/python*/site-packages/pip/__main__.py')
  # torch alone takes its time, whose installer's words are thrown away: till
  # somebody has been told.
  heard = project / 'heard'
  pip.write_text(
    f'{FAKE_PIP}import pathlib, time\n'
    'left = 600 * ("--no-deps" in sys.argv)\n'
    f'while left and not pathlib.Path({str(heard)!r}).exists():\n'
    '  time.sleep(0.1)\n'
    '  left -= 1\n'
  )
  ours, theirs = pty.openpty()
  variables = {'LBE_ACCELERATOR': 'cpu', 'LBE_EXTRAS': 'hf'}
  command = ['bash', 'launch/local.sh', 'hello']
  with subprocess.Popen(
    command,
    cwd=project,
    env=os.environ | variables,
    stdout=theirs,
    stderr=theirs,
  ) as process:
    os.close(theirs)
    told = b''
    with contextlib.suppress(OSError), os.fdopen(ours, 'rb') as screen:
      while got := screen.read1():
        told += got
        if b'lbe: still installing, ' in told:
          heard.touch()
  assert process.returncode == 0
  assert heard.exists() and b'hello []' in told


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


def test_a_driver_that_fails_is_told(project):
  """Catches a node whose GPUs are left idle by a run on its CPU, silently."""
  fake(project, 'nvidia-smi', 'echo "Driver/library version mismatch"; exit 18')
  done = launch(project, 'launch/local.sh', 'hello')
  assert 'hello []' in done.stdout, done.stderr
  assert 'nvidia-smi fails (Driver/library version mismatch)' in done.stderr
  assert 'LBE_ACCELERATOR=cuda' in done.stderr
  fake(project, 'nvidia-smi', 'echo "No devices were found"; exit 6')
  done = launch(project, 'launch/local.sh', 'hello')
  assert 'hello []' in done.stdout and 'warning' not in done.stderr


def test_an_environment_whose_making_was_interrupted_is_made(project):
  """Catches a first Ctrl-C after which no line here works any more."""
  (project / '.venv' / 'bin' / 'activate').unlink()  # written last
  fake(
    project,
    'python3.11-bare',  # the tests' pip stays
    f'case "$*" in "-m venv"*) set -- -m venv --without-pip "$3";; esac\n'
    f'exec {sys.executable} "$@"',
  )
  variables = {'LBE_ACCELERATOR': 'cpu', 'LBE_PYTHON': 'python3.11-bare'}
  done = launch(project, 'launch/local.sh', 'hello', **variables)
  assert 'hello []' in done.stdout, done.stderr
  assert installs(project) == ['.']


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
  """Catches a process without its number, an error that is swallowed, and one
  that leaves open who failed, where and when."""
  done = launch(project, 'launch/multihost_local.sh', '2', 'hello', '--x=1')
  assert done.returncode == 0, done.stderr
  assert '--num_processes=2' in done.stdout and '--process_id=0' in done.stdout
  (project / 'lbe' / 'hello.py').write_text(
    'import os, signal, sys, time\n'
    "if '--process_id=1' not in sys.argv: time.sleep(600)\n"
    "with open(os.environ['LBE_HEARTBEAT'], 'w') as f:\n"
    "  print('1 host-b 57', file=f)\n"
    'os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  done = launch(project, 'launch/multihost_local.sh', '2', 'hello')
  assert done.returncode == 137
  assert (
    'process 1 ended first, with status 137 (SIGKILL), on host-b after step 57'
    in done.stderr
  )


# ---------------------------------------------------------------- clusters


FLAGS = ('--config=configs/c.py', '--workdir=gs://b/f')


@pytest.fixture
def pod(project):
  """A gcloud that answers from files, a line a call, and takes notes."""
  fake(
    project,
    'gcloud',
    'next() { head -n 1 "$1"; sed -i 1d "$1"; }\n'
    'echo "$4 $*" | head -n 1 >>gcloud.log\n'
    'case "$*" in *value*) case $(head -n 1 states) in\n'
    'ERROR*) next states >&2; exit 1;; *) next states;; esac;;\n'
    '*cat\\ lbe.status*) next statuses;; esac',
  )
  subprocess.run(['git', 'init', '-q'], cwd=project, check=True)
  subprocess.run(['git', 'add', 'setup.py'], cwd=project, check=True)
  return project


def test_a_pod_is_used_as_printed(pod):
  """Catches a step that is left out, and a command that --print runs."""
  done = launch(
    pod,
    'launch/tpu_pod.sh',
    '--print',
    'run',
    *FLAGS,
    "--config.x=it's",
    LBE_TPU_SLICES='2',
    LBE_TPU_SPOT='1',
    LBE_TPU_TYPE='v6e-64',
  )
  assert done.returncode == 0, done.stderr
  assert not (pod / 'gcloud.log').exists()
  lines = done.stdout.splitlines()
  assert [line.split()[4] for line in lines] == [
    *('create', 'describe', 'scp', 'ssh', 'ssh', 'describe', 'ssh')
  ]
  create, _, _, install, start, *_ = lines
  for flag in ('--node-count=2', '--spot', '--accelerator-type=v6e-64'):
    assert flag in create
  assert '--worker=all --node=all' in install and 'enter remote' in install
  assert '-m lbe.train --distributed --config=configs/c.py' in start


def test_a_pod_that_is_preempted_is_made_anew_and_goes_on(pod):
  """Catches a lost TPU that ends the run, a failure that is tried for ever,
  and a start on a TPU that is not there yet."""
  (pod / 'states').write_text(
    'ACTIVE\nACTIVE\nSUSPENDED\nWAITING_FOR_RESOURCES\nACTIVE\nACTIVE\n'
  )
  (pod / 'statuses').write_text('running\n1\n0\n')
  done = launch(pod, 'launch/tpu_pod.sh', 'run', *FLAGS, LBE_TPU_POLL='0')
  assert done.returncode == 0, done.stderr
  assert 'train has ended' in done.stdout
  verbs = [x.split()[0] for x in (pod / 'gcloud.log').read_text().splitlines()]
  assert [v for v in verbs if v != 'describe'] == [
    'ssh',  # running
    *('delete', 'create', 'scp', 'ssh', 'ssh'),
    'ssh',  # failed
    *('ssh', 'ssh'),  # stopped, started again
    'ssh',  # ended
  ]
  (pod / 'states').write_text('ACTIVE\n' * 9)
  (pod / 'statuses').write_text('1\n' * 9)
  done = launch(
    pod,
    'launch/tpu_pod.sh',
    'run',
    *FLAGS,
    LBE_TPU_POLL='0',
    LBE_TPU_RETRIES='1',
  )
  assert done.returncode == 1
  assert 'train ended with status 1 2 times' in done.stderr


def test_a_pod_that_cannot_be_asked_about_is_left_alone(pod):
  """Catches a TPU that trains and is deleted since the network was down, and
  one that is not there and waited for."""
  call = 'ERROR: (gcloud.compute.tpus.queued-resources.describe)'
  down = f'{call} There was a problem refreshing your current auth tokens\n'
  (pod / 'states').write_text(f'ACTIVE\nACTIVE\n{2 * down}ACTIVE\n{down}ACTIVE')
  (pod / 'statuses').write_text('running\n' * 2 + '0')
  done = launch(pod, 'launch/tpu_pod.sh', 'run', *FLAGS, LBE_TPU_POLL='0')
  assert done.returncode == 0, done.stderr
  assert done.stderr.count(down) == 2  # once for each time that it was down
  log = pod / 'gcloud.log'
  verbs = [line.split()[0] for line in log.read_text().splitlines()]
  assert [v for v in verbs if v != 'describe'] == ['ssh'] * 3  # the looks
  log.unlink()
  gone = f"{call} NOT_FOUND: Resource 'projects/p/lbe' was not found.\n"
  (pod / 'states').write_text(f'{gone}{down}ACTIVE\nACTIVE\n')
  (pod / 'statuses').write_text('0\n')
  done = launch(pod, 'launch/tpu_pod.sh', 'run', *FLAGS, LBE_TPU_POLL='0')
  assert done.returncode == 0, done.stderr
  verbs = [line.split()[0] for line in log.read_text().splitlines()]
  assert [v for v in verbs if v not in ('describe', 'delete')] == [
    *('create', 'scp', 'ssh', 'ssh', 'ssh')
  ]
  # One that never could be asked about, as without a login, is not waited for.
  (pod / 'states').write_text(down)
  done = launch(pod, 'launch/tpu_pod.sh', 'run', *FLAGS, LBE_TPU_POLL='0')
  assert done.returncode == 1
  assert 'gcloud does not say what lbe is' in done.stderr


@pytest.fixture
def worker(pod):
  """A pod of one worker, where commands are run, in the folder `home`; its
  train waits for a file `go`."""
  home = pod / 'home'
  (home / 'lbe').mkdir(parents=True)
  (home / 'lbe' / '.venv').symlink_to(pod / '.venv')
  (pod / 'lbe' / 'train.py').write_text(
    'import pathlib, time\n'
    "print('train begins', flush=True)\n"
    'for _ in range(300):\n'
    "  if pathlib.Path('../go').exists(): break\n"
    '  time.sleep(0.1)\n'
    "else: raise SystemExit('nobody came')\n"
  )
  subprocess.run(['git', 'add', 'launch', 'lbe'], cwd=pod, check=True)
  # As of ssh, whatever holds the pipe of a command is waited for.
  fake(
    pod,
    'gcloud',
    'case "$4" in describe) echo ACTIVE;; scp) cp "$5" home;;\n'
    'ssh) cd home; for x; do case "$x" in --command=*)\n'
    'HOME=$PWD bash -c "${x#--command=}" | cat;; esac; done;; esac',
  )
  return pod


def wait_for(path):
  """The text of a file, once it has one."""
  for _ in range(300):
    if path.exists() and (text := path.read_text()):
      return text
    time.sleep(0.1)
  raise AssertionError(f'{path} has not come')


def test_a_start_ends_while_train_goes_on(worker):
  """Catches a start that returns after days, when train has ended, and one
  after which train is not known yet."""
  home = worker / 'home'
  variables = {'LBE_ACCELERATOR': 'cpu'}
  for verb in (['install'], ['start', *FLAGS]):
    done = launch(worker, 'launch/tpu_pod.sh', *verb, **variables)
    assert done.returncode == 0, done.stderr
  assert not (home / 'lbe.status').exists()
  pid = int((home / 'lbe.pid').read_text())
  assert wait_for(home / 'lbe.log') == 'train begins\n'
  assert os.getsid(pid) == pid  # what `stop` ends
  (home / 'go').touch()
  assert wait_for(home / 'lbe.status') == '0\n'


def test_a_pod_on_which_nothing_was_started_is_not_watched_for_ever(worker):
  """Catches a TPU that idles, and is paid for, after `create` or a first run
  that was interrupted, and a train that is started twice."""
  (worker / 'home' / 'go').touch()
  variables = {'LBE_ACCELERATOR': 'cpu', 'LBE_TPU_POLL': '0.1'}
  for _ in range(2):
    done = launch(worker, 'launch/tpu_pod.sh', 'run', *FLAGS, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('train has ended\n')
  assert installs(worker) == ['.[remote]']
  assert (worker / 'home' / 'lbe.log').read_text() == 'train begins\n'


def test_a_pod_needs_a_bucket(pod):
  """Catches a run whose hosts write a checkpoint into folders of their own."""
  done = launch(
    pod, 'launch/tpu_pod.sh', 'run', '--config=c.py', '--workdir=runs/x'
  )
  assert done.returncode == 1 and 'give --workdir=gs://' in done.stderr


def test_slurm_queues_again_when_its_time_is_over(project):
  """Catches a job that ends with its first time limit, and a failure that is
  hidden."""
  job = {'SLURM_JOB_ID': '7', 'SLURM_SUBMIT_DIR': str(project)}
  job['LBE_ACCELERATOR'] = 'cpu'
  fake(project, 'scontrol', 'echo "$*" >>scontrol.log')
  fake(project, 'srun', 'echo "$*" >srun.log; exit 3')
  done = launch(project, 'launch/slurm.sh', *FLAGS, **job)
  assert done.returncode == 3 and not (project / 'scontrol.log').exists()
  assert (
    'python -m lbe.train --distributed' in (project / 'srun.log').read_text()
  )
  fake(
    project,
    'srun',
    'trap "echo saved >saved; exit 0" TERM\nkill -TERM $PPID\n'
    'for i in {1..100}; do sleep 0.1; done',
  )
  done = launch(project, 'launch/slurm.sh', *FLAGS, **job)
  assert done.returncode == 0, done.stderr
  assert (project / 'saved').exists()
  assert (project / 'scontrol.log').read_text() == 'requeue 7\n'


def test_the_jobset_starts_all_pods_of_a_slice_again():
  """Catches YAML that does not load, hosts that do not make up the slice, and
  a pod that comes back alone into a run that has ended."""
  path = conftest.ROOT / 'launch' / 'gke_jobset.yaml'
  spec = yaml.safe_load(path.read_text())['spec']
  assert spec['failurePolicy']['maxRestarts'] > 0
  (slices,) = spec['replicatedJobs']
  job = slices['template']['spec']
  pod = job['template']['spec']
  assert (job['backoffLimit'], pod['restartPolicy']) == (0, 'Never')
  (container,) = pod['containers']
  topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  chips = math.prod(map(int, topology.split('x')))
  hosts = chips // container['resources']['limits']['google.com/tpu']
  assert job['parallelism'] == job['completions'] == hosts
  assert container['command'] == ['python', '-m', 'lbe.train']
  assert '--distributed' in container['args']
  assert any(a.startswith('--workdir=gs://') for a in container['args'])


@pytest.mark.parametrize(
  'accelerator, extra',
  [
    ('cpu', '.[data,hf]'),
    ('cuda', '.[data,hf,cuda]'),
    ('tpu', '.[data,hf,tpu]'),
  ],
)
def test_an_image_is_installed_as_the_launchers_do(project, accelerator, extra):
  """Catches a Dockerfile that copies what is not there or installs another
  accelerator's JAX; its shell line is run, with a pip that takes notes."""
  lines = (project / 'launch' / 'Dockerfile').read_text().splitlines()
  for line in lines:
    if line.startswith('COPY '):
      assert all((conftest.ROOT / x).exists() for x in line.split()[1:-1]), line
  (install,) = [json.loads(x[4:]) for x in lines if x.startswith('RUN ')]
  done = launch(
    project,
    *install[1:],
    ACCELERATOR=accelerator,
    EXTRAS='data hf',
  )
  assert done.returncode == 0, done.stderr
  assert installs(project) == [extra]
