"""AGIEval: 21 files, and three ways to ask.

`official` is ruixiangcui/AGIEval: the model writes an answer, then it is asked
again with its own text before the question, and the letter is read from that
(src/dataset_loader.py, src/post_process.py); `official_few_shot` puts solved
problems before it. `loglik` scores the option letters after the zero-shot
prompt; `lmeval` scores the whole options, as lm-evaluation-harness does with
its own copy of the data.
"""

import ast
import csv
import re

from lbe.exams import item

ENGLISH = (
  'lsat-ar',
  'lsat-lr',
  'lsat-rc',
  'logiqa-en',
  'sat-math',
  'sat-en',
  'aqua-rat',
  'sat-en-without-passage',
  'gaokao-english',
)
CHINESE = (
  'logiqa-zh',
  'jec-qa-kd',
  'jec-qa-ca',
  'gaokao-chinese',
  'gaokao-geography',
  'gaokao-history',
  'gaokao-biology',
  'gaokao-chemistry',
  'gaokao-physics',
  'gaokao-mathqa',
)
CLOZE = {'math': 'en', 'gaokao-mathcloze': 'zh'}
# Whose answer is a set of letters.
SEVERAL = ('jec-qa-kd', 'jec-qa-ca', 'gaokao-physics')
ALL = (*ENGLISH, *CHINESE, *CLOZE)
# Demonstrations end below so many tokens; counted with the tokenizer of the
# model, where the official script has GPT-4's.
FEW_SHOT_TOKENS = 2048
_END = '<END>\n'
_LETTERS = 'ABCDEFG'


def language(subject):
  """'en' or 'zh', as the official script divides the files."""
  return CLOZE.get(subject) or ('en' if subject in ENGLISH else 'zh')


def _records(path, subject):
  root = item.folder(path, 'data/v1 of AGIEval')
  right = 'answer' if subject in CLOZE else 'label'
  fields = ('passage', 'question', 'options', right)
  file = root / 'data' / 'v1' / f'{subject}.jsonl'
  records = item.read_jsonl(file, fields)
  for i, r in enumerate(records):
    where = f'{file}, question {i + 1}'
    if subject in CLOZE:
      if r['answer'] in (None, ''):
        raise ValueError(f'{where}: there is no answer.')
      continue
    letters = _LETTERS[: len(r['options'])]
    label = r['label']
    if subject in SEVERAL and isinstance(label, list):
      continue  # some are empty or hold a full stop: no answer wins them
    if not label or not set(label) <= {*letters, ' '}:
      raise ValueError(
        f'{where}: the label {label!r} is not among {", ".join(letters)}.'
      )
  return records


def zero_shot(record, subject):
  """The prompt of the first stage."""
  text = (record['passage'] or '') + (
    'Q: ' if language(subject) == 'en' else '问题：'
  )
  text += record['question']
  if subject in CLOZE:
    return text + ('\nA: The answer is' if subject == 'math' else '\n答案：')
  options = ' '.join(record['options'])
  count = len(record['options'])
  if language(subject) == 'en':
    last = _LETTERS[(count if count > 1 else 5) - 1]
    return (
      f'{text} Answer Choices: {options}\n'
      f'A: Among A through {last}, the answer is'
    )
  last = _LETTERS[(count if count > 1 else 4) - 1]
  return f'{text} 选项：{options}\n答案：从A到{last}, 我们应选择'


def second_cue(subject):
  """What follows the first answer; its letters do not depend on the options."""
  if subject in CLOZE:
    return 'Therefore, the answer is' if subject == 'math' else '因此，答案是'
  if language(subject) == 'en':
    return 'Therefore, among A through E, the answer is'
  return '因此，从A到D, 我们应选择'


def _problem(record, subject, number):
  """A problem as the few-shot prompt shows it, without its answer."""
  passage = record['passage'] or ''
  question = record['question']
  english = language(subject) == 'en'
  start = f'Problem {number}.   ' if english else f'问题 {number}.   '
  if subject in CLOZE:
    return f'{start}{question}\n'
  cue = 'Choose from the following options:' if english else '从以下选项中选择:'
  options = ' '.join(record['options'] or '')
  return f'{start}{passage} {question}\n{cue}    {options}\n'


