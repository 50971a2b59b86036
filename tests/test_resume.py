"""A run that was interrupted is the run that was not."""

import json
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from lbe.run import checkpoint

import runs

# The save at step 80 waits for that of step 40, so a run that shows a later
# step has a checkpoint.
STEPS = ('--config.budget.steps=120', '--config.checkpoint.every=40')


def test_killed_and_resumed_equals_never_killed_bit_for_bit(tmp_path):
  """State that is not saved (moments, data position, step) shows here."""
  cache = f'--config.data.cache_dir={tmp_path}/data'
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  runs.run('train', *runs.TINY, *STEPS, cache, f'--workdir={whole}')

  command = (*runs.TINY, *STEPS, cache, f'--workdir={broken}')
  process = runs.start('train', *command)
  runs.wait_for_step(process, broken, 84)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert checkpoint.find(broken).name in ('40', '80')
  output = runs.run('train', *command)
  assert 'resuming at step' in output
  assert '; found compiled, ' in output

  steps = [row['step'] for row in runs.lines(broken)]
  assert steps == sorted(set(steps)), 'a step stands twice'
  assert len(runs.losses(whole)) == 120
  assert runs.losses(broken) == runs.losses(whole)
  jax.tree.map(
    np.testing.assert_array_equal, runs.load(broken), runs.load(whole)
  )


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGHUP'])
def test_a_signal_saves_and_the_next_run_goes_on_from_there(name, tmp_path):
  """Preempted, Ctrl-C, a closed terminal: no step may be lost."""
  command = (
    *runs.TINY,
    '--config.budget.steps=2000',
    '--config.checkpoint.every=1000',
    f'--workdir={tmp_path}',
  )
  process = runs.start('train', *command)
  runs.wait_for_step(process, tmp_path, 3)
  process.send_signal(getattr(signal, name))
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0, output
  saved = int(checkpoint.find(tmp_path).name)
  assert saved >= 3
  assert f'stopped at step {saved}' in output
  assert runs.lines(tmp_path)[-1]['step'] == saved


def test_a_workdir_of_another_run_is_refused(tmp_path):
  """Resuming with another rate would mix two runs silently."""
  command = (*runs.TINY, '--config.budget.steps=2', f'--workdir={tmp_path}')
  runs.run('train', *command)
  output = runs.run('train', *command, '--config.optim.peak_lr=1e-4', status=1)
  assert 'belongs to another run' in output
  assert 'optim.peak_lr: 0.003 → 0.0001' in output
  output = runs.run('train', *command, '--config.log_every=2')
  assert 'changed since the run began: log_every: 1 → 2' in output


