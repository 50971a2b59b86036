r"""JSON lines: read, checked, written, and kept up to some place.

A line ends at '\n' and nowhere else. JSON's texts hold U+2028, U+0085 and the
like as they are, and `str.splitlines` would cut there.
"""

import json
import math
import os
import pathlib
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import BinaryIO

from lbe.text import files
from lbe.text import packed


class Bad(str):
  """Why a record cannot be read; it stands in the record's place."""


# -------------------------------------------------------------------- reading


def split(whole: str) -> list[str]:
  """The lines of a text, without their ends."""
  ended = whole.removesuffix('\n')
  if not ended and not whole:
    return []
  return [line.removesuffix('\r') for line in ended.split('\n')]


# What no UTF-8 text has; JSON can write it.
HALF = (
  'half a character (a lone surrogate, as \\ud83d without its second half); '
  'write the whole one, or leave it out'
)


def is_whole(text: str) -> bool:
  """Whether a text has no half of a character."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def check_whole(texts: Iterable[str]):
  """Raises ValueError where a text has half a character."""
  for text in texts:
    if not is_whole(text):
      raise ValueError(f'{text[:60]!r} has {HALF}.')


def texts(file: BinaryIO) -> Iterator[tuple[str, int]]:
  """(line without its end, number); Bad for a line that is no text."""
  for number, raw in enumerate(file, 1):
    try:
      line = raw.decode('utf-8-sig' if number == 1 else 'utf-8')
    except UnicodeDecodeError as error:
      yield Bad(files.not_utf8(raw, error)), number
      continue
    if '\0' in line:
      line = Bad('a NUL byte; is the file binary, cut off, or UTF-16?')
      yield line, number
      continue
    yield line.removesuffix('\n').removesuffix('\r'), number


def loads(read: str):
  """json.loads, whose every error is a JSONDecodeError.

  Also of thousands of digits, and of thousands of brackets.
  """
  try:
    return json.loads(read)
  except json.JSONDecodeError:
    raise
  except (ValueError, RecursionError) as error:
    raise json.JSONDecodeError(str(error), read, 0) from error


def values(file: BinaryIO) -> Iterator[tuple[Any, int]]:
  """(JSON value, or Bad; number of its line); empty lines are passed over."""
  for line, number in texts(file):
    if not line.strip():
      continue
    if not isinstance(line, Bad):
      try:
        line = loads(line)
      except json.JSONDecodeError as error:
        line = Bad(f'invalid JSON ({error.msg}, column {error.colno})')
    yield line, number


def records(path, fields=()) -> list[tuple[dict, str]]:
  """[(record, 'FILE:LINE')] of a file with a JSON object in each line.

  Empty lines are passed over. Raises ValueError with file and line for what is
  no JSON object, lacks one of the `fields`, or has half a character.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'there is no file {str(path)!r}; give a JSONL file.')
  read = []
  with packed.opened(path) as file:
    for record, number in values(file):
      where = f'{path}:{number}'
      if isinstance(record, Bad):
        raise ValueError(f'{where}: {record}; a line is one JSON object.')
      if not isinstance(record, dict):
        raise ValueError(
          f'{where}: {type(record).__name__}; a line is one JSON object.'
        )
      check_record(record, where)
      require(record, fields, where)
      read.append((record, where))
  return read


def rows(path) -> list[dict]:
  """The records of a file that a run has written; [] where there is none."""
  if not pathlib.Path(path).exists():
    return []
  return [record for record, _ in records(path)]


def predictions(path, fields=()) -> list[tuple[dict, str]]:
  """`records` of a predictions.jsonl, those of one evaluator.

  'FILE@EVALUATOR' names it, where the file has those of several. Raises
  ValueError as `records` does, where it has to be named, and where there is
  none.
  """
  path, evaluator = str(path), ''
  if '@' in path and not pathlib.Path(path).is_file():
    path, _, evaluator = path.rpartition('@')
  chosen, names = [], {}
  for record, where in records(path):
    name = record.get('evaluator')
    if name is not None:
      name = text(record, 'evaluator', where)
    names[name] = where
    if not evaluator or name == evaluator:
      chosen.append((record, where))
  if not evaluator and len(names) > 1:
    raise ValueError(
      f'{path} has records of several evaluators '
      f'({", ".join(map(str, names))}); name one: {path}@{next(iter(names))}.'
    )
  if not chosen:
    raise ValueError(
      f'{path} has no records'
      + f' of {evaluator!r}, only of {", ".join(map(str, names))}.'
      * bool(evaluator)
    )
  for record, where in chosen:
    require(record, fields, where)
  return chosen


