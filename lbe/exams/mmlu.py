"""MMLU: hendrycks/test's CSV files and its two common protocols.

`hendrycks` is evaluate.py of that repository: a header with two spaces before
the subject, demonstrations dropped while the prompt is too long, the average
over questions. `lmeval` is lm-evaluation-harness: one space, questions
stripped, prompts cut from the left. Texts are taken as they stand in the file;
evaluate.py reads them with pandas, which writes 0.50 as 0.5 in a column that
holds only numbers.
"""

from lbe.exams import four_choices
from lbe.exams import item
from lbe.exams import subjects as subjects_lib


def _header(subject, protocol):
  words = subject.split('_')
  # evaluate.py's format_subject puts a space before every word.
  name = ' ' + ' '.join(words) if protocol == 'hendrycks' else ' '.join(words)
  return (
    'The following are multiple choice questions (with answers) about '
    f'{name}.\n\n'
  )


def items(
  path, protocol, *, split, num_shots, subjects, limit
) -> list[item.Item]:
  """The Items of a folder with dev/, val/ and test/."""
  root = item.folder(path, 'dev/, val/ and test/ of MMLU')
  harness = protocol == 'lmeval'
  groups = subjects_lib.MMLU_LMEVAL if harness else subjects_lib.MMLU
  group_of = {s: group for group, names in groups.items() for s in names}
  chosen = item.chosen(subjects, sorted(group_of), exam='MMLU')
  return four_choices.items(
    {subject: group_of[subject] for subject in chosen},
    file=lambda split, subject: root / split / f'{subject}_{split}.csv',
    columns=('question', 'answer'),
    has_heads=False,
    header=lambda subject: _header(subject, protocol),
    cue='Answer:',
    space=' ',
    strips=harness,
    split=split,
    num_shots=num_shots,
    limit=limit,
  )
