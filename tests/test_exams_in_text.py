"""AGIEval and GAOKAO-Bench: prompts, what is read from a text, points."""

import csv
import json

import numpy as np
import pytest

from benchmarks import harness
from lbe.evals import exam
from lbe.evals import multiple_choice
from lbe.exams import agieval
from lbe.exams import gaokao


def write_agieval(folder, **records):
  """A folder in the form of the repository; records by file."""
  (folder / 'data' / 'v1').mkdir(parents=True, exist_ok=True)
  for name, found in records.items():
    path = folder / 'data' / 'v1' / f'{name.replace("_", "-")}.jsonl'
    path.write_text('\n'.join(json.dumps(r) for r in found))
  return folder


EN = {
  'passage': 'Tim is tall. ',
  'question': 'Who is tall?',
  'options': ['(A)Tim', '(B)Lily', '(C)Ben'],
  'label': 'A',
}
ZH = {
  'passage': None,
  'question': '天是什么颜色？',
  'options': ['(A)蓝', '(B)红', '(C)黑', '(D)白'],
  'label': 'A',
}
MATH = {'passage': None, 'question': '1/2+1/2?', 'options': None, 'answer': '1'}


def test_zero_shot_prompts_of_agieval(tmp_path):
  """The second cue has always E or D, whatever the options are."""
  write_agieval(
    tmp_path,
    sat_math=[EN],
    gaokao_history=[ZH],
    math=[MATH],
    gaokao_mathcloze=[MATH],
  )
  names = ('sat-math', 'gaokao-history', 'math', 'gaokao-mathcloze')
  found = agieval.questions(tmp_path, subjects=names)
  assert [(q.prompt, q.second) for q in found] == [
    (
      'Tim is tall. Q: Who is tall? Answer Choices: (A)Tim (B)Lily (C)Ben\n'
      'A: Among A through C, the answer is',
      'Therefore, among A through E, the answer is',
    ),
    (
      '问题：天是什么颜色？ 选项：(A)蓝 (B)红 (C)黑 (D)白\n'
      '答案：从A到D, 我们应选择',
      '因此，从A到D, 我们应选择',
    ),
    ('Q: 1/2+1/2?\nA: The answer is', 'Therefore, the answer is'),
    ('问题：1/2+1/2?\n答案：', '因此，答案是'),
  ]
  letters, options = (
    agieval.items(tmp_path, p, split='', num_shots=0, subjects=('sat-math',))[0]
    for p in ('loglik', 'lmeval')
  )
  assert letters.context == options.context == found[0].prompt
  assert letters.choices == (' A', ' B', ' C')
  assert options.choices == (' (A)Tim', ' (B)Lily', ' (C)Ben')
  assert options.answers == ('(A)Tim', '(B)Lily', '(C)Ben')


def test_few_shot_prompts_of_agieval(tmp_path):
  """Explanations are left out; the problem's number follows the shots."""
  write_agieval(tmp_path, sat_math=[EN], gaokao_history=[ZH])
  with open(tmp_path / 'data' / 'few_shot_prompts.csv', 'w') as f:
    writer = csv.writer(f)
    writer.writerow(['', 'sat-math', 'gaokao-history'])
    for i in (1, 2):
      writer.writerow([f'sample {i}', str(EN), str(ZH) if i == 1 else ''])
      writer.writerow([f'explanation {i}', 'Because.', '因为。'])
  english, chinese = agieval.questions(
    tmp_path, subjects=('sat-math', 'gaokao-history'), shots=True
  )
  shot = (
    'Problem {}.   Tim is tall.  Who is tall?\n'
    'Choose from the following options:    (A)Tim (B)Lily (C)Ben\n'
  )
  answer = 'The answer is therefore A\n<END>\n'
  assert english.header == (
    'Here are the answers for the problems in the exam.\n'
  )
  assert english.shots == (shot.format(1) + answer, shot.format(2) + answer)
  assert english.prompt == shot.format('\0')
  assert chinese.header == '以下是考试中各个问题的答案。\n'
  assert chinese.shots == (
    '问题 1.    天是什么颜色？\n从以下选项中选择:    (A)蓝 (B)红 (C)黑 (D)白\n'
    '答案是 A\n<END>\n',
  )


