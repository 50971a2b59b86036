"""A study's folder: what stands where, who works on a cell, and its rows.

docs/study.md shows each file. No file is ever appended to by two processes:
each cell's are written by whoever holds its lock, whole and by rename, and what
is told of all cells is derived from them.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator

from lbe.text import files
from lbe.text import lines

VERSION = 1
WAITING, RUNNING, DONE = 'waiting', 'running', 'done'
FAILED, BLOCKED = 'failed', 'blocked'


def _write(path, record):
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_whole(path, lines.dumps(record, indent=1) + '\n')


def read(study: str | pathlib.Path) -> dict | None:
  """study.json of a folder; None where it holds no study.

  Raises ValueError for one that another version wrote.
  """
  path = pathlib.Path(study) / 'study.json'
  if not path.is_file():
    return None
  record = json.loads(path.read_text('utf-8'))
  if record.get('version') != VERSION:
    raise ValueError(
      f'{path} has version {record.get("version")!r}, this lbe reads '
      f'{VERSION}; go on with the lbe that wrote it.'
    )
  return record


def write(study: str | pathlib.Path, record: dict):
  _write(pathlib.Path(study) / 'study.json', {'version': VERSION, **record})


def cell_folder(study: str | pathlib.Path, name: str) -> pathlib.Path:
  return pathlib.Path(study) / 'cells' / name


def read_cell(study: str | pathlib.Path, name: str) -> dict:
  """cell.json; {} of a cell that nobody has begun."""
  path = cell_folder(study, name) / 'cell.json'
  return json.loads(path.read_text('utf-8')) if path.is_file() else {}


def is_done(study: str | pathlib.Path, cell: dict) -> bool:
  """Whether a cell of study.json is done, and as it stands there."""
  told = read_cell(study, cell['name'])
  return told.get('state') == DONE and (
    told.get('identity') == cell['identity']
  )


def write_cell(study: str | pathlib.Path, name: str, record: dict):
  _write(cell_folder(study, name) / 'cell.json', record)


@contextlib.contextmanager
def locked(study: str | pathlib.Path, name: str) -> Iterator[int | None]:
  """Has a cell for this process: a descriptor; None where another has it.

  A child that inherits the descriptor has it as well, until both have ended,
  however they end.
  """
  folder = cell_folder(study, name)
  folder.mkdir(parents=True, exist_ok=True)
  file = os.open(folder / 'lock', os.O_RDWR | os.O_CREAT, 0o644)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    os.close(file)
    yield None
    return
  try:
    yield file
  finally:
    os.close(file)


def _is_locked(study, name):
  if not (cell_folder(study, name) / 'lock').exists():
    return False
  with locked(study, name) as mine:
    return mine is None


def states(study: str | pathlib.Path, record: dict) -> dict[str, str]:
  """{cell: state} of study.json's cells, which stand behind their parents.

  What says that it runs, and whose lock nobody holds, was interrupted: it waits
  to be taken up again.
  """
  result = {}
  for cell in record['cells']:
    name = cell['name']
    state = read_cell(study, name).get('state', WAITING)
    if state == RUNNING or state == FAILED:
      if _is_locked(study, name):
        state = RUNNING
      elif state == RUNNING:
        state = WAITING
    before = {result[parent] for parent in cell['inputs'].values()}
    if state == WAITING and before & {FAILED, BLOCKED}:
      state = BLOCKED
    result[name] = state
  return result


def pace(study: str | pathlib.Path, cells: list[dict]) -> tuple[int, float]:
  """(how many cells are done, seconds that the others will take one by one).

  By the tokens that they are expected to have, at the speed of those that are
  done; 0.0 where none with tokens is.
  """
  done, left, seconds = [], [], 0.0
  for cell in cells:
    of = read_cell(study, cell['name'])
    if of.get('state') == DONE:
      done.append(cell['tokens'])
      seconds += of['seconds']['wall'] if cell['tokens'] else 0.0
    else:
      left.append(cell['tokens'])
  speed = sum(done) / seconds if seconds else 0.0
  return len(done), sum(left) / speed if speed else 0.0


# ------------------------------------------------------------------------ rows


def _score_path(study, name, evaluator):
  return cell_folder(study, name) / 'scores' / f'{evaluator}.json'


def read_score(study: str | pathlib.Path, name: str, evaluator: str) -> dict:
  """What an evaluator found of a cell; {} where it has not been asked."""
  path = _score_path(study, name, evaluator)
  return json.loads(path.read_text('utf-8')) if path.is_file() else {}


def write_score(
  study: str | pathlib.Path,
  name: str,
  evaluator: str,
  record: dict,
  predictions: list,
):
  """Predictions first: whoever has the record has them."""
  path = _score_path(study, name, evaluator)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_whole(
    path.with_suffix('.predictions.jsonl'),
    ''.join(map(lines.line, predictions)),
  )
  _write(path, record)


def predictions(
  study: str | pathlib.Path, name: str, evaluator: str
) -> list[dict]:
  """One record an item, by `id`: what the rows of a score are made of."""
  path = _score_path(study, name, evaluator)
  return lines.rows(path.with_suffix('.predictions.jsonl'))


def rows(study: str | pathlib.Path, record: dict) -> list[dict]:
  """The rows of all cells by study.json's present identities, each once.

  A row is what the evaluator said, and which cell it is: `cell`, `identity`,
  `parent`, `axes`, `seed`, `updates`, `tokens_seen`, `bytes_seen`, `commit`.
  """
  result = []
  for cell in record['cells']:
    if not is_done(study, cell):
      continue
    done = read_cell(study, cell['name'])
    seen = done.get('seen', {}).values()
    facts = {
      'cell': cell['name'],
      'identity': cell['identity'],
      'parent': cell['inputs'].get('init_from'),
      'axes': cell['axes'],
      'seed': cell['axes'].get('seed'),
      'updates': done.get('updates', 0),
      'tokens_seen': sum(s['tokens'] for s in seen),
      'bytes_seen': sum(s['bytes'] for s in seen),
      'commit': done.get('commit'),
    }
    for name, of in record['evals'].items():
      score = read_score(study, cell['name'], name)
      if score.get('identity') != of['identity']:
        continue
      if score['cell'] != cell['identity']:
        continue
      result += [{**row, **facts} for row in score['rows']]
  return result


def derive(study: str | pathlib.Path, record: dict) -> list[dict]:
  """results.jsonl of the study made anew from its cells; its rows."""
  found = rows(study, record)
  path = pathlib.Path(study) / 'results.jsonl'
  files.write_whole(path, ''.join(map(lines.line, found)))
  return found
