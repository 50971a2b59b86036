"""A study's folder: who has a cell, what state it is in, and its rows."""

import subprocess
import sys

import pytest

from lbe.studies import folder


def study(*edges):
  """study.json of cells (name, parent), scored by one evaluator."""
  return {
    'study': 'toy',
    'files': {},
    'evals': {'zh': {'identity': 'e1', 'fields': {}}},
    'cells': [
      {
        'name': name,
        'kind': 'train',
        'identity': f'i-{name}',
        'inputs': {'init_from': parent} if parent else {},
        'axes': {'seed': 1},
        'config': {},
      }
      for name, parent in edges
    ],
    'claims': [],
    'accepted': [],
  }


CHAIN = study(('base', None), ('a', 'base'), ('b', 'a'), ('c', 'base'))


def test_a_failed_cell_blocks_its_descendants_alone(tmp_path):
  """Catches a study that stops at its first error."""
  folder.write_cell(tmp_path, 'base', {'state': folder.DONE})
  folder.write_cell(tmp_path, 'a', {'state': folder.FAILED})
  assert folder.states(tmp_path, CHAIN) == {
    'base': 'done',
    'a': 'failed',
    'b': 'blocked',
    'c': 'waiting',
  }


def test_a_cell_is_had_until_the_last_of_its_processes_has_ended(tmp_path):
  """Catches a second worker beside the orphaned child of a killed one."""
  folder.write_cell(tmp_path, 'base', {'state': folder.RUNNING})
  assert folder.states(tmp_path, CHAIN)['base'] == 'waiting'
  with folder.locked(tmp_path, 'base') as file:
    assert folder.states(tmp_path, CHAIN)['base'] == 'running'
    with folder.locked(tmp_path, 'base') as other:
      assert other is None
    child = subprocess.Popen(
      [sys.executable, '-c', 'input()'],
      stdin=subprocess.PIPE,
      pass_fds=(file,),
    )
  assert folder.states(tmp_path, CHAIN)['base'] == 'running'
  child.communicate(b'\n')
  assert folder.states(tmp_path, CHAIN)['base'] == 'waiting'


def test_rows_are_those_of_done_cells_by_the_present_identities(tmp_path):
  """Catches rows of a changed evaluator, or of a cell that is made anew."""
  seen = {'zh': {'documents': 2, 'bytes': 30, 'tokens': 9}}
  done = {'state': 'done', 'seen': seen, 'updates': 3, 'commit': 'abc'}
  row = {'evaluator': 'zh', 'name': 'bits_per_byte', 'value': 2.0}
  scores = {'base': ('e1', 'i-base'), 'a': ('e0', 'i-a'), 'c': ('e1', 'i-old')}
  # Trained as it was before, whatever its scores say.
  scores['b'] = ('e1', 'i-b')
  for name, (evaluator, cell) in scores.items():
    folder.write_cell(tmp_path, name, done | {'identity': f'i-{name}'})
    record = {'identity': evaluator, 'cell': cell, 'rows': [row]}
    folder.write_score(tmp_path, name, 'zh', record, [{'id': '1', 'nats': 2.0}])
  folder.write_cell(tmp_path, 'b', done | {'identity': 'i-old'})
  found = folder.derive(tmp_path, CHAIN)
  assert found == [
    row
    | {
      'cell': 'base',
      'identity': 'i-base',
      'parent': None,
      'axes': {'seed': 1},
      'seed': 1,
      'updates': 3,
      'tokens_seen': 9,
      'bytes_seen': 30,
      'commit': 'abc',
    }
  ]
  assert folder.derive(tmp_path, CHAIN) == found
  assert len((tmp_path / 'results.jsonl').read_text().splitlines()) == 1
  assert folder.predictions(tmp_path, 'base', 'zh') == [{'id': '1', 'nats': 2}]
  assert not list(tmp_path.rglob('*.tmp'))


def test_what_is_left_takes_its_tokens_at_the_speed_of_what_is_done(tmp_path):
  """Catches an ETA that counts a tokenizer as a run."""
  tokens = {'a': 0, 'b': 30, 'c': 60}
  cells = [{'name': n, 'tokens': t} for n, t in tokens.items()]
  assert folder.pace(tmp_path, cells) == (0, 0.0)
  for name, seconds in (('a', 99.0), ('b', 10.0)):
    done = {'state': folder.DONE, 'seconds': {'wall': seconds}}
    folder.write_cell(tmp_path, name, done)
  assert folder.pace(tmp_path, cells) == (2, pytest.approx(20.0))


def test_a_study_of_another_version_is_refused(tmp_path):
  """Catches a folder that is read as what it is not."""
  assert folder.read(tmp_path) is None
  folder.write(tmp_path, CHAIN)
  assert folder.read(tmp_path)['cells'] == CHAIN['cells']
  (tmp_path / 'study.json').write_text('{"version": 0}')
  with pytest.raises(ValueError, match='has version 0, this lbe reads 1'):
    folder.read(tmp_path)
