"""Where records come from: files and folders of text, JSONL and JSON.

A record is a dictionary; of a text file, each document is its `field`.
"""

import codecs
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator

from lbe.data import cleaning as cleaning_lib
from lbe.data import messages

CUTS = ('blank_line', 'line', 'file', 'heading')


@dataclasses.dataclass(frozen=True)
class Source:
  """One named stream of text; configs/common.py says what each field means."""

  name: str
  path: str
  kind: str = 'auto'
  cut: str = 'blank_line'
  heading: str = r'^ = [^=].* = $'
  field: str = 'text'
  columns: dict = dataclasses.field(default_factory=dict)
  template: str = ''
  loss: str = 'responses'
  too_long: str = 'fail'
  cleaning: cleaning_lib.Rules | None = None
  proportion: float = 1.0
  holdout: float = 0.0
  max_documents: int | None = None
  max_bytes: int | None = None
  max_tokens: int | None = None
  on_bad_record: str = 'fail'

  def __post_init__(self):
    for field, value, known in (
      ('kind', self.kind, ('auto', 'text', 'jsonl', 'json')),
      ('cut', self.cut, CUTS),
      ('on_bad_record', self.on_bad_record, ('fail', 'skip')),
    ):
      if value not in known:
        raise ValueError(
          f'source {self.name}: {field}={value!r} is unknown; take one of '
          f'{", ".join(known)}.'
        )
    if not 0 <= self.holdout < 1:
      raise ValueError(
        f'source {self.name}: holdout={self.holdout} is no share; it lies '
        'from 0 up to, and without, 1.'
      )


def files(source):
  """The source's files: itself, or what a folder holds, in sorted order.

  Hidden files are left out. Raises ValueError where there is none.
  """
  path = pathlib.Path(source.path)
  if path.is_file():
    return [path]
  if not path.is_dir():
    raise ValueError(
      f'source {source.name}: there is nothing at {path}; give a file or a '
      'folder.'
    )
  endings = {
    'auto': ('.txt', '.jsonl', '.json'),
    'text': ('.txt',),
    'jsonl': ('.jsonl', '.json'),
    'json': ('.json',),
  }[source.kind]
  found = sorted(
    p
    for p in path.rglob('*')
    if p.suffix in endings and p.is_file() and not p.name.startswith('.')
  )
  if not found:
    raise ValueError(
      f'source {source.name}: {path} has no file that ends in '
      f'{" or ".join(endings)}; name the files so, or give one file.'
    )
  return found


def documents(source, skipped=None, cleaned=None) -> Iterator[tuple[str, str]]:
  """(text, 'FILE:LINE') of every document, in the order of the files.

  Texts keep their inner white space; documents of white space only are no
  documents. Of a source with a template a document is the whole record, as
  JSON. What the rules of `source.cleaning` leave out goes into `cleaned`, a
  cleaning.Report. Else as `records`.
  """
  skipped = [] if skipped is None else skipped
  found = _readable(source, skipped)
  if source.cleaning is not None:
    report = cleaning_lib.Report() if cleaned is None else cleaned
    found = cleaning_lib.clean(found, source.cleaning, report)
  count = 0
  for record, where in found:
    count += 1
    yield record['document'], where
  if not count:
    raise ValueError(
      f'source {source.name}: {source.path} holds no document '
      f'({len(skipped)} records were skipped); is it the right file, and is '
      f'cut={source.cut!r} right?'
    )


def _readable(source, skipped):
  """({'document', and what cleaning looks at}, where) of each document."""
  for record, where in records(source, skipped):
    if source.template:
      try:
        conversation = messages.conversation(record, where=where)
      except ValueError as error:
        _bad(source, skipped, where, str(error).removeprefix(f'{where}: '))
        continue
      turns = [
        {'role': m.role, 'content': f'{m.content}\n{m.input}'.rstrip('\n')}
        for m in conversation
      ]
      document = json.dumps(record, ensure_ascii=False)
      yield {'messages': turns, 'document': document}, where
      continue
    text = record.get(source.field)
    if not isinstance(text, str):
      what = f'no text in the field {source.field!r}'
      _bad(source, skipped, where, f'{what} (fields: {", ".join(record)})')
    elif text.strip():
      yield {'text': text, 'document': text}, where


