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

from lbe.chat import messages
from lbe.chat import prompts
from lbe.text import lines


class Question(NamedTuple):
  id: str
  category: str
  question: str
  reference: str = ''
  language: str = ''


def read(path, *, limit: int = 0) -> list[Question]:
  """The Questions of a file, the first `limit` of them; 0 is all.

  Raises ValueError with file and line for a missing or empty field, and an
  id that stands there twice.
  """
  if limit < 0:
    raise ValueError(f'limit={limit}: it counts questions; 0 is all.')
  return [question for question, _ in _read(path)][: limit or None]


def _read(path):
  """[(Question, 'FILE:LINE')]."""
  questions, seen = [], {}
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
    if messages.before(record, where=where):
      raise ValueError(
        f'{where}: a question is one text, and there is a system message or a '
        'history beside it; write them into the question, or leave them out.'
      )
    question = Question(
      question=lines.text(record, 'question', where),
      language=lines.text(record, 'language', where, default=''),
      **fields,
    )
    lines.once(question.id, seen, where)
    questions.append((question, where))
  if not questions:
    raise ValueError(f'{path} has no questions; a line is one JSON object.')
  return questions


def read_responses(path, questions, *, limit: int = 0) -> list[str]:
  """The responses of a JSONL file to the first `limit` of a questions' file.

  As prompts.read_responses has them.
  """
  wheres = {question.id: where for question, where in _read(questions)}
  return prompts.read_responses(path, wheres, limit=limit)


def _category(record, field, where):
  # BELLE's file has 'closed qa' with a space that does not break.
  text = lines.text(record, field, where)
  return ' '.join(unicodedata.normalize('NFKC', text).split())
