"""A user's own exam, as people's files are: no choice is lost, none guessed."""

import json

import pytest

from lbe.exams import ceval
from lbe.exams import choices
from lbe.exams import own

import exam_files

AB = '{"question": "q", "choices": ["a", "b"], "answer": %s}'


def read(path, text, *, encoding='utf-8'):
  path.write_bytes(text.encode(encoding))
  return own.read(path)


def one(tmp_path, **fields):
  (found,) = read(
    tmp_path / 'a.jsonl', json.dumps({'question': 'Q?', **fields})
  )
  return found


@pytest.mark.parametrize(
  ('fields', 'kept', 'gold'),
  [
    (dict(A=0, B=1, C=2, D=3, answer='A'), '0 1 2 3', 0),
    (dict(A=0, B=0.0, C=False, D='', answer='D'), '0 0.0 False ', 3),
    (dict(A='x', B=None, C='y', answer='c'), 'x  y', 2),
    (dict(A='x', B='y', C='z', D='w', E=None, answer='D'), 'x y z w', 3),
    (dict(choices=['', None, 'x'], answer=2), '  x', 2),
    (dict(options={'B': 'y', 'A': 'x'}, answer='B'), 'x y', 1),
    (
      dict(
        choices=[{'label': 'A', 'text': 'x'}, {'label': 'B', 'text': 0}],
        answer='B',
      ),
      'x 0',
      1,
    ),
    (
      dict(choices={'text': ['x', 'y'], 'label': ['1', '2']}, answerKey='2'),
      'x y',
      1,
    ),
    (dict(A='x', B='y', n=3, answer='B'), 'x y', 1),
    (dict(a='x', b='y', answer='B'), 'x y', 1),
    (dict(option_a='x', option_b='y', answer='B'), 'x y', 1),
  ],
)
def test_every_choice_counts(tmp_path, fields, kept, gold):
  """Catches a choice that is 0 or empty and left out: the letters move."""
  found = one(tmp_path, **fields)
  assert found.choices == tuple(kept.split(' ')) and found.gold == (gold,)


@pytest.mark.parametrize(
  'answer', ['B', 'b', ' B ', 'B.', '(B)', '（Ｂ）', 'Ｂ', 1, 1.0, '1', 'dog',
             'Dog', 'B. dog', ['B']],
)  # fmt: skip
def test_an_answer_is_a_letter_an_index_or_a_text(tmp_path, answer):
  assert one(tmp_path, choices=['cat', 'dog'], answer=answer).gold == (1,)


def test_several_answers_are_right_each(tmp_path):
  found = one(tmp_path, choices=['cat', 'dog', 'sun'], answer=['A', 'sun'])
  assert found.gold == (0, 2)


def test_an_answer_that_says_two_things_is_read_as_the_others(tmp_path):
  """'2' of the choices 1, 2, 3, 4: an index, or a text."""
  path = tmp_path / 'a.csv'
  head, ambiguous = 'question,A,B,C,D,answer\n', '1+1?,1,2,3,4,2\n'
  with pytest.raises(ValueError, match="line 2: the answer '2' can be the ind"):
    read(path, head + ambiguous)
  assert read(path, head + ambiguous + 'Q?,x,y,z,w,0\n')[0].gold == (2,)
  assert read(path, head + ambiguous + 'Q?,x,y,z,w,y\n')[0].gold == (1,)
  assert read(path, head + ambiguous.replace(',2\n', ',B\n'))[0].gold == (1,)
  with pytest.raises(ValueError, match="the letter, 'B' or the text, 'A'; giv"):
    one(tmp_path, choices=['B', 'A'], answer='A')


def test_tables_as_spreadsheets_save_them(tmp_path):
  """A mark, semicolons, quotes, CRLF, blank cells, empty lines at the end."""
  expected = [('a, "b"; c?', ('', 'dog', '0'), (1,))]
  cells = '"a, ""b""; c?"', '', 'dog', '0', 'b'
  rows = ('question', 'A', 'B', 'C', 'answer'), cells, [''] * 5
  for separator in ',;\t':
    for end in ('\r\n', '\n', '\r'):
      text = end.join(map(separator.join, rows))
      for first in ('', f'sep={separator}\r\n'):
        found = read(tmp_path / 'a.csv', first + text, encoding='utf-8-sig')
        assert [(q.question, q.choices, q.gold) for q in found] == expected
  wide = 'Question,A,B,C,D,E,Answer\nq,x,y,z,,,C\nq,x,y,z,,w,A\nq,x,y,z,,,A\n'
  found = [q.choices for q in read(tmp_path / 'a.csv', wide)]
  assert found == [tuple('xyz'), ('x', 'y', 'z', '', 'w'), tuple('xyz')]
  listed = 'question,choices,answer\nq,"[""x"", ""y""]",B\n'
  assert read(tmp_path / 'a.csv', listed)[0].choices == ('x', 'y')


