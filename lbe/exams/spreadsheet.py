"""Tables as spreadsheets save them: CSV by commas, semicolons or tabs."""

import csv
import io
import pathlib
import re
import sys

from lbe.text import files
from lbe.text import packed

_SEPARATORS = ',;\t|'
# What a file begins with that is no text.
_BOOKS = {b'PK\x03\x04': '.xlsx', b'\xd0\xcf\x11\xe0': '.xls'}


def text(path: pathlib.Path) -> str:
  """The file in UTF-8, unpacked; ValueError for what is none, with the line."""
  if not path.is_file():
    raise ValueError(f'there is no {path}; is the subject or split missing?')
  with packed.opened(path) as file:
    data = file.read()
  for head, ending in _BOOKS.items():
    if data.startswith(head):
      raise ValueError(
        f'{path} is a workbook ({ending}), not a text; save the sheet as CSV '
        'in UTF-8.'
      )
  return files.decoded(data, path)


def read(
  path, columns, *, header=True, separator=','
) -> list[tuple[dict, str]]:
  """[(row, 'FILE, line N')], values as text; ValueError names file and line.

  Without a header the columns stand in the given order.
  """
  path = pathlib.Path(path)
  found = _rows(text(path), path, separator)
  names = list(columns)
  if header:
    names, _ = next(found, ([], ''))
    missing = [name for name in columns if name not in names]
    if missing:
      raise ValueError(
        f'{path} has no column {missing[0]!r}; it has {", ".join(names)}.'
      )
  return list(_records(found, names))


def sniffed(table: str, path) -> list[tuple[dict, str]]:
  """As `read`, of a text with a header and any of the usual separators."""
  told = re.match('sep=(.)\r?\n', table)  # what Excel writes and reads
  if told:
    found = _rows(table[told.end() :], path, told[1], first=2)
  else:
    head = re.sub('"[^"]*"', '', re.split('[\r\n]', table, maxsplit=1)[0])
    found = _rows(table, path, max(_SEPARATORS, key=head.count))
  names, where = next(found, ([], ''))
  names = [name.strip() for name in names]
  while names and not names[-1]:
    names.pop()
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise ValueError(f'{where}: the column {twice[0]!r} is there twice.')
  return list(_records(found, names))


def _rows(table, path, separator, first=1):
  """(cells, 'FILE, line N') of each row that has text, as they come."""
  csv.field_size_limit(sys.maxsize)
  reader = csv.reader(
    io.StringIO(table, newline=''), delimiter=separator, strict=True
  )
  while True:
    where = f'{path}, line {reader.line_num + first}'
    try:
      values = next(reader, None)
    except csv.Error as error:
      raise ValueError(
        f'{where}: invalid CSV ({error}); a quote inside a quoted cell is '
        'written twice, and a cell that begins with one ends with one.'
      ) from error
    if values is None:
      return
    if any(map(str.strip, values)):
      yield values, where


def _records(found, names):
  for values, where in found:
    while len(values) > len(names) and not values[-1].strip():
      values.pop()
    if len(values) != len(names):
      raise ValueError(
        f'{where}: {len(values)} values for the {len(names)} columns '
        f'{", ".join(names)}; it begins with {", ".join(values)[:60]!r}.'
      )
    yield dict(zip(names, values, strict=True)), where