# --------------------------------------------------------------------- fields


def check_record(record, where: str):
  """Raises ValueError where some text of a record has half a character."""
  if not is_whole(dumps(record)):
    raise ValueError(f'{where}: {HALF}.')


def require(record: dict, fields, where: str):
  """Raises ValueError where a record lacks a field."""
  missing = [field for field in fields if field not in record]
  if missing:
    raise ValueError(
      f'{where}: the field {missing[0]!r} is missing (fields: '
      f'{", ".join(map(str, record)) or "none"}).'
    )


def text(record: dict, field, where: str, *, default=None) -> str:
  """The field as text; ValueError for another type, and where it is empty.

  With a default the field may be absent, null or empty.
  """
  value = record.get(field)
  if value is None and default is not None:
    return default
  if not isinstance(value, str):
    raise ValueError(
      f'{where}: the field {field!r} is {type(value).__name__}, not str.'
    )
  if not value.strip() and default is None:
    raise ValueError(f'{where}: the field {field!r} is empty; fill it in.')
  return value


def name(record: dict, field, where: str) -> str:
  """The field as a name: text, or a whole number made text."""
  value = record.get(field)
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  return text(record, field, where)


def once(key, seen: dict, where: str):
  """Notes where `key` stands; ValueError where it has stood before."""
  if key in seen:
    raise ValueError(
      f'{where}: the id {key!r} stands in {seen[key]} already; each is to be '
      'there once.'
    )
  seen[key] = where


# -------------------------------------------------------------------- writing


def dumps(value, **how) -> str:
  """JSON that every reader takes: null for NaN and what is infinite."""
  try:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, **how)
  except ValueError:
    return json.dumps(_finite(value), ensure_ascii=False, **how)


def _finite(value):
  if isinstance(value, dict):
    return {key: _finite(x) for key, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  return (
    None if isinstance(value, float) and not math.isfinite(value) else value
  )


def line(record) -> str:
  """The record as a line, its end included."""
  return dumps(record) + '\n'


def write(path, records: Iterable):
  """A file of the records, in the place of one that is there."""
  _write(path, records, 'w')


def append(path, records: Iterable):
  """Adds the records to a file, by one write."""
  _write(path, records, 'a')


def _write(path, records, mode):
  with open(path, mode, encoding='utf-8') as f:
    f.write(''.join(map(line, records)))


def keep(path, wanted: Callable[[dict], bool]) -> list[dict]:
  """Keeps the lines of a file whose row is `wanted`; these rows.

  A torn last line goes. One inside that is no JSON object, as a disk may leave
  it, is told and moved into FILE.damaged; the lines behind it count. The file
  is replaced whole, or not at all; one that is not there stays away.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  kept, kept_rows, damaged = [], [], {}
  *whole_lines, last = path.read_bytes().split(b'\n')
  for number, raw in enumerate([*whole_lines, last], 1):
    try:
      row = json.loads(raw.decode())
      if not isinstance(row, dict):
        raise ValueError
    except ValueError:  # also half a character
      if raw.strip() and number <= len(whole_lines):
        damaged[number] = raw + b'\n'
      continue
    if wanted(row):
      kept.append(raw + b'\n')
      kept_rows.append(row)
  if damaged:
    aside = path.with_name(f'{path.name}.damaged')
    with open(aside, 'ab') as file:
      file.writelines(damaged.values())
    print(
      f'{path}: {len(damaged)} damaged lines (the first is line '
      f'{min(damaged)}) are no JSON; they are in {aside} now.',
      file=sys.stderr,
      flush=True,
    )
  temporary = path.with_suffix('.tmp')
  temporary.write_bytes(b''.join(kept))
  os.replace(temporary, path)
  return kept_rows


def whole(path) -> bytes:
  """The file up to the end of its last whole line."""
  data = pathlib.Path(path).read_bytes()
  return data[: data.rfind(b'\n') + 1]


def last(path) -> dict:
  """The last whole record of a file that a run has written; {} for none."""
  for raw in reversed(whole(path).split(b'\n')):
    try:
      record = json.loads(raw.decode())
    except ValueError:
      continue
    if isinstance(record, dict):
      return record
  return {}


def mend(path):
  """Takes a last line that was cut off from the file."""
  size = len(whole(path))
  if size < pathlib.Path(path).stat().st_size:
    os.truncate(path, size)
