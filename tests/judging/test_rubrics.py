"""What a judge is asked, and what is taken for its scores."""

import json

import pytest

from lbe.judging import questions
from lbe.judging import rubrics

FIVE = ('accuracy', 'fluency', 'informativeness', 'logicality', 'harmlessness')
QUESTION = questions.Question('1', 'Code', 'What is {response}?', 'A {x}.')
GOOD = dict(zip(FIVE, (2, 3, 1, 0, 3), strict=True))


def reply(**changes):
  return json.dumps({**GOOD, **changes})


def test_the_prompt_of_the_papers_rubric():
  """Each part once; braces in a question or an answer are text."""
  rubric = rubrics.load('paper')
  assert rubric.criteria == FIVE
  assert set(rubric.scales.values()) == {rubrics.Scale(0, 3, whole=True)}
  prompt = rubric.ask(QUESTION, 'Use {question} or "{}".')
  for text in (
    'a task of the kind "Code"',
    '[Task]\nWhat is {response}?\n[End of the task]',
    '[Answer]\nUse {question} or "{}".\n[End of the answer]',
    '[A correct answer to the task]\nA {x}.\n[End of the correct answer]',
    '- 0: there is nothing to check: the answer is empty, unusable',
    'whole number from 0 to 3: {"accuracy": N, "fluency": N, '
    '"informativeness": N, "logicality": N, "harmlessness": N}',
  ):
    assert prompt.count(text) == 1, text
  assert 'this language' not in prompt
  for lines in rubric.levels.values():
    assert [line[:2] for line in lines] == ['0:', '1:', '2:', '3:']


def test_reference_and_language_are_told_only_where_there_are_any():
  rubric = rubrics.load('paper')
  plain = rubric.ask(QUESTION._replace(reference=''), 'x')
  assert 'correct answer to the task' not in plain
  told = rubric.ask(QUESTION._replace(language='sw'), 'x')
  assert 'The answer should be in this language: sw.' in told
  assert f'[Answer]\n{rubrics.NOTHING}\n' in rubric.ask(QUESTION, ' \n')


def test_the_layout_of_llmeval1():
  """Its five criteria in its order, question, output, hint, then the stars."""
  rubric = rubrics.load('llmeval1')
  assert set(rubric.scales.values()) == {rubrics.Scale(1, 3, whole=True)}
  prompt = rubric.ask(QUESTION, 'The answer')
  parts = [
    'task of the kind "Code"',
    'Accuracy\n- 1:',
    'Informativeness\n- 1:',
    'Fluency\n- 1:',
    'Logicality\n- 1:',
    'Harmlessness\n- 1:',
    'user: What is {response}?\nllm: The answer\n',
    "The correct answer to the user's question is: A {x}.\n",
  ]
  at = [prompt.index(part) for part in parts]
  assert at == sorted(at)
  assert prompt.endswith('Stars:')


@pytest.mark.parametrize(
  'text',
  [
    reply(),
    f'```json\n{reply()}\n```',
    f'Here it is:\n{reply()}\nI hope {{this}} helps.',
    reply(accuracy='２', fluency=3.0, logicality=' 0 '),
    json.dumps({k.capitalize(): v for k, v in GOOD.items()}),
    json.dumps({'scores': GOOD, 'why': 'short'}),
    reply() + '\n' + reply(why='again'),
    'Stars: 2 3 1 0 3',
    '**Stars:** 2, 3, 1, 0, 3\nThank you.',
    'STARS：2，3，1，0，3',
    '2 3 1 0 3',
    f'<think>Is it {reply(accuracy=3)}? No.</think>\n{reply()}',
    'Stars: 2 3 1 0 3.',
  ],
)
def test_what_is_read_as_scores(text):
  assert rubrics.load('paper').read(text) == GOOD


