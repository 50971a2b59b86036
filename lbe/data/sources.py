"""Where text comes from: files and folders, cut into documents."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator

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
  proportion: float = 1.0
  holdout: float = 0.0
  max_documents: int | None = None
  max_bytes: int | None = None
  max_tokens: int | None = None
  on_bad_record: str = 'fail'

  def __post_init__(self):
    for field, value, known in (
      ('kind', self.kind, ('auto', 'text', 'jsonl')),
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


def documents(source, skipped=None) -> Iterator[tuple[str, str]]:
  """(text, 'FILE:LINE') of every document, in the order of the files.

  Texts keep their inner white space; documents of white space only are no
  documents. A record that cannot be read raises ValueError with its file and
  line, or, with `on_bad_record='skip'`, is left out and put on the list
  `skipped`. Raises ValueError where no document is found.
  """
  skipped = [] if skipped is None else skipped
  count = 0
  for path in files(source):
    jsonl = source.kind == 'jsonl' or (
      source.kind == 'auto' and path.suffix in ('.jsonl', '.json')
    )
    read = _jsonl if jsonl else _text
    for text, line in read(source, path, skipped):
      if text.strip():
        count += 1
        yield text, f'{path}:{line}'
  if not count:
    raise ValueError(
      f'source {source.name}: {source.path} holds no document '
      f'({len(skipped)} records were skipped); is it the right file, and is '
      f'cut={source.cut!r} right?'
    )


def _bad(source, skipped, path, number, what):
  told = f'{path}, line {number}: {what}'
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
        _bad(source, skipped, path, number, f'invalid UTF-8 ({error.reason})')
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
      _bad(source, skipped, path, number, f'invalid JSON ({error})')
      continue
    text = record.get(source.field) if isinstance(record, dict) else None
    if not isinstance(text, str):
      what = f'no text in the field {source.field!r}'
      if isinstance(record, dict):
        what += f' (fields: {", ".join(record)})'
      _bad(source, skipped, path, number, what)
      continue
    yield text, number


def _text(source, path, skipped):
  """Documents of one text file; a bad line takes its document with it."""
  heading = re.compile(source.heading) if source.cut == 'heading' else None
  held, start, broken = [], 1, False

  def ended():
    return [] if broken or not held else [('\n'.join(held), start)]

  for number, line in _lines(source, path, skipped):
    if line is None:
      if source.cut != 'line':
        broken = True
      continue
    if source.cut == 'line':
      yield line, number
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
