"""GAOKAO-Bench, the objective part: prompts, extraction, points.

`official` is OpenLMLab/GAOKAO-Bench: a prompt for each file
(Bench/Obj_Prompt.json), the answer read from a text by the rule of the file's
type (Bench/bench_function.py), points by the file's own `score`
(Bench/OBJ_score_evaluation.py), also where a rule has its oddities. A model of
texts gets prompt and question in one, as the repository gives its own.
`loglik` asks for the letter of a single choice instead, which a base model can
answer; of the other types it says nothing.
"""

import json
import re

from lbe.exams import item
from lbe.text import files
from lbe.text import lines

_THINK = '请你一步一步思考并将思考过程写在【解析】和<eoe>之间。'
_EACH = (
  '请你一步一步思考。每一题你将从A，B，C，D中选出正确的答案，'
  '并写在【答案】和<eoa>之间。\n'
  '例如：（1）【答案】 A <eoa>\n（2）【答案】 B <eoa>\n'
  '请你严格按照上述格式作答。\n'
)


def _single(name):
  return (
    f'请你做一道{name}选择题\n{_THINK}你将从A，B，C，D中选出正确的答案，'
    '并写在【答案】和<eoa>之间。\n例如：【答案】: A <eoa>\n'
    '完整的题目回答的格式如下：\n【解析】 ... <eoe>\n【答案】 ... <eoa>\n'
    '请你严格按照上述格式作答。\n题目如下：'
  )


# File → (group, type of its answers, prompt).
FILES = {
  '2010-2022_Math_II_MCQs': ('Math', 'single_choice', _single('数学')),
  '2010-2022_Math_I_MCQs': ('Math', 'single_choice', _single('数学')),
  '2010-2022_History_MCQs': ('History', 'single_choice', _single('历史')),
  '2010-2022_Biology_MCQs': ('Biology', 'single_choice', _single('生物')),
  '2010-2022_Political_Science_MCQs': (
    'Politics',
    'single_choice',
    _single('政治'),
  ),
  '2010-2022_Physics_MCQs': (
    'Physics',
    'multi_choice',
    f'请你做一道物理选择题。\n{_THINK}你将从A，B，C，D中选出所有符合题意的'
    '答案，并写在【答案】和<eoa>之间。\n例如：【答案】 AB <eoa>\n'
    '完整的题目回答的格式如下：\n【解析】 ... <eoe>\n【答案】... <eoa>\n'
    '请你严格按照上述格式作答。\n',
  ),
  '2010-2022_Chemistry_MCQs': ('Chemistry', 'single_choice', _single('化学')),
  '2010-2013_English_MCQs': ('English', 'single_choice', _single('英语')),
  '2010-2022_Chinese_Modern_Lit': (
    'Chinese',
    'multi_question_choice',
    f'请你做一道语文阅读理解题，其中包含三个小题。\n{_EACH}',
  ),
  '2010-2022_English_Fill_in_Blanks': (
    'English',
    'multi_question_choice',
    f'请你做一道英语完形填空题,其中包含二十个小题。\n{_EACH}',
  ),
  '2012-2022_English_Cloze_Test': (
    'English',
    'five_out_of_seven',
    '请回答下面的问题，将符合题意的五个选项的字母写在【答案】和<eoa>之间，'
    '例如“【答案】 A B C D E <eoa>\n请严格按照上述格式作答。\n',
  ),
  '2010-2022_Geography_MCQs': (
    'Geography',
    'multi_question_choice',
    f'请你做一道地理选择题，其中包含两到三个小题。\n{_EACH}',
  ),
  '2010-2022_English_Reading_Comp': (
    'English',
    'multi_question_choice',
    f'请你做一道英语阅读理解题，其中包含三到五个小题。\n{_EACH}',
  ),
  '2010-2022_Chinese_Lang_and_Usage_MCQs': (
    'Chinese',
    'multi_question_choice',
    f'请你做一道语文选择题\n{_THINK}你将从A，B，C，D中选出正确的答案，'
    '并写在【答案】和<eoa>之间。\n例如：【答案】: A <eoa>\n'
    '完整的题目回答的格式如下：\n（1）【解析】 ... <eoe>\n【答案】 ... <eoa>\n'
    '（2）【解析】 ... <eoe>\n【答案】 ... <eoa>\n'
    '请你严格按照上述格式作答。如果不止一道题，请分别作答\n题目如下：',
  ),
}
# Of a physics question, where no letter is wrong and some are missing.
_PARTIAL_POINTS = 3
_CUE = '答案：'