def records(source, skipped=None) -> Iterator[tuple[dict, str]]:
  """(record, 'FILE:LINE') of every record, in the order of the files.

  `columns` of the source renames fields: {'instruction': 'prompt'} reads
  `prompt` as `instruction`. A record that cannot be read raises ValueError
  with its file and line, or, with `on_bad_record='skip'`, is left out and put
  on the list `skipped`.
  """
  skipped = [] if skipped is None else skipped
  for path in files(source):
    for record, line in _reader(source, path)(source, path, skipped):
      where = f'{path}:{line}'
      if not isinstance(record, dict):
        what = f'a record is an object with fields, not {record!r:.60}'
        _bad(source, skipped, where, what)
        continue
      for ours, theirs in source.columns.items():
        if theirs in record:
          record[ours] = record.pop(theirs)
        else:
          _bad(
            source,
            skipped,
            where,
            f'no field {theirs!r}, which columns names (fields: '
            f'{", ".join(record)})',
          )
          break
      else:
        yield record, where


def _reader(source, path):
  if source.kind == 'text':
    return _text
  if source.kind == 'json':
    return _json
  if source.kind == 'jsonl' or path.suffix == '.jsonl':
    return _jsonl
  if path.suffix == '.json':
    return _json if _is_array(path) else _jsonl
  return _text


def _is_array(path):
  with open(path, 'rb') as f:
    head = f.read(1 << 16).removeprefix(codecs.BOM_UTF8)
  return head.lstrip()[:1] == b'['


def _bad(source, skipped, where, what):
  path, _, line = where.rpartition(':')
  told = f'{path}, line {line}: {what.rstrip(".")}'
  if source.on_bad_record == 'fail':
    raise ValueError(
      f"{told}; mend the file, or set on_bad_record='skip' to count and "
      'report such records.'
    )
  skipped.append(told)


def _lines(source, path, skipped):
  """(number, line without its end); None for a line that is no UTF-8."""
  with open(path, 'rb') as f:
    for number, raw in enumerate(f, 1):
      try:
        line = raw.decode('utf-8-sig' if number == 1 else 'utf-8')
      except UnicodeDecodeError as error:
        _bad(
          source, skipped, f'{path}:{number}', f'invalid UTF-8 ({error.reason})'
        )
        yield number, None
        continue
      yield number, line.removesuffix('\n').removesuffix('\r')


def _jsonl(source, path, skipped):
  for number, line in _lines(source, path, skipped):
    if line is None or not line.strip():
      continue
    try:
      record = json.loads(line)
    except ValueError as error:
      _bad(source, skipped, f'{path}:{number}', f'invalid JSON ({error})')
      continue
    yield record, number


def _json(source, path, skipped):
  """The records of one array, whole in memory, numbered from 1."""
  try:
    found = json.loads(path.read_bytes().decode('utf-8-sig'))
  except json.JSONDecodeError as error:
    _bad(
      source,
      skipped,
      f'{path}:{error.lineno}',
      f'column {error.colno}: invalid JSON ({error.msg})',
    )
    return
  except UnicodeDecodeError as error:
    _bad(source, skipped, f'{path}:1', f'invalid UTF-8 ({error})')
    return
  if not isinstance(found, list):
    _bad(source, skipped, f'{path}:1', 'the file holds no array of records')
    return
  for number, record in enumerate(found, 1):
    yield record, number


def _text(source, path, skipped):
  """Documents of one text file; a bad line takes its document with it."""
  heading = re.compile(source.heading) if source.cut == 'heading' else None
  held, start, broken = [], 1, False

  def ended():
    return (
      [] if broken or not held else [({source.field: '\n'.join(held)}, start)]
    )

  for number, line in _lines(source, path, skipped):
    if line is None:
      if source.cut != 'line':
        broken = True
      continue
    if source.cut == 'line':
      yield {source.field: line}, number
      continue
    if source.cut == 'blank_line' and not line.strip():
      yield from ended()
      held, start, broken = [], number + 1, False
      continue
    if heading is not None and heading.search(line):
      yield from ended()
      held, start, broken = [], number, False
    held.append(line)
  yield from ended()
