"""MGSM: grade-school problems in eleven languages, answered by a number.

The files of google-research/url-nlp, mgsm_LANG.tsv: a problem, a tab, a whole
number. Prompts and stop strings are those of lm-evaluation-harness 0.4.13
(tasks/mgsm/direct, without demonstrations), and so are the two readings of an
answer that stand beside ours.
"""

import decimal
import re
import string
import unicodedata

from lbe.exams import item
from lbe.exams import spreadsheet

# What is written before a problem and, without its last space, ends an answer;
# and what stands behind the problem.
WORDS = {
  'bn': ('প্রশ্ন: ', 'Answer:'),
  'de': ('Frage: ', 'Antwort:'),
  'en': ('Question: ', 'Answer:'),
  'es': ('Pregunta: ', 'Respuesta:'),
  'fr': ('Question : ', 'Réponse :'),
  'ja': ('問題： ', 'Answer:'),
  'ru': ('Задача: ', 'Answer:'),
  'sw': ('Swali: ', 'Answer:'),
  'te': ('ప్రశ్న: ', 'Answer:'),
  'th': ('โจทย์: ', 'Answer:'),
  'zh': ('问题： ', 'Answer:'),
}
_ENDS = ('</s>', '<|im_end|>')
# Where 1,500 is one and a half, and thousands are parted by a point or space.
_COMMA_IS_POINT = ('de', 'es', 'fr', 'ru')
_COLUMNS = ('question', 'answer')
_MARKS = str.maketrans('，．٬٫−－', ',.,.--')
_NUMBER = re.compile(r'((?<!\w)-)?(\d+(?:[.,]\d+)*)')


def questions(path, *, subjects, limit) -> list[item.Question]:
  """The Questions of the languages in `subjects`, `limit` of each; 0 is all.

  Without subjects, of all languages in the folder. Raises ValueError for a
  language that is not there, and by file and line for a problem without a whole
  number.
  """
  folder = item.folder(path, 'mgsm_LANG.tsv')
  there = [x for x in WORDS if (folder / f'mgsm_{x}.tsv').is_file()]
  if not there:
    raise ValueError(
      f'{folder} has none of MGSM’s files: mgsm_en.tsv, and so on for '
      f'{", ".join(WORDS)}.'
    )
  asked = []
  for language in item.chosen(subjects, there, exam=f'MGSM in {folder}'):
    before, behind = WORDS[language]
    rows = spreadsheet.read(
      folder / f'mgsm_{language}.tsv', _COLUMNS, header=False, separator='\t'
    )
    for i, (row, where) in enumerate(rows[: limit or None]):
      asked.append(
        item.Question(
          id=f'{language}/{i}',
          subject=language,
          group=language,
          prompt=f'{before}{row["question"]}\n{behind}',
          gold=_whole(row['answer'], where),
          stop=(before.strip(), *_ENDS),
        )
      )
  return asked


def _whole(text, where):
  plain = text.strip().replace(',', '')
  if not re.fullmatch('-?[0-9]+', plain):
    raise ValueError(
      f'{where}: the answer {text!r} is no whole number; a line is a problem, '
      'a tab, and its answer.'
    )
  return str(int(plain))


def grade(question: item.Question, text: str) -> tuple:
  """(the last number of a text, points: 1 where it is the right one)."""
  found = last_number(text, question.subject)
  right = found is not None and found == int(question.gold)
  return '' if found is None else f'{found.normalize():f}', float(right)


def last_number(text: str, language: str = '') -> decimal.Decimal | None:
  """The last number of a text, by value; None where there is none.

  Digits of any script count. Commas, points and spaces that cannot be
  understood otherwise part thousands (and lakhs: 1,14,200) in any language;
  one of them before three digits is read as the language writes it.
  """
  text = ''.join(
    str(unicodedata.decimal(c)) if c.isdecimal() else c
    for c in text.translate(_MARKS)
  )
  space = '\u00a0\u2009\u202f' + ' ' * (language in _COMMA_IS_POINT)
  text = re.sub(rf'(?<=\d)[{space}](?=\d{{3}}(?!\d))', '', text)
  found = _NUMBER.findall(text)
  if not found:
    return None
  sign, digits = found[-1]
  return decimal.Decimal(sign + _plain(digits, language))


def _plain(digits, language):
  """Digits with marks between them as Python writes the number."""
  *marks, last = ['', *re.findall('[.,]', digits)]
  parts = re.split('[.,]', digits)
  group = '.' if language in _COMMA_IS_POINT else ','
  if not last:
    return digits
  if set(marks) <= {'', last}:  # one kind of mark
    if _are_groups(parts) and (len(parts) > 2 or last == group):
      return ''.join(parts)
    if len(parts) == 2:
      return '.'.join(parts)
  elif last not in marks and len(set(marks)) == 2 and _are_groups(parts[:-1]):
    return f'{"".join(parts[:-1])}.{parts[-1]}'
  return parts[-1]  # several numbers, as 3,4,5


def _are_groups(parts):
  first, *others = parts
  return (
    len(first) <= 3
    and first[0] != '0'
    and all(len(x) in (2, 3) for x in others)
    and len(others[-1]) == 3
  )


# --------------------------------------------------------------- the harness


def lmeval_flexible_extract(question: item.Question, text: str) -> float:
  """1 where the harness's filter of this name finds the right number."""
  found = re.findall('(-?[$0-9.,]{2,})|(-?[0-9]+)', text)
  answer = ''.join(found[-1]).strip() if found else '[invalid]'
  return _exact_match(answer, question.gold)


def lmeval_remove_whitespace(question: item.Question, text: str) -> float:
  """1 where the whole text is the right number, as the harness compares."""
  return _exact_match(text.strip(), question.gold)


def _exact_match(answer, gold):
  no_marks = str.maketrans('', '', string.punctuation)
  return float(answer.lower().translate(no_marks) == gold.translate(no_marks))
