"""What a file holds: by its ending, and by how it begins where they differ.

What a file is beyond doubt, it is read as, whatever its name: tables of
Parquet and Arrow, JSON lines, one array of records. What is no text and no
records (a web page, an archive), and what is in doubt, is refused by name.
"""

import codecs
import csv
import json
import re
from collections.abc import Collection

from lbe.text import files
from lbe.text import packed

# What a file is, by its ending; behind that may come one of packed.ENDINGS.
ENDINGS = {
  '.txt': 'text',
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.json': 'json',
  '.csv': 'csv',
  '.tsv': 'tsv',
  '.parquet': 'parquet',
  '.arrow': 'arrow',
  '.feather': 'arrow',
  '.arrayrecord': 'arrayrecord',
  '.array_record': 'arrayrecord',
}
KINDS = tuple(dict.fromkeys(ENDINGS.values()))
# How far into a file is looked, and how long a first line of JSON may be.
_HEAD = 1 << 16
_LINE = 1 << 26
_MAGIC = {
  b'PAR1': 'parquet',
  b'ARROW1': 'arrow',
  b'\xff\xff\xff\xff': 'arrow',
  b'\x83\xaf\x70\xd1\x0d\x88\x4a\x3f': 'arrayrecord',
}
_UNPACK = 'unpack it, and name what was in it'
_FOREIGN = {
  b'PK\x03\x04': ('a zip archive', _UNPACK),
  b'7z\xbc\xaf': ('a 7z archive', _UNPACK),
  b'Rar!\x1a\x07': ('a rar archive', _UNPACK),
  b'%PDF-1.': ('a PDF', 'take its text out'),
  b'%PDF-2.': ('a PDF', 'take its text out'),
  b'SQLite format 3\x00': (
    'an SQLite database',
    'write its table as JSON lines',
  ),
  b'\x89HDF': ('an HDF5 file', 'write its table as JSON lines'),
  b'Obj\x01': ('an Avro file', 'write it as Parquet or JSON lines'),
  b'\x93NUMPY': ('a NumPy array', 'write its texts as JSON lines'),
  b'\x80\x04\x95': ("a pickle of Python's", 'write it as JSON lines'),
  b'\x1f\x8b': ('packed twice', 'unpack it once'),
  b'ORC': ('an ORC file', 'write it as Parquet or JSON lines'),
}
_MARKUP = {
  b'<!doctype html': 'an HTML page',
  b'<html': 'an HTML page',
  b'<?xml': 'XML',
  b'<mediawiki': 'XML',
}


def ending(path):
  """'.jsonl' of 'a.JSONL', 'a.jsonl.gz', 'a.jsonl.1', 'a.jsonl-0-of-9'."""
  name = re.sub(r'(-\d+-of-\d+|\.\d+)$', '', path.name.lower())
  stem, dot, last = name.rpartition('.')
  if dot + last in packed.ENDINGS:
    stem = re.sub(r'(-\d+-of-\d+|\.\d+)$', '', stem)
    _, dot, last = stem.rpartition('.')
  return dot + last


def of_file(path, asked: str, fields: Collection[str]) -> str:
  """The kind that a file is read as, and 'objects' of JSON over many lines.

  `asked` is one of KINDS, or 'auto': by its ending; one that is not known
  holds text. `fields` are those that hold what is sought. Raises
  files.Refused, with what the file is and the way out.
  """
  kind = ENDINGS.get(ending(path), 'text') if asked == 'auto' else asked
  with packed.opened(path) as file:
    head = file.read(_HEAD)
    found = _magic(head)
    if found or not head:
      return found or kind
    _check_foreign(path, head, asked)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if b'\n' not in start and start.startswith(b'{'):
      head += file.readline(_LINE)
  named = {kind, ENDINGS.get(ending(path))} & {'json', 'jsonl'}
  json_kind = _json(head, named, fields)
  if json_kind:
    return json_kind
  if kind not in ('parquet', 'arrow', 'arrayrecord'):
    _check_text(path, kind, asked, head, fields)
  # What looks like neither array nor lines is told by the line.
  return 'jsonl' if kind == 'json' and asked == 'auto' else kind


def holds_records(path) -> bool:
  """Whether a file of an unknown ending is records, by how it begins."""
  with packed.opened(path) as file:
    head = file.read(_HEAD)
    if head.lstrip()[:1] == b'{' and b'\n' not in head.lstrip():
      head += file.readline(_LINE)
  return bool(_magic(head)) or _json(head, False, ()) in ('jsonl', 'json')


