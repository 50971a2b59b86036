"""Files that others gave: told as what they are where they are not whole."""

import json
import pathlib
from typing import Any

POINTER = b'version https://git-lfs.github.com/spec/'
_MARKS = {
  b'\xef\xbb\xbf': 'a byte order mark (BOM)',
  b'\xff\xfe': 'the mark of UTF-16',
  b'\xfe\xff': 'the mark of UTF-16',
}


def check(path: str | pathlib.Path):
  """Raises ValueError for a dead link, an empty file, a pointer of Git LFS."""
  path = pathlib.Path(path)
  if path.is_symlink() and not path.exists():
    raise ValueError(
      f'{path} is a link to {path.readlink()}, which is not there; copy the '
      'file itself (cp -L, rsync -L).'
    )
  with open(path, 'rb') as file:
    head = file.read(len(POINTER))
  if not head:
    raise ValueError(f'{path} is empty; copy it again.')
  if head == POINTER:
    raise ValueError(
      f'{path} is a pointer of Git LFS, not the file itself: run `git lfs '
      'pull` where it was cloned (after `git lfs install`), or download the '
      'file.'
    )


def read_text(path: str | pathlib.Path) -> str:
  """A text in UTF-8; ValueError for what `check` tells, and for others."""
  check(path)
  data = pathlib.Path(path).read_bytes()
  for mark, name in _MARKS.items():
    if data.startswith(mark):
      raise ValueError(
        f'{path} begins with {name}; save it as UTF-8 without one.'
      )
  try:
    return data.decode()
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{path} is no UTF-8 (byte {error.start}: {error.reason}); save it as '
      'UTF-8.'
    ) from error


def read_json(path: str | pathlib.Path) -> dict[str, Any]:
  """A file of one JSON object; ValueError says what it is instead."""
  text = read_text(path)
  try:
    record = json.loads(text)
  except json.JSONDecodeError as error:
    cut = error.pos >= len(text.rstrip()) or error.msg.startswith('Untermi')
    raise ValueError(
      f'{path}:{error.lineno}: no JSON ({error.msg}, column {error.colno})'
      + ('; it is truncated: copy it again.' if cut else '; mend that line.')
    ) from error
  except RecursionError as error:
    raise ValueError(f'{path}: no JSON (too deeply nested).') from error
  if not isinstance(record, dict):
    raise ValueError(
      f'{path} holds a JSON {type(record).__name__}, not an object '
      '({"name": value, ...}); it is another file, or broken: copy it again.'
    )
  return record
