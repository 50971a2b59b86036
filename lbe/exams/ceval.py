"""C-Eval and CMMLU: CSV files by subject, and their protocols.

C-Eval: `official` is the answer-only prompt of hkust-nlp/ceval, `cla` that of
Chinese-LLaMA-Alpaca (without demonstrations it has no header), `lmeval` that
of lm-evaluation-harness, whose header lacks 考试. CMMLU: `lmeval`.
"""

from lbe.exams import four_choices
from lbe.exams import item
from lbe.exams import subjects as subjects_lib

_EXAM = '以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n\n'
_HEADERS = {
  'official': _EXAM,
  'cla': _EXAM,
  'lmeval': _EXAM.replace('考试', ''),
}
_CMMLU_HEADER = '以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n'


def items(
  path, protocol, *, split, num_shots, subjects, limit
) -> list[item.Item]:
  """The Items of C-Eval: a folder with dev/ and val/ or test/."""
  root = item.folder(path, f'dev/ and {split}/')
  names = {
    subject: (group, chinese)
    for group, table in subjects_lib.CEVAL.items()
    for subject, chinese in table.items()
  }
  header = '' if protocol == 'cla' and not num_shots else _HEADERS[protocol]
  return four_choices.items(
    {s: names[s][0] for s in item.chosen(subjects, names, exam='C-Eval')},
    file=lambda split, subject: root / split / f'{subject}_{split}.csv',
    columns=('question', 'answer'),
    header=lambda subject: header.format(names[subject][1]),
    **_how(protocol),
    split=split,
    num_shots=num_shots,
    limit=limit,
  )


def cmmlu_items(
  path, protocol, *, split, num_shots, subjects, limit
) -> list[item.Item]:
  """The Items of CMMLU: a folder with dev/ and test/, files SUBJECT.csv."""
  root = item.folder(path, f'dev/ and {split}/')
  names = subjects_lib.CMMLU
  return four_choices.items(
    dict.fromkeys(item.chosen(subjects, names, exam='CMMLU'), 'all'),
    file=lambda split, subject: root / split / f'{subject}.csv',
    columns=('Question', 'Answer'),
    header=lambda subject: _CMMLU_HEADER.format(names[subject]),
    **_how(protocol),
    split=split,
    num_shots=num_shots,
    limit=limit,
  )


def _how(protocol):
  """The harness strips, and writes its delimiter behind demonstrations."""
  harness = protocol == 'lmeval'
  return dict(
    has_heads=True,
    cue='答案：',
    space=' ' if harness else '',
    strips=harness,
  )
