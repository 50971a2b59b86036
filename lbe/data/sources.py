"""Where records come from: files and folders here or in a cloud, and TFDS.

A record is a dictionary; of a text file, each document is its `field`.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator

from lbe.chat import messages
from lbe.data import cleaning as cleaning_lib
from lbe.data import dataset_info
from lbe.data import readers
from lbe.text import lines
from lbe.text import packed

CUTS = ('blank_line', 'line', 'file', 'heading')
# How a person shows a cloud who they are.
_CLOUDS = {
  'gs': 'run `gcloud auth application-default login`, or set '
  'GOOGLE_APPLICATION_CREDENTIALS to a key file',
  's3': 'set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
}


@dataclasses.dataclass(frozen=True)
class Source:
  """One named stream of text; configs/common.py says what each field means.

  `make` reads `path` where it names an entry of a dataset_info.json.
  """

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
  entry: dataset_info.Entry | None = None

  def __post_init__(self):
    for field, value, known in (
      ('kind', self.kind, ('auto', *readers.KINDS)),
      ('cut', self.cut, CUTS),
      ('on_bad_record', self.on_bad_record, ('fail', 'skip')),
    ):
      if value not in known:
        raise ValueError(
          f'source {self.name}: {field}={value!r} is unknown; take one of '
          f'{", ".join(known)}.'
        )
    if self.path.startswith('tfds:') and '@' not in self.path:
      raise ValueError(
        f'source {self.name}: {self.path} names no split; write '
        'tfds:NAME/CONFIG:VERSION@SPLIT, as '
        'tfds:wikipedia/20230601.en:1.0.0@train.'
      )
    if not 0 <= self.holdout < 1:
      raise ValueError(
        f'source {self.name}: holdout={self.holdout} is no share; it lies '
        'from 0 up to, and without, 1.'
      )


def make(name: str, **fields) -> Source:
  """A Source; what a registry says of the data is taken from there.

  Without a template an entry's prompts are the text, as LLaMA-Factory
  pretrains on them; its num_samples is `max_documents` where that is not set.
  """
  source = Source(name=name, **fields)
  if not source.path.startswith(dataset_info.PREFIX):
    return source
  entry = dataset_info.read(source.path)
  changes = {
    'path': entry.path,
    'max_documents': source.max_documents or entry.num_samples,
  }
  if source.template:
    changes['entry'] = entry
  elif entry.tags:
    raise ValueError(
      f'source {name}: {source.path} holds conversations; set template=.'
    )
  else:
    changes['field'] = entry.columns['instruction']
  return dataclasses.replace(source, **changes)


# ------------------------------------------------------------------- files


def files(source: Source) -> list:
  """The source's files: itself, or what a folder holds, in sorted order.

  Hidden files are left out. Raises ValueError where there is none.
  """
  if source.path.startswith('tfds:'):
    with _told_plainly(source.path):
      return readers.tfds_files(readers.tfds(source.path))
  path = _location(source)
  with _told_plainly(path):
    is_file, is_folder = path.is_file(), path.is_dir()
  if is_file:
    return [path]
  if not is_folder:
    raise ValueError(
      f'source {source.name}: there is nothing at {path}; give a file or a '
      'folder.'
    )
  endings = [
    ending
    for ending, kind in readers.ENDINGS.items()
    if source.kind in ('auto', kind) or (source.kind, kind) in _LINES
  ]
  with _told_plainly(path):
    found = sorted(_below(path, endings))
  if not found:
    raise ValueError(
      f'source {source.name}: {path} has no file that ends in '
      f'{" or ".join(endings)}; name the files so, or give one file.'
    )
  return found


# JSON lines are often called .json.
_LINES = [('jsonl', 'json')]


def _location(source):
  """The path, here or in a cloud."""
  cloud, there, _ = source.path.partition('://')
  if not there:
    return pathlib.Path(source.path)
  if cloud not in _CLOUDS:
    raise ValueError(
      f'source {source.name}: {cloud}:// is not read; give a local path, or '
      f'one of {", ".join(f"{x}://" for x in _CLOUDS)}.'
    )
  from etils import epath

  return epath.Path(source.path)


def _is_remote(path):
  return '://' in str(path)


def _below(path, endings):
  """The files under a folder; asked of clouds as little as can be."""
  for child in path.iterdir():
    if child.name.startswith('.') or child == path:
      continue  # a store may list a folder as a part of itself
    wanted = readers.ending(child) in endings
    if wanted and (_is_remote(child) or child.is_file()):
      yield child
    elif child.is_dir():
      yield from _below(child, endings)


@contextlib.contextmanager
def _told_plainly(path):
  """Whatever a disk, a cloud or a format raises, with the path and a way out.

  Each library has errors of its own, so all of them are caught.
  """
  cloud = str(path).partition('://')[0]
  try:
    yield
  except ImportError as error:
    if not _is_remote(path):
      raise
    raise ImportError(f"{path}: {error}; pip install 'lbe[remote]'.") from error
  except Exception as error:
    way = (
      f'without credentials, {_CLOUDS[cloud]}'
      if _is_remote(path)
      else 'is the file whole, and its kind right?'
    )
    raise ValueError(
      f'{path} cannot be read: {type(error).__name__}: {error}; {way}'
    ) from error


def version(path):
  """A string that changes when the file does; None where that is not known."""
  if not _is_remote(path):
    stat = path.stat()
    return f'{stat.st_size}:{stat.st_mtime_ns}'
  import fsspec

  with _told_plainly(path):
    system, name = fsspec.core.url_to_fs(str(path))
    info = system.info(name)
  mark = info.get('ETag') or info.get('etag') or info.get('md5Hash')
  return f'{info["size"]}:{mark}' if mark else None


def digest(path):
  """sha256 of a file's bytes."""
  with _told_plainly(path), path.open('rb') as f:
    found = hashlib.sha256()
    while part := f.read(1 << 20):
      found.update(part)
  return found.hexdigest()


