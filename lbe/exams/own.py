"""A user's own exam: questions with choices, from JSON or a table.

A file is JSON lines, one JSON array, or a table with a head line (CSV, its
semicolons or tabs told by the head); what it is is seen in it, not in its
name. A record has

  question    a text
  choices     or options: a list of texts, or of {label, text}, or an object of
              texts by letter; or the columns A, B, C, ...
  answer      or answerKey: a letter, the index of a choice from 0, or the text
              of one; a list of these, where any of several is right
  subject, id may be left out

Every choice that is there counts: 0, false, an empty text, null and a blank
cell too, since letters and indices count them. Only tables have cells for
choices that a question does not have: blank ones at the end of a row, from E
on, or several.
"""

import ast
import json
import math
import pathlib
import re
import unicodedata
from typing import NamedTuple

from lbe.exams import item
from lbe.exams import spreadsheet
from lbe.text import lines

_QUESTION, _ANSWER = ('question',), ('answer', 'answerkey')
_CHOICES = ('choices', 'options')
# What a question may rest on, and no prompt has.
_CONTEXT = ('context', 'passage', 'article')
_COLUMN = re.compile(r'(?:(?:option|choice|选项)[ _]?)?([a-z])[.)]?', re.I)
_LETTER = re.compile(r'[(\[【]?\s*([a-z])\s*[)\]】.、:]*')
# So many columns every exam has; further ones are for some questions.
_USUAL = 4


class Question(NamedTuple):
  """`gold` are the indices of the right choices, one where one is right."""

  subject: str
  id: str
  question: str
  choices: tuple[str, ...]
  gold: tuple[int, ...]


def read(path) -> list[Question]:
  """The Questions of a file.

  Raises ValueError with file, line and value for what is none, and for an
  answer that says two things ('2', where the choices are 1, 2, 3 and 4) and
  no other answer of the file tells which.
  """
  asked, seen = [], {}
  for number, (record, where) in enumerate(_records(pathlib.Path(path))):
    lines.check_record(record, where)
    found = _question(record, where, number)
    lines.once('/'.join(found[:2]), seen, where)
    asked.append((found, where))
  if not asked:
    raise ValueError(f'{path} has no questions.')
  # How answers are given here, where they can be read in one way only.
  ways = {
    next(iter(readings))
    for (*_, answers), _ in asked
    for _, readings in answers
    if len(readings) == 1
  }
  return [
    Question(*found, _gold(answers, ways, found[-1], where))
    for (*found, answers), where in asked
  ]


# -------------------------------------------------------------------- records


def _records(path):
  """[(object, 'FILE:LINE')], or 'FILE, record N' of an array."""
  if not path.is_file():
    raise ValueError(
      f'there is no file {str(path)!r}; give the JSONL or CSV file of an exam.'
    )
  whole = spreadsheet.text(path)
  if whole.lstrip()[:1] not in ('{', '['):
    return spreadsheet.sniffed(whole, path)
  if whole.lstrip()[0] == '[':
    try:
      array = lines.loads(whole)
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{path}:{error.lineno}: invalid JSON ({error.msg}, column '
        f'{error.colno}) in what begins as an array.'
      ) from error
    for i, record in enumerate(array, 1):
      if not isinstance(record, dict):
        raise ValueError(
          f'{path}:1: list; a line is one JSON object, or the file one array '
          f'of them, and record {i} of it is {type(record).__name__}.'
        )
    return [(x, f'{path}, record {i}') for i, x in enumerate(array, 1)]
  return list(_lines(whole, path))


def _lines(whole, path):
  for number, line in enumerate(lines.split(whole), 1):
    if line.strip():
      where = f'{path}:{number}'
      try:
        record = lines.loads(line)
      except json.JSONDecodeError as error:
        raise ValueError(
          f'{where}: invalid JSON ({error.msg}, column {error.colno}); a line '
          'is one JSON object, or the file one array of them.'
        ) from error
      if not isinstance(record, dict):
        raise ValueError(
          f'{where}: {type(record).__name__}; a line is one JSON object.'
        )
      yield record, where


