"""AGIEval: 21 files, and three ways to ask.

`official` is ruixiangcui/AGIEval: the model writes an answer, then it is asked
again with its own text before the question, and the letter is read from that
(src/dataset_loader.py, src/post_process.py); `official_few_shot` puts solved
problems before it. `loglik` scores the option letters after the zero-shot
prompt; `lmeval` scores the whole options, and has the two files without
options answered in a text, as lm-evaluation-harness does with its own copy of
the data (lm_eval/tasks/agieval).
"""

import ast
import csv
import re

from lbe.exams import item
from lbe.exams import mathematics
from lbe.text import files
from lbe.text import lines

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
# Two questions that no answer wins: one has no label, one a full stop in it.
_BROKEN = {('jec-qa-kd', 211), ('jec-qa-ca', 48)}
# As many demonstrations as stay below 2,048 tokens of GPT-4's tokenizer
# (cl100k_base), as the official script cuts them; all others go whole. Asked
# turn by turn none are cut.
NUM_SHOTS = {'lsat-rc': 2, 'gaokao-chinese': 1}
# What ends a demonstration, and what a model of texts writes is cut at.
END_OF_SHOT = '<END>'
# The harness cuts an answer here, where the next problem would begin.
END_OF_ANSWER = 'Q:'
_LETTERS = 'ABCDEFG'


def language(subject):
  """'en' or 'zh', as the official script divides the files."""
  return CLOZE.get(subject) or ('en' if subject in ENGLISH else 'zh')


def _records(path, subject):
  root = item.folder(path, 'data/v1 of AGIEval')
  right = 'answer' if subject in CLOZE else 'label'
  fields = ('passage', 'question', 'options', right)
  file = root / 'data' / 'v1' / f'{subject}.jsonl'
  records = [record for record, _ in lines.records(file, fields)]
  for i, r in enumerate(records):
    where = f'{file}, question {i + 1}'
    for name in ('passage', 'question', *(['answer'] * (subject in CLOZE))):
      text = r[name]
      if not (isinstance(text, str) or (name == 'passage' and text is None)):
        raise ValueError(f'{where}: the {name} {text!r} is no text.')
    if subject in CLOZE:
      if not r['answer']:
        raise ValueError(f'{where}: there is no answer.')
      continue
    options, label = r['options'], r['label']
    if not isinstance(options, list) or not 0 < len(options) <= len(_LETTERS):
      raise ValueError(
        f'{where}: the options {options!r} are no list of 1 to {len(_LETTERS)}.'
      )
    for option in options:
      if not isinstance(option, str):
        raise ValueError(f'{where}: the option {option!r} is no text.')
    letters = _LETTERS[: len(options)]
    if (subject, i) not in _BROKEN and not (label and _all_in(label, letters)):
      raise ValueError(
        f'{where}: the label {label!r} is not among {", ".join(letters)}.'
      )
  return records


def _all_in(label, letters):
  # Of gaokao-mathqa some are texts as 'A C' or 'ACD'.
  return isinstance(label, str | list) and all(
    isinstance(x, str) and x in (*letters, ' ') for x in label
  )


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
  """(header, ((problem, answer), ...)) of few_shot_prompts.csv."""
  file = item.folder(path, 'data of AGIEval') / 'data' / 'few_shot_prompts.csv'
  column = 'sat-en' if subject == 'sat-en-without-passage' else subject
  if not file.is_file():
    raise ValueError(f'there is no {file}, which has the demonstrations.')
  rows = list(csv.reader(files.stream(file)))
  if not rows or column not in rows[0]:
    raise ValueError(f'{file} has no column {column!r}.')
  at = rows[0].index(column)
  english = language(subject) == 'en'
  shots = []
  # A sample and its explanation take turns.
  for row in rows[1::2]:
    if not row[at]:
      continue
    record = _shot(row[at], f'{file}, {row[0]!r} of {column}')
    if subject != column:
      record['passage'] = ''
    right = record.get('answer' if subject in CLOZE else 'label') or ''
    cue = 'The answer is therefore' if english else '答案是'
    problem = _problem(record, subject, len(shots) + 1)
    shots.append((problem, f'{cue} {right}'))
  header = (
    'Here are the answers for the problems in the exam.\n'
    if english
    else '以下是考试中各个问题的答案。\n'
  )
  return header, tuple(shots)


