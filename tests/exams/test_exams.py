"""The exact text of each protocol, from files written here, and bad files."""

import json

import pytest

from lbe.exams import ceval
from lbe.exams import choices
from lbe.exams import mmlu
from lbe.exams import subjects

import exam_files

SUBJECTS = ('law', 'anatomy')


def test_mmlu_prompts_of_hendrycks(tmp_path):
  """Two spaces before the subject; the question as it stands."""
  exam_files.write_mmlu(tmp_path)
  items = mmlu.items(
    tmp_path,
    'hendrycks',
    split='test',
    num_shots=1,
    subjects=('college_physics',),
    limit=0,
  )
  header = (
    'The following are multiple choice questions (with answers) about  '
    'college physics.\n\n'
  )
  shot = 'Shot 0?\nA. a0\nB. b0\nC. c0\nD. d0\nAnswer: A\n\n'
  assert [i.context for i in items] == [
    f'{header}{shot} How far is it? \nA. 1 m\nB. 2 m\nC. 0.50\nD. 4 m\nAnswer:',
    f'{header}{shot}Two lines,\nand a comma?\nA. w\nB. x\nC. y\nD. z\nAnswer:',
    f'{header}{shot}Which?\nA. a "quoted" one\nB. b\nC. c\nD. d\nAnswer:',
  ]
  assert [i.gold for i in items] == [(2,), (0,), (3,)]
  assert {i.group for i in items} == {'STEM'}
  assert items[0].choices == (' A', ' B', ' C', ' D')


def test_xcopa_prompts(tmp_path):
  (tmp_path / 'id').mkdir()
  record = {
    'premise': 'Ia jatuh.',
    'choice1': 'Lantai licin.',
    'choice2': 'Ia duduk.',
    'question': 'cause',
    'label': 0,
  }
  (tmp_path / 'id' / 'test.id.jsonl').write_text(json.dumps(record))
  (item,) = choices.xcopa_items(
    tmp_path, '', split='test', num_shots=0, subjects=(), limit=0
  )
  assert item.context == 'Ia jatuh karena'
  assert item.choices == (' lantai licin.', ' ia duduk.')
  assert item.gold == (0,)


def test_own_questions_by_letters_and_by_texts(tmp_path):
  path = tmp_path / 'own.jsonl'
  path.write_text(
    '{"question": "1+1?", "choices": ["2", "three"], "answer": "A"}\n'
    '{"question": "2+2?", "A": "3", "B": "4", "C": "5", "answer": 1}\n'
  )
  letters = choices.items(
    path, 'letters', split='', num_shots=1, subjects=(), limit=0
  )
  assert [i.context for i in letters] == [
    '1+1?\nA. 2\nB. three\nAnswer: A\n\n2+2?\nA. 3\nB. 4\nC. 5\nAnswer:'
  ]
  assert letters[0].choices == (' A', ' B', ' C')
  texts = choices.items(
    path, 'texts', split='', num_shots=0, subjects=(), limit=0
  )
  assert [i.context for i in texts] == ['1+1?\nAnswer:', '2+2?\nAnswer:']
  assert [i.choices for i in texts] == [(' 2', ' three'), (' 3', ' 4', ' 5')]
  assert [i.gold for i in texts] == [(0,), (1,)]


def test_the_real_files_are_whole(test_data):
  """Counts of the published splits, and every subject has a group."""
  val = ceval.items(
    test_data / 'bench_ceval',
    'official',
    split='val',
    num_shots=5,
    subjects=(),
    limit=0,
  )
  assert len(val) == 1346 and len({i.subject for i in val}) == 52
  assert {g: len(t) for g, t in subjects.CEVAL.items()} == {
    'STEM': 20,
    'Social Science': 10,
    'Humanities': 11,
    'Other': 11,
  }
  test = mmlu.items(
    test_data / 'bench_mmlu_2020',
    'hendrycks',
    split='test',
    num_shots=5,
    subjects=(),
    limit=0,
  )
  assert len(test) == 14_079 and len({i.subject for i in test}) == 57
  assert [len(x) for x in subjects.MMLU.values()] == [18, 13, 12, 14]
  assert [len(x) for x in subjects.MMLU_LMEVAL.values()] == [19, 13, 12, 13]
  assert len(subjects.CMMLU) == 67


def test_bad_files_are_named(tmp_path):
  settings = dict(split='test', num_shots=5, limit=0)
  with pytest.raises(ValueError, match="path='nowhere' is no folder; give the"):
    mmlu.items('nowhere', 'lmeval', **settings, subjects=())
  exam_files.write_mmlu(tmp_path)
  with pytest.raises(ValueError, match="MMLU has no subject 'magic'; it has a"):
    mmlu.items(tmp_path, 'lmeval', subjects=('magic',), **settings)
  with pytest.raises(ValueError, match='anatomy_dev.csv; is the subject or s'):
    mmlu.items(tmp_path, 'lmeval', subjects=('anatomy',), **settings)
  one = dict(subjects=('college_physics',), **settings)
  exam_files.write_mmlu(tmp_path, answers='ABCDE')
  with pytest.raises(ValueError, match="the answer 'E' is none of A, B, C, D"):
    mmlu.items(tmp_path, 'lmeval', **one)
  exam_files.write_mmlu(tmp_path, answers='ABC')
  with pytest.raises(ValueError, match='has 3 demonstrations, and num_shots=5'):
    mmlu.items(tmp_path, 'lmeval', **one)
  file = tmp_path / 'test' / 'college_physics_test.csv'
  file.write_text('Which?,a,b,c,D\n')
  write = exam_files.write_ceval(tmp_path / 'zh')
  with pytest.raises(ValueError, match='line 1: 5 values for the 6 columns'):
    mmlu.items(tmp_path, 'lmeval', **{**one, 'num_shots': 0})
  law = write / 'val' / 'law_val.csv'
  law.write_text('id,question,A,B,C,answer\n0,问,1,2,3,A\n')
  with pytest.raises(ValueError, match="law_val.csv has no column 'D'; it has"):
    ceval.items(
      write, 'official', split='val', num_shots=0, subjects=('law',), limit=0
    )
  own = tmp_path / 'own.jsonl'
  for text, words in (
    ('{"question": "a"}', "own.jsonl:1: there is no 'answer'"),
    ('{"question": "a", "answer": 2, "choices": ["x", "y"]}', '2 choices'),
    ('{"question": "a", "answer": "A", "choices": ["x"]}', 'at least two'),
    ('{"question": ', 'own.jsonl:1: invalid JSON'),
    ('[1]', 'own.jsonl:1: list; a line is one JSON object'),
  ):
    own.write_text(text)
    with pytest.raises(ValueError, match=words):
      choices.items(own, 'texts', split='', num_shots=0, subjects=(), limit=0)