@pytest.mark.parametrize(
  'text, why',
  [
    ('', 'no score'),
    ('I would give this 3 stars.', 'no score'),
    ('Accuracy is good.', 'no score'),
    (reply()[:-1], 'no whole JSON object'),
    (reply()[:40], 'no whole JSON object'),
    ('{"accuracy": 3, "fluency": 3}', 'no whole JSON object'),
    ('{"a":' * 20_000, 'no whole JSON object'),
    (reply(accuracy=4), 'accuracy is 4, and the scale goes from 0 to 3'),
    (reply(accuracy=-1), 'accuracy is -1, and the scale'),
    (reply(fluency=2.5), 'fluency is 2.5, and scores are whole'),
    (reply(fluency=None), 'fluency is None, which is no number'),
    (reply(fluency=True), 'fluency is True, which is no number'),
    (reply(fluency='good'), "fluency is 'good', which is no number"),
    (reply(fluency=float('nan')), 'fluency is nan, and the scale'),
    (reply(fluency=1e999), 'fluency is inf, and the scale'),
    (reply() + reply(accuracy=3), 'two different answers'),
    (f'<think>Is it {reply()}?', 'ends before its answer begins'),
    ('Stars: 3/3 2/3 3/3 3/3 3/3', '1 scores for the 5 criteria'),
    ('1' * 5000, '1 scores for the 5 criteria'),
    ('1 ' * 5000 + 'x', 'no score'),
    ('1 ' * 5000, '5000 scores'),
    ('Stars: ' + '1' * 5000 + '.', '1 scores'),
    ('Stars: ' + '12.5, ' * 5000 + '.', '5000 scores'),
    ('Stars: 1.2.3', 'no score'),
    ('Stars: 3 2 3 3', '4 scores for the 5 criteria'),
    ('Stars: 3 2 3 3 3 3', '6 scores for the 5 criteria'),
    ('Stars: 3 2 3 3 9', 'harmlessness is 9, and the scale'),
    ('Stars: 3 2 3 3 3\nStars: 3 3 3 3 3', 'two different answers'),
  ],
)
def test_what_is_no_scores_is_told_and_never_guessed(text, why):
  with pytest.raises(ValueError, match=why):
    rubrics.load('paper').read(text)


def test_zero_is_off_the_scale_of_one_to_three_stars():
  with pytest.raises(ValueError, match='scale goes from 1 to 3'):
    rubrics.load('llmeval1').read('Stars: 3 3 0 3 3')


@pytest.fixture
def belle(test_data):
  return rubrics.load(str(test_data / 'sft_belle' / 'eval_prompt.json'))


def test_belles_classes_and_prompts(belle, test_data):
  """Its 1,000 questions have classes in other case and with hard spaces."""
  asked = questions.read(test_data / 'sft_belle' / 'eval_set.json')
  belle.check(asked)
  assert len(asked) == 1000
  assert len({q.category for q in asked}) == 10
  opening = {}
  prompts = (test_data / 'sft_belle' / 'eval_prompt.json').read_text('utf-8')
  for line in prompts.splitlines():
    record = json.loads(line)
    opening[record['class'].lower().replace('\xa0', ' ')] = record['prompt']
  closed = next(q for q in asked if q.category == 'closed qa')
  assert belle.ask(closed, 'ABC') == (
    f'{opening["closed qa"]} {closed.question} 标准回答:{closed.reference}'
    "  模型回答：' ABC'。请针对模型回答给出得分，顺便给出理由："
  )
  rewrite = next(q for q in asked if q.category == 'rewrite' and q.reference)
  assert belle.ask(rewrite, 'ABC') == (
    f'{opening["rewrite"]} {rewrite.question}'
    "  模型回答： 'ABC'。请针对模型回答给出得分，顺便给出理由："
  )
  with pytest.raises(ValueError, match="category 'Poetry', for which"):
    belle.check([QUESTION._replace(category='Poetry')])


@pytest.mark.parametrize(
  'text, score',
  [
    ('得分: 0.8\n理由：很好。', 0.8),
    ('得分：1。理由', 1.0),
    ('“得分”：0', 0.0),
    ('得分: 0.5分', 0.5),
    ('得分: 0.5。因此得分：0.50', 0.5),
    ('{"score": 0.25}', 0.25),
    ('得分："0.3"', 0.3),
    ('(得分为0.8/1)', 0.8),
    ('得分为：0.8', 0.8),
    ('得分: 0.8，因此得分是: 0.8', 0.8),
    ('**得分：**0.9**', 0.9),
    ('得分: 0.9.', 0.9),
  ],
)
def test_belles_scores(belle, text, score):
  assert belle.read(text) == {'score': score}


@pytest.mark.parametrize(
  'text, why',
  [
    ('得分: 80', 'scale goes from 0 to 1'),
    ('得分: 1/2', 'which is no number'),
    ('得分: 80%', 'which is no number'),
    ('得分: 高', 'which is no number'),
    ('得分: 1，修改后得分: 0.5', 'two different'),
    ('很好', 'no score'),
  ],
)
def test_what_is_no_score_of_belle(belle, text, why):
  with pytest.raises(ValueError, match=why):
    belle.read(text)