def by_ending(path, asked: str) -> str:
  """What a file is taken for where nobody looks into it."""
  name = re.sub(r'-\d+-of-\d+$', '', path.name)
  stem, dot, last = name.rpartition('.')
  if dot + last in ('.gz', '.bz2', '.zst'):
    _, dot, last = stem.rpartition('.')
  return ENDINGS.get(dot + last, 'text') if asked == 'auto' else asked


def _begins(head, magic):
  """Whether a file begins so: letters alone begin texts, which have no NUL."""
  return head.startswith(magic) and (not magic.isalnum() or b'\0' in head)


def _magic(head):
  return next((k for m, k in _MAGIC.items() if _begins(head, m)), '')


def _check_foreign(path, head, asked):
  """Refuses what is neither text nor records."""
  found = [x for magic, x in _FOREIGN.items() if _begins(head, magic)]
  if head[257:262] == b'ustar' and b'\0' in head:
    found = [('a tar archive', _UNPACK)]
  start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:20].lower()
  for mark, what in _MARKUP.items():
    named = re.search(r'\.(x?html?|xml)$', path.name.lower())
    if start.startswith(mark) and not (asked == 'text' and named):
      found = [(what, 'fetch the file again, or take its text out')]
  if start.startswith(b'<doc id='):
    found = [("WikiExtractor's markup", 'let it write with --json')]
  if found:
    what, way = found[0]
    raise files.Refused(f'{path} is {what}, not text or records; {way}.')


def _lines(head):
  """The whole lines of a head, white ones left out."""
  read = head.decode('utf-8-sig', 'replace')
  whole = read if len(head) < _HEAD else read[: read.rfind('\n') + 1] or read
  return [line for line in whole.split('\n') if line.strip()]


def _value(line):
  """What a line of JSON holds; None where it is none."""
  try:
    return json.loads(line)
  except (ValueError, RecursionError):
    return None


def _object(line):
  value = _value(line)
  return value if isinstance(value, dict) else None


def _json(head, named, fields):
  """'jsonl', 'json' (an array), 'objects' (over lines), or '' for neither."""
  start = head.removeprefix(codecs.BOM_UTF8).lstrip()
  if start.startswith(b'['):
    array = re.match(rb'\[\s*\{\s*["}]', start)
    return 'json' if named or array else ''
  if not start.startswith(b'{'):
    return ''
  seen = _lines(head)
  first = _object(seen[0])
  if first is not None:
    sure = named or set(fields) & first.keys() or len(seen) == 1
    return 'jsonl' if sure or _object(seen[1]) is not None else ''
  opened = seen[0].rstrip().endswith(('{', '[', ','))
  if opened and re.match(rb'\{\s*"(\\.|[^"\\])*"\s*:', start):
    return 'objects'
  return ''


def _check_text(path, kind, asked, head, fields):
  """Refuses text that is no text of this kind."""
  seen = _lines(head)
  if b'\n' not in head and head.count(b'\r') > 1 and kind in ('text', 'jsonl'):
    raise files.Refused(
      f'{path} ends its lines with CR alone, as old Macintoshes did; write '
      "them with LF: tr '\\r' '\\n' < FILE > NEW."
    )
  found = _table(seen, fields)
  other = {',': 'csv', '\t': 'tsv'}.get(found)
  if found and other != kind:
    way = f'set kind={other!r}' if other else 'write it with commas'
    raise files.Refused(
      f'{path} is a table whose fields are parted by {found!r}, not {kind}; '
      f'{way}, or name the file so.'
    )
  is_json = (
    not seen or any('{' in line for line in seen) or _value(seen[0]) is not None
  )
  if kind in ('json', 'jsonl') and not is_json:
    raise files.Refused(
      f'{path} is text, not JSON: it begins with {seen[0]:.40}; set '
      "kind='text', or name the file so."
    )


def _table(seen, fields):
  """What parts the fields of a table whose head names one sought, or ''."""
  # The module csv refuses long fields, and a CR within a line.
  seen = [line[:_HEAD].replace('\r', '') for line in seen[:6]]
  for mark in ',\t;|':
    rows = list(csv.reader(seen, delimiter=mark))
    if rows and len(rows[0]) > 1 and set(rows[0]) & set(fields):
      if len(rows) > 1 and len({len(row) for row in rows[:3]}) == 1:
        return mark
  return ''
