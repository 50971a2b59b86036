"""Questions to a passage, in the files of SQuAD, XQuAD, MLQA and CMRC 2018.

SQuAD's form, which CMRC has in squad-style-data/:

  {"data": [{"paragraphs": [{"context": TEXT, "qas": [
    {"id": ID, "question": TEXT, "answers": [{"text": TEXT, ...}, ...]}]}]}]}

where a question of version 2 with `is_impossible` has the answer ''; and CMRC's
own:

  [{"context_text": TEXT, "qas": [
    {"query_id": ID, "query_text": TEXT, "answers": [TEXT, ...]}]}]

They are asked as lm-evaluation-harness 0.4.13 asks XQuAD (tasks/xquad).
"""

import json
import pathlib
from typing import NamedTuple

from absl import logging

from lbe.chat import messages
from lbe.chat import prompts as prompts_lib
from lbe.exams import spreadsheet
from lbe.text import lines

# The words of a prompt, as the harness has them; other languages take English
# ones.
WORDS = {
  'ar': ('سيا', 'سؤال', 'إجابة'),
  'de': ('Kontext', 'Frage', 'Antwort'),
  'el': ('Συμφραζόμενα', 'Ερώτηση', 'Απάντηση'),
  'en': ('Context', 'Question', 'Answer'),
  'es': ('Contexto', 'Pregunta', 'Respuesta'),
  'hi': ('प्रसंग', 'सवाल', 'उत्तर'),
  'ro': ('Context', 'Întrebare', 'Răspuns'),
  'ru': ('Контекст', 'Вопрос', 'Ответ'),
  'th': ('บริบท', 'คำถาม', 'คำตอบ'),
  'tr': ('Bağlam', 'Soru', 'Cevap'),
  'vi': ('Bối cảnh', 'Câu hỏi', 'Trả lời'),
  'zh': ('语境', '问题', '回答'),
}
# Where a text goes on from the prompt, its answer ends here.
END = '\n'


class _Form(NamedTuple):
  """What the fields are called."""

  context: str
  id: str
  question: str


_SQUAD = _Form('context', 'id', 'question')
_CMRC = _Form('context_text', 'query_id', 'query_text')


def is_one(path) -> bool:
  """Whether a file is of one of the two forms, by what it begins with."""
  return pathlib.Path(path).is_file() and _passages(path) is not None


def _passages(path):
  """(form, [(passage, where)]); None where the file has another form."""
  try:
    whole, end = json.JSONDecoder().raw_decode(
      text := spreadsheet.text(pathlib.Path(path)).lstrip()
    )
  except json.JSONDecodeError:
    return None
  if text[end:].strip():
    return None
  if isinstance(whole, list):
    if not (whole and isinstance(whole[0], dict) and 'qas' in whole[0]):
      return None
    form = _CMRC if _CMRC.context in whole[0] else _SQUAD
    return form, [(x, f'{path}, passage {i}') for i, x in enumerate(whole, 1)]
  articles = whole.get('data') if isinstance(whole, dict) else None
  if not isinstance(articles, list) or not any(
    isinstance(x, dict) and 'paragraphs' in x for x in articles
  ):
    return None
  found = []
  for i, article in enumerate(articles, 1):
    where = f'{path}, article {i}'
    for k, passage in enumerate(_list(article, 'paragraphs', where), 1):
      found.append((passage, f'{where}, paragraph {k}'))
  return _SQUAD, found


def prompts(path, *, language: str, limit: int = 0) -> list[prompts_lib.Prompt]:
  """The first `limit` questions as Prompts with their answers; 0 is all.

  Raises ValueError, naming file and question, for what is missing, empty, of
  another type or there twice, for a question that has neither an answer nor
  `is_impossible`, and for one none of whose answers stands in its passage. (Of
  CMRC's 3,219 questions 193 have one of three that does not: such a one is
  compared all the same, as the official script does.)
  """
  if not language:
    raise ValueError(
      f'{path} has questions to passages; say in which language, as '
      "language='zh': it has the words of the prompt and the official script."
    )
  form, passages = _passages(path)
  context_word, question_word, answer_word = WORDS.get(language, WORDS['en'])
  asked, seen, strangers = [], {}, 0
  for passage, where in passages:
    asked_here = _list(passage, 'qas', where)
    lines.require(passage, (form.context,), where)
    lines.check_record(passage, where)
    context = lines.text(passage, form.context, where)
    for number, qa in enumerate(asked_here, 1):
      at = f'{where}, question {number}'
      lines.require(qa, (form.id, form.question, 'answers'), at)
      own = lines.name(qa, form.id, at)
      at = f'{path}, question {own!r}'
      lines.once(own, seen, at)
      question = lines.text(qa, form.question, at)
      answers = _answers(qa, at)
      outside = [x for x in answers if x not in context]
      strangers += len(outside)
      if len(outside) == len(answers):
        raise ValueError(
          f'{at}: the answer {outside[0]!r} is not in its passage '
          f'({context[:60]!r} …); is it that of another question?'
        )
      text = (
        f'{context_word}: {context}\n\n{question_word}: {question}\n\n'
        f'{answer_word}:'
      )
      talk = (messages.Message('user', text),)
      asked.append(
        prompts_lib.Prompt(
          own, text, talk, {}, at, len(asked) + 1, language, answers
        )
      )
  if not asked:
    raise ValueError(f'{path} has no questions.')
  if strangers:
    logging.info(
      '%s: %d answers are not in their passages, beside others that are.',
      path,
      strangers,
    )
  return prompts_lib.first(asked, limit)


def _list(record, field, where):
  if not isinstance(record, dict) or not isinstance(record.get(field), list):
    raise ValueError(
      f'{where}: there is no list {field!r}; a file of SQuAD has data, '
      'paragraphs and qas, one in the other.'
    )
  return record[field]


def _answers(qa, where):
  """The texts of the answers, numbers too; ('',) where there is none."""
  if qa.get('is_impossible'):
    if qa.get('answers'):
      raise ValueError(
        f'{where}: is_impossible is true, and there are answers; which is it?'
      )
    return ('',)
  found = [
    x.get('text') if isinstance(x, dict) else x
    for x in _list(qa, 'answers', where)
  ]
  if not found:
    raise ValueError(
      f'{where}: there is no answer, and is_impossible is not true; a test set '
      'without answers cannot be scored.'
    )
  for x in found:
    if type(x) not in (str, int, float) or x == '':
      raise ValueError(f'{where}: the answer {x!r} is no text.')
  return tuple(map(str, found))
