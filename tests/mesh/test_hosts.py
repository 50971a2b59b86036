"""Several processes on one machine: one run, and a clear end."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from lbe.mesh import hosts
from lbe.models import architecture
from lbe.run import checkpoint
from lbe.vocab import tokenizers

import runs

STEPS = ('--config.budget.steps=24', '--config.checkpoint.every=4')


def by_flags(i, port):
  return (
    f'--coordinator_address=localhost:{port}',
    '--num_processes=2',
    f'--process_id={i}',
  ), {}


def by_slurm(i, port):
  """As srun starts two tasks on this machine."""
  return ('--distributed',), {
    'SLURM_JOB_ID': '7',
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': '2',
    'SLURM_PROCID': str(i),
    'SLURM_LOCALID': str(i),
    'JAX_COORDINATOR_PORT': str(port),
  }


def start_two(*command, join=by_flags, **how):
  port = runs.free_port()
  both = []
  for i in range(2):
    flags, variables = join(i, port)
    both.append(
      runs.start('train', *command, *flags, num_devices=4, **how, **variables)
    )
  return both


def test_hosts_that_see_other_checkpoints_do_not_go_on(tmp_path):
  """Each read the shards of its own step, on a disk that shows an old list."""
  script = tmp_path / 'late.py'
  script.write_text("""
import runpy
from lbe.run import checkpoint

find = checkpoint._find
checkpoint._find = lambda path: (
  find(path).with_name('2') if find(path) else None
)
runpy.run_module('lbe.train', run_name='__main__')
""")
  command = (
    *runs.TINY,
    '--config.budget.steps=4',
    '--config.checkpoint.every=2',
    '--config.checkpoint.keep=2',
    f'--workdir={tmp_path}/run',
  )
  runs.run('train', *command, num_devices=8)
  port = runs.free_port()
  first = runs.start('train', *command, *by_flags(0, port)[0], num_devices=4)
  late = subprocess.Popen(
    [sys.executable, script, *command, *by_flags(1, port)[0]],
    cwd=runs.ROOT,
    env=runs.environment(4) | {'PYTHONPATH': str(runs.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  for process in (first, late):
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 1, output
    assert 'first_step: 2 on process 1' in output, output
    assert f'Mend the disk under {tmp_path}/run' in output


def test_two_processes_of_which_one_was_killed_equal_one(tmp_path):
  """Hosts that load other rows, a loss divided per host, a survivor that hangs
  and a run that begins anew differ here."""
  cache = f'--config.data.cache_dir={tmp_path}/data'
  one, two = tmp_path / 'one', tmp_path / 'two'
  command = (*runs.TINY, *STEPS, cache, '--log_batches')
  output = runs.run('train', *command, f'--workdir={one}', num_devices=8)
  both = start_two(*command, f'--workdir={two}', join=by_slurm)
  runs.wait_for_step(both[0], two, 5)
  while not checkpoint.is_checkpoint(two):  # it is saved in the background
    assert both[0].poll() is None
    time.sleep(0.01)
  both[1].kill()
  start = time.monotonic()
  killed = [p.communicate(timeout=240)[0] for p in both]
  assert time.monotonic() - start < 60
  assert both[1].returncode == -signal.SIGKILL
  assert both[0].returncode not in (0, None), killed
  both = start_two(*command, f'--workdir={two}')
  outputs = [p.communicate(timeout=240)[0] for p in both]
  assert [p.returncode for p in both] == [0, 0], outputs
  resumed = int(re.search(r'resuming at step (\d+)', outputs[0])[1])
  assert 0 < resumed < 24 and resumed % 4 == 0
  alone = runs.digests(output)
  parts = [
    runs.digests(before) | runs.digests(after)
    for before, after in zip(killed, outputs, strict=True)
  ]
  assert len(alone) == 24 * 8
  assert all(len(part) == 24 * 4 for part in parts)
  assert {**parts[0], **parts[1]} == alone
  a, b = runs.losses(one), runs.losses(two)
  assert a.keys() == b.keys() and len(a) == 24
  np.testing.assert_allclose(
    list(a.values()), list(b.values()), rtol=0, atol=1e-5
  )


SCORED = """
from lbe.configs import common


def get_config():
  config = common.base()
  config.init_from = {model!r}
  config.execution.compute_dtype = 'float32'
  config.eval_batch_size = 4
  config.evals.text = common.perplexity(path={text!r})
  config.evals.exam = common.multiple_choice(
    protocol='choices@letters', path={exam!r}
  )
  config.evals.samples = common.generation(
    path={prompts!r}, max_new_tokens=8
  )
  return config