def _question(record, where, number):
  names = {name.strip().casefold(): name for name in record}
  question, answer = (
    next((names[x] for x in known if x in names), None)
    for known in (_QUESTION, _ANSWER)
  )
  for name, known in ((question, _QUESTION), (answer, _ANSWER)):
    if name is None:
      raise ValueError(
        f'{where}: there is no {known[0]!r}; the fields are '
        f'{", ".join(record) or "none"}.'
      )
  for name in _CONTEXT:
    if not _is_blank(record.get(names.get(name))):
      raise ValueError(
        f'{where}: the question would be asked without its {name!r}; write it '
        'into `question`, as it is to be asked, or leave the field out.'
      )
  choices, labels = _choices(record, names, where)
  answers = record[answer]
  if answers == []:
    raise ValueError(f'{where}: the answer [] names no choice.')
  own = record.get(names.get('id'))
  subject = record.get(names.get('subject'))
  return (
    'all' if _is_blank(subject) else _name(record, names['subject'], where),
    str(number) if _is_blank(own) else _name(record, names['id'], where),
    lines.text(record, question, where),
    tuple(map(_text, choices)),
    [
      (x, _readings(x, choices, labels, where))
      for x in (answers if isinstance(answers, list) else [answers])
    ],
  )


def _name(record, field, where):
  value = record[field]
  if isinstance(value, float) and value.is_integer():
    return str(int(value))
  return lines.name(record, field, where)


def _text(choice):
  return '' if _is_blank(choice) else str(choice)


def _is_blank(value):
  if isinstance(value, float) and math.isnan(value):
    return True  # what pandas writes for a blank cell
  return value is None or value == ''


# -------------------------------------------------------------------- choices


def _choices(record, names, where):
  """(texts, their labels)."""
  field = next((names[x] for x in _CHOICES if x in names), None)
  if field is not None:
    found, labels = _listed(record[field], f'{where}: {field}')
  else:
    found, labels = _columns(record, where)
  if not 2 <= len(found) <= len(item.ALPHABET):
    raise ValueError(
      f'{where}: a question needs at least two choices, and {len(found)} are '
      f'there, {json.dumps(found, ensure_ascii=False)[:60]}; give a list '
      '`choices` or the columns A, B, ..., up to Z.'
    )
  for value in found:
    if isinstance(value, dict | list):
      raise ValueError(
        f'{where}: the choice {value!r} is {type(value).__name__}, not a text.'
      )
  return found, labels


def _listed(value, where):
  """The values of a field `choices` in its forms, and their labels."""
  if isinstance(value, str):  # in the cell of a table
    for read in (json.loads, ast.literal_eval):
      try:
        value = read(value)
        break
      except (ValueError, SyntaxError, MemoryError, RecursionError):
        continue
  labels = None
  if isinstance(value, dict):
    folded = {str(k).casefold(): x for k, x in value.items()}
    if isinstance(folded.get('text'), list):
      value, labels = folded['text'], folded.get('label')
    else:
      value, labels = list(value.values()), list(value)
  elif isinstance(value, list) and value and isinstance(value[0], dict):
    pairs = [_pair(x, where) for x in value]
    labels, value = map(list, zip(*pairs, strict=True))
  if not isinstance(value, list):
    raise ValueError(
      f'{where}={value!r} is {type(value).__name__}; a question needs at least '
      'two choices, in a list.'
    )
  if labels is None:
    return value, list(item.ALPHABET[: len(value)])
  labels = [str(x).strip() for x in labels]
  if len(labels) != len(value) or len(set(labels)) < len(labels):
    raise ValueError(
      f'{where}: the labels {", ".join(labels)} do not name the {len(value)} '
      'choices one by one.'
    )
  if sorted(labels) == list(item.ALPHABET[: len(labels)]):
    value = [
      x
      for _, x in sorted(
        zip(labels, value, strict=True), key=lambda pair: pair[0]
      )
    ]
    labels.sort()
  return value, labels


def _pair(choice, where):
  folded = (
    {str(k).casefold(): x for k, x in choice.items()}
    if isinstance(choice, dict)
    else {}
  )
  label = next((k for k in ('label', 'key', 'id') if k in folded), None)
  text = next((k for k in ('text', 'value', 'content') if k in folded), None)
  if label is None or text is None:
    raise ValueError(
      f'{where}: the choice {choice!r} is neither a text nor an object of '
      'label and text.'
    )
  return folded[label], folded[text]