def size(path):
  """Bytes of a file, packed ones as they are."""
  with _told_plainly(path):
    stat = path.stat()
    return stat.length if _is_remote(path) else stat.st_size


# ----------------------------------------------------------------- records


def documents(source, skipped=None, cleaned=None) -> Iterator[tuple[str, str]]:
  """(text, 'FILE, line N') of every document, in the order of the files.

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
      found = {'document': json.dumps(record, ensure_ascii=False)}
      found['messages'] = turns
    else:
      text = record.get(source.field)
      if not isinstance(text, str):
        what = f'no text in the field {source.field!r} (fields: '
        _bad(source, skipped, where, f'{what}{", ".join(record)})')
        continue
      found = {'document': text, 'text': text}
    if not _is_unicode(found['document']):
      what = 'half a character (a lone surrogate), which no UTF-8 text has'
      _bad(source, skipped, where, what)
    elif found['document'].strip():
      yield found, where


def _is_unicode(text):
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def records(source, skipped=None) -> Iterator[tuple[dict, str]]:
  """(record, 'FILE, line N') of every record, in the order of the files.

  Formats without lines say 'FILE, record N'. `columns` of the source renames
  fields: {'instruction': 'prompt'} reads `prompt` as `instruction`. A record
  that cannot be read raises ValueError with its place or, with
  `on_bad_record='skip'`, is left out and put on the list `skipped`.
  """
  skipped = [] if skipped is None else skipped
  for record, where in _all(source):
    if isinstance(record, lines.Bad):
      _bad(source, skipped, where, record)
      continue
    if not isinstance(record, dict):
      what = f'a record is an object with fields, not {record!r:.60}'
      _bad(source, skipped, where, what)
      continue
    try:
      if source.entry:
        record = dataset_info.record(source.entry, record)
      record = _renamed(record, source.columns)
    except ValueError as error:
      _bad(source, skipped, where, error)
      continue
    yield record, where


def _renamed(record, columns):
  for theirs in columns.values():
    if theirs not in record:
      raise ValueError(
        f'no field {theirs!r}, which columns names (fields: '
        f'{", ".join(record)})'
      )
  taken = set(columns.values())
  rest = {k: v for k, v in record.items() if k not in taken}
  return rest | {ours: record[theirs] for ours, theirs in columns.items()}


def _bad(source, skipped, where, what):
  told = f'{where}: {str(what).rstrip(".")}'
  if source.on_bad_record == 'fail':
    raise ValueError(
      f"{told}; mend the file, or set on_bad_record='skip' to count and "
      'report such records.'
    )
  skipped.append(told)


def _all(source):
  """(record or Bad, where) of all files."""
  if source.path.startswith('tfds:'):
    with _told_plainly(source.path):
      for record, place in readers.tfds_records(readers.tfds(source.path)):
        yield record, f'{source.path}, {place}'
    return
  for path in files(source):
    with _told_plainly(path):
      for record, place in _read(source, path):
        yield record, f'{path}, {place}'


def _read(source, path):
  """(record or Bad, place) of one file."""
  kind = readers.kind(path) if source.kind == 'auto' else source.kind
  if kind == 'arrayrecord':
    if _is_remote(path):
      what = 'ArrayRecord is read from local disks only; copy it to one'
      yield lines.Bad(what), 'record 1'
    else:
      yield from readers.arrayrecord(path)
    return
  with packed.opened(path) as file:
    if kind == 'text':
      for text, place in readers.text(
        file, cut=source.cut, heading=source.heading
      ):
        is_bad = isinstance(text, lines.Bad)
        yield text if is_bad else {source.field: text}, place
    elif kind == 'jsonl':
      yield from readers.jsonl(file)
    elif kind == 'json':
      yield from readers.json_array(file)
    elif kind in ('csv', 'tsv'):
      yield from readers.table(file, tabs=kind == 'tsv')
    elif kind == 'parquet':
      yield from readers.parquet(file)
    else:
      yield from readers.arrow(file)