def few_shot(path, subject):
  """(header, demonstrations) of few_shot_prompts.csv."""
  file = item.folder(path, 'data of AGIEval') / 'data' / 'few_shot_prompts.csv'
  column = 'sat-en' if subject == 'sat-en-without-passage' else subject
  if not file.is_file():
    raise ValueError(f'there is no {file}, which has the demonstrations.')
  with open(file, encoding='utf-8-sig', newline='') as f:
    rows = list(csv.reader(f))
  if column not in rows[0]:
    raise ValueError(f'{file} has no column {column!r}.')
  at = rows[0].index(column)
  english = language(subject) == 'en'
  shots = []
  # A sample and its explanation take turns.
  for row in rows[1::2]:
    if not row[at]:
      continue
    record = ast.literal_eval(row[at])
    if subject != column:
      record['passage'] = ''
    right = record.get('answer' if subject in CLOZE else 'label') or ''
    cue = 'The answer is therefore' if english else '答案是'
    number = len(shots) + 1
    shots.append(f'{_problem(record, subject, number)}{cue} {right}\n{_END}')
  header = (
    'Here are the answers for the problems in the exam.\n'
    if english
    else '以下是考试中各个问题的答案。\n'
  )
  return header, tuple(shots)


def questions(path, *, subjects=(), limit=0, shots=False):
  """The Questions of all files; `limit` counts those of each.

  With `shots` each has its demonstrations, whose problems are numbered: the
  prompt has '{number}' in the place of its own.
  """
  result = []
  for subject in item.chosen(subjects, ALL, exam='AGIEval'):
    header, demonstrations = few_shot(path, subject) if shots else ('', ())
    for i, r in enumerate(_records(path, subject)[: limit or None]):
      gold = r['answer'] if subject in CLOZE else r['label']
      prompt = zero_shot(r, subject)
      if shots:
        prompt = _problem(r, subject, '\0')
      result.append(
        item.Question(
          id=f'{subject}/{i}',
          subject=subject,
          group=language(subject),
          prompt=prompt,
          user=prompt,
          gold=tuple(gold) if subject in SEVERAL else gold,
          header=header,
          shots=demonstrations,
          second='' if shots else second_cue(subject),
          kind='few_shot' if shots else 'zero_shot',
        )
      )
  return result


def items(path, protocol, *, split, num_shots, subjects=(), limit=0):
  """The Items of the files with options."""
  del split
  if num_shots:
    raise ValueError(
      f'num_shots={num_shots}: this protocol of AGIEval has no demonstrations; '
      "take 0, or 'agieval@official_few_shot'."
    )
  result = []
  known = (*ENGLISH, *CHINESE)
  for subject in item.chosen(subjects, known, exam=f'agieval@{protocol}'):
    for i, r in enumerate(_records(path, subject)[: limit or None]):
      letters = tuple(_LETTERS[: len(r['options'])])
      answers = tuple(r['options']) if protocol == 'lmeval' else letters
      result.append(
        item.Item(
          id=f'{subject}/{i}',
          subject=subject,
          group=language(subject),
          header='',
          shots=(),
          question=zero_shot(r, subject),
          choices=tuple(f' {text}' for text in answers),
          answers=answers,
          gold=tuple(letters.index(x) for x in r['label'] if x in letters),
        )
      )
  return result


# -------------------------------------------------------------- extraction


def _first_letter(text):
  found = re.search('[A-F]', text)
  return found.group() if found else ''


def extract(text, subject, *, few_shot=False):
  """The answer in a text: a letter, a tuple of them, or mathematics."""
  if subject in CLOZE:
    return mathematics(text, few_shot=few_shot)
  if subject in SEVERAL:
    return tuple(re.findall('[A-F]', text))
  if few_shot:
    cue = 'answer is ' if language(subject) == 'en' else '答案是'
    found = re.search(f'{cue}.*?([A-G])', text)
    if found:
      return found.group(1)
  return _first_letter(text)


