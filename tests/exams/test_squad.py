"""Files of SQuAD, XQuAD and CMRC: prompts, official scores, what is told."""

import json

import pytest

from lbe.evals import generation
from lbe.exams import squad

import evaluators
import exam_files

CONTEXT = exam_files.CONTEXT
TIM = exam_files.TIM
NOBODY = {'id': 'q2', 'question': 'Who?', 'answers': [], 'is_impossible': True}


def test_a_question_is_asked_as_the_harness_asks_it(tmp_path):
  path = exam_files.write_squad(tmp_path / 'x.json', TIM, NOBODY)
  first, second = squad.prompts(path, language='en')
  assert first.text == (
    f'Context: {CONTEXT}\n\nQuestion: Who has cups?\n\nAnswer:'
  )
  assert [m.role for m in first.talk] == ['user']
  assert (first.id, first.references, second.references) == (
    'q1',
    ('Tim',),
    ('',),
  )
  assert squad.prompts(path, language='en', limit=1) == [first]
  assert squad.prompts(path, language='vi')[0].text.startswith('Bối cảnh: Tim')
  assert squad.prompts(path, language='sw')[0].text == first.text


def test_cmrc_in_its_own_form_and_in_that_of_squad(tmp_path):
  """One answer of several may be no part of the passage, or a number."""
  context, texts = '战国无双3于2009年发售。', ['2009年', '零九年']
  own = tmp_path / 'cmrc.json'
  qa = {'query_id': 'D_0', 'query_text': '何时发售？', 'answers': [*texts, 9]}
  own.write_text(json.dumps([{'context_text': context, 'qas': [qa]}]))
  (found,) = squad.prompts(own, language='zh')
  assert found.text == f'语境: {context}\n\n问题: 何时发售？\n\n回答:'
  assert found.references == ('2009年', '零九年', '9')
  squads = {
    'id': 'D_0',
    'question': '何时发售？',
    'answers': [{'text': x, 'answer_start': -1} for x in [*texts, '9']],
  }
  path = exam_files.write_squad(
    tmp_path / 'squad.json', squads, context=context
  )
  (same,) = squad.prompts(path, language='zh')
  assert same[:3] == found[:3] and same.references == found.references


def test_lines_of_prompts_are_no_file_of_squad(tmp_path):
  for text in (
    '{"prompt": "a"}\n{"prompt": "b"}\n',
    '{"data": [{"prompt": "a"}]}',
    '[{"prompt": "a"}]',
    '',
  ):
    path = tmp_path / 'p.jsonl'
    path.write_text(text)
    assert not squad.is_one(path), text
  assert not squad.is_one(tmp_path / 'none.json')


@pytest.mark.parametrize(
  ('question', 'told'),
  [
    ({'id': 'q', 'question': 'Who?'}, "field 'answers' is missing"),
    ({**TIM, 'question': None}, "'q1': the field 'question' is NoneType"),
    ({'question': 'W?', 'answers': []}, "question 1: the field 'id' is miss"),
    (NOBODY | {'answers': ['Tim']}, "'q2': is_impossible is true, and there"),
    (TIM | {'answers': []}, "'q1': there is no answer, and is_impossible is"),
    (TIM | {'answers': [None]}, "'q1': the answer None is no text"),
    (TIM | {'answers': ['Ben']}, "'q1': the answer 'Ben' is not in its pass"),
    (TIM | {'answers': 'Tim'}, "'q1': there is no list 'answers'"),
  ],
)
def test_a_question_that_cannot_be_scored_is_told(tmp_path, question, told):
  path = exam_files.write_squad(tmp_path / 'x.json', question)
  with pytest.raises(ValueError, match=f'x.json, .*{told}'):
    squad.prompts(path, language='en')


def test_a_file_that_cannot_be_scored_is_told(tmp_path):
  path = exam_files.write_squad(tmp_path / 'x.json', TIM, TIM)
  with pytest.raises(ValueError, match="the id 'q1' stands in .*x.json, quest"):
    squad.prompts(path, language='en')
  with pytest.raises(ValueError, match="say in which language, as language='z"):
    evaluators.make(generation, path=path)
  path = exam_files.write_squad(tmp_path / 'x.json', TIM, context='')
  with pytest.raises(ValueError, match="paragraph 1: the field 'context' is e"):
    squad.prompts(path, language='en')
  with pytest.raises(ValueError, match='x.json has no questions'):
    squad.prompts(exam_files.write_squad(path), language='en')
  path.write_text('{"data": [{"paragraphs": ["x"]}]}')
  with pytest.raises(ValueError, match="paragraph 1: there is no list 'qas'"):
    squad.prompts(path, language='en')


def test_official_scores_of_stored_answers(tmp_path):
  """No model is asked; nothing written to a question without an answer wins."""
  path = exam_files.write_squad(tmp_path / 'x.json', TIM, NOBODY)
  written = tmp_path / 'r.jsonl'
  written.write_text(
    '{"id": "q1", "response": "the Tim!"}\n{"id": "q2", "response": ""}\n'
  )
  made = evaluators.make(
    generation, path=path, language='en', responses=written
  )
  assert made._f1_scripts == {'en': 'squad2'}
  records = [
    generation.answers.score(text, p.references, 'squad2', 'en')
    for p, text in zip(made.prompts, made._written, strict=True)
  ]
  assert records == [(1.0, 1.0), (1.0, 1.0)]