@pytest.mark.parametrize(
  ('text', 'why'),
  [
    (AB % 'null', 'a:1: .* null'),
    (AB % 'NaN', 'a:1: .* NaN'),
    (AB % '""', 'answer is ""'),
    (AB % '{}', 'answer is {}'),
    (AB % '[]', r'answer \[\] n'),
    (AB % '"C"', "'C' is none"),
    (AB % '"AB"', "'AB' is none"),
    (AB % '2', 'from 0 to 1'),
    (AB % 'true', 'True is none'),
    ('{"question": "q", "choices": ["a", "a"], "answer": "a b"}', 'is none of'),
    ('{"question": "q", "choices": [["a"], "b"], "answer": 0}', 'is list, not'),
    ('{"question": "q", "choices": "a|b", "answer": 0}', "='a|b' is str"),
    ('{"question": "q", "A": "a", "C": "b", "answer": "A"}', 'B is missing'),
    ('{"question": "", "choices": ["a", "b"], "answer": 0}', "'question' is e"),
    ('{"question": 5, "choices": ["a", "b"], "answer": 0}', 'is int, not str'),
    ('{"question": "q", "choices": ["a", "b"]}', "a:1: there is no 'answer'"),
    ('[{"question": "q"}, 1]', 'a:1: list; .* record 2 of it is int'),
    (
      '{"question": "q", "passage": "p", "choices": [1, 2], "answer": "A"}',
      "a:1: the question would be asked without its 'passage'",
    ),
    ('{"question": "q"', 'a:1: invalid JSON'),
    ('question,A,B,answer\n"q,x,y,A\n', 'a, line 2: invalid CSV'),
    ('question,A,B,answer\nq,x,y\n', 'a, line 2: 3 values for the 4 columns'),
    ('question,A,A,answer\nq,x,y,A\n', "line 1: the column 'A' is there twice"),
    ('frage,A,B,answer\nq,x,y,A\n', "line 2: there is no 'question'"),
    ('question,A,B,answer\n', 'has no questions'),
    ('', 'has no questions'),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_place(tmp_path, text, why):
  with pytest.raises(ValueError, match=why):
    read(tmp_path / 'a', text)


def test_other_encodings_and_workbooks_are_named(tmp_path):
  """Catches a codec's error that names no file."""
  text = 'question,A,B,answer\n问,一,二,A\n'
  for encoding, why in (
    ('gbk', 'a, line 2: invalid UTF-8 .*iconv -f GB18030'),
    ('utf-16', 'a begins with the mark of UTF-16'),
  ):
    with pytest.raises(ValueError, match=why):
      read(tmp_path / 'a', text, encoding=encoding)
  (tmp_path / 'a').write_bytes(b'PK\x03\x04')
  with pytest.raises(ValueError, match='a is a workbook'):
    own.read(tmp_path / 'a')
  law = exam_files.write_ceval(tmp_path / 'zh') / 'val' / 'law_val.csv'
  law.write_bytes('id,question,A,B,C,D,answer\n0,问,1,2,3,4,A\n'.encode('gbk'))
  with pytest.raises(ValueError, match='law_val.csv, line 2: invalid UTF-8'):
    ceval.items(
      tmp_path / 'zh',
      'official',
      split='val',
      num_shots=0,
      subjects=('law',),
      limit=0,
    )


def test_an_id_stands_once_in_its_subject(tmp_path):
  asked = {'question': 'q', 'choices': ['a', 'b'], 'answer': 0, 'id': 1}
  text = '\n'.join(json.dumps({**asked, 'subject': s}) for s in 'xyx')
  with pytest.raises(ValueError, match="a:3: the id 'x/1' stands in .*1 alr"):
    read(tmp_path / 'a', text)
  assert len(read(tmp_path / 'a', text.rpartition('\n')[0])) == 2


def test_twenty_six_letters(tmp_path):
  (tmp_path / 'a').write_text(
    json.dumps({'question': 'q', 'choices': list(range(26)), 'answer': 'Z'})
  )
  (item,) = choices.items(
    tmp_path / 'a', 'letters', split='', num_shots=0, subjects=(), limit=0
  )
  assert item.context.endswith('\nZ. 25\nAnswer:')
  assert item.choices[item.gold[0]] == ' Z'


def test_a_continuation_stands_behind_its_question_alone(tmp_path):
  (tmp_path / 'a').write_text(
    '{"question": "He liked the", "choices": ["cat", "dog"], "answer": 1}\n'
    '{"question": "他喜欢", "choices": ["猫", "dog"], "answer": 0}\n',
    encoding='utf-8',
  )
  settings = dict(split='', subjects=(), limit=0)
  first, second = choices.items(
    tmp_path / 'a', 'continuation', num_shots=0, **settings
  )
  assert (first.context, first.choices) == ('He liked the', (' cat', ' dog'))
  assert first.answers == ('cat', 'dog')
  assert (second.context, second.choices) == ('他喜欢', ('猫', 'dog'))
  (shot,) = choices.items(
    tmp_path / 'a', 'continuation', num_shots=1, **settings
  )
  assert shot.context == 'He liked the dog\n\n他喜欢'