@pytest.mark.parametrize(
  ('subject', 'text', 'zero', 'few'),
  [
    # The first capital from A to F, wherever it stands.
    ('sat-math', 'Among A through D, it is B.', 'A', 'A'),
    ('sat-math', 'so the answer is (C). Not A', 'C', 'C'),
    ('sat-math', 'A guess: the answer is D', 'A', 'D'),
    ('sat-math', 'no idea', '', ''),
    ('gaokao-history', '从A到D看，答案是 B', 'A', 'B'),
    ('jec-qa-kd', '应选 A 和 C', ('A', 'C'), ('A', 'C')),
    ('gaokao-physics', '没有', (), ()),
  ],
)
def test_letters_are_read_as_agieval_does(subject, text, zero, few):
  assert agieval.extract(text, subject) == zero
  assert agieval.extract(text, subject, few_shot=True) == few


def test_mathematics_is_read_and_compared_as_the_harness_has_it(test_data):
  """Its copy of the official functions, on every gold answer and on texts."""
  from lm_eval.tasks.agieval import utils

  questions = agieval.questions(
    test_data / 'bench_agieval', subjects=tuple(agieval.CLOZE)
  )
  assert len(questions) == 1118
  texts = [
    'so $x = 3$ or $y=4$',
    'We get 12 and then 15 apples',
    r'thus \boxed{x = \frac{1}{2}} holds',
    r'\boxed{3', r'\fbox{3}', 'x = 7.', '$5', 'nothing', '',
  ]  # fmt: skip
  for q in questions:
    gold = q.gold
    texts += [gold, f'${gold}$', rf'\boxed{{{gold}}}', f'it is = {gold}.']
  for text in texts:
    mine, theirs = agieval.mathematics(text), utils.parse_math_answer(text)
    assert (mine or None) == (theirs or None), text
  forms = [q.gold for q in questions] + [
    '0.5', '.5', '3/4', r'\frac12', r'\frac1{72}', r'\sqrt3', r'x = 2', r'5\%',
    r'\dfrac{1}{2}', r'10\text{ cm}', r'90^\circ', '-1/2', '03/4',
    r'\left(1\right)',
    r'\frac1', '{.5}', r'1,\!000',
  ]  # fmt: skip
  for text in forms:
    try:
      expected = utils._strip_string(text)
    except (AssertionError, IndexError):
      continue
    assert agieval.normal_form(text) == expected, text
  assert agieval.equivalent('0.5', r'\frac{1}{2}')
  assert not agieval.equivalent('0.5', None) and agieval.equivalent(None, None)


def test_agieval_is_whole(test_data):
  """8,269 questions in 21 files; golds that no single letter can win."""
  questions = agieval.questions(test_data / 'bench_agieval')
  counts = {}
  for q in questions:
    counts[q.subject] = counts.get(q.subject, 0) + 1
  assert len(questions) == 8269 and len(counts) == 21
  assert counts['jec-qa-kd'] == counts['math'] == 1000
  assert counts['gaokao-mathqa'] == 351 and counts['sat-en'] == 206
  several = [
    q for q in questions if q.subject == 'gaokao-mathqa' and len(q.gold) > 1
  ]
  assert len(several) == 7
  shots = agieval.questions(test_data / 'bench_agieval', shots=True, limit=1)
  assert {q.subject: len(q.shots) for q in shots}['sat-math'] == 5