def mathematics(text, *, few_shot=False):
  r"""The final answer in a text; None where there is none.

  What stands behind the last cue; of that, the last \boxed, else the last
  $...$, else what follows the last =, else the last number. Behind
  demonstrations the whole text behind the cue.
  """
  for cue in ('The answer is therefore', '答案是'):
    if cue in text:
      # At the beginning the first one counts, else the last.
      at = 0 if text.startswith(cue) else text.rfind(cue)
      text = text[at + len(cue) :].strip()
  if few_shot:
    return text
  if '\\boxed' in text:
    return _boxed(text)
  dollars = re.findall(r'\$(.*)\$', text)
  if dollars and dollars[-1]:
    return (
      dollars[-1].split('=')[-1].lstrip(' ')
      if '=' in dollars[-1]
      else (dollars[-1])
    )
  if '=' in text:
    last = text.split('=')[-1].lstrip(' ').rstrip('.')
    return last.split('\\n')[0]
  numbers = re.findall(r'(?:\$)?\d+(?:\.\d+)?(?![\w\d])', text)
  return numbers[-1] if numbers else None


def _boxed(text):
  start = text.rfind('\\boxed')
  depth = 0
  for i in range(start, len(text)):
    depth += {'{': 1, '}': -1}.get(text[i], 0)
    if text[i] == '}' and depth == 0:
      inside = text[start : i + 1]
      if not inside.startswith('\\boxed{'):
        return None
      inside = inside[len('\\boxed{') : -1]
      return inside.split('=')[-1].lstrip(' ') if '=' in inside else inside
  return None


# What hendrycks/math takes for the same: (what, in its place), in this order.
_SAME = (
  ('\n', ''),
  ('\\!', ''),
  ('\\\\', '\\'),
  ('tfrac', 'frac'),
  ('dfrac', 'frac'),
  ('\\left', ''),
  ('\\right', ''),
  ('^{\\circ}', ''),
  ('^\\circ', ''),
  ('\\$', ''),
)


def normal_form(text):
  """Mathematics as hendrycks/math's math_equivalence.py compares it."""
  for what, instead in _SAME:
    text = text.replace(what, instead)
  if '\\text{ ' in text:  # units, at the end
    before, *more = text.split('\\text{ ')
    if len(more) != 1:
      raise ValueError('more than one unit')
    text = before
  text = text.replace('\\%', '').replace(' .', ' 0.').replace('{.', '{0.')
  if not text:
    return text
  if text[0] == '.':
    text = f'0{text}'
  sides = text.split('=')
  if len(sides) == 2 and len(sides[0]) <= 2:  # as 'x = '
    text = sides[1]
  text = re.sub(r'\\sqrt(?!\{)(.)', r'\\sqrt{\1}', text, flags=re.S)
  text = _whole_fractions(text.replace(' ', ''))
  if text == '0.5':
    text = '\\frac{1}{2}'
  ratio = re.fullmatch(r'(-?\d+)/(-?\d+)', text)
  if ratio and text == f'{int(ratio[1])}/{int(ratio[2])}':
    text = f'\\frac{{{ratio[1]}}}{{{ratio[2]}}}'
  return text


def _whole_fractions(text):
  r"""\frac12 as \frac{1}{2}; a text with one that is cut off as it stands."""
  before, *parts = text.split('\\frac')
  result = before
  for part in parts:
    result += '\\frac'
    if part[0] == '{':
      result += part
    elif len(part) < 2:
      return text
    elif part[1] == '{':
      result += f'{{{part[0]}}}{part[1:]}'
    else:
      result += f'{{{part[0]}}}{{{part[1]}}}{part[2:]}'
  return result


def equivalent(a, b):
  """Whether two answers are the same mathematics."""
  if a is None or b is None:
    return a is b
  try:
    return normal_form(a) == normal_form(b)
  except (ValueError, IndexError):
    return a == b


def grade(question, text):
  """(the answer found, points: 1 or 0)."""
  subject = question.subject
  found = extract(text, subject, few_shot=question.kind == 'few_shot')
  if subject in CLOZE:
    return found, float(equivalent(found, question.gold))
  if subject in SEVERAL:
    return found, float(set(found) == set(question.gold))
  return found, float(found == question.gold)
