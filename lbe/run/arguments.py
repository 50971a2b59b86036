"""What a person typed: --config by its names, and fields that were meant."""

import importlib.util
import pathlib
import re
import runpy
import sys
import types

from absl import flags


def given(arguments, *flags_of):
  """(name, value, as it was written) of these flags, and of their fields."""
  arguments = iter(arguments)
  for argument in arguments:
    name, equals, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name.split('.')[0] in flags_of:
      written = [argument]
      if not equals:
        value = next(arguments, '')
        written.append(value)
      yield name, value, written


def presets() -> dict[str, pathlib.Path]:
  """The configs that come with lbe, by their short names."""
  # In a checkout it is configs/ at the top.
  common = importlib.util.find_spec('lbe.configs.common')
  home = pathlib.Path(common.origin).parent
  return {
    path.relative_to(home).with_suffix('').as_posix(): path
    for path in sorted(home.rglob('[!_]*.py'))
    if 'def get_config' in path.read_text('utf-8')
  }


def _with_sources(meant, argv):
  """The config file with those sources that a path alone adds to it."""
  fields = '\n'.join(name for name, _, _ in given(argv[1:], 'config'))
  paths = re.findall(r'^config\.data\.sources\.(\w+)\.path$', fields, re.M)
  if not paths:
    return meant
  file, *argument = meant.split(':', 1)
  known = runpy.run_path(file)['get_config'](*argument).data.sources
  new = ','.join(name for name in dict.fromkeys(paths) if name not in known)
  adding = presets()['stored'].with_name('_with_sources.py')
  return f'{adding}:{new}:{meant}' if new else meant


def _config_file(written):
  """'FILE:ARGUMENT' for what --config may be.

  That itself, 'NAME:ARGUMENT' or 'lbe:NAME:ARGUMENT' of a preset, or the
  folder or JSON file of a run, which stored.py reads. Raises ValueError where
  there is no such file.
  """
  # What stands behind a colon is handed to the config.
  path, *argument = written.removeprefix('lbe:').split(':')
  known, file = presets(), pathlib.Path(path)
  named = written.startswith('lbe:')
  if not named and (file / 'config.json').is_file():
    file = file / 'config.json'
  if file.suffix == '.json' and file.is_file():
    return f'{known["stored"]}:{file}'
  if named or not file.is_file():
    file = known.get(path.removesuffix('.py'), file)
  if not file.is_file():
    raise ValueError(
      f'there is no file {file.absolute()}; give the path of a config, the '
      'workdir of a run, or --config=NAME for one that comes with lbe: '
      f'{", ".join(known)}.'
    )
  return ':'.join([str(file), *argument])


def _run_as_config(argv):
  """Where --run alone is given, its config is that of the run."""
  found = {name: value for name, value, _ in given(argv[1:], 'run', 'config')}
  if 'run' not in found or 'config' in found or 'config' not in flags.FLAGS:
    return argv
  # Its fields are known once it is read.
  return [argv[0], f'--config={run_folder(found["run"])}', *argv[1:]]


def run_folder(run: str) -> pathlib.Path:
  """The workdir of a run: of RUN and of RUN/checkpoints/STEP it is RUN.

  Raises ValueError for what is no run's.
  """
  path = pathlib.Path(run)
  for folder in (path, path.parent.parent):
    if (folder / 'config.json').is_file() and (folder / 'checkpoints').is_dir():
      return folder
  raise ValueError(
    f'--run={run} is no workdir of lbe.train, which has config.json and '
    'checkpoints; give one, or RUN/checkpoints/STEP.'
  )


def find_config(argv: list[str]) -> list[str]:
  """The arguments, with the file of a config as the value of --config.

  A config imports its neighbours as `from FOLDER import NAME`, from wherever
  the program is started. Raises ValueError where there is no such file.
  """
  argv = _run_as_config(argv)
  for name, written, _ in given(argv[1:], 'config'):
    if name != 'config':
      continue
    meant = _config_file(written)
    path = pathlib.Path(meant.split(':')[0]).absolute()
    sys.path.append(str(path.parent.parent))
    if path.parent.name == 'configs':  # as in many a project on sys.path
      sys.modules['configs'] = types.ModuleType('configs')
      home = presets()['quickstart'].parent
      sys.modules['configs'].__path__ = [str(path.parent), str(home)]
    meant = _with_sources(meant, argv)
    # Not of --workdir, which may have the same.
    argv = [
      x.removesuffix(written) + meant
      if (x == written and before in ('-config', '--config'))
      or x in (f'-config={written}', f'--config={written}')
      else x
      for before, x in zip(['', *argv], argv, strict=False)
    ]
  return argv


# Blocks without fields of their own.
_OPEN = ('.columns', '.request')


def fields_meant(argv):
  """A line for each field that stands elsewhere in the config, or is a block.

  As peak_lr, which is optim.peak_lr, and judge_model, which is judge.model.
  """
  arguments = list(given(argv[1:], 'config'))
  path = next(value for name, value, _ in arguments if name == 'config')
  path, *argument = path.split(':', 1)
  known = list(_names(runpy.run_path(path)['get_config'](*argument)))
  for name, _, _ in arguments:
    field = name.partition('.')[2]
    block, _, key = field.rpartition('.')
    if block.endswith(_OPEN) and block in known:
      yield f"\nwrite --config.{block}=\"{{'{key}': 'NAME'}}\" with all of them"
      continue
    parent, _, last = f'.{field}'.rpartition('.')
    meant = [k for k in known if k.startswith(f'{field}.')]
    if field not in known:
      meant = [
        k
        for k in known
        if f'.{k}'.startswith(f'{parent}.')
        and f'_{k.replace(".", "_")}'.endswith(f'_{last}')
      ]
    if last and meant:
      yield f'\ninstead of {field} there is {", ".join(meant)}'
    for root in ('data.sources', 'evals', 'optim.groups'):
      own = field.removeprefix(f'{root}.').split('.')[0]
      if field.startswith(f'{root}.') and f'{root}.{own}' not in known:
        names = [
          k.split('.')[-1] for k in known if k.rpartition('.')[0] == root
        ]
        adds = 'a config file adds others'
        if root == 'data.sources':
          adds = f'--config.{root}.{own}.path=FILE_OR_FOLDER adds another'
        yield f'\n{root} has {", ".join(names)}; {adds}'


def _names(block, before=''):
  """The dotted names of a config's fields and blocks."""
  for name, value in block.items():
    yield before + name
    if hasattr(value, 'items'):
      yield from _names(value, f'{before}{name}.')


def flags_meant(arguments):
  """A line for each argument that lacks its dashes: no flag would take it."""
  for written in arguments:
    name = written.partition('=')[0].split('.')[0]
    if '=' in written and name in flags.FLAGS:
      yield f'{written!r} is no flag; write --{written}'
