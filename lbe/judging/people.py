"""Sheets for people who judge, blinded, and their scores read back.

A folder holds one panel:

  sheet.csv, sheet.jsonl   what a person gets, twice: items in a seeded order,
                           no system named, an empty place for each criterion
  rubric.txt               what the scores mean
  key.json                 which item is whose; not for those who judge

Each person fills in a copy of one of the two sheets, and names it.
"""

import csv
import json
import pathlib
import random
import re

from lbe.judging import agreement
from lbe.judging import rubrics
from lbe.text import files
from lbe.text import lines
from lbe.text import tables

_SHOWN = ('item', 'category', 'question', 'reference', 'response')


def write(folder, systems: dict, *, rubric: str, seed: int) -> int:
  """Writes a panel of {system: predictions.jsonl}; returns its item count.

  `rubric` is a name or a path. Raises ValueError where the folder has a panel
  already: filled sheets would be read with another key.
  """
  folder = pathlib.Path(folder)
  if (folder / 'key.json').exists():
    raise ValueError(
      f'{folder} has a panel already (key.json), which filled sheets may '
      'belong to; take another folder.'
    )
  read = rubrics.load(rubric)
  items = []
  for system, path in systems.items():
    if not re.fullmatch(r'[\w.-]+', system):
      raise ValueError(
        f'the system {system!r} gives its name to a file; letters, digits, '
        '., - and _ are fine in it.'
      )
    for record in agreement.read(path).values():
      if record.get('failure') == 'too_long':
        continue  # there is no response
      where = f'{path}, question {record["id"]!r}'
      lines.require(record, _SHOWN[1:], where)
      items.append((system, record))
  random.Random(seed).shuffle(items)
  folder.mkdir(parents=True, exist_ok=True)
  rows = [
    {
      'item': number,
      **{field: record[field] for field in _SHOWN[1:]},
      **dict.fromkeys(read.criteria),
    }
    for number, (_, record) in enumerate(items, 1)
  ]
  # With a mark at its start spreadsheets read the file as UTF-8.
  with open(folder / 'sheet.csv', 'w', encoding='utf-8-sig', newline='') as f:
    writer = csv.DictWriter(f, [*_SHOWN, *read.criteria])
    writer.writeheader()
    for row in rows:
      writer.writerow({k: tables.as_text(x) for k, x in row.items()})
  lines.write(folder / 'sheet.jsonl', rows)
  (folder / 'rubric.txt').write_text(
    f'Each criterion gets a number{_range(read)}.\n\n{read.describe()}\n',
    encoding='utf-8',
  )
  key = {
    'rubric': str(rubric),
    'digest': read.digest,
    'items': [{'system': system, **record} for system, record in items],
  }
  (folder / 'key.json').write_text(
    json.dumps(key, ensure_ascii=False, indent=1), encoding='utf-8'
  )
  return len(items)


def _range(rubric):
  if rubric.highest() is not None:
    return ' of its own scale'
  (scale,) = set(rubric.scales.values())
  return f' of {scale.told()}' if scale.scores else f' from {scale.told()}'


def read(folder, sheet) -> dict:
  """{system: records} of a filled sheet, as predictions.jsonl has them.

  `judge` is the sheet's name; an item left empty has no scores and the failure
  'unanswered'. Raises ValueError with file and line for an item that is
  unknown, there twice, or scored in part or off the scale.
  """
  folder, sheet = pathlib.Path(folder), pathlib.Path(sheet)
  if not (folder / 'key.json').is_file():
    raise ValueError(f'{folder} has no key.json; give the folder of the panel.')
  key = json.loads((folder / 'key.json').read_text('utf-8'))
  rubric = rubrics.load(key['rubric'])
  if rubric.digest != key['digest']:
    raise ValueError(
      f'the rubric {key["rubric"]} is not what it was when the sheets were '
      'written; put the old file back.'
    )
  given, seen = {}, {}
  for row, where in _rows(sheet):
    lines.require(row, ('item', *rubric.criteria), where)
    item = str(row['item']).strip()
    if not item.isdecimal() or not 1 <= int(item) <= len(key['items']):
      raise ValueError(
        f'{where}: the item {item!r} is none of 1 to {len(key["items"])}.'
      )
    lines.once(int(item), seen, where)
    given[int(item)] = _scores(rubric, row, where)
  missing = set(range(1, len(key['items']) + 1)) - set(given)
  if missing:
    raise ValueError(
      f'{sheet} lacks {len(missing)} of {len(key["items"])} items, the first '
      f'is {min(missing)}; leave the scores of what is not judged empty.'
    )
  found = {}
  for number, scores in sorted(given.items()):
    record = dict(key['items'][number - 1])
    system = record.pop('system')
    record |= {
      'judge': sheet.stem,
      'rubric': rubric.name,
      'scores': scores or dict.fromkeys(rubric.criteria),
      'highest': rubric.highest(),
      'failure': '' if scores else 'unanswered',
      'why': '' if scores else 'left empty',
      'replies': [],
    }
    found.setdefault(system, []).append(record)
  return found


def collect(folder, sheets: list) -> dict:
  """Writes FOLDER/scores/PERSON.SYSTEM.jsonl of filled sheets.

  Returns {path: records}.
  """
  found = {}
  for sheet in sheets:
    for system, records in read(folder, sheet).items():
      name = f'{pathlib.Path(sheet).stem}.{system}.jsonl'
      path = pathlib.Path(folder) / 'scores' / name
      if path in found:
        raise ValueError(
          f'two sheets are named {pathlib.Path(sheet).stem!r}; rename one.'
        )
      found[path] = records
  for path, records in found.items():
    path.parent.mkdir(exist_ok=True)
    lines.write(path, records)
  return found


def _scores(rubric, row, where):
  """{criterion: score}; None where all of them were left empty."""
  told = {c: '' if row[c] is None else row[c] for c in rubric.criteria}
  empty = [c for c, value in told.items() if not str(value).strip()]
  if len(empty) == len(rubric.criteria):
    return None
  if empty:
    raise ValueError(
      f'{where}: {empty[0]} is empty where others are scored; fill in all or '
      'none.'
    )
  try:
    return {c: rubric.score(value, c) for c, value in told.items()}
  except ValueError as error:
    raise ValueError(f'{where}: {error}.') from None


def _rows(sheet):
  """[(row, 'FILE:LINE')] of a sheet, CSV or JSONL."""
  if sheet.suffix != '.csv':
    return lines.records(sheet, ('item',))
  if not sheet.is_file():
    raise ValueError(f'there is no file {str(sheet)!r}; give a filled sheet.')
  found = []
  reader = csv.DictReader(files.stream(sheet))
  try:
    for row in reader:
      row.pop(None, None)  # values behind the last column
      found.append((row, f'{sheet}:{reader.line_num}'))
  except csv.Error as error:
    raise ValueError(f'{sheet}: {error}; save it as CSV with commas.') from None
  return found
