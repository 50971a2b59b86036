"""Which files a path names: one, those of a folder, or those of a pattern.

Of a folder all are read whose ending is known, and of the others those that
hold records; of one that Hugging Face's `datasets` saved, the files that its
state.json names. Hidden files are no data. A link that leads nowhere is an
error, and one that leads back is not followed: what it leads to is read where
it lies.
"""

import contextlib
import glob
import json
import os
import pathlib
import re

from lbe.data import kinds
from lbe.text import files as files_lib

# How a person shows a cloud who they are.
CLOUDS = {
  'gs': 'run `gcloud auth application-default login`, or set '
  'GOOGLE_APPLICATION_CREDENTIALS to a key file',
  's3': 'set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
}
# Names of what describes data, and of what is no data of its own.
_ABOUT = ('dataset_info.json', 'dataset_infos.json', 'dataset_dict.json')
_STATE = 'state.json'
_BESIDE = re.compile(
  r'(.*(~|\.(md|bak|orig|old|tmp|lock|crc|part|partial|incomplete|crdownload|'
  r'aria2))|readme.*|licen[cs]e.*|_.*|cache-[0-9a-f]+.*\.arrow)$'
)


def is_remote(path) -> bool:
  return '://' in str(path)


@contextlib.contextmanager
def told_plainly(path):
  """Whatever a disk, a cloud or a format raises, with the path and a way out.

  Each library has errors of its own, so all of them are caught.
  """
  cloud = str(path).partition('://')[0]
  try:
    yield
  except files_lib.Refused:
    raise  # it says all
  except ImportError as error:
    if not is_remote(path):
      raise
    raise ImportError(f"{path}: {error}; pip install 'lbe[remote]'.") from error
  except Exception as error:
    way = 'is the file whole, and its kind right?'
    if is_remote(path):
      way = f'without credentials, {CLOUDS[cloud]}'
    elif isinstance(error, PermissionError):
      way = 'let this user read it: chmod -R a+rX'
    raise ValueError(
      f'{path} cannot be read: {type(error).__name__}: {error}; {way}'
    ) from error


def located(name: str, path: str):
  """The path of a source, here or in a cloud; ValueError for other places."""
  cloud, there, _ = path.partition('://')
  if not there:
    return pathlib.Path(path)
  if cloud not in CLOUDS:
    raise ValueError(
      f'source {name}: {cloud}:// is not read; give a local path, or '
      f'one of {", ".join(f"{x}://" for x in CLOUDS)}.'
    )
  from etils import epath

  return epath.Path(path)


def found(name: str, path: str, kind: str) -> tuple[list, list]:
  """(files, others) of a source's path, each in sorted order.

  The others lie in a folder and are not read. Raises ValueError where there is
  no file of the kind.
  """
  root = located(name, path)
  _check_link(root)
  with told_plainly(root):
    if root.is_file():
      return [root], []
    is_folder = root.is_dir()
  if is_folder:
    return _of_folder(name, root, kind)
  chosen, others = [], []
  if not is_remote(root) and glob.has_magic(path):
    for match in sorted(glob.glob(path, recursive=True)):
      if os.path.isdir(match):
        if '**' not in path:
          inside = _of_folder(name, pathlib.Path(match), kind)
          chosen, others = chosen + inside[0], others + inside[1]
        continue
      _check_link(pathlib.Path(match))
      beside = _BESIDE.match(os.path.basename(match).lower())
      (others if beside else chosen).append(pathlib.Path(match))
    if not chosen:
      raise ValueError(
        f'source {name}: no file matches {path}; give a file, a folder or a '
        'pattern that matches.'
      )
    return chosen, others
  raise ValueError(
    f'source {name}: there is nothing at {root}; give a file or a folder.'
  )


def _of_folder(name, root, kind):
  with told_plainly(root):
    below = sorted(_below(root, [os.path.realpath(root)]))
  data = [
    path
    for path in below
    if not _BESIDE.match(path.name.lower())
    and (is_remote(path) or path.is_file())
  ]
  chosen = [path for path in data if _is_chosen(path, kind)]
  if not chosen and kind == 'text':
    # Texts in records are texts, as those of any other ending are.
    chosen = [path for path in data if _is_chosen(path, 'auto')] or data
  if chosen:
    taken = set(chosen)
    return chosen, [path for path in below if path not in taken]
  endings = [e for e, k in kinds.ENDINGS.items() if kind in ('auto', k)]
  there = ', '.join(path.name for path in below[:3]) or 'none at all'
  way = "set kind='auto'" if kind != 'auto' else "set kind='text' for texts"
  raise ValueError(
    f'source {name}: {root} has no file that ends in {" or ".join(endings)} '
    f'(its files: {there}); name the files so, {way}, or give one file.'
  )


def _is_chosen(path, kind):
  known = kinds.ENDINGS.get(kinds.ending(path))
  if known:
    return kind in ('auto', known) or (kind, known) == ('jsonl', 'json')
  with told_plainly(path):
    return kind in ('auto', 'jsonl') and kinds.holds_records(path)


def _check_link(path):
  """Raises Refused for a link that leads nowhere."""
  if not is_remote(path) and path.is_symlink() and not path.exists():
    raise files_lib.Refused(
      f'{path} is a link to {os.readlink(path)}, which is not there; fetch '
      'the file, or take the link away.'
    )


def _below(folder, seen):
  """The files under a folder, and the links that are not followed.

  `seen` are the real folders whose files are read.
  """
  # A store may list a folder as a part of itself.
  children = [
    child
    for child in folder.iterdir()
    if not child.name.startswith('.') and child != folder
  ]
  names = {child.name for child in children}
  _check_one_split(folder, names)
  if _STATE in names and any(name.endswith('.arrow') for name in names):
    yield from _saved(folder)
    return
  for child in children:
    _check_link(child)
    if child.name in _ABOUT or child.name == '__MACOSX':
      continue
    # Clouds are asked as little as can be.
    known = is_remote(child) and kinds.ending(child) in kinds.ENDINGS
    if known or not child.is_dir() or _leads_back(child, seen):
      yield child
    else:
      yield from _below(child, seen)


def _leads_back(folder, seen):
  """Whether a folder is a link to what is read elsewhere, or to one above."""
  if is_remote(folder) or not folder.is_symlink():
    return False
  real = os.path.realpath(folder)
  above = os.path.realpath(folder.parent)
  back = any(os.path.commonpath([real, x]) == x for x in seen)
  if back or os.path.commonpath([real, above]) == real:
    return True
  seen.append(real)
  return False


def _check_one_split(folder, names):
  """Raises Refused for the folder of a data set with several splits."""
  if {'dataset_info.json', 'features.json'} <= names:
    raise files_lib.Refused(
      f'{folder} is a data set of TFDS; name its split: '
      f"path='tfds:{folder}@train'."
    )
  if 'dataset_dict.json' in names:
    text = (folder / 'dataset_dict.json').read_text(encoding='utf-8')
    splits = json.loads(text)['splits']
    if len(splits) > 1:
      raise files_lib.Refused(
        f'{folder} holds the splits {", ".join(splits)} of a data set; name '
        f'one: path={folder / splits[0]}.'
      )


def _saved(folder):
  """The files of a data set that `datasets` saved, in their order."""
  state = json.loads((folder / _STATE).read_text(encoding='utf-8'))
  for part in state['_data_files']:
    path = folder / part['filename']
    if not path.exists():
      raise files_lib.Refused(
        f'{folder / _STATE} names {path.name}, which is not there; copy the '
        'whole folder again.'
      )
    yield path