def test_gaokao_is_whole_and_a_perfect_file_has_all_points(test_data):
  """1,781 questions, 2,944 answers, 9,702 points."""
  questions = gaokao.questions(test_data / 'bench_gaokao')
  points, answers = {}, {}
  for q in questions:
    points[q.subject] = points.get(q.subject, 0) + q.points
    answers[q.subject] = answers.get(q.subject, 0) + len(q.gold)
    text = '【解析】略 ' + ' '.join(f'【答案】 {x} <eoa>' for x in q.gold)
    assert gaokao.grade(q, text) == (list(q.gold), q.points)
  assert len(questions) == 1781
  assert sum(answers.values()) == 2944
  assert points == {
    '2010-2022_Math_I_MCQs': 1070,
    '2010-2022_Math_II_MCQs': 1090,
    '2010-2022_History_MCQs': 1148,
    '2010-2022_Political_Science_MCQs': 1280,
    '2010-2022_Biology_MCQs': 900,
    '2010-2022_Chemistry_MCQs': 744,
    '2010-2013_English_MCQs': 105,
    '2010-2022_Physics_MCQs': 384,
    '2010-2022_Geography_MCQs': 380,
    '2010-2022_Chinese_Modern_Lit': 261,
    '2010-2022_Chinese_Lang_and_Usage_MCQs': 240,
    '2010-2022_English_Fill_in_Blanks': 900,
    '2010-2022_English_Reading_Comp': 940,
    '2012-2022_English_Cloze_Test': 260,
  }
  items = gaokao.items(
    test_data / 'bench_gaokao', 'loglik', split='', num_shots=0
  )
  assert (len(items), sum(i.points for i in items)) == (1418, 6337)


@pytest.mark.parametrize(
  ('kind', 'text', 'number', 'found'),
  [
    # The last capital of the whole text, also behind the answer.
    ('single_choice', '【答案】 A <eoa> 因为 B 错', 1, ['B']),
    ('single_choice', '没有', 1, []),
    # As many marks as there are questions, else the first capitals.
    ('multi_question_choice', '（1）【答案】 A （2）【答案】:B', 2, ['A', 'B']),
    ('multi_question_choice', 'X 【答案】 A 【答案】 B', 3, ['X', 'A', 'B']),
    ('multi_question_choice', 'A', 2, ['A']),
    # A mark at the very beginning is not found: the last ten characters.
    ('multi_choice', '解【答案】A B <eoa>', 1, ['AB']),
    ('multi_choice', '【答案】AB很长很长很长很长很长的解释', 1, []),
    ('multi_choice', '很长的解释到最后选 C D', 1, ['CD']),
    ('five_out_of_seven', 'A B G C D E F', 5, ['A', 'B', 'G', 'C', 'D']),
  ],
)
def test_answers_are_read_as_gaokao_bench_does(kind, text, number, found):
  assert gaokao.extract(text, kind, number) == found


def test_points_of_gaokao_bench(test_data):
  """Partial points in physics; too few answers are none right."""
  by = {}
  for q in gaokao.questions(test_data / 'bench_gaokao'):
    by.setdefault(q.kind, q)
  physics = by['multi_choice']._replace(gold=('BD',), points=6)
  for text, points in (
    ('选【答案】BD', 6.0),
    ('选【答案】B', 3.0),
    ('选【答案】DB', 3.0),  # the order counts
    ('选【答案】BC', 0.0),
    ('选【答案】', 0.0),
  ):
    assert gaokao.grade(physics, text)[1] == points, text
  several = by['multi_question_choice']._replace(gold=('A', 'B'), points=6)
  assert gaokao.grade(several, 'A C')[1] == 3.0
  assert gaokao.grade(several, 'A')[1] == 0.0


@pytest.fixture(scope='module')
def stories(test_data):
  return harness.load_ours(test_data / 'ckpt_stories260K' / 'hf', batch_size=4)


def test_the_second_stage_sees_the_first(stories, test_data):
  made = exam.make(
    path=test_data / 'bench_agieval',
    protocol='agieval@official',
    subjects=('sat-math', 'math'),
    limit=2,
    max_new_tokens=8,
  )
  result = made.evaluate(stories, name='agi', step=3)
  assert len(result.predictions) == 4
  first = result.predictions[0]
  prompt = f'{first["prompt"]}\n{first["first"]}\n{made.questions[0].second}'
  ids = [stories.tokenizer.bos_id, *stories.tokenizer.encode(prompt)]
  (expected,) = stories.generate([ids[-504:]], max_new_tokens=8)
  assert first['response'] == expected.text
  rows = {r['name']: r for r in result.rows}
  assert rows['score_rate']['average'] == 'macro'
  assert rows['score_rate']['num_cut'] == sum(
    p['cut_tokens'] > 0 for p in result.predictions
  )
  missing = sum(not p['extracted'] for p in result.predictions)
  assert rows['score_rate']['num_not_extracted'] == missing


