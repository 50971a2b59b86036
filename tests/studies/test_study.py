"""A real study, end to end."""

import json
import pathlib
import shutil

import pytest

from lbe.text import lines

import runs

CONFIG = f'--config={pathlib.Path(__file__).with_name("toy.py")}'


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
  """(the folder of a study, what was said when it ran)."""
  path = tmp_path_factory.mktemp('toy')
  return path, runs.run('study', CONFIG, f'--workdir={path}')


def test_a_study_trains_scores_and_goes_on(ran):
  """Catches a cell that begins from nothing, or is trained or scored twice."""
  path, output = ran
  command = ('study', CONFIG, f'--workdir={path}')
  assert '| zh | done |' in output
  rows = lines.rows(path / 'results.jsonl')
  bits = {r['cell']: r for r in rows if r['name'] == 'bits_per_byte'}
  assert bits['zh']['value'] < bits['base']['value'] < 9
  assert bits['zh']['data_hash'] == bits['base']['data_hash']
  zh = bits['zh']
  assert zh['parent'] == 'base' and zh['seed'] == 1 and zh['updates'] == 3
  assert zh['bytes_seen'] > 0 and zh['axes'] == {'stage': 'zh', 'seed': 1}
  cell = json.loads((path / 'cells' / 'zh' / 'cell.json').read_text())
  assert cell['seconds']['train'] > 0 and cell['seen']['zh']['tokens'] > 0
  facts = json.loads((path / 'cells' / 'zh' / 'config.json').read_text())
  assert facts['config']['init_from'] == str(path / 'cells' / 'base')
  again = runs.run(*command)
  assert 'begun' not in again and 'scored by' not in again
  assert lines.rows(path / 'results.jsonl') == rows
  other = runs.run(*command, '--config.steps=4', status=1)
  assert 'base: budget.steps: 3 → 4' in other and 'Traceback' not in other


def test_a_cell_that_cannot_be_scored_leaves_the_table(ran, tmp_path):
  """Catches one traceback in the place of all other scores."""
  study = tmp_path / 'study'
  shutil.copytree(ran[0], study)
  for name in ('base', 'zh'):
    shutil.rmtree(study / 'cells' / name / 'scores')
  shutil.rmtree(study / 'cells' / 'base' / 'checkpoints')
  output = runs.run('study', CONFIG, f'--workdir={study}', status=1)
  assert 'zh: scored by zh in' in output and '| zh | done |' in output
  told = output[output.rindex('error: ') :]
  assert '1 of 2 cells are not scored by all: base; why is said above' in told
  assert 'Traceback' not in output
  rows = lines.rows(study / 'results.jsonl')
  assert {row['cell'] for row in rows} == {'zh'}
