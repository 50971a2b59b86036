"""MMLU: hendrycks/test's CSV files and its two common protocols.

`hendrycks` is evaluate.py of that repository: a header with two spaces before
the subject, demonstrations dropped while the prompt is too long, the average
over questions. `lmeval` is lm-evaluation-harness: one space, questions
stripped, prompts cut from the left. Texts are taken as they stand in the file;
evaluate.py reads them with pandas, which writes 0.50 as 0.5 in a column that
holds only numbers.
"""

from lbe.exams import item
from lbe.exams import subjects as subjects_lib

COLUMNS = ('question', *item.LETTERS, 'answer')


def _header(subject, protocol):
  words = subject.split('_')
  # evaluate.py's format_subject puts a space before every word.
  name = ' ' + ' '.join(words) if protocol == 'hendrycks' else ' '.join(words)
  return (
    'The following are multiple choice questions (with answers) about '
    f'{name}.\n\n'
  )


def _question(row, protocol):
  question = row['question']
  if protocol == 'lmeval':
    question = question.strip()
  lines = [f'{x}. {row[x]}' for x in item.LETTERS]
  return '\n'.join([question, *lines, 'Answer:'])


def items(path, protocol, *, split, num_shots, subjects=(), limit=0):
  """The Items of a folder with dev/, val/ and test/."""
  root = item.folder(path, 'dev/, val/ and test/ of MMLU')
  groups = (
    subjects_lib.MMLU_LMEVAL if protocol == 'lmeval' else subjects_lib.MMLU
  )
  group_of = {s: group for group, names in groups.items() for s in names}
  result = []
  for subject in item.chosen(subjects, sorted(group_of), exam='MMLU'):

    def rows(split, subject=subject):
      file = root / split / f'{subject}_{split}.csv'
      return file, item.read_csv(file, COLUMNS, header=False)

    def solved(row, file):
      right = item.LETTERS[item.letter(row['answer'], 4, file)]
      return f'{_question(row, protocol)} {right}\n\n'

    shots = ()
    if num_shots:
      file, demonstrations = rows('dev')
      if len(demonstrations) < num_shots:
        raise ValueError(
          f'{file} has {len(demonstrations)} demonstrations, and num_shots='
          f'{num_shots} asks for more.'
        )
      shots = tuple(solved(row, file) for row in demonstrations[:num_shots])
    file, questions = rows(split)
    for i, row in enumerate(questions[: limit or None]):
      gold = item.letter(row['answer'], 4, f'{file}, question {i + 1}')
      result.append(
        item.Item(
          id=f'{subject}/{i}',
          subject=subject,
          group=group_of[subject],
          header=_header(subject, protocol),
          shots=shots,
          question=_question(row, protocol),
          choices=tuple(f' {x}' for x in item.LETTERS),
          answers=item.LETTERS,
          gold=(gold,),
        )
      )
  return result
