"""Paths of a config: all that lead nowhere at once, before anything is read."""

import pytest

from lbe.assemble import paths
from lbe.configs import common

import tiny


def test_all_that_is_missing_is_told_at_once(tmp_path):
  """One was told, after an hour of tokenizing the others."""
  config = tiny.config(tmp_path, a=dict(proportion=0.5), b=dict(proportion=0.5))
  paths.check(config, begins=True)
  config.init_from = str(tmp_path / 'model')
  config.data.sources.a.path = str(tmp_path / 'no' / '*.txt')
  config.data.sources.b.path = ''
  config.evals.exam = common.multiple_choice(path=str(tmp_path / 'exam'))
  config.evals.own = common.code_switching(responses=str(tmp_path / 'r@own'))
  with pytest.raises(ValueError, match='^5 paths of the config do') as told:
    paths.check(config, begins=True)
  for name in (
    f"init_from='{tmp_path}/model': there is nothing there",
    'data.sources.a.path: no file matches',
    'data.sources.b.path is empty; give --config.data.sources.b.path=',
    'evals.exam.path=',
    'evals.own.responses=',
  ):
    assert f'\n  {name}' in str(told.value)
  # A run that goes on does not need its base any more.
  with pytest.raises(ValueError, match='^4 paths'):
    paths.check(config, begins=False)
  with pytest.raises(ValueError, match='^3 paths'):
    paths.check_scored(config)


def test_what_is_trained_on_is_not_scored(tmp_path):
  """A score of what was learnt by heart, by whatever name."""
  config = tiny.config(tmp_path, a=dict(holdout=0.1))
  config.evals.a = common.perplexity(source='a')
  link = tmp_path / 'elsewhere'
  link.symlink_to(tmp_path)
  paths.check(config, begins=True)
  for path in (tmp_path / 'a.txt', link / 'a.txt', tmp_path, link / '*.txt'):
    config.evals.b = common.perplexity(path=str(path))
    with pytest.raises(ValueError, match='what data.sources.a is trained on'):
      paths.check(config, begins=True)
    paths.check_scored(config)
  # It is read and not trained on.
  config.data.sources.a.proportion = 0.0
  paths.check(config, begins=True)
