"""Mathematics in a text: read and compared as the harness's copy does."""

import pytest
from lm_eval.tasks.agieval import utils

from lbe.exams import agieval
from lbe.exams import item
from lbe.exams import mathematics


@pytest.mark.parametrize(
  ('text', 'answer'),
  [
    ('We get 12 and then 15 apples', '15'),
    ('so $x = 3$ or $y=4$', '4'),
    ('x = 7.', '7'),
    ('it costs $5', '$5'),
    (r'thus \boxed{x = \frac{1}{2}} holds, $3$', r'\frac{1}{2}'),
    (r'\boxed{3', None),  # never closed
    (r'\boxed 3', None),
    (r'\fbox{3}', '3'),
    ('$x = $ but 5', '$ but 5'),  # nothing in them: behind the last =
    ('$$ 8', '8'),
    ('3x and 4y', None),
    ('nothing', None),
    ('', None),
  ],
)
def test_the_last_answer_of_a_text(text, answer):
  assert utils.parse_math_answer(text) == answer
  assert mathematics.final_answer(text) == answer


def test_behind_the_cue_of_a_solved_problem():
  """Few-shot answers are taken whole; without a cue the whole text."""
  for text, rest in (
    ('The answer is therefore $3$\n', '$3$'),
    ('So. The answer is therefore 1. The answer is therefore 2', '2'),
    ('The answer is therefore 1. The answer is therefore 2',
     '1. The answer is therefore 2'),
    ('所以答案是 5', '5'),
    ('no cue ', 'no cue '),
  ):  # fmt: skip
    assert mathematics.behind_cue(text) == rest
    assert agieval.extract(text, 'math', few_shot=True) == rest


def test_the_harness_reads_the_gold_answer_as_a_text_too():
  """Where it finds nothing in either, that is a point."""
  question = item.Question('math/0', 'math', 'en', prompt='', gold='')
  for gold, text, points in (
    ('x = 3', 'so y = 3', 1.0),
    ('3 cm', 'it is 3', 1.0),
    (r'(\text{A})', 'no number', 1.0),
    ('3', 'no number', 0.0),
    ('3', '4', 0.0),
  ):
    theirs = utils.process_results({'answer': gold}, [text])['acc']
    asked = question._replace(gold=gold)
    assert agieval.harness_grade(asked, text)[1] == theirs == points


def test_all_published_answers_are_read_as_the_harness_reads_them(test_data):
  questions = agieval.questions(
    test_data / 'bench_agieval', subjects=tuple(agieval.CLOZE), limit=0
  )
  assert len(questions) == 1118
  for q in questions:
    gold = q.gold
    for text in (gold, f'${gold}$', rf'\boxed{{{gold}}}', f'it is = {gold}.'):
      expected = utils.parse_math_answer(text)
      assert mathematics.final_answer(text) == expected, text
    solved = q._replace(kind='few_shot')
    assert agieval.grade(solved, f'The answer is therefore {gold}')[1] == 1.0


@pytest.mark.parametrize(
  'text',
  [
    '0.5', '.5', '{.5}', '3/4', '-1/2', '03/4', '1/2/3', r'\frac12',
    r'\frac1{72}', r'\frac1', r'\frac', r'\frac\frac12', r'\sqrt3', r'\sqrt 3',
    r'\sqrt', r'2\sqrt\sqrt3', 'x = 2', 'xyz = 2', r'5\%', r'5\\\%%',
    r'\dfrac{1}{2}', r'10\text{ cm}', r'1\text{ m}\text{ cm}', r'90^\circ',
    r'90^{\circ}', r'\left(1\right)', r'1,\!000', r'\$5', 'a\nb', '',
  ],
)  # fmt: skip
def test_normal_forms_are_those_of_hendrycks(text):
  """Where theirs fails, ours has no form either: the texts are compared."""
  try:
    expected = utils._strip_string(text)
  except (AssertionError, IndexError):
    with pytest.raises((ValueError, IndexError)):
      mathematics.normal_form(text)
  else:
    assert mathematics.normal_form(text) == expected


def test_what_is_the_same_mathematics():
  assert mathematics.equivalent('0.5', r'\frac{1}{2}')
  assert mathematics.equivalent(r'\sqrt', r'\sqrt')
  assert not mathematics.equivalent(r'\sqrt', r'\sqrt ')
  assert not mathematics.equivalent('0.5', '.50')
  assert not mathematics.equivalent('0.5', None)
  assert mathematics.equivalent(None, None)
