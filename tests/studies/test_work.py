"""Workers of a study: killed at any moment, side by side, and on what fails."""

import collections
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lbe.studies import folder
from lbe.studies import grid
from lbe.studies import work
from lbe.text import lines

import runs

# What a run leaves, and a line each time that one has come to its end.
_TRAIN = """
import json, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
(here / 'config.json').write_text(json.dumps(
  {'num_steps': 3, 'model': {'dim': 8}, 'tokenizer': 't'}))
time.sleep(0.03)
if here.name.startswith('bad'):
  print('step 1\\nerror: the text is empty;\\ngive another.')
  sys.exit(1)
for part in ('params', 'meta'):
  if not here.name.startswith('short'):
    (here / 'checkpoints' / '3' / part).mkdir(parents=True, exist_ok=True)
row = {'step': 3, 'seconds/train': 1.0, 'seen/zh/tokens': 9,
       'seen/zh/bytes': 30, 'seen/zh/documents': 2}
(here / 'metrics.jsonl').write_text(json.dumps(row) + '\\n')
with open(here / 'ran.txt', 'a') as f:
  f.write('once\\n')
"""

# Workers by fork, one for each line that it reads: imports take seconds.
_WORKERS = """
import os, pathlib, sys
from lbe.studies import folder, work
import test_work
study = pathlib.Path(sys.argv[1])
work.command = test_work.command
for line in sys.stdin:
  if os.fork() == 0:
    print(os.getpid(), flush=True)
    test_work.all_of(study, jobs=2)
    os._exit(0)
  os.wait()
  print('ended', flush=True)
"""


def command(study, record, cell):
  here = folder.cell_folder(study, cell['name'])
  return [sys.executable, '-ISc', _TRAIN, str(here)]


def all_of(study, *, jobs):
  """What lbe.study does with a folder, but for real runs and scores."""
  record = folder.read(study)
  names = {cell['name'] for cell in record['cells']}
  worker = work.Worker(study, record, say=lambda text: None)
  worker.work(names, jobs=jobs, budget=None)
  for cell in record['cells']:
    name = cell['name']
    with folder.locked(study, name) as mine:
      done = folder.read_cell(study, name).get('state') == folder.DONE
      if mine is None or not done or folder.read_score(study, name, 'zh'):
        continue
      row = {'evaluator': 'zh', 'name': 'bits_per_byte', 'value': len(name)}
      score = {'identity': 'e', 'cell': cell['identity'], 'rows': [row]}
      folder.write_score(study, name, 'zh', score, [{'id': name}])
  folder.derive(study, record)


def study(path, **parents):
  """A study of cells and what each begins from."""
  cells = [
    dict(
      name=name,
      kind='train',
      axes={},
      inputs={'init_from': parent} if parent else {},
      config={'data': {'of': name}},
      tokens=1,
    )
    for name, parent in parents.items()
  ]
  cells = grid.identify(grid.order(cells), {}, {})
  evals = {'zh': {'identity': 'e', 'fields': {}}}
  folder.write(path, dict(study='toy', cells=cells, evals=evals, claims=[]))
  return path


SIX = dict(base=None, a='base', b='base', c='a', d='c', e='b')


def written(path):
  return {
    (p, p.stat().st_mtime_ns)
    for p in path.rglob('*')
    if p.suffix in ('.json', '.jsonl', '.txt')
  }


def ran(path):
  found = path.glob('cells/*/ran.txt')
  return {p.parent.name: len(p.read_text().splitlines()) for p in found}


