"""What a file holds, record by record, whatever its format and packing.

A reader takes an open binary file and yields (record, place): 'line 3', or
'record 3' where a format has no lines. A record that cannot be read is a
lines.Bad, which says why; what breaks a whole file is raised as its library
raises it.

  text         documents, each a string
  jsonl        a JSON value in each line
  json         one array of records
  objects      JSON objects, one after the other, over many lines each
  csv, tsv     a head line with the fields' names, then a record a line; in
               CSV a quoted field may go over lines, in TSV quotes are text
  parquet      its rows
  arrow        its rows: Arrow's file (Feather) or stream format
  arrayrecord  each record a JSON object in UTF-8
"""

import csv
import io
import json
import pathlib
import re
import sys

from lbe.text import files
from lbe.text import lines
from lbe.text import packed

# ------------------------------------------------------------------- lines


def text(file, *, cut, heading):
  """Documents of one text file; a bad line takes its document with it."""
  heading = re.compile(heading) if cut == 'heading' else None
  held, start, broken = [], 1, False

  def ended():
    if held and not broken:
      yield '\n'.join(held), f'line {start}'

  for line, number in lines.texts(file):
    if isinstance(line, lines.Bad):
      yield line, f'line {number}'
      broken = cut != 'line'
      continue
    if cut == 'line':
      yield line, f'line {number}'
      continue
    if cut == 'blank_line' and not line.strip():
      yield from ended()
      held, start, broken = [], number + 1, False
      continue
    if heading is not None and heading.search(line):
      yield from ended()
      held, start, broken = [], number, False
    held.append(line)
  yield from ended()


def jsonl(file):
  for record, number in lines.values(file):
    yield record, f'line {number}'


def json_array(file):
  """The records of one array, whole in memory."""
  try:
    records = lines.loads(file.read().decode('utf-8-sig'))
  except json.JSONDecodeError as error:
    what = f'invalid JSON ({error.msg}, column {error.colno})'
    yield lines.Bad(what), f'line {error.lineno}'
    return
  except UnicodeDecodeError as error:
    line = error.object.count(b'\n', 0, error.start) + 1
    yield lines.Bad(files.not_utf8(error.object, error)), f'line {line}'
    return
  if not isinstance(records, list):
    yield lines.Bad('the file holds no array of records'), 'line 1'
    return
  for number, record in enumerate(records, 1):
    yield record, f'record {number}'


def json_objects(file):
  """The objects that stand one after the other, whole in memory.

  One object alone around lists of others is no record.
  """
  data = file.read()
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    yield lines.Bad(files.not_utf8(data, error)), f'line {line}'
    return
  decoder, white = json.JSONDecoder(), re.compile(r'\s*')
  at = white.match(text).end()
  line, counted = 1, 0
  while at < len(text):
    line, counted = line + text.count('\n', counted, at), at
    place = f'line {line}'
    try:
      record, at = decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
      what = f'invalid JSON ({error.msg}, column {error.colno})'
      yield lines.Bad(what), f'line {error.lineno}'
      return
    except (ValueError, RecursionError) as error:
      yield lines.Bad(f'invalid JSON ({error})'), place
      return
    yield record, place
    at = white.match(text, at).end()


def around(record) -> str:
  """What to say of an object that holds records in place of being one."""
  held = [
    (len(value), name)
    for name, value in record.items()
    if isinstance(value, list) and value and isinstance(value[0], dict)
  ]
  if not held:
    return ''
  number, name = max(held)
  return (
    f'; it is one object, not records: {name!r} holds {number} of them; write '
    'these alone, as one array or a line each'
  )


def table(file, *, tabs):
  """Records of CSV or TSV, their values text."""
  csv.field_size_limit(sys.maxsize)  # a field may hold a book
  # Invalid bytes become surrogates, which no row that is read may have.
  with io.TextIOWrapper(
    file, 'utf-8-sig', 'surrogateescape', newline=''
  ) as decoded:
    rows = csv.reader(
      decoded,
      delimiter='\t' if tabs else ',',
      quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
      strict=True,
    )
    head, line = None, 1
    while True:
      place = f'line {line}'
      try:
        row = next(rows)
      except StopIteration:
        return
      except csv.Error as error:
        yield lines.Bad(f'invalid CSV ({error}); the rest is not read'), place
        return
      line = rows.line_num + 1
      invalid = _invalid(row)
      if head is None:
        head = row
        twice = [name for name in head if head.count(name) > 1]
        if invalid or twice:
          what = invalid or f'the field {twice[0]!r} twice'
          yield lines.Bad(f'the head has {what}'), place
          return
      elif invalid:
        yield lines.Bad(invalid), place
      elif row and len(row) != len(head):
        yield (
          lines.Bad(f'{len(row)} fields, and the head has {len(head)}'),
          place,
        )
      elif row:
        yield dict(zip(head, row, strict=True)), place


def _invalid(row):
  """What is wrong with the bytes of a row, or ''."""
  data = ','.join(row).encode('utf-8', 'surrogateescape')
  try:
    data.decode()
  except UnicodeDecodeError as error:
    return files.not_utf8(data, error)
  return ''


# -------------------------------------------------------------------- rows


def parquet(file):
  batches = (
    packed.library('pyarrow.parquet').ParquetFile(file).iter_batches(1024)
  )
  return _rows(batches)


def arrow(file):
  ipc = packed.library('pyarrow.ipc')
  is_file = file.read(6) == b'ARROW1'
  file.seek(0)
  if not is_file:
    return _rows(ipc.open_stream(file))
  opened = ipc.open_file(file)
  return _rows(opened.get_batch(i) for i in range(opened.num_record_batches))


def _rows(batches):
  number = 0
  for batch in batches:
    for record in batch.to_pylist():
      number += 1
      yield record, f'record {number}'


def arrayrecord(path):
  """Of a path: the library opens files itself, on a local disk."""
  from array_record.python import array_record_module  # not on Windows

  reader = array_record_module.ArrayRecordReader(str(path))
  try:
    for number in range(reader.num_records()):
      try:
        record = json.loads(reader.read([number])[0])
      except ValueError as error:
        record = lines.Bad(f'it holds no JSON object in UTF-8 ({error})')
      yield record, f'record {number + 1}'
  finally:
    reader.close()


# -------------------------------------------------------------------- TFDS


def tfds(name):
  """The records of 'tfds:NAME/CONFIG:VERSION@SPLIT', made where need be.

  NAME may also be the folder of a dataset.
  """
  import tensorflow_datasets  # takes seconds to import

  dataset, _, split = name.removeprefix('tfds:').rpartition('@')
  if (pathlib.Path(dataset) / 'dataset_info.json').exists():
    builder = tensorflow_datasets.builder_from_directory(dataset)
    return builder.as_data_source(split)
  return tensorflow_datasets.data_source(dataset, split=split)


def tfds_files(source):
  """The files that the records of `tfds` are in."""
  parts = source.dataset_info.splits[source.split].file_instructions
  return [pathlib.Path(part.filename) for part in parts]


def tfds_records(source):
  for start in range(0, len(source), 256):
    numbers = range(start, min(start + 256, len(source)))
    records = source.__getitems__(list(numbers))
    for number, record in zip(numbers, records, strict=True):
      yield _plain(record), f'record {number + 1}'


def _plain(value):
  """TFDS's arrays and bytes as JSON has them."""
  if isinstance(value, dict):
    return {key: _plain(x) for key, x in value.items()}
  if hasattr(value, 'tolist'):
    value = value.tolist()
  if isinstance(value, list | tuple):
    return [_plain(x) for x in value]
  return value.decode() if isinstance(value, bytes) else value
