"""Frozen texts: what a study trains on and scores, the same for every cell.

They are cut, split and put into their order once, before any tokenizer sees
them, so that vocabularies and seeds read the same. A prefix is a subset.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator

from lbe.data import order as order_lib
from lbe.data import sources as sources_lib
from lbe.studies import probes
from lbe.text import files
from lbe.text import lines


def _cut(text: str, most: int) -> Iterator[str]:
  """A text in pieces of whole lines, of at most so many characters.

  A longer line is cut where it has to be.
  """
  held, size = [], 0
  for line in text.split('\n'):
    for start in range(0, max(len(line), 1), most):
      part = line[start : start + most]
      if held and size + len(part) > most:
        yield '\n'.join(held)
        held, size = [], 0
      held.append(part)
      size += len(part) + 1
  yield '\n'.join(held)


def _documents(name, *, max_characters, max_bytes_each, **fields):
  """(documents of a source, each once, in the seeded order; bad records)."""
  source, skipped = sources_lib.make(name, **fields), []
  found = (text for text, _ in sources_lib.documents(source, skipped))
  if max_characters and not source.template:
    found = (part for text in found for part in _cut(text, max_characters))
  texts = list(dict.fromkeys(text for text in found if text.strip()))
  if max_bytes_each:
    texts = [x for x in texts if len(x.encode()) <= max_bytes_each]
  order = order_lib.document_order(texts, seed=0)
  return [texts[i] for i in order], skipped


def make(
  study: str | pathlib.Path,
  name: str,
  *,
  eval_documents: int = 0,
  max_characters: int = 0,
  max_bytes_each: int = 0,
  train_bytes: int = 0,
  facts: int = 0,
  cloze: int = 0,
  of: str = '',
  **fields,
) -> dict[str, dict]:
  """NAME.jsonl, and of the first documents NAME_eval.jsonl; their facts.

  Or, of `facts`, so many that are invented, NAME.jsonl, and their questions,
  NAME_en.jsonl and NAME_zh.jsonl; or of `cloze` so many questions, NAME.jsonl,
  for words left out of what is scored of the file `of` (see probes).

  `fields` are those of a source; with a template its records are kept as they
  are. Texts are cut into documents of `max_characters`; what is longer than
  `max_bytes_each` is left out, before any tokenizer says what is too long.
  `train_bytes` ends the training text. 0 is none of it. `skipped` of the facts
  are the records that on_bad_record='skip' left out. Raises ValueError where
  nothing is left.
  """
  if facts:
    made = {
      '_'.join(filter(None, [name, language])) + '.jsonl': records
      for language, records in probes.facts(facts).items()
    }
    return {file: _write(study, file, x) for file, x in made.items()}
  if cloze:
    counted, asked = (
      [r['text'] for r in lines.rows(_path(study, f'{of}{part}.jsonl'))]
      for part in ('', '_eval')
    )
    made = probes.cloze(counted, asked, number=cloze)
    return {f'{name}.jsonl': _write(study, f'{name}.jsonl', made)}
  texts, skipped = _documents(
    name,
    max_characters=max_characters,
    max_bytes_each=max_bytes_each,
    **fields,
  )
  scored, learnt = texts[:eval_documents], texts[eval_documents:]
  if not learnt or len(scored) < eval_documents:
    raise ValueError(
      f'files.{name}: {len(texts)} documents are left of {fields["path"]}, and '
      f'eval_documents={eval_documents} are to be scored; give more text.'
    )
  if train_bytes:
    size, number = 0, 0
    while number < len(learnt) and size < train_bytes:
      size += len(learnt[number].encode())
      number += 1
    learnt = learnt[:number]
  result = {}
  for file, part in ((f'{name}.jsonl', learnt), (f'{name}_eval.jsonl', scored)):
    if part:
      is_text = not fields.get('template')
      records = [{'text': x} if is_text else json.loads(x) for x in part]
      result[file] = _write(study, file, records, skipped)
  return result


def _path(study, file):
  return pathlib.Path(study) / 'files' / file


def _write(study, file, records, skipped=()):
  facts = write(study, file, ''.join(map(lines.line, records)))
  return {**facts, 'skipped': list(skipped)}


def write(study: str | pathlib.Path, file: str, text: str) -> dict:
  """A file of the study as it is; its facts."""
  path = _path(study, file)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_whole(path, text)
  data = text.encode()
  return {
    'sha256': hashlib.sha256(data).hexdigest(),
    'records': text.count('\n'),
    'bytes': len(data),
  }


def check(study: str | pathlib.Path, files: dict):
  """Raises ValueError for a file that is not what study.json says of it."""
  for file, facts in files.items():
    path = _path(study, file)
    if not path.is_file():
      raise ValueError(
        f'{path} is gone, on which cells were trained or scored; bring it '
        'back, or begin the study in another --workdir.'
      )
    with path.open('rb') as opened:
      found = hashlib.file_digest(opened, 'sha256').hexdigest()
    if found != facts['sha256']:
      raise ValueError(
        f'{path} has changed since the study began (sha256 {found[:12]}…, and '
        f'study.json has {facts["sha256"][:12]}…): scores before and after '
        'would not be of one text. Bring it back, or begin the study in '
        'another --workdir.'
      )
