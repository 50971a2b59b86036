"""Where a config's files lie: all that are missing are told at once."""

import glob
import os
import pathlib
import re

from lbe.data import dataset_info
from lbe.data import folders
from lbe.exams import sentences
from lbe.text import hub
from lbe.text import language_table

# Of an evaluator, beside its `path`.
_FILES = ('responses', 'english_words', 'include_path')


def check(config, *, begins: bool):
  """Raises ValueError for paths that lead nowhere, all of them together.

  And for an evaluator that scores a file that is trained on. What the run
  begins with is looked for only where it `begins`: later its base may be gone.
  Clouds and TFDS are not asked.
  """
  problems = list(_of_beginning(config)) if begins else []
  trained = {}  # real path: source
  for name, source in config.data.sources.items():
    own = f'data.sources.{name}'
    if not source.path:
      problems.append(
        f'{own}.path is empty; give --config.{own}.path=FILE_OR_FOLDER.'
      )
      continue
    try:
      files = _files(name, source.path, source.kind)
    except ValueError as error:
      told = str(error).removeprefix(f'source {name}: ')
      problems.append(f'{own}.path: {told}')
      continue
    if source.proportion:
      trained |= {os.path.realpath(file): name for file in files}
    for item, benchmark in source.cleaning.benchmarks.items():
      field = f'{own}.cleaning.benchmarks.{item}.path'
      problems += _missing(field, benchmark.path)
  _tell([*problems, *_of_evaluators(config, trained)])


def pinned(config, recorded: dict | None = None):
  """The config, with commits at its names on the hub.

  A run that goes on has those that it `recorded`. Raises as hub.pinned.
  """
  before = (recorded or {}).get('config', {})
  names = {
    field: hub.pinned(config[field], before.get(field))
    for field in ('init_from', 'tokenizer')
    if hub.is_name(config[field])
  }
  if names:
    config = config.copy_and_resolve_references()
    config.update(names)
  return config


def check_scored(config):
  """Raises ValueError as `check`, for a stored model that is scored."""
  problems = _missing('init_from', config.init_from)
  problems += _missing('tokenizer', _tokenizer(config))
  _tell([*problems, *_of_evaluators(config, {})])


def _tell(problems):
  if len(problems) == 1:
    raise ValueError(problems[0])
  if problems:
    told = ''.join(f'\n  {problem}' for problem in problems)
    raise ValueError(f'{len(problems)} paths of the config do not do:{told}')


def _of_beginning(config):
  yield from _missing('init_from', config.init_from)
  yield from _missing('branch_from', config.branch_from)
  yield from _missing('tokenizer', _tokenizer(config))
  yield from _missing('new_rows.dictionary', config.new_rows.dictionary)


def _tokenizer(config):
  return '' if config.tokenizer in ('train', 'bytes') else config.tokenizer


def _of_evaluators(config, trained):
  for name, e in config.evals.items():
    own, path = f'evals.{name}', e.get('path', '')
    for field in ('path', *_FILES):
      yield from _missing(f'{own}.{field}', e.get(field, ''))
    if not path or e.get('source'):
      continue
    for file in map(os.path.realpath, _read_by(name, e)):
      if file in trained:
        source = trained[file]
        yield (
          f'{own}.path={path!r} is what data.sources.{source} is trained on '
          f'({file}): its score would say what was learnt by heart. Give text '
          'that is not trained on, or hold some out: '
          f"--config.{own}.path='' --config.{own}.source={source} "
          f'--config.data.sources.{source}.holdout=0.01'
        )
        break


def _files(name, path, kind):
  """The files of a source that lie here."""
  if path.startswith(dataset_info.PREFIX):
    path = dataset_info.read(path).path
  if path.startswith('tfds:') or folders.is_remote(path):
    return []
  return folders.found(name, path, kind)[0]


def _read_by(name, e):
  """The files that an evaluator reads of its path.

  None where it will raise itself; of a folder that is not of languages, all
  that is in it.
  """
  path, kind = e.path, e.get('evaluator')
  exam = e.get('protocol', '').partition('@')[0]
  try:
    if kind == 'parallel' or (kind == 'pairs' and e.languages):
      how = {'also': e.get('reference', ''), 'split': e.get('split', '')}
      return sentences.files(path, e.languages, **how)
    if kind in ('perplexity', 'pairs'):
      return _files(name, path, e.kind)
    if exam in language_table.DATA:
      splits = [e.get('split') or 'test', *['train'] * bool(e.get('num_shots'))]
      return [
        language_table.file(exam, path, code, split=split)
        for code in e.subjects or language_table.there(exam, path)
        for split in splits
      ]
  except ValueError:
    return []
  found = pathlib.Path(path)
  if kind == 'code_switching' and e.languages:
    return [x for x in found.glob('*/*.csv') if x.stem in e.languages]
  if found.is_dir():
    return found.rglob('*')
  return [found] if found.is_file() else glob.glob(path, recursive=True)


def _missing(field, path):
  """[what is wrong]; names with a colon are no local paths."""
  if not path or re.match(r'\w+:', path) or glob.glob(path, recursive=True):
    return []
  # FILE@EVALUATOR.
  if os.path.exists(path) or os.path.isfile(path.rpartition('@')[0]):
    return []
  return [f'{field}={path!r}: there is nothing there.']