def test_a_resumed_run_needs_no_base_and_knows_it_elsewhere(tmp_path):
  """A moved base ended it; another base under a new name must."""
  base, moved, tuned = (tmp_path / x for x in ('base', 'moved', 'tuned'))
  runs.run('train', *runs.TINY, '--config.budget.steps=2', f'--workdir={base}')
  command = (
    *runs.TINY,
    '--config.budget.steps=4',
    '--config.checkpoint.every=2',
    '--config.checkpoint.keep=2',
    f'--workdir={tuned}',
  )
  runs.run('train', *command, f'--config.init_from={base}')
  whole = runs.losses(tuned)
  base.rename(moved)
  for path, words in (
    (base, 'resuming at step 2'),
    (moved, 'changed since the run began: init_from'),
    (f'{moved}/./checkpoints/2', 'changed since the run began: init_from'),
  ):
    newest = tuned / 'checkpoints' / '4'
    if path == base:  # one other bit
      file = max(newest.glob('opt/*/d/*'), key=lambda p: p.stat().st_size)
      data = bytearray(file.read_bytes())
      data[len(data) // 2] ^= 1
      file.write_bytes(data)
    else:
      shutil.rmtree(newest)
    output = runs.run('train', *command, f'--config.init_from={path}')
    assert words in output
    assert runs.losses(tuned) == whole
  output = runs.run('train', *command, f'--config.init_from={tuned}', status=1)
  assert 'belongs to another run' in output
  assert 'init_from: ' in output


# `lbe.train`, to which something happens in the evaluation after step 3.
_CHILD = """
import os, runpy, signal, sys, time
from lbe.evals import perplexity
from lbe.run import checkpoint

def killed():
  workdir = sys.argv[-1].removeprefix('--workdir=')
  while 3 not in checkpoint.steps(workdir):  # saved in the background
    time.sleep(0.01)
  os.kill(os.getpid(), signal.SIGKILL)

evaluate = perplexity.Documents.evaluate

def trip(self, model, *, name, step):
  if (name, step) == ('zh', 3):
    {happens}
  return evaluate(self, model, name=name, step=step)

perplexity.Documents.evaluate = trip
runpy.run_module('lbe.train', run_name='__main__')
"""


def scores(workdir):
  rows = (workdir / 'results.jsonl').read_text().splitlines()
  found = [
    (r['step'], r['evaluator'], r['name'], r['value'])
    for r in map(json.loads, rows)
  ]
  assert len(found) == len({x[:3] for x in found}), 'a score stands twice'
  return sorted(found)


def numbers(workdir):
  """All metrics of each step, without seconds and what follows from them."""
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  found = [
    {
      k: v
      for k, v in row.items()
      if k.split('/')[0] not in ('seconds', 'speed')
    }
    for row in rows
  ]
  assert len(found) == len({row['step'] for row in found}), 'a step twice'
  return found


SCORED = (
  *runs.TINY,
  '--config.budget.steps=6',
  '--config.checkpoint.every=3',
  '--config.evals.en.every=1',
  '--config.evals.zh.every=1',
)


@pytest.fixture(scope='module')
def untroubled(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('untroubled')
  runs.run('train', *SCORED, f'--workdir={workdir}')
  return workdir


def _child(folder, script, *command):
  """(status, output) of a script of Python that runs a program of ours."""
  path = folder / 'child.py'
  path.write_text(script)
  process = subprocess.run(
    [sys.executable, path, *command],
    cwd=runs.ROOT,
    env=runs.environment() | {'PYTHONPATH': str(runs.ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  return process.returncode, process.stdout + process.stderr


@pytest.mark.parametrize(
  'happens, told',
  [
    ('os.kill(os.getpid(), signal.SIGTERM)', 'stopped at step 3'),
    (
      "model.params['embed_VD'][None].repeat(1 << 40, axis=0)",
      'step 3 is saved; then an evaluator failed',
    ),
    ("raise KeyError('mine')", 'step 3 is saved; then an evaluator failed'),
    ('killed()', ''),
  ],
  ids=['sigterm', 'memory', 'defect', 'sigkill'],
)
def test_what_was_not_scored_is_scored_by_the_next_run(
  happens, told, untroubled, tmp_path
):
  """An evaluator that fails after an hour may not take the hour with it."""
  command = (*SCORED, f'--workdir={tmp_path}')
  returned, output = _child(tmp_path, _CHILD.format(happens=happens), *command)
  assert told in output
  kinds = {'SIGTERM': 0, 'killed': -signal.SIGKILL}
  status = next((kinds[k] for k in kinds if k in happens), 1)
  assert returned == status, output
  if 'repeat' in happens:
    assert 'error: evals.zh: not enough memory' in output
    assert 'lower --config.eval_batch_size' in output
  assert scores(tmp_path) != scores(untroubled)
  output = runs.run('train', *command)
  assert 'resuming at step 3' in output, output
  assert scores(tmp_path) == scores(untroubled)
  assert runs.losses(tmp_path) == runs.losses(untroubled)
  assert numbers(tmp_path) == numbers(untroubled)


def _trip_at(step, happens):
  return _CHILD.format(happens=happens).replace("('zh', 3)", f"('zh', {step})")


def test_the_best_is_kept_though_its_evaluation_was_cut_off(tmp_path):
  """It was saved without its score, and deleted when others had one."""
  command = runs.UP_AND_DOWN
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  runs.run('train', *command, f'--workdir={whole}')
  scored = {r['step']: r['eval/zh/bits_per_byte'] for r in runs.lines(whole)}
  best = min(scored, key=scored.get)
  assert best < 6
  trip = _trip_at(best, 'os.kill(os.getpid(), signal.SIGTERM)')
  status, output = _child(tmp_path, trip, *command, f'--workdir={cut}')
  assert status == 0 and f'stopped at step {best}' in output
  runs.run('train', *command, f'--workdir={cut}')
  assert checkpoint.steps(cut) == checkpoint.steps(whole) == [best, 6]
  assert numbers(cut) == numbers(whole)


def test_a_score_may_be_dropped_from_a_run_that_was_cut_off_in_it(
  untroubled, tmp_path
):
  """The row of the step that it was to come to was lost."""
  command = (*SCORED, f'--workdir={tmp_path}')
  trip = _trip_at(3, 'os.kill(os.getpid(), signal.SIGTERM)')
  assert _child(tmp_path, trip, *command)[0] == 0
  runs.run('train', *command, '--config.evals.zh.source=')
  rows, expected = numbers(tmp_path), numbers(untroubled)
  assert [row['step'] for row in rows] == [row['step'] for row in expected]
  kept = {k: v for k, v in expected[2].items() if '/zh/' not in k}
  assert kept.items() <= rows[2].items() and 'train/loss' in kept


def test_a_signal_while_the_last_checkpoint_is_written_waits_for_it(tmp_path):
  """The process was gone, and the checkpoint half."""
  script = """
import os, runpy, signal
from lbe.run import checkpoint

close = checkpoint.Checkpointer.close

def interrupted(self):
  os.kill(os.getpid(), signal.SIGTERM)
  close(self)

checkpoint.Checkpointer.close = interrupted
runpy.run_module('lbe.train', run_name='__main__')
"""
  command = (*runs.TINY, '--config.budget.steps=2', f'--workdir={tmp_path}')
  status, output = _child(tmp_path, script, *command)
  assert status == 0, output
  assert 'saved checkpoint 2' in output
  assert checkpoint.steps(tmp_path) == [2]


def test_what_a_score_saves_between_two_lines_counts_all_steps(tmp_path):
  """Steps since the last line were in no average, and not looked at."""
  runs.run(
    'train',
    *runs.TINY,
    '--config.budget.steps=6',
    '--config.log_every=3',
    '--config.evals.zh.every=4',
    '--config.checkpoint.keep_best=eval/zh/bits_per_byte',
    f'--workdir={tmp_path}',
  )
  rows = {row['step']: row for row in runs.lines(tmp_path)}
  assert list(rows) == [3, 4, 6] and 'train/loss' in rows[4]
  seen = sum(rows[6][f'seen/{x}/tokens'] for x in ('en', 'zh'))
  learnt = sum(row['train/tokens'] for row in rows.values())
  assert learnt <= seen < learnt + 6 * 8 * 2


# Files may have so many kilobytes, of which a checkpoint needs more.
_LIMITED = 'ulimit -f {}; exec "$@"'


@pytest.mark.parametrize('kilobytes', [4, 16])
def test_a_full_disk_is_told_last_and_alone(kilobytes, tmp_path):
  """Hundreds of lines of other libraries, before and behind the reason."""
  cache = f'--config.data.cache_dir={tmp_path}/data'
  command = (*runs.TINY, '--config.budget.steps=4', cache)
  runs.run('prepare', *command, f'--workdir={tmp_path}')
  done = subprocess.run(
    ['bash', '-c', _LIMITED.format(kilobytes), 'bash', sys.executable]
    + ['-m', 'lbe.train', *command, '--config.checkpoint.every=2']
    + [f'--workdir={tmp_path}/run'],
    cwd=runs.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 1
  assert 'Traceback' not in done.stdout + done.stderr
  told = done.stderr.rstrip().splitlines()[-1]
  assert re.match('error: .*(File too large)', told), done.stderr
  assert 'start the same command again' in told
  # The data fares alike.
  done = subprocess.run(
    ['bash', '-c', _LIMITED.format(1), 'bash', sys.executable]
    + ['-m', 'lbe.prepare', *command[:-1], f'--workdir={tmp_path}/new'],
    cwd=runs.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert 'Traceback' not in done.stdout + done.stderr
  assert 'takes no more (File too large)' in done.stderr.splitlines()[-1]


# `lbe.train` in whose memory a bit flips: once before it looks at the state
# that step 6 takes, and once while step 8 is saved.
_FLIPPED = """
import pathlib, runpy, sys
sys.path.insert(0, 'tests')
import flips
from lbe.run import checkpoint
from lbe.training import replay

once = pathlib.Path(sys.argv[-1].removeprefix('--workdir='))
begun, save = replay.Replay.__call__, checkpoint.Checkpointer.save

def flip_once(name, state):
  if not (once / name).exists():
    (once / name).touch()
    flips.flip(state['params']['embed_VD'], byte=3, bit=5)

def step(self, number, train_step, state, *rest):
  if number == 6:
    self.look(5, state)  # the device has read what the step before left
    flip_once('rest', state)
  return begun(self, number, train_step, state, *rest)

def saved(self, number, state, **rest):
  if number == 8:
    flip_once('saving', state)
  save(self, number, state, **rest)

replay.Replay.__call__ = step
checkpoint.Checkpointer.save = saved
runpy.run_module('lbe.train', run_name='__main__')
"""


def test_a_run_goes_back_behind_a_flipped_bit_and_saves_none(tmp_path):
  """Silent corruption: weights that nobody trained, in every checkpoint."""
  cache = f'--config.data.cache_dir={tmp_path}/data'
  common = (
    *runs.TINY,
    cache,
    '--config.budget.steps=10',
    '--config.checkpoint.every=4',
    '--config.replay_every=3',
  )
  whole, flipped = tmp_path / 'whole', tmp_path / 'flipped'
  output = runs.run('train', *common, f'--workdir={whole}')
  assert 'ALARM' not in output and 'again' not in output, output
  returned, output = _child(tmp_path, _FLIPPED, *common, f'--workdir={flipped}')
  assert returned == 0, output
  assert re.search(
    r'ALARM: before step 6: the state is not as .* params/embed_VD \(as by bit '
    r'29 of one number\) on device 0 .* goes back to step 4 by itself \(1 of',
    output,
  ), output
  assert 'resuming at step 4' in output
  assert re.search(
    r'ALARM: before step 9: .* Checkpoint 8, which may hold it, is kept in .*'
    r'/set_aside/8. .* goes back to step 4 by itself \(2 of',
    output,
  ), output
  assert checkpoint.steps(flipped)[-1] == 10
  assert numbers(flipped) == numbers(whole)
  for step in checkpoint.steps(flipped):
    jax.tree.map(
      np.testing.assert_array_equal,
      runs.load(flipped / 'checkpoints' / str(step)),
      runs.load(whole / 'checkpoints' / str(step)),
    )
