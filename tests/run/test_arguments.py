"""What may stand behind --config, and behind --run in its place."""

import json
import sys

import pytest
from absl import flags

from lbe.run import arguments

import conftest


@pytest.fixture
def found(monkeypatch):
  """What --config is taken for."""
  monkeypatch.setattr(sys, 'path', [*sys.path])
  monkeypatch.setitem(sys.modules, 'configs', sys.modules.get('configs'))

  def found(*given):
    return arguments.find_config(['train', *given])[1:]

  return found


@pytest.fixture
def run(tmp_path):
  folder = tmp_path / 'zh'
  (folder / 'checkpoints' / '8').mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps({'config': {}}))
  return folder


PRESET = f'{conftest.ROOT}/configs/small_zh.py'


@pytest.mark.parametrize(
  'name', ['small_zh', 'small_zh.py', 'lbe:small_zh', 'lbe:small_zh.py']
)
def test_a_preset_goes_by_its_short_name(found, name):
  assert found(f'--config={name}:replay') == [f'--config={PRESET}:replay']
  assert found('--config', name, '--x=1') == ['--config', PRESET, '--x=1']


def test_another_flag_may_have_the_value_of_config(found, run, monkeypatch):
  """A run began anew, in a folder beside the config."""
  stored = f'{conftest.ROOT}/configs/stored.py:{run}/config.json'
  again = ['--workdir', str(run)]
  assert found(f'--config={run}', *again) == [f'--config={stored}', *again]
  assert found('--config', str(run), *again) == ['--config', stored, *again]
  monkeypatch.setattr(flags, 'FLAGS', {'config': None})
  assert found('--run', str(run)) == [f'--config={stored}', '--run', str(run)]


def test_a_file_comes_before_a_preset_of_its_name(found, tmp_path, monkeypatch):
  own = tmp_path / 'small_zh.py'
  own.write_text('def get_config(): ...')
  monkeypatch.chdir(tmp_path)
  assert found('--config=small_zh.py') == ['--config=small_zh.py']
  assert found('--config=lbe:small_zh.py') == [f'--config={PRESET}']


def test_a_runs_folder_is_its_config(found, run):
  """What a run wrote reads back, with the fields that are changed."""
  stored = f'{conftest.ROOT}/configs/stored.py:{run}/config.json'
  for given in (run, run / 'config.json'):
    assert found(f'--config={given}') == [f'--config={stored}']


def test_run_alone_brings_its_config(found, run, monkeypatch):
  stored = f'--config={conftest.ROOT}/configs/stored.py:{run}/config.json'
  for given in (run, run / 'checkpoints' / '8'):
    asked = f'--run={given}'
    assert found(asked) == [asked]  # lbe.report has no config
    monkeypatch.setattr(flags, 'FLAGS', {'config': None})
    assert found('--config.x=1', asked) == [stored, '--config.x=1', asked]
    both = [asked, '--config=quickstart']
    assert [x[-13:] for x in found(*both)[1:]] == ['quickstart.py']
    monkeypatch.undo()
  monkeypatch.setattr(flags, 'FLAGS', {'config': None})
  with pytest.raises(ValueError, match='is no workdir of lbe.train, which has'):
    found(f'--run={run.parent}')


def test_what_is_no_config_is_told_with_the_names_that_are(found):
  with pytest.raises(ValueError, match='--config=NAME .* quickstart, small_i'):
    found('--config=smallzh')
