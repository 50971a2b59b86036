"""C-Eval and CMMLU: CSV files by subject, and their protocols.

C-Eval: `official` is the answer-only prompt of hkust-nlp/ceval, `cla` that of
Chinese-LLaMA-Alpaca (without demonstrations it has no header), `lmeval` that
of lm-evaluation-harness, whose header lacks 考试. CMMLU: `lmeval`.
"""

from lbe.exams import item
from lbe.exams import subjects as subjects_lib

_EXAM = '以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n\n'
_HEADERS = {
  ('ceval', 'official'): _EXAM,
  ('ceval', 'cla'): _EXAM,
  ('ceval', 'lmeval'): _EXAM.replace('考试', ''),
  (
    'cmmlu',
    'lmeval',
  ): '以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n',
}
_CUE = '答案：'


def _question(row, name, protocol):
  question = row[name]
  if protocol == 'lmeval':
    question = question.strip()
  return '\n'.join([question, *(f'{x}. {row[x]}' for x in item.LETTERS), _CUE])


def items(path, protocol, *, split, num_shots, subjects=(), limit=0):
  """The Items of C-Eval: a folder with dev/ and val/ or test/."""
  names = {
    subject: (group, chinese)
    for group, table in subjects_lib.CEVAL.items()
    for subject, chinese in table.items()
  }
  return _items(
    'ceval', path, protocol, split, num_shots, subjects, limit, names
  )


def cmmlu_items(path, protocol, *, split, num_shots, subjects=(), limit=0):
  """The Items of CMMLU: a folder with dev/ and test/, files SUBJECT.csv."""
  names = {s: ('all', chinese) for s, chinese in subjects_lib.CMMLU.items()}
  return _items(
    'cmmlu', path, protocol, split, num_shots, subjects, limit, names
  )


def _items(exam, path, protocol, split, num_shots, subjects, limit, names):
  root = item.folder(path, f'dev/ and {split}/')
  ours = exam == 'ceval'
  question, answer = ('question', 'answer') if ours else ('Question', 'Answer')
  # Behind demonstrations the harness writes its delimiter, a space.
  space = ' ' if protocol == 'lmeval' else ''
  result = []
  for subject in item.chosen(
    subjects, names, exam='C-Eval' if ours else 'CMMLU'
  ):
    group, chinese = names[subject]

    def rows(split, subject=subject):
      file = f'{subject}_{split}.csv' if ours else f'{subject}.csv'
      return root / split / file, item.read_csv(
        root / split / file, (question, *item.LETTERS, answer)
      )

    def solved(row, file):
      right = item.LETTERS[item.letter(row[answer], 4, file)]
      return f'{_question(row, question, protocol)}{space}{right}\n\n'

    shots = ()
    if num_shots:
      file, demonstrations = rows('dev')
      if len(demonstrations) < num_shots:
        raise ValueError(
          f'{file} has {len(demonstrations)} demonstrations, and num_shots='
          f'{num_shots} asks for more.'
        )
      shots = tuple(solved(row, file) for row in demonstrations[:num_shots])
    header = _HEADERS[exam, protocol].format(chinese)
    if protocol == 'cla' and not shots:
      header = ''
    file, questions = rows(split)
    for i, row in enumerate(questions[: limit or None]):
      gold = item.letter(row[answer], 4, f'{file}, question {i + 1}')
      result.append(
        item.Item(
          id=f'{subject}/{i}',
          subject=subject,
          group=group,
          header=header,
          shots=shots,
          question=_question(row, question, protocol),
          choices=tuple(f' {x}' for x in item.LETTERS),
          answers=item.LETTERS,
          gold=(gold,),
        )
      )
  return result
