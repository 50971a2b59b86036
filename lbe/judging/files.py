"""JSON lines as evaluators and people hand them over, told by file and line."""

import pathlib

from lbe.data import readers


def records(path, fields=()):
  """[(record, 'FILE:LINE')] of a file with a JSON object in each line.

  Empty lines are passed over. Raises ValueError with file and line for what is
  no JSON object or lacks one of the `fields`.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'there is no file {str(path)!r}; give a JSONL file.')
  found = []
  with readers.opened(path) as file:
    for record, place in readers.jsonl(file):
      where = f'{path}:{place.removeprefix("line ")}'
      if isinstance(record, readers.Bad):
        raise ValueError(f'{where}: {record}; a line is one JSON object.')
      if not isinstance(record, dict):
        raise ValueError(
          f'{where}: {type(record).__name__}; a line is one JSON object.'
        )
      require(record, fields, where)
      found.append((record, where))
  return found


def predictions(path, fields=()):
  """`records` of a predictions.jsonl, those of one evaluator.

  'FILE@EVALUATOR' names it, where the file has those of several. Raises
  ValueError as `records` does, where it has to be named, and where there is
  none.
  """
  path, evaluator = str(path), ''
  if '@' in path and not pathlib.Path(path).is_file():
    path, _, evaluator = path.rpartition('@')
  found, names = [], {}
  for record, where in records(path):
    name = record.get('evaluator')
    names[name] = where
    if not evaluator or name == evaluator:
      found.append((record, where))
  if not evaluator and len(names) > 1:
    raise ValueError(
      f'{path} has records of several evaluators '
      f'({", ".join(map(str, names))}); name one: {path}@{next(iter(names))}.'
    )
  if not found:
    raise ValueError(
      f'{path} has no records'
      + f' of {evaluator!r}, only of {", ".join(map(str, names))}.'
      * bool(evaluator)
    )
  for record, where in found:
    require(record, fields, where)
  return found


def require(record, fields, where):
  """Raises ValueError where a record lacks a field."""
  missing = [field for field in fields if field not in record]
  if missing:
    raise ValueError(
      f'{where}: the field {missing[0]!r} is missing (fields: '
      f'{", ".join(map(str, record)) or "none"}).'
    )


def text(record, field, where, *, default=None):
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


def name(record, field, where):
  """The field as a name: text, or a whole number made text."""
  value = record.get(field)
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  return text(record, field, where)


def once(key, seen, where):
  """Notes where `key` stands; ValueError where it has stood before."""
  if key in seen:
    raise ValueError(
      f'{where}: the id {key!r} stands in {seen[key]} already; each is to be '
      'there once.'
    )
  seen[key] = where