def _shot(text, where):
  try:
    record = ast.literal_eval(text)
    missing = {'passage', 'question', 'options'} - record.keys()
  except (ValueError, SyntaxError, AttributeError):
    missing = {'passage', 'question', 'options'}
  if missing:
    raise ValueError(
      f'{where}: {text!r:.60} is no Python dict with {sorted(missing)}.'
    )
  return record


def questions(path, *, subjects, limit, shots=False) -> list[item.Question]:
  """The Questions of all files; `limit` counts those of each.

  With `shots` each has all demonstrations of its file, whose problems are
  numbered: the prompt has item.NUMBER in the place of its own.
  """
  result = []
  for subject in item.chosen(subjects, ALL, exam='AGIEval'):
    header, demonstrations = few_shot(path, subject) if shots else ('', ())
    for i, r in enumerate(_records(path, subject)[: limit or None]):
      result.append(
        item.Question(
          id=f'{subject}/{i}',
          subject=subject,
          group=language(subject),
          prompt=(
            _problem(r, subject, item.NUMBER)
            if shots
            else zero_shot(r, subject)
          ),
          gold=_gold(r, subject, i),
          header=header,
          shots=demonstrations,
          max_shots=NUM_SHOTS.get(subject, len(demonstrations)),
          after_shot=f'\n{END_OF_SHOT}\n',
          second='' if shots else second_cue(subject),
          kind='few_shot' if shots else 'zero_shot',
        )
      )
  return result


def _gold(record, subject, number):
  if subject in CLOZE:
    return record['answer']
  if subject not in SEVERAL:
    return record['label']
  return () if (subject, number) in _BROKEN else tuple(record['label'])


def cloze_questions(path, *, subjects, limit) -> list[item.Question]:
  """The Questions of the files without options, as the harness asks them."""
  return [
    q._replace(second='')
    for q in questions(
      path,
      subjects=item.chosen(subjects, CLOZE, exam='agieval@lmeval in text'),
      limit=limit,
    )
  ]


def harness_records(path, subject: str, *, limit: int) -> list[dict]:
  """A file in the form that lm-evaluation-harness reads: one dict a line."""
  if subject in CLOZE:
    return [
      {'query': q.prompt, 'answer': q.gold}
      for q in cloze_questions(path, subjects=(subject,), limit=limit)
    ]
  asked = items(
    path, 'lmeval', split='', num_shots=0, subjects=(subject,), limit=limit
  )
  return [
    {'query': i.context, 'choices': list(i.answers), 'gold': list(i.gold)}
    for i in asked
  ]


def items(
  path, protocol, *, split, num_shots, subjects, limit
) -> list[item.Item]:
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
  letter = re.search('[A-F]', text)
  return letter.group() if letter else ''


def extract(text, subject, *, few_shot=False):
  """The answer in a text: a letter, a tuple of them, or mathematics."""
  if subject in CLOZE:
    text = mathematics.behind_cue(text)
    return text if few_shot else mathematics.final_answer(text)
  if subject in SEVERAL:
    return tuple(re.findall('[A-F]', text))
  if few_shot:
    cue = 'answer is ' if language(subject) == 'en' else '答案是'
    answer = re.search(f'{cue}.*?([A-G])', text)
    if answer:
      return answer.group(1)
  return _first_letter(text)


def grade(question: item.Question, text: str) -> tuple:
  """(the answer in it, points: 1 or 0)."""
  subject, gold = question.subject, question.gold
  answer = extract(text, subject, few_shot=question.kind == 'few_shot')
  if subject in CLOZE:
    return answer, float(mathematics.equivalent(answer, gold))
  if subject in SEVERAL:
    return answer, float(bool(gold) and set(answer) == set(gold))
  return answer, float(answer == gold)


def harness_grade(question: item.Question, text: str) -> tuple:
  """As `grade`, of `cloze_questions`: the gold answer is read as a text too.

  So where nothing is found in either, the harness gives the point.
  """
  answer = mathematics.final_answer(text)
  gold = mathematics.final_answer(question.gold)
  return answer, float(mathematics.equivalent(answer, gold))