def test_demonstrations_end_where_the_window_does(stories, test_data):
  """512 positions take no five shots; the problem's number follows."""
  made = exam.make(
    path=test_data / 'bench_agieval',
    protocol='agieval@official_few_shot',
    subjects=('sat-math',),
    limit=1,
    max_new_tokens=8,
  )
  (found,) = made.evaluate(stories, name='agi', step=0).predictions
  shots = found['prompt'].count('<END>')
  assert shots < 5
  assert f'Problem {shots + 1}.   ' in found['prompt']


def test_gaokao_is_weighted_by_points(stories, test_data):
  subjects = ('2010-2013_English_MCQs', '2010-2022_Physics_MCQs')
  made = exam.make(
    path=test_data / 'bench_gaokao',
    protocol='gaokao@official',
    subjects=subjects,
    limit=3,
    max_new_tokens=8,
    temperature=0.0,
  )
  result = made.evaluate(stories, name='gk', step=0)
  points = np.array([p['points'] for p in result.predictions])
  of = np.array([p['of_points'] for p in result.predictions])
  assert of.tolist() == [1, 1, 1, 6, 6, 6]
  rows = {r['name']: r for r in result.rows}
  assert rows['score_rate']['value'] == points.sum() / 21
  macro = (points[:3].sum() / 3 + points[3:].sum() / 18) / 2
  assert rows['score_rate_macro']['value'] == pytest.approx(macro)
  single = multiple_choice.make(
    path=test_data / 'bench_gaokao',
    protocol='gaokao@loglik',
    subjects=subjects[:1],
    limit=4,
  )
  assert len(single.evaluate(stories, name='gk', step=0).predictions) == 4


def test_bad_exams_are_refused(tmp_path, test_data):
  with pytest.raises(ValueError, match="'agieval' is unknown; take one of agi"):
    exam.make(path='x', protocol='agieval')
  with pytest.raises(ValueError, match="template 'magic' is unknown; take one"):
    exam.make(path='x', protocol='gaokao@official', template='magic')
  assert exam.make(path='', protocol='gaokao@official') is None
  with pytest.raises(ValueError, match='is no folder; give the one with Data'):
    exam.make(path='x', protocol='gaokao@official')
  with pytest.raises(ValueError, match='there is no .*English_MCQs.json; is'):
    exam.make(
      path=tmp_path,
      protocol='gaokao@official',
      subjects=('2010-2013_English_MCQs',),
    )
  with pytest.raises(ValueError, match="AGIEval has no subject 'law'; it has"):
    exam.make(path=tmp_path, protocol='agieval@official', subjects=('law',))
  with pytest.raises(ValueError, match='there is no file .*sat-math.jsonl'):
    agieval.questions(tmp_path, subjects=('sat-math',))
  write_agieval(tmp_path, sat_math=[{**EN, 'label': 'E'}])
  with pytest.raises(ValueError, match="question 1: the label 'E' is not amo"):
    agieval.questions(tmp_path, subjects=('sat-math',))
  write_agieval(tmp_path, sat_math=[{'question': 'a'}])
  with pytest.raises(ValueError, match="line 1: there is no 'passage'; the fi"):
    agieval.questions(tmp_path, subjects=('sat-math',))
  data = tmp_path / 'Data' / 'Objective_Questions'
  data.mkdir(parents=True)
  file = data / '2010-2013_English_MCQs.json'
  for text, words in (
    ('[', 'is no file of GAOKAO-Bench: it needs an object with `example`'),
    (
      '{"example": [{"question": "a", "answer": ["A"]}]}',
      "there is no 'score'",
    ),
    (
      '{"example": [{"question": "a", "answer": ["X"], "score": 1}]}',
      'is no list of letters from A to G',
    ),
  ):
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
      gaokao.questions(tmp_path, subjects=('2010-2013_English_MCQs',))
