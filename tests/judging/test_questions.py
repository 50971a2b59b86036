"""Questions and stored responses, and what is wrong with them by line."""

import gzip
import json

import pytest

from lbe.judging import questions

LINE = {'id': 'a', 'category': 'Code', 'question': 'Why?'}


def write(path, *records):
  text = '\n'.join(
    r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)
    for r in records
  )
  path.write_text(text + '\n', encoding='utf-8')
  return path


def test_questions_in_their_own_form(tmp_path):
  """Two fields may be missing or null; ids may be numbers; limit cuts."""
  path = write(
    tmp_path / 'q.jsonl',
    {**LINE, 'reference': 'So.', 'language': 'zh', 'more': 1},
    '',
    {**LINE, 'id': 7, 'reference': None},
  )
  both = [
    questions.Question('a', 'Code', 'Why?', 'So.', 'zh'),
    questions.Question('7', 'Code', 'Why?', '', ''),
  ]
  assert questions.read(path) == both
  assert questions.read(path, limit=1) == both[:1]
  packed = tmp_path / 'q.jsonl.gz'
  packed.write_bytes(gzip.compress(path.read_bytes()))
  assert questions.read(packed) == both


def test_questions_in_belles_form(test_data):
  found = questions.read(test_data / 'sft_belle' / 'eval_set.json')
  assert [q.id for q in found[:2]] == ['1', '2']
  assert found[0].category == 'code'
  assert found[0].reference.startswith('要生成五个不同的随机数')
  assert sum(not q.reference for q in found) == 369
  assert not any('\xa0' in q.category for q in found)


@pytest.mark.parametrize(
  'record, why',
  [
    ('{"id": 1,', 'q.jsonl:2: invalid JSON'),
    ('[1]', 'q.jsonl:2: list; a line is one JSON object'),
    (
      {'id': 'b', 'category': 'c'},
      "q.jsonl:2: the field 'question' is missing",
    ),
    (
      {'id': 'b', 'question': 'c'},
      "q.jsonl:2: the field 'category' is missing",
    ),
    (
      {'category': 'b', 'question': 'c'},
      "q.jsonl:2: the field 'id' is missing",
    ),
    ({**LINE, 'id': 'b', 'question': ' '}, "field 'question' is empty"),
    ({**LINE, 'id': 'b', 'system': 'Be kind.'}, 'a question is one text, and'),
    (
      {**LINE, 'id': 'b', 'history': [['a', 'c']]},
      'a question is one text, an',
    ),
    ({**LINE, 'id': 'b', 'question': 3}, "field 'question' is int, not str"),
    (
      {**LINE, 'id': 'b', 'reference': []},
      "field 'reference' is list, not str",
    ),
    ({**LINE, 'id': True}, "field 'id' is bool"),
    (LINE, "q.jsonl:2: the id 'a' stands in .*q.jsonl:1 already"),
  ],
)
def test_a_bad_question_is_told_by_file_and_line(tmp_path, record, why):
  path = write(tmp_path / 'q.jsonl', LINE, record)
  with pytest.raises(ValueError, match=why):
    questions.read(path)


def test_no_file_and_an_empty_file(tmp_path):
  with pytest.raises(ValueError, match='there is no file'):
    questions.read(tmp_path / 'none.jsonl')
  with pytest.raises(ValueError, match='has no questions'):
    questions.read(write(tmp_path / 'q.jsonl'))
  with pytest.raises(ValueError, match='limit=-1'):
    questions.read(write(tmp_path / 'q.jsonl', LINE), limit=-1)


def test_stored_responses_stand_in_the_order_of_the_questions(tmp_path):
  asked = write(tmp_path / 'q.jsonl', *({**LINE, 'id': i} for i in 'abc'))
  path = write(
    tmp_path / 'r.jsonl',
    {'id': 'c', 'response': 'C'},
    {'id': 'a', 'response': ''},
    {'id': 'b', 'response': 'B'},
  )
  assert questions.read_responses(path, asked) == ['', 'B', 'C']
  assert questions.read_responses(path, asked, limit=2) == ['', 'B']
  write(path, {'id': 'b', 'response': 'B'}, {'id': 'a', 'response': None})
  assert questions.read_responses(path, asked, limit=2) == ['', 'B']


@pytest.mark.parametrize(
  'records, why',
  [
    ([{'id': 'a', 'response': 'A'}], "no response to 1 of 2 .* the id 'b'"),
    (
      [{'id': x, 'response': 'A'} for x in 'abz'],
      "r.jsonl:3: the id 'z' is none of the 2 in .*q.jsonl",
    ),
    (
      [{'id': x, 'response': 'A'} for x in 'aa'],
      "r.jsonl:2: the id 'a' stands",
    ),
    ([{'id': 'a', 'response': ['A']}], "'response' is list, not str"),
    ([{'id': 'a', 'text': 'A'}], "the field 'response' is missing"),
  ],
)
def test_bad_stored_responses(tmp_path, records, why):
  asked = write(tmp_path / 'q.jsonl', *({**LINE, 'id': i} for i in 'ab'))
  with pytest.raises(ValueError, match=why):
    questions.read_responses(write(tmp_path / 'r.jsonl', *records), asked)
