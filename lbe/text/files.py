"""Files that others gave: told as what they are where they are not whole."""

import contextlib
import errno
import fcntl
import glob
import io
import itertools
import json
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

POINTER = b'version https://git-lfs.github.com/spec/'
_BOM = b'\xef\xbb\xbf'
# The name of a mark in a folder that is being written.
UNFINISHED = 'unfinished'
_MARKS = {
  b'\xff\xfe\x00\x00': 'UTF-32',
  b'\x00\x00\xfe\xff': 'UTF-32',
  b'\xff\xfe': 'UTF-16',
  b'\xfe\xff': 'UTF-16',
}


class Refused(ValueError):
  """What a file is in place of what it should be, and the way out."""


def is_there(path: str | pathlib.Path) -> bool:
  """Whether a file is there, be it a dead link, of which `check` tells."""
  path = pathlib.Path(path)
  return path.is_file() or (path.is_symlink() and not path.exists())


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
    raise Refused(f'{path} is empty; copy it again.')
  check_pointer(head, path)


def check_pointer(head: bytes, path):
  """Raises Refused where a file begins as a pointer of Git LFS."""
  if head.startswith(POINTER):
    raise Refused(
      f'{path} is a pointer of Git LFS, not the file itself: run `git lfs '
      'pull` where it was cloned (after `git lfs install`), or download the '
      'file.'
    )


def check_head(head: bytes, path):
  """As `check_pointer`, and where a file begins as UTF-16 or UTF-32 does."""
  check_pointer(head, path)
  for mark, encoding in _MARKS.items():
    if head.startswith(mark):
      raise Refused(
        f'{path} begins with the mark of {encoding}; save it as UTF-8: iconv '
        f'-f {encoding} -t UTF-8 FILE > NEW.'
      )


def write_whole(path: str | pathlib.Path, data: str | bytes):
  """The file as a whole or not at all, also where process or power fails."""
  path = pathlib.Path(path)
  before = f'{path.name}.{socket.gethostname()}-'
  temporary = path.with_name(f'{before}{os.getpid()}-{next(_NUMBERS)}.tmp')
  try:
    with open(temporary, 'wb') as file:
      file.write(data.encode() if isinstance(data, str) else data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
  # What a process of this host left that was killed here.
  for left in path.parent.glob(f'{glob.escape(before)}*-*.tmp'):
    pid = left.name.removeprefix(before).split('-')[0]
    try:
      os.kill(int(pid), 0)
    except ProcessLookupError:
      left.unlink(missing_ok=True)
    except (OSError, ValueError):
      pass  # it lives, or the file is none of ours


_NUMBERS = itertools.count()


@contextlib.contextmanager
def unfinished(folder: pathlib.Path) -> Iterator[None]:
  """Within, a mark in the folder, which is made, says that it is unfinished.

  It stays where a process is killed, and where an error leaves files.
  """
  folder.mkdir(parents=True, exist_ok=True)
  mark = folder / UNFINISHED
  before = {*folder.iterdir(), mark}
  mark.touch()
  try:
    yield
  except Exception:
    if set(folder.iterdir()) == before:
      mark.unlink()
      if before == {mark}:
        folder.rmdir()
    raise
  mark.unlink()


@contextlib.contextmanager
def alone(path: str | pathlib.Path, what: str) -> Iterator[None]:
  """Within, no other process is within the same file; who comes later waits.

  A line says so. Who dies lets the next one in. Nobody waits where the file
  system knows no locks.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'a') as file:
    try:
      try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        print(
          f'{what}: another process is at it and has {path}; waiting for it',
          file=sys.stderr,
          flush=True,
        )
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        raise
    yield


# ---------------------------------------------------------------------- texts


def text(path: str | pathlib.Path) -> str:
  """The text of a UTF-8 file; lines end in a line feed. Raises as `stream`."""
  return io.StringIO(stream(path).getvalue(), newline=None).getvalue()


def stream(path: str | pathlib.Path) -> io.StringIO:
  """A UTF-8 file as the module csv wants it, a byte order mark taken off.

  Raises Refused, with the file and its line, for another encoding, for a
  pointer of Git LFS, and where there is no file.
  """
  path = pathlib.Path(path)
  try:
    data = path.read_bytes()
  except OSError as error:
    raise Refused(f'{path} cannot be read: {error.strerror}.') from error
  return io.StringIO(decoded(data, path), newline='')


def decoded(data: bytes, path) -> str:
  """The text of a file's bytes; raises Refused as `stream` does."""
  check_head(data, path)
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise Refused(
      f'{path}, line {line}: {not_utf8(data, error)}; files are UTF-8.'
    ) from error


def not_utf8(data: bytes, error: UnicodeDecodeError) -> str:
  """What is wrong with the bytes, and what encoding they may be in."""
  told = f'invalid UTF-8 ({error.reason})'
  likely = _encoding(data)
  if likely:
    told += f'; perhaps it is {likely}: iconv -f {likely} -t UTF-8 FILE > NEW'
  return told


def _encoding(data):
  """The likely encoding of a text that is no UTF-8, or ''."""
  if data.count(0) > len(data) // 4:
    read = data.decode('utf-16-le', 'replace').replace('\ufffd', '')
    return 'UTF-16' if ''.join(read.split()).isprintable() else ''
  if any(byte < 9 for byte in data):
    return ''  # no text
  for codec, name in (
    ('gb2312', 'GB18030'),
    ('big5', 'BIG5'),
    ('shift_jis', 'SHIFT_JIS'),
    ('gb18030', 'GB18030'),
  ):
    try:
      read = data.decode(codec)
    except UnicodeDecodeError:
      continue
    if any('\u3040' <= character <= '\u9fff' for character in read):
      return name
  is_latin = sum(byte < 128 for byte in data) >= 0.9 * len(data)
  return 'WINDOWS-1252' if is_latin and len(data) >= 10 else ''


# ----------------------------------------------------------------------- JSON


def read_json(path: str | pathlib.Path) -> dict[str, Any]:
  """A file of one JSON object; ValueError says what it is instead."""
  path = pathlib.Path(path)
  check(path)
  data = path.read_bytes()
  if data.startswith(_BOM):
    raise ValueError(
      f'{path} begins with a byte order mark (BOM); save it as UTF-8 without '
      'one.'
    )
  read = stream(path).getvalue()
  try:
    record = json.loads(read)
  except json.JSONDecodeError as error:
    cut = error.pos >= len(read.rstrip()) or error.msg.startswith('Untermi')
    raise ValueError(
      f'{path}:{error.lineno}: no JSON ({error.msg}, column {error.colno})'
      + ('; it is truncated: copy it again.' if cut else '; mend that line.')
    ) from error
  except (ValueError, RecursionError) as error:  # thousands of digits, of [
    raise ValueError(f'{path}: no JSON ({error}).') from error
  if not isinstance(record, dict):
    raise ValueError(
      f'{path} holds a JSON {type(record).__name__}, not an object '
      '({"name": value, ...}); it is another file, or broken: copy it again.'
    )
  return record
