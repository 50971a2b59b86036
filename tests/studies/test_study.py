"""A real study, end to end."""

import json
import pathlib

from lbe.text import lines

import runs

CONFIG = f'--config={pathlib.Path(__file__).with_name("toy.py")}'


def test_a_study_trains_scores_and_goes_on(tmp_path):
  """Catches a cell that begins from nothing, or is trained or scored twice."""
  command = ('study', CONFIG, f'--workdir={tmp_path}')
  output = runs.run(*command)
  assert '| zh | done |' in output
  rows = lines.rows(tmp_path / 'results.jsonl')
  bits = {r['cell']: r for r in rows if r['name'] == 'bits_per_byte'}
  assert bits['zh']['value'] < bits['base']['value'] < 9
  assert bits['zh']['data_hash'] == bits['base']['data_hash']
  zh = bits['zh']
  assert zh['parent'] == 'base' and zh['seed'] == 1 and zh['updates'] == 3
  assert zh['bytes_seen'] > 0 and zh['axes'] == {'stage': 'zh', 'seed': 1}
  cell = json.loads((tmp_path / 'cells' / 'zh' / 'cell.json').read_text())
  assert cell['seconds']['train'] > 0 and cell['seen']['zh']['tokens'] > 0
  facts = json.loads((tmp_path / 'cells' / 'zh' / 'config.json').read_text())
  assert facts['config']['init_from'] == str(tmp_path / 'cells' / 'base')
  again = runs.run(*command)
  assert 'begun' not in again and 'scored by' not in again
  assert lines.rows(tmp_path / 'results.jsonl') == rows
  other = runs.run(*command, '--config.steps=4', status=1)
  assert 'base: budget.steps: 3 → 4' in other and 'Traceback' not in other