def test_killed_at_any_moment_a_study_is_the_undisturbed_one(tmp_path):
  """Catches rows that are lost or doubled, and cells that are made again."""
  untroubled = study(tmp_path / 'untroubled', **SIX)
  troubled = study(tmp_path / 'troubled', **SIX)
  num_kills = int(os.environ.get('LBE_KILLS', '12'))
  workers = subprocess.Popen(
    [sys.executable, '-c', _WORKERS, str(troubled)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env=runs.environment()
    | {
      'PYTHONPATH': f'{runs.ROOT}:{pathlib.Path(__file__).parent}:'
      f'{runs.ROOT / "tests"}'
    },
  )
  in_flight = collections.Counter()
  for i in range(num_kills + 1):
    before = written(troubled)
    workers.stdin.write('go\n')
    workers.stdin.flush()
    pid = int(workers.stdout.readline())
    if i < num_kills:
      limit = time.monotonic() + 2
      while (
        len(written_or_none(troubled, before)) <= i % 5
        and time.monotonic() < limit
      ):
        time.sleep(0.001)
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
      record = folder.read(troubled)
      for cell in record['cells']:
        name = cell['name']
        if folder.read_cell(troubled, name).get('state') == folder.RUNNING:
          in_flight[name] += 1
    assert workers.stdout.readline() == 'ended\n'
  workers.communicate()
  states = folder.states(troubled, folder.read(troubled))
  assert set(states.values()) == {folder.DONE}, states
  for name, number in ran(troubled).items():
    assert number <= 1 + in_flight[name], (name, number, in_flight)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(work, 'command', command)
    all_of(untroubled, jobs=1)
  assert ran(untroubled) == dict.fromkeys(SIX, 1)
  assert sum(in_flight.values()) >= 3, 'else nothing was killed'
  results = [lines.rows(p / 'results.jsonl') for p in (untroubled, troubled)]
  for row in sum(results, []):
    del row['commit']  # whether somebody edits beside the tests
  assert results[0] == results[1] and len(results[0]) == 6


def written_or_none(path, before):
  try:
    return written(path) - before
  except FileNotFoundError:  # a file was replaced meanwhile
    return set()


def test_a_failure_is_told_and_leaves_the_others_alone(tmp_path, monkeypatch):
  """Catches a study that ends at its first error, or goes on in silence."""
  path = study(tmp_path, base=None, bad='base', child='bad', short=None)
  monkeypatch.setattr(work, 'command', command)
  said = []
  record = folder.read(path)
  for _ in range(2):  # the same command tries it again, once
    worker = work.Worker(path, record, say=said.append)
    worker.work(set(folder.states(path, record)), jobs=2, budget=None)
  assert folder.states(path, record) == {
    'base': 'done',
    'bad': 'failed',
    'child': 'blocked',
    'short': 'failed',
  }
  bad = folder.read_cell(path, 'bad')
  assert bad['error'] == 'the text is empty;\ngive another.'
  assert bad['tries'] == 2
  assert said.count('bad: failed: the text is empty;\ngive another.') == 2
  assert 'before its last step' in folder.read_cell(path, 'short')['error']
  base = folder.read_cell(path, 'base')
  assert base['seconds']['train'] == 1.0 and base['updates'] == 3
  assert base['seen'] == {'zh': {'tokens': 9, 'bytes': 30, 'documents': 2}}
  assert base['tries'] == 1 and base['model'] == {'dim': 8}


def test_a_worker_leaves_what_a_later_call_changed(tmp_path, monkeypatch):
  """Catches cells trained by the config of before, and told as the new one."""
  path = study(tmp_path, base=None, child='base', other=None)
  monkeypatch.setattr(work, 'command', command)
  before, said = folder.read(path), []
  worker = work.Worker(path, before, say=said.append)
  cells = [dict(c, config={**c['config']}) for c in before['cells']]
  for cell in cells:
    if cell['name'] == 'base':
      cell['config']['rate'] = 3
  after = dict(before, cells=grid.identify(cells, {}, {}))
  folder.write(path, after)
  worker.work({'base', 'child', 'other'}, jobs=2, budget=None)
  assert ran(path) == {'other': 1}
  assert [x for x in said if 'base: left out: a later call changed it' in x]
  later = work.Worker(path, after, say=said.append)
  later.work({'base', 'child', 'other'}, jobs=1, budget=None)
  assert ran(path) == dict.fromkeys(('base', 'child', 'other'), 1)
  assert all(folder.is_done(path, cell) for cell in after['cells'])


def test_no_cell_is_begun_behind_the_budget(tmp_path, monkeypatch):
  path = study(tmp_path, base=None)
  monkeypatch.setattr(work, 'command', command)
  record, said = folder.read(path), []
  work.Worker(path, record, say=said.append).work({'base'}, jobs=1, budget=-1.0)
  assert folder.states(path, record) == {'base': 'waiting'}
  assert said == ['the time is up: no further cell is begun']


def test_a_cell_is_what_a_person_would_type(tmp_path):
  """Catches an input that is not handed on."""
  cells = [
    dict(
      name='pieces',
      kind='tokenizer',
      inputs={},
      config={
        'command': 'train',
        'flags': {'texts': ['{files}/zh.jsonl', 'en.txt'], 'vocab_size': 9},
      },
    ),
    dict(name='llama', kind='model', inputs={}, config={'path': 'hf/7b'}),
    dict(
      name='zh',
      kind='train',
      inputs={'init_from': 'llama', 'tokenizer': 'pieces'},
      config={},
    ),
  ]
  record = {'cells': cells}
  pieces, zh = (work.command(tmp_path, record, cells[i]) for i in (0, 2))
  assert pieces[1:] == [
    *('-m', 'lbe.tokenizer', 'train'),
    f'--output={tmp_path}/cells/pieces/made',
    f'--texts={tmp_path}/files/zh.jsonl',
    '--texts=en.txt',
    '--vocab_size=9',
  ]
  assert zh[-2:] == [
    '--config.init_from=hf/7b',
    f'--config.tokenizer={tmp_path}/cells/pieces/made',
  ]
