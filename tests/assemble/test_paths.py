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


@pytest.mark.parametrize(
  'kind, read, files',
  [
    # Languages that are left out, and a reference that is read beside them.
    ('parallel', dict(languages=('zh', 'ta')), ('zh', 'ta', 'en')),
    ('parallel', dict(languages=('zh',), reference=''), ('zh',)),
    ('parallel', {}, ('en', 'sw', 'ta', 'zh')),
    ('pairs', dict(languages=('zh',)), ('zh',)),
    # What is no text for a reader of texts, and no other file.
    ('perplexity', {}, ('en', 'sw', 'ta', 'zh')),
  ],
)
def test_a_folder_of_which_something_is_trained_on_is_scored_without_it(
  tmp_path, kind, read, files
):
  """A folder of ten languages, one of them trained on, nine refused."""
  config = tiny.config(tmp_path, a={})
  folder = tmp_path / 'texts'
  folder.mkdir()
  for code in ('en', 'sw', 'ta', 'zh'):
    (folder / f'{code}.txt').write_text('One sentence.\n')
  (folder / 'README.md').write_text('What it is.')
  config.evals.own = getattr(common, kind)(path=str(folder), **read)
  for code in ('en', 'sw', 'ta', 'zh', 'README'):
    ending = 'md' if code == 'README' else 'txt'
    config.data.sources.a.path = str(folder / f'{code}.{ending}')
    config.data.sources.a.kind = 'text'
    if code in files:
      with pytest.raises(ValueError, match='is trained on'):
        paths.check(config, begins=True)
    else:
      paths.check(config, begins=True)


def test_of_exams_by_language_what_is_asked_is_read(tmp_path):
  config = tiny.config(tmp_path, a={})
  root = tmp_path / 'sib'
  for name in ('eng_Latn', 'zho_Hans'):
    (root / name).mkdir(parents=True)
    for split in ('train', 'dev', 'test'):
      (root / name / f'{split}.tsv').write_text('index_id\tcategory\ttext\n')
  config.data.sources.a.kind = 'text'
  how = dict(protocol='sib200@labels', path=str(root), subjects=('zh',))

  def refused(file):
    config.data.sources.a.path = str(root / file)
    try:
      paths.check(config, begins=True)
    except ValueError as error:
      assert 'is trained on' in str(error)
      return True
    return False

  config.evals.own = common.multiple_choice(**how)
  assert refused('zho_Hans/test.tsv')
  assert not refused('zho_Hans/train.tsv')
  assert not refused('eng_Latn/test.tsv')
  config.evals.own.num_shots = 2
  assert refused('zho_Hans/train.tsv')
  config.evals.own.subjects = ()
  assert refused('eng_Latn/test.tsv')
  folder = tmp_path / 'confusion'
  for code in ('ar', 'zh'):
    (folder / 'okapi').mkdir(parents=True, exist_ok=True)
    (folder / 'okapi' / f'{code}.csv').write_text('prompt\nOne\n')
  root, config.evals.own = folder, common.code_switching(path=str(folder))
  assert refused('okapi/ar.csv')
  config.evals.own.languages = ('zh',)
  assert refused('okapi/zh.csv') and not refused('okapi/ar.csv')
