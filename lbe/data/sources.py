"""Where records come from: files and folders here or in a cloud, and TFDS.

A record is a dictionary; of a text file, each document is its `field`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator

from lbe.chat import messages
from lbe.chat import templates
from lbe.data import cleaning as cleaning_lib
from lbe.data import dataset_info
from lbe.data import folders
from lbe.data import kinds as kinds_lib
from lbe.data import readers
from lbe.text import lines
from lbe.text import packed

CUTS = ('blank_line', 'line', 'file', 'heading')


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
  trim_turns: bool = False
  entry: dataset_info.Entry | None = None

  def __post_init__(self):
    for field, value, known in (
      ('kind', self.kind, ('auto', *kinds_lib.KINDS)),
      ('cut', self.cut, CUTS),
      ('too_long', self.too_long, templates.POLICIES),
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
  """The source's files, in sorted order; ValueError where there is none."""
  if source.path.startswith('tfds:'):
    with folders.told_plainly(source.path):
      return readers.tfds_files(readers.tfds(source.path))
  return folders.found(source.name, source.path, source.kind)[0]


def unread(source: Source) -> list[str]:
  """Files of the source's folder that are not read, or hold nothing."""
  if source.path.startswith('tfds:'):
    return []
  chosen, others = folders.found(source.name, source.path, source.kind)
  return [str(path) for path in others] + [
    f'{path} (empty)' for path in chosen if not size(path)
  ]


def kinds(source: Source) -> dict[str, str]:
  """{number of a file: its kind} of those that their endings do not tell.

  Raises ValueError for one that is not what it should be.
  """
  result = {}
  if source.path.startswith('tfds:'):
    return result
  for number, path in enumerate(files(source)):
    with folders.told_plainly(path):
      kind = kinds_lib.of_file(path, source.kind, _sought(source))
    taken = kinds_lib.by_ending(path, source.kind)
    if kind != taken and (taken, kind) != ('json', 'jsonl'):
      result[str(number)] = kind
  return result


def _sought(source):
  """Names of fields, one of which a record of the source has."""
  of_talk = messages.FIELDS if source.template else ()
  of_entry = source.entry.columns.values() if source.entry else ()
  return {source.field, *source.columns.values(), *of_talk, *of_entry}


def version(path):
  """A string that changes when the file does; None where that is not known."""
  if not folders.is_remote(path):
    stat = path.stat()
    return f'{stat.st_size}:{stat.st_mtime_ns}'
  import fsspec

  with folders.told_plainly(path):
    system, name = fsspec.core.url_to_fs(str(path))
    info = system.info(name)
  mark = info.get('ETag') or info.get('etag') or info.get('md5Hash')
  return f'{info["size"]}:{mark}' if mark else None


def digest(path):
  """sha256 of a file's bytes."""
  with folders.told_plainly(path), path.open('rb') as f:
    found = hashlib.sha256()
    while part := f.read(1 << 20):
      found.update(part)
  return found.hexdigest()


def size(path):
  """Bytes of a file, packed ones as they are."""
  with folders.told_plainly(path):
    stat = path.stat()
    return stat.length if folders.is_remote(path) else stat.st_size


# ----------------------------------------------------------------- records


def documents(source, skipped=None, cleaned=None) -> Iterator[tuple[str, str]]:
  """(text, 'FILE, line N') of every document, in the order of the files.

  Texts keep their inner white space; documents of white space only are no
  documents. Of a source with a template a document is the whole record, as
  JSON. What the rules of `source.cleaning` leave out goes into `cleaned`, a
  cleaning.Report. Else as `records`.
  """
  for _, text, where in numbered(source, skipped, cleaned):
    yield text, where


def numbered(
  source, skipped=None, cleaned=None
) -> Iterator[tuple[int, str, str]]:
  """As `documents`, each behind the number by which `chosen` finds it."""
  skipped = [] if skipped is None else skipped
  found = (
    ({**record, 'number': number}, where)
    for number, (record, where) in enumerate(_readable(source, skipped))
  )
  if source.cleaning is not None:
    report = cleaning_lib.Report() if cleaned is None else cleaned
    found = cleaning_lib.clean(found, source.cleaning, report)
  count = 0
  for record, where in found:
    count += 1
    yield record['number'], record['document'], where
  if not count:
    why = f'is it the right file, and is cut={source.cut!r} right?'
    if not any(map(size, files(source))):
      why = 'it is empty; copy it again'
    if skipped:
      why = f'{len(skipped)} records were skipped, the first: {skipped[0]}'
    raise ValueError(
      f'source {source.name}: {source.path} holds no document; {why}'
    )