"""


@pytest.mark.parametrize('to', [(1,), (0, 1)], ids=['one', 'both'])
def test_an_interrupt_saves_on_all_processes_at_one_step(to, tmp_path):
  """Ctrl-C on one host ended all of them without a save."""
  command = (
    *runs.TINY,
    '--config.budget.steps=3000',
    '--config.checkpoint.every=3000',
    f'--workdir={tmp_path}',
  )
  both = start_two(*command)
  runs.wait_for_step(both[0], tmp_path, 3)
  for i in to:
    both[i].send_signal(signal.SIGINT)
  outputs = [process.communicate(timeout=100)[0] for process in both]
  assert [p.returncode for p in both] == [0, 0], outputs
  saved = int(checkpoint.find(tmp_path).name)
  assert 3 <= saved < 3000
  assert f'stopped at step {saved:,}' in outputs[0]
  assert 'Ctrl-C again ends at once' in outputs[to[0]]


def test_scores_over_two_processes_are_those_of_one(tmp_path):
  """Items that a host loses, scores twice or hands over in another order."""
  c = architecture.Config(
    vocab_size=259,
    dim=32,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=32,
    init_std=0.5,
  )
  runs.save_random(tmp_path / 'model', c, tokenizers.load('bytes'))
  paths = {
    'model': str(tmp_path / 'model'),
    **{x: str(tmp_path / f'{x}.jsonl') for x in ('text', 'exam', 'prompts')},
  }
  words = ['one', 'three', 'a longer one', 'and the longest of them all']
  written = {
    'text': [json.dumps({'text': f'{w} {w}'}) for w in words * 3],
    'exam': [
      json.dumps({'question': f'{i}?', 'choices': words, 'answer': i % 4})
      for i in range(11)
    ],
    'prompts': [json.dumps({'prompt': f'{w} {w}'}) for w in words[:3]],
  }
  for name, lines in written.items():
    (tmp_path / f'{name}.jsonl').write_text('\n'.join(lines), encoding='utf-8')
  config = tmp_path / 'config.py'
  config.write_text(SCORED.format(**paths))

  def command(name):
    return f'--config={config}', f'--workdir={tmp_path / name}'

  runs.run('evaluate', *command('one'), num_devices=4)
  port = runs.free_port()
  both = [
    runs.start(
      'evaluate', *command('two'), *by_flags(i, port)[0], num_devices=2
    )
    for i in range(2)
  ]
  outputs = [p.communicate(timeout=240)[0] for p in both]
  assert [p.returncode for p in both] == [0, 0], outputs
  for file in ('results.jsonl', 'predictions.jsonl'):
    one, two = (
      (tmp_path / name / file).read_text(encoding='utf-8').splitlines()
      for name in ('one', 'two')
    )
    assert len(one) == len(two) >= 3
    for a, b in zip(one, two, strict=True):
      a, b = (
        dict(jax.tree_util.tree_leaves_with_path(json.loads(x))) for x in (a, b)
      )
      assert a == {
        path: pytest.approx(x, rel=1e-5) if isinstance(x, float) else x
        for path, x in b.items()
      }


def test_hosts_with_another_config_or_code_are_refused(tmp_path):
  """Catches hosts that compile different programs and wait for ever."""
  for part in ('lbe', 'configs'):
    shutil.copytree(runs.ROOT / part, tmp_path / part)
  with open(tmp_path / 'lbe' / 'training' / 'loss.py', 'a') as f:
    f.write('# another version\n')
  config = f'--config={runs.ROOT}/configs/quickstart.py'
  port = runs.free_port()
  both = [
    runs.start(
      'train',
      config,
      f'--workdir={tmp_path}/run',
      f'--config.seed={i}',
      *by_flags(i, port)[0],
      cwd=[runs.ROOT, tmp_path][i],
    )
    for i in range(2)
  ]
  for process in both:
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 1, told
    assert f'config.seed: 1 on process 1 ({socket.gethostname()}), 0 on' in told
    assert 'lbe/training/loss.py: ' in told
    assert 'lbe/training/step.py' not in told
  assert not (tmp_path / 'run').exists()


def test_data_that_a_host_does_not_see_is_refused_with_the_line(tmp_path):
  """Catches a host that tokenizes for itself, at the same time or never."""
  config = f'--config={runs.ROOT}/configs/quickstart.py'
  fields = ('--config.tokenizer=bytes', '--config.data.cache_dir=data')
  port = runs.free_port()
  both = []
  for i in range(2):
    cwd = tmp_path / f'host{i}'
    cwd.mkdir()
    command = (
      config,
      f'--workdir={tmp_path}/run',
      *fields,
      *by_flags(i, port)[0],
    )
    both.append(runs.start('train', *command, cwd=cwd))
  for process in both:
    told = process.communicate(timeout=300)[0]
    assert process.returncode == 1, told
    assert 'no tokenized data of this run on process 0 (' in told
    line = ['python -m lbe.prepare', config, f'--workdir={tmp_path}/run']
    assert ' '.join([*line, *fields]) + '\n' in told


# `lbe.train` in which a bit flips on the third device of process 1.
_FLIPPED = """
import runpy, sys
sys.path.insert(0, 'tests')
import flips, jax
from lbe.training import replay

taken = replay.Replay.__call__

def step(self, number, train_step, state, *rest):
  if number == 6:
    self.look(5, state)  # the devices have read what the step before left
    if jax.process_index() == 1:
      flips.flip(state['params']['final_norm_D'], device=2, byte=3, bit=5)
  return taken(self, number, train_step, state, *rest)