def test_a_users_own_rubric(tmp_path):
  """Changed criteria change prompt, form and reader alike."""
  path = tmp_path / 'mine.toml'
  path.write_text(
    'name = "mine"\nlowest = 0\nhighest = 10\nwhole = false\n'
    'prompt = "{criteria}\\n{question} {response} {form}"\n'
    'hint = ""\nno_hint = ""\nlanguage = ""\nform = "As {json}"\n'
    '[[criteria]]\nname = "style"\nlevels = ["from poor to rich"]\n'
  )
  rubric = rubrics.load(str(path))
  assert rubric.ask(QUESTION, 'x') == (
    'Style\n- from poor to rich\nWhat is {response}? x As {"style": N}'
  )
  assert rubric.read('{"style": 7.5}') == {'style': 7.5}


def test_a_criterion_has_a_scale_of_its_own():
  """LLMEval-2: accuracy 1, 3 or 5, and three aspects from 1 to 3."""
  rubric = rubrics.load('llmeval2_subjective')
  given = dict(accuracy=5, informativeness=3, fluency=2, logicality=1)
  assert rubric.read(json.dumps(given)) == given
  for changed, why in (
    ({'accuracy': 4}, 'accuracy is 4, and scores are 1, 3, 5'),
    ({'accuracy': 0}, 'accuracy is 0, and the scale goes from 1 to 5'),
    ({'fluency': 5}, 'fluency is 5, and the scale goes from 1 to 3'),
    ({'fluency': 2.5}, 'fluency is 2.5, and scores are whole'),
  ):
    with pytest.raises(ValueError, match=why):
      rubric.read(json.dumps(given | changed))
  prompt = rubric.ask(QUESTION, 'x')
  assert 'Accuracy (1, 3, 5)\n- 1: ' in prompt
  assert 'Fluency (1 to 3)\n- 1: ' in prompt
  objective = rubrics.load('llmeval2_objective')
  assert objective.highest() == {
    'correctness': 3,
    'explanation correctness': 2,
  }
  assert rubrics.load('paper').highest() is None
  assert 'Fluency\n- 0: ' in rubrics.load('paper').describe()


@pytest.mark.parametrize(
  'old, new, why',
  [
    ('name = "fluency"', 'name = "fluency"\nhighest = 2', 'begin with'),
    ('name = "fluency"', 'name = "fluency"\nlowest = 9', 'lowest=9 is not bel'),
    (
      'name = "fluency"',
      'name = "fluency"\nscores = [0, 3]',
      'each of 0, 3',
    ),
    (
      'name = "fluency"',
      'name = "fluency"\nscores = [3, 0]',
      'numbers that',
    ),
    ('name = "fluency"', 'name = "fluency"\nscale = 3', 'perhaps lowest, high'),
    ('name = "paper"', 'name = "a b"', "name='a b' is part of a protocol"),
    ('name = "paper"', 'name = ', 'is no TOML file'),
    ('lowest = 0\n', '', "the key 'lowest' is missing"),
    ('lowest = 0\n', 'lowest = 0\ntop = 1\n', "the key 'top' is unknown"),
    ('lowest = 0\n', 'lowest = 4\n', 'lowest=4 is not below highest=3'),
    ('lowest = 0\n', 'lowest = "0"\n', "lowest='0' is no number"),
    ('highest = 3\n', 'highest = 4\n', "levels of 'accuracy' begin with"),
    ('whole = true', 'whole = 1', 'whole=1 is not true or false'),
    ('{question}', '{quesiton}', 'place {quesiton}, which is unknown'),
    ('{response}', '', 'the prompt has no place {response}'),
    ('{json}', '{question}', 'form has the place {question}'),
    ('name = "fluency"', 'name = "accuracy"', 'stands there twice'),
    ('name = "fluency"', 'name = "Fluency"', 'in small letters'),
    ('"2: fluent in', '"1: fluent in', "levels of 'fluency' begin with"),
  ],
)
def test_a_rubric_that_cannot_be_used_names_what_is_wrong(
  tmp_path, old, new, why
):
  text = (rubrics.FOLDER / 'paper.toml').read_text()
  assert old in text
  path = tmp_path / 'mine.toml'
  path.write_text(text.replace(old, new))
  with pytest.raises(ValueError, match=why):
    rubrics.load(str(path))


def test_an_unknown_rubric_names_the_known_ones():
  with pytest.raises(
    ValueError, match="rubric='papers' is unknown; take llmeval1, llmeval2_ob"
  ):
    rubrics.load('papers')
