"""A preset copied to where its reader works."""

import pytest
from absl import flags

from lbe import init
from lbe.run import arguments


@pytest.fixture
def copy(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def copy(*argv, preset):
    monkeypatch.setattr(flags.FLAGS['from'], 'value', preset)
    init.main(['init', *argv])

  return copy


def test_a_copy_loads_and_names_itself(copy, capsys, tmp_path):
  """A config in the installed package is nobody's to edit."""
  copy('own/mine.py', preset='small_zh')
  text = (tmp_path / 'own' / 'mine.py').read_text('utf-8')
  original = arguments.presets()['small_zh'].read_text('utf-8')
  assert text == original.replace('configs/small_zh.py', 'own/mine.py')
  assert '--config=own/mine.py --workdir=runs/mine --dry_run' in (
    capsys.readouterr().out
  )
  scope = {}
  exec(text, scope)
  assert scope['get_config']('replay').budget.steps == 300


def test_nothing_is_written_over(copy, tmp_path):
  (tmp_path / 'mine.py').write_text('x')
  with pytest.raises(ValueError, match='mine.py is there; give another name'):
    copy('mine.py', preset='small_zh')
  with pytest.raises(ValueError, match='--from=small does not come with lbe'):
    copy('other.py', preset='small')
  with pytest.raises(ValueError, match='is no name of a config: write lbe'):
    copy(preset='small_zh')