def chosen(source, numbers) -> Iterator[tuple[str, str]]:
  """The documents of these numbers: of a source that was read before."""
  for number, (record, where) in enumerate(_readable(source, [])):
    if number in numbers:
      yield record['document'], where


def _readable(source, skipped):
  """({'document', and what cleaning looks at}, where) of each document."""
  for record, where in records(source, skipped):
    if source.template:
      try:
        told, _ = conversation(source, record, where)
      except ValueError as error:
        rules = source.cleaning
        if isinstance(error, messages.Empty) and rules and rules.drop_empty:
          # Counted by its rule.
          nothing = [{'role': 'assistant', 'content': ''}]
          yield {'document': 'nothing', 'messages': nothing}, where
          continue
        why = str(error).removeprefix(f'{where}: ').rstrip('.')
        bad(
          source, skipped, where, why + _instead(source, record) + _way(record)
        )
        continue
      turns = [
        {'role': m.role, 'content': f'{m.content}\n{m.input}'.rstrip('\n')}
        for m in told
      ]
      # Columns of a table that are not read may hold times and bytes.
      whole = json.dumps(record, ensure_ascii=False, default=str)
      found = {'document': whole}
      found['messages'] = turns
    else:
      text = record.get(source.field)
      if not isinstance(text, str):
        held = f', which holds {text!r:.40}' * (source.field in record)
        what = f'no text in the field {source.field!r}{held} (fields: '
        what += f'{", ".join(record)}){_instead(source, record)}'
        bad(source, skipped, where, what)
        continue
      found = {'document': text, 'text': text}
    if not lines.is_whole(found['document']):
      bad(source, skipped, where, lines.HALF)
    elif found['document'].strip():
      yield found, where


def _way(record):
  """What would read a record whose turns are in disorder, or ''."""
  try:
    messages.trimmed(record, where='')
  except ValueError:
    return ''
  return ' (trim_turns=True keeps its longest whole part)'


def conversation(source, record, where) -> tuple[list[messages.Message], int]:
  """The Messages of a record as the source has them read.

  And how many turns `trim_turns` left out. Raises ValueError with `where`.
  """
  if source.trim_turns:
    return messages.trimmed(record, where=where)
  return messages.conversation(record, where=where), 0


def plain(source: Source, document: str) -> str:
  """What is said in a document, a line for each part of a conversation."""
  if not source.template:
    return document
  talk, _ = conversation(source, json.loads(document), source.name)
  return '\n'.join(part for m in talk for part in (m.content, m.input) if part)


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
      bad(source, skipped, where, record)
      continue
    if not isinstance(record, dict):
      what = f'a record is an object with fields, not {record!r:.60}'
      bad(source, skipped, where, what)
      continue
    try:
      if source.entry:
        record = dataset_info.record(source.entry, record)
      record = _renamed(record, source.columns)
    except ValueError as error:
      bad(source, skipped, where, f'{error}{_instead(source, record)}')
      continue
    yield record, where


def _instead(source, record):
  """What else the record may be, where it has no field that is sought."""
  known = _sought(source) & record.keys()
  return '' if known else readers.around(record)


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


def bad(source: Source, skipped: list[str], where: str, what):
  """Puts a record on the list `skipped`, or raises ValueError with place."""
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
    with folders.told_plainly(source.path):
      for record, place in readers.tfds_records(readers.tfds(source.path)):
        yield record, f'{source.path}, {place}'
    return
  for path in files(source):
    with folders.told_plainly(path):
      for record, place in _read(source, path):
        yield record, f'{path}, {place}'


def _read(source, path):
  """(record or Bad, place) of one file."""
  kind = kinds_lib.of_file(path, source.kind, _sought(source))
  if kind == 'arrayrecord':
    if folders.is_remote(path):
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
    elif kind == 'objects':
      yield from readers.json_objects(file)
    elif kind in ('csv', 'tsv'):
      yield from readers.table(file, tabs=kind == 'tsv')
    elif kind == 'parquet':
      yield from readers.parquet(file)
    else:
      yield from readers.arrow(file)
