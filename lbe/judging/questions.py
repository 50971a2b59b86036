"""Questions to judge responses to, and responses written earlier.

A question is a line of a JSONL file:

  {"id": "17", "category": "Code", "question": "…", "reference": "…",
   "language": "zh"}

`reference`, what a right answer has, and `language`, in which to answer, may
be left out. BELLE's eval_set.json (`class`, `question`, `std_answer`) is read
as well; its ids are the numbers of its lines.
"""

import unicodedata
from typing import NamedTuple

from lbe.text import lines


class Question(NamedTuple):
  id: str
  category: str
  question: str
  reference: str = ''
  language: str = ''


def read(path, *, limit=0):
  """The Questions of a file, the first `limit` of them; 0 is all.

  Raises ValueError with file and line for a missing or empty field, and an
  id that stands there twice.
  """
  found, seen = [], {}
  for record, where in lines.records(path, ('question',)):
    if 'class' in record:
      fields = dict(
        id=where.rpartition(':')[2],
        category=_category(record, 'class', where),
        reference=lines.text(record, 'std_answer', where, default=''),
      )
    else:
      lines.require(record, ('id', 'category'), where)
      fields = dict(
        id=lines.name(record, 'id', where),
        category=_category(record, 'category', where),
        reference=lines.text(record, 'reference', where, default=''),
      )
    found.append(
      Question(
        question=lines.text(record, 'question', where),
        language=lines.text(record, 'language', where, default=''),
        **fields,
      )
    )
    lines.once(found[-1].id, seen, where)
  if not found:
    raise ValueError(f'{path} has no questions; a line is one JSON object.')
  if limit < 0:
    raise ValueError(f'limit={limit}: it counts questions; 0 is all.')
  return found[: limit or None]


def read_responses(path, questions, *, limit=0):
  """The responses of a JSONL file (`id`, `response`) in the questions' order.

  The first `limit` of them, 0 is all; all have to be there. Raises ValueError
  where one is missing, of no question, or there twice.
  """
  found, seen = {}, {}
  known = {q.id for q in questions}
  for record, where in lines.records(path, ('id', 'response')):
    key = lines.name(record, 'id', where)
    lines.once(key, seen, where)
    if key not in known:
      raise ValueError(
        f'{where}: the id {key!r} is none of the {len(known)} questions; '
        'leave the line out, or give the questions that it belongs to.'
      )
    if not isinstance(record['response'], str):
      raise ValueError(
        f"{where}: the field 'response' is "
        f'{type(record["response"]).__name__}, not str.'
      )
    found[key] = record['response']
  missing = [q.id for q in questions if q.id not in found]
  if missing:
    raise ValueError(
      f'{path} has no response to {len(missing)} of {len(questions)} '
      f"questions, the first with the id {missing[0]!r}; write '' where a "
      'model said nothing.'
    )
  return [found[q.id] for q in questions][: limit or None]


def _category(record, field, where):
  # BELLE's file has 'closed qa' with a space that does not break.
  text = lines.text(record, field, where)
  return ' '.join(unicodedata.normalize('NFKC', text).split())
