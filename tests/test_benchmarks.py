"""Benchmarks: docs/speed.md says what was measured, newest first and only."""

import ast
import json
import os
import subprocess

import pytest

from benchmarks import once
from benchmarks import tables
from configs import common
from lbe.text import lines

import conftest


def row(commit, **fields):
  machine = {'device': 'cpu', 'cpu': '2 x A'}
  fixed = {'benchmark': 'train_step', 'commit': commit, 'machine': machine}
  return {**fixed, 'ratio_median': 0.9, 'ratio_range': [0.8, 1.0], **fields}


def test_the_page_has_the_table_of_the_newest_rows():
  """Figures edited by hand, or measured again and not shown."""
  rows, page = tables.read(), tables.PAGE.read_text()
  assert tables.table(rows) in page and tables.growth(rows) in page


def test_a_newer_row_of_a_setting_takes_the_place_of_an_older_one():
  told = tables.table(
    [
      row('aaa', shape='58m', setting='fast', peer='p'),
      row('bbb', shape='58m', setting='lean', peer='p', peak_ratio=0.688),
      row('ccc', shape='58m', setting='fast', peer='p'),
    ]
  )
  assert 'aaa' not in told
  assert (
    '| `train_step.py` | 58m, lean | 0.90 | 0.80 to 1.00 | p | 0.69 | 2 x A | '
    'bbb |' in told
  )
  on_b = {'device': 'cpu', 'cpu': '2 x B'}
  both = tables.table(
    [row('ccc', peer='p'), row('eee', peer='p', machine=on_b)]
  )
  assert 'ccc' in both and 'eee' in both  # one of each processor
  of_caches = [
    row('fff', peer='generate, static cache, 1 threads'),
    row('ggg', peer='generate, default cache, 2 threads'),
  ]
  assert 'fff' not in tables.table(of_caches)
  nested = row('ddd', zh={'lists': {'median': 2, 'range': [1, 3]}})
  assert '| zh lists | 2.00 | 1.00 to 3.00 |' in tables.table([nested])


@pytest.mark.parametrize(
  'path',
  [
    path
    for path in sorted(conftest.ROOT.glob('benchmarks/*.py'))
    if "__name__ == '__main__'" in path.read_text()
  ],
  ids=lambda p: p.stem,
)
def test_every_benchmark_says_its_one_line(path):
  """A script that nobody knows how to start."""
  told = ast.get_docstring(ast.parse(path.read_text()))
  assert f'  PYTHONPATH=. python benchmarks/{path.name}' in told


def test_what_a_benchmark_has_recorded_it_does_not_record_again(
  tmp_path, monkeypatch
):
  """Rows that stand twice, after a second call that went on."""
  monkeypatch.setenv('LBE_RESULTS', str(tmp_path / 'results.jsonl'))
  config = common.base()
  for call in (1, 2):
    for name in ('a', 'b')[:call]:
      workdir = tmp_path / name
      workdir.mkdir(exist_ok=True)
      (workdir / 'done').touch()
      once.run('train', config, workdir)
      once.write('canary', {'way': name}, workdir)
  rows = lines.rows(tmp_path / 'results.jsonl')
  assert [row['way'] for row in rows] == ['a', 'b']


SESSION = conftest.ROOT / 'benchmarks/gpu_session.sh'


def session(*arguments, status=0, **variables):
  done = subprocess.run(
    ['bash', SESSION, *arguments],
    env={**os.environ, **variables},
    capture_output=True,
    text=True,
  )
  assert done.returncode == status, done.stdout + done.stderr
  return done.stdout + done.stderr


def test_the_session_on_a_gpu_machine_is_rehearsed_and_goes_on(tmp_path):
  """Minutes of a GPU lost to a flag that is no more, or measured twice."""
  steps = ['attention', 'lora', 'decode_1', 'resume']
  told = session('run', tmp_path, LBE_REHEARSE='1')
  assert (tmp_path / 'done').read_text().split() == steps, told
  text = (tmp_path / 'results.jsonl').read_text()
  rows = [*map(json.loads, text.splitlines())]
  assert [r['benchmark'] for r in rows] == ['attention', 'decode']
  # What an earlier call did not get to, another one does, and nothing else.
  (tmp_path / 'done').write_text('attention\nlora\nresume\n')
  late = dict(LBE_REHEARSE='1', LBE_GPU_SECONDS='29')
  told = session('run', tmp_path / 'b', tmp_path, status=1, **late)
  assert told.count('done before') == 3
  assert 'decode_1: no time left' in told


def test_a_session_without_a_folder_says_how_it_is_called():
  assert 'name the folder' in session('run', status=1)
  assert 'gpu_session.sh run OUT' in session(status=2)