def _examples(path, subject):
  root = item.folder(path, 'Data/Objective_Questions of GAOKAO-Bench')
  file = root / 'Data' / 'Objective_Questions' / f'{subject}.json'
  if not file.is_file():
    raise ValueError(f'there is no {file}; is the folder that of the bench?')
  text = files.text(file)
  try:
    examples = json.loads(text)['example']
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{file} is no file of GAOKAO-Bench: it needs an object with `example` '
      f'({error}).'
    ) from error
  for i, example in enumerate(examples):
    where = f'{file}, question {i + 1}'
    if not isinstance(example, dict):
      raise ValueError(f'{where}: {example!r} is no object.')
    for name in ('question', 'answer', 'score'):
      if name not in example:
        raise ValueError(f'{where}: there is no {name!r}.')
    lines.text(example, 'question', where)
    if type(example['score']) not in (int, float):
      raise ValueError(f'{where}: the score {example["score"]!r} is no number.')
    letters = example['answer']
    if not letters or not (
      isinstance(letters, list | str)
      and all(isinstance(x, str) and re.fullmatch('[A-G]+', x) for x in letters)
    ):
      raise ValueError(
        f'{where}: the answer {letters!r} is no list of letters from A to G.'
      )
  return examples


def questions(path, *, subjects, limit) -> list[item.Question]:
  """The Questions of all files; `limit` counts those of each."""
  result = []
  for subject in item.chosen(subjects, FILES, exam='GAOKAO-Bench'):
    group, kind, prompt = FILES[subject]
    for i, x in enumerate(_examples(path, subject)[: limit or None]):
      text = x['question'].strip() + '\n'
      result.append(
        item.Question(
          id=f'{subject}/{i}',
          subject=subject,
          group=group,
          prompt=prompt + text,
          system=prompt,
          user=text,
          gold=tuple(x['answer']),
          points=x['score'] * len(x['answer']),
          kind=kind,
        )
      )
  return result


def items(
  path, protocol, *, split, num_shots, subjects, limit
) -> list[item.Item]:
  """The Items of the files with a single choice: 1,418 questions of 1,781."""
  del protocol, split
  if num_shots:
    raise ValueError(
      f'num_shots={num_shots}: GAOKAO-Bench has no demonstrations; take 0.'
    )
  single = [s for s, (_, kind, _) in FILES.items() if kind == 'single_choice']
  result = []
  for subject in item.chosen(subjects, single, exam='gaokao@loglik'):
    for i, x in enumerate(_examples(path, subject)[: limit or None]):
      where = f'{subject}, question {i + 1}'
      result.append(
        item.Item(
          id=f'{subject}/{i}',
          subject=subject,
          group=FILES[subject][0],
          header='',
          shots=(),
          question=f'{x["question"].strip()}\n{_CUE}',
          choices=tuple(f' {letter}' for letter in item.LETTERS),
          answers=item.LETTERS,
          gold=tuple(item.letter(a, 4, where) for a in x['answer']),
          points=x['score'],
        )
      )
  return result


def extract(text, kind, num_answers):
  """The answers in a text, a list of strings of letters."""
  if kind == 'single_choice':
    return re.findall('[A-D]', text)[-1:]
  if kind == 'multi_question_choice':
    marked = re.findall(r'【答案】\s*[:：]*\s*([A-Z])', text)
    if len(marked) == num_answers:
      return marked
    return re.findall('[A-Z]', text)[:num_answers]
  if kind == 'multi_choice':
    content = re.sub(r'\s+', '', text)
    at = content.find('【答案】')
    # An answer at the very beginning is not found by the official script.
    part = content[at:] if at > 0 else content[-10:]
    letters = ''.join(re.findall('[A-D]', part))
    return [letters] if letters else []
  assert kind == 'five_out_of_seven', kind
  return re.findall('[A-G]', text)[:5]


def grade(question: item.Question, text: str) -> tuple:
  """(answers found, points), by the rules of the question's file.

  None are found where there are fewer than asked for: the official script
  makes all of them wrong.
  """
  gold = question.gold
  answers = extract(text, question.kind, len(gold))
  if len(answers) != len(gold):
    return [], 0.0
  each = question.points / len(gold)
  if question.kind != 'multi_choice':
    return answers, each * sum(
      a == b for a, b in zip(answers, gold, strict=True)
    )
  points = 0.0
  for answer, right in zip(answers, gold, strict=True):
    if answer == right:
      points += each
    elif set(answer) <= set(right):
      points += _PARTIAL_POINTS
  return answers, points