replay.Replay.__call__ = step
runpy.run_module('lbe.train', run_name='__main__')
"""


def test_a_bit_that_flips_on_one_host_ends_all_of_them_alike(tmp_path):
  """Only its host sees it: the others would wait for it in the next step."""
  script = tmp_path / 'child.py'
  script.write_text(_FLIPPED)
  command = (
    *runs.TINY,
    '--config.budget.steps=20',
    '--config.checkpoint.every=4',
    '--config.replay_every=3',
    '--config.log_every=5',
    f'--workdir={tmp_path}/run',
  )
  port = runs.free_port()
  both = [
    subprocess.Popen(
      [sys.executable, script, *command, *by_flags(i, port)[0]],
      cwd=runs.ROOT,
      env=runs.environment(4) | {'PYTHONPATH': str(runs.ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=240)[0] for process in both]
  assert [process.returncode for process in both] == [1, 1], outputs
  for output in outputs:
    assert re.search(
      r'error: before step 6: the state is not as .*: params/final_norm_D \(as '
      r'by bit 29 of one number\) on device \d+ \(cpu\) of process 1 \(.*\)\. '
      r'No checkpoint in use has it: the same command goes on from step 4\.',
      output,
    ), output
  assert checkpoint.steps(tmp_path / 'run') == [4]


# -------------------------------------------------- the service, by itself


def talk(num_processes, script, *, cwd=None, silent=None):
  """What processes that have joined print, each the script's `i`.

  The `silent` one is not waited for.
  """
  head = (
    'import os, signal, sys, time; from lbe.mesh import hosts\n'
    'i, n, port = map(int, sys.argv[1:])\n'
    "hosts.join(f'localhost:{port}', n, i, heartbeat_seconds=3)\n"
  )
  port = str(runs.free_port())
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', head + script, str(i), str(num_processes), port],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      cwd=cwd and cwd(i),
      text=True,
    )
    for i in range(num_processes)
  ]
  try:
    waited = [p for i, p in enumerate(processes) if i != silent]
    return [p.communicate(timeout=120)[0] for p in waited]
  finally:
    for p in processes:
      p.kill()
      p.communicate()


def test_a_barrier_names_itself_and_who_did_not_come():
  """Catches a wait that never ends or leaves open for whom."""
  told = talk(
    3,
    'if i != 1:\n'
    '  hosts.TELL_SECONDS = 0.5\n'
    '  try:\n'
    "    hosts.wait_for_others('lunch', limit_seconds=2)\n"
    '  except TimeoutError as error:\n'
    '    print(error)\n'
    'else:\n'
    '  time.sleep(3)\n'
    "hosts.wait_for_others('the bill')\n",
  )
  for i in (0, 2):
    assert "waited 2 s at 'lunch', and process 1 (" in told[i]
    assert "waiting for the others at 'lunch': " in told[i]
  assert 'lunch' not in told[1]


@pytest.mark.parametrize(
  'victim, how', [(1, signal.SIGSTOP), (1, signal.SIGKILL), (0, signal.SIGKILL)]
)
def test_a_host_that_dies_or_falls_silent_ends_the_others(victim, how):
  """Catches survivors that wait, also where no connection breaks."""
  start = time.monotonic()
  (told,) = talk(
    2,
    "hosts.wait_for_others('start')\n"
    f'if i == {victim}: os.kill(os.getpid(), {int(how)})\n'
    "hosts.wait_for_others('never', limit_seconds=600)\n",
    silent=victim,
  )
  assert time.monotonic() - start < 60
  assert 'detected fatal errors' in told


def test_the_slowest_host_is_named_where_it_holds_up_the_others():
  """Catches a host that is blamed for a little, or for what all wait for."""
  metrics, slow = hosts.compare({0: 0.1, 1: 0.9, 2: 0.2}, 1.0)
  assert slow == 1
  assert metrics['hosts/slowest_own_seconds'] == 0.9
  assert metrics['hosts/median_own_seconds'] == 0.2
  assert hosts.compare({0: 0.85, 1: 0.9, 2: 0.82}, 1.0)[1] is None
  told = talk(
    2,
    "if i == 0: hosts.wait_for_others('told')\n"
    'hosts.pace(0.5 * i, 1.0, print)\n'
    "if i == 1: hosts.wait_for_others('told')\n",
  )
  name = socket.gethostname()
  assert f'process 1 ({name}) takes 0.500 s of 1.000 s a step' in told[0]


def test_a_workdir_that_is_another_folder_elsewhere_is_refused(tmp_path):
  """Catches checkpoints of which every host keeps its part to itself."""
  (tmp_path / '0').mkdir()
  (tmp_path / '1').mkdir()
  script = (
    'try:\n'
    "  hosts.check_shared('run')\n"
    "  print('shared')\n"
    'except ValueError as error:\n'
    '  print(error)\n'
  )
  for one in talk(2, script, cwd=lambda i: tmp_path / str(i)):
    assert '--workdir=run of process 0 (' in one
    assert 'is not seen by process 1 (' in one
  for one in talk(2, script, cwd=lambda i: tmp_path):
    assert one.endswith('shared\n')
  assert not list((tmp_path / 'run').iterdir())