def _columns(record, where):
  of_letter = {}
  plain = {k: v for k, v in record.items() if k in tuple(item.ALPHABET)}
  # Beside A and B an n is something else.
  for name, value in (plain if len(plain) > 1 else record).items():
    told = _COLUMN.fullmatch(unicodedata.normalize('NFKC', name).strip())
    if told:
      letter = told[1].upper()
      if letter in of_letter:
        raise ValueError(f'{where}: the choice {letter} is there twice.')
      of_letter[letter] = value
  letters = item.ALPHABET[: len(of_letter)]
  missing = sorted(set(letters) - set(of_letter))
  if missing:
    raise ValueError(
      f'{where}: there are the choices {", ".join(sorted(of_letter))}, and '
      f'{missing[0]} is missing.'
    )
  found = [of_letter[letter] for letter in letters]
  blank = 0
  while blank < len(found) and _is_blank(found[-1 - blank]):
    blank += 1
  # The cells of a table that this question has no choices for.
  if blank == 1 and len(found) <= _USUAL:
    blank = 0
  found = found[: len(found) - blank]
  return found, list(item.ALPHABET[: len(found)])


# --------------------------------------------------------------------- answers


def _gold(answers, ways, choices, where):
  """The indices; an answer that can be read in two ways is read as others.

  Without others to go by a number is an index.
  """
  gold = {}
  for answer, readings in answers:
    if len(set(readings.values())) > 1:
      told = ' or '.join(
        f'{way}, {choices[i]!r}' for way, i in readings.items()
      )
      kept = {way: i for way, i in readings.items() if way in ways}
      if len(set(kept.values())) == 1:
        readings = kept
      elif isinstance(answer, str):
        raise ValueError(
          f'{where}: the answer {answer!r} can be {told}; give it in a way '
          'that says one thing, as a letter where choices are numbers.'
        )
    gold[next(iter(readings.values()))] = True
  return tuple(gold)


def _readings(answer, choices, labels, where) -> dict[str, int]:
  """{how it can be read: index} of one answer; ValueError where it cannot."""
  if _is_blank(answer) or isinstance(answer, dict | list):
    raise ValueError(
      f'{where}: the answer is {json.dumps(answer, ensure_ascii=False)}; give '
      'a letter, an index from 0, or the text of a choice.'
    )
  plain = _folded(answer)
  is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
  readings = {}
  letter = _LETTER.fullmatch(plain)
  wanted = letter[1] if letter else plain
  folded = [_folded(x) for x in labels]
  if wanted in folded:
    readings['the letter'] = folded.index(wanted)
  elif re.fullmatch(r'\d+(\.0+)?', plain) and float(plain) < len(choices):
    readings['the index from 0'] = int(float(plain))
  same = [
    i
    for i, x in enumerate(choices)
    # An index is a number also where the choices are texts of numbers.
    if not (is_number and readings and isinstance(x, str))
    and _folded(_text(x)) in (plain, _unlabelled(plain, folded[i]))
  ]
  exact = [i for i in same if _text(choices[i]).strip() == str(answer).strip()]
  same = exact or same
  if len(same) == 1:
    readings['the text'] = same[0]
  if readings:
    return readings
  if same:
    raise ValueError(
      f'{where}: the answer {answer!r} is the text of {len(same)} choices; '
      'give its letter.'
    )
  raise ValueError(
    f'{where}: the answer {answer!r} is none of the {len(choices)} choices: '
    f'no letter of {", ".join(labels)}, no index from 0 to '
    f'{len(choices) - 1}, and the text of none.'
  )


def _folded(value):
  return unicodedata.normalize('NFKC', str(value)).strip().casefold()


def _unlabelled(text, label):
  """'cat' of 'a. cat' and '(a) cat', for the choice of that label."""
  match = re.match(rf'[(\[]?{re.escape(label)}[)\].、:]+\s*(?=\S)', text)
  return text[match.end() :] if match else text
