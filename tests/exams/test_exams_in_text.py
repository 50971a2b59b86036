"""AGIEval and GAOKAO-Bench: prompts, what is read from a text, points."""

import json

import numpy as np
import pytest

from lbe.evals import exam
from lbe.evals import multiple_choice
from lbe.exams import agieval
from lbe.exams import gaokao

import evaluators
import harness


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
MATH = {'passage': None, 'question': '1/2+1/2?', 'options': None, 'answer': '1'}


def test_likelihoods_follow_the_zero_shot_prompt(tmp_path):
  """Letters, or options with their letters, behind a space."""
  write_agieval(tmp_path, sat_math=[EN])
  (asked,) = agieval.questions(tmp_path, subjects=('sat-math',), limit=0)
  letters, options = (
    agieval.items(
      tmp_path, p, split='', num_shots=0, subjects=('sat-math',), limit=0
    )[0]
    for p in ('loglik', 'lmeval')
  )
  assert letters.context == options.context == asked.prompt
  assert letters.choices == (' A', ' B', ' C')
  assert options.choices == (' (A)Tim', ' (B)Lily', ' (C)Ben')
  assert options.answers == ('(A)Tim', '(B)Lily', '(C)Ben')


@pytest.mark.parametrize(
  ('subject', 'text', 'zero', 'few'),
  [
    # The first capital from A to F, wherever it stands.
    ('sat-math', 'Among A through D, it is B.', 'A', 'A'),
    ('sat-math', 'so the answer is (C). Not A', 'C', 'C'),
    ('sat-math', 'A guess: the answer is D', 'A', 'D'),
    ('sat-math', 'no idea', '', ''),
    ('lsat-ar', 'it is F or E', 'F', 'F'),
    ('lsat-ar', 'the answer is G', '', 'G'),
    ('lsat-ar', 'A? The answer is: B', 'A', 'A'),  # no space behind `is`
    ('gaokao-history', '从A到D看，答案是 B', 'A', 'B'),
    ('jec-qa-kd', '应选 A 和 C', ('A', 'C'), ('A', 'C')),
    ('gaokao-physics', '没有', (), ()),
  ],
)
def test_letters_are_read_as_agieval_does(subject, text, zero, few):
  assert agieval.extract(text, subject) == zero
  assert agieval.extract(text, subject, few_shot=True) == few


def test_two_questions_of_agieval_are_won_by_no_answer(test_data):
  """One has no label, so that finding nothing would win it."""
  questions = {
    q.id: q
    for q in agieval.questions(
      test_data / 'bench_agieval', subjects=('jec-qa-kd', 'jec-qa-ca'), limit=0
    )
  }
  for name in ('jec-qa-kd/211', 'jec-qa-ca/48'):
    for text in ('', 'ACD', 'A C D 。', 'ABCD'):
      assert agieval.grade(questions[name], text)[1] == 0.0
  others = [q for q in questions.values() if q.gold]
  assert len(others) == 1998
  assert all(agieval.grade(q, ' '.join(q.gold))[1] == 1.0 for q in others)


def test_agieval_is_whole(test_data):
  """8,269 questions in 21 files; golds that no single letter can win."""
  questions = agieval.questions(
    test_data / 'bench_agieval', subjects=(), limit=0
  )
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


def test_gaokao_is_whole_and_a_perfect_file_has_all_points(test_data):
  """1,781 questions, 2,944 answers, 9,702 points."""
  questions = gaokao.questions(test_data / 'bench_gaokao', subjects=(), limit=0)
  points, answers = {}, {}
  for q in questions:
    points[q.subject] = points.get(q.subject, 0) + q.points
    answers[q.subject] = answers.get(q.subject, 0) + len(q.gold)
    text = '【解析】略 ' + ' '.join(f'【答案】 {x} <eoa>' for x in q.gold)
    assert gaokao.grade(q, text) == (list(q.gold), q.points)
    assert gaokao.grade(q, '') == ([], 0.0)
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
    test_data / 'bench_gaokao',
    'loglik',
    split='',
    num_shots=0,
    subjects=(),
    limit=0,
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
    ('multi_choice', 'A一二三四五六 七八九D', 1, ['D']),
    ('five_out_of_seven', 'A B G C D E F', 5, ['A', 'B', 'G', 'C', 'D']),
  ],
)
def test_answers_are_read_as_gaokao_bench_does(kind, text, number, found):
  assert gaokao.extract(text, kind, number) == found


def test_points_of_gaokao_bench(test_data):
  """Partial points in physics; too few answers are none right."""
  by = {}
  for q in gaokao.questions(test_data / 'bench_gaokao', subjects=(), limit=0):
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
  assert gaokao.grade(several, 'A') == ([], 0.0)


@pytest.fixture(scope='module')
def stories(test_data):
  return harness.load_ours(test_data / 'ckpt_stories260K' / 'hf', batch_size=4)


def test_the_second_stage_sees_the_first(stories, test_data):
  made = evaluators.make(
    exam,
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
  made = evaluators.make(
    exam,
    path=test_data / 'bench_agieval',
    protocol='agieval@official_few_shot',
    subjects=('sat-math', 'math'),
    limit=1,
    max_new_tokens=8,
  )
  result = made.evaluate(stories, name='agi', step=0)
  for found, most in zip(result.predictions, (5, 4), strict=True):
    shots = found['num_shots']
    assert found['prompt'].count('<END>') == shots < most
    assert f'Problem {shots + 1}.   ' in found['prompt']
    assert found['first'] is None
  assert [p['cut_tokens'] for p in result.predictions] == [0, 0]
  rows = {r['name']: r for r in result.rows}
  assert rows['score_rate']['num_fewer_shots'] == 2


def test_a_text_ends_where_the_official_script_ends_it(
  stories, test_data, monkeypatch
):
  """Else a base model goes on to problems of its own, whose answers count."""
  protocol = 'agieval@official_few_shot'
  assert exam.PROTOCOLS[protocol].stop == ('<END>',)
  assert exam.PROTOCOLS['agieval@lmeval'].stop == ('Q:',)

  def write():
    made = evaluators.make(
      exam,
      path=test_data / 'bench_agieval',
      protocol=protocol,
      subjects=('sat-math',),
      limit=1,
      max_new_tokens=24,
    )
    (found,) = made.evaluate(stories, name='agi', step=0).predictions
    return found['response']

  whole = write()
  stop = whole[len(whole) // 2 :][:3]
  changed = exam.PROTOCOLS[protocol]._replace(stop=(stop,))
  monkeypatch.setitem(exam.PROTOCOLS, protocol, changed)
  assert write() == whole[: whole.index(stop)]


def test_a_template_gets_turns(stories, test_data, tmp_path):
  """Demonstrations without their header; GAOKAO's prompt as the system's."""

  def first(protocol, subject, template):
    path = 'bench_agieval' if 'agieval' in protocol else 'bench_gaokao'
    made = evaluators.make(
      exam,
      path=test_data / path,
      protocol=protocol,
      subjects=(subject,),
      limit=1,
      template=template,
      max_new_tokens=8,
    )
    (question,) = made.questions
    return question, made._turns(question, 2), made

  question, turns, made = first(
    'agieval@official_few_shot', 'gaokao-chinese', 'chatml'
  )
  assert [t.role for t in turns] == ['user', 'assistant'] * 2 + ['user']
  assert turns[0].content.startswith('问题 1.   ')
  assert turns[1].content == '答案是 A'
  assert turns[4].content.startswith('问题 3.   ')
  assert (question.max_shots, made._most_shots(question)) == (1, 3)
  subject = '2010-2022_Physics_MCQs'
  question, turns, _ = first('gaokao@official', subject, 'llama2_chat')
  assert [tuple(t)[:2] for t in turns] == [
    ('system', question.system),
    ('user', question.user),
  ]
  jinja = tmp_path / 'chat.jinja'
  jinja.write_text(
    '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}'
    '[assistant]'
  )
  question, turns, made = first('gaokao@official', subject, str(jinja))
  assert [t.role for t in turns] == ['system', 'user']
  (found,) = made.evaluate(stories, name='gk', step=0).predictions
  assert found['prompt'] == question.prompt
  question, turns, made = first('gaokao@official', subject, 'alpaca')
  assert [tuple(t)[:2] for t in turns] == [('user', question.prompt)]
  (found,) = made.evaluate(stories, name='gk', step=0).predictions
  assert found['prompt'] == question.prompt


def test_agieval_is_scored_as_the_harness_does(stories, test_data, tmp_path):
  """Its own task files: several right options, and texts of mathematics."""
  names = ('gaokao-physics', *agieval.CLOZE)
  v1 = tmp_path / 'bench_agieval' / 'data' / 'v1'
  v1.mkdir(parents=True)
  # Longer than the window; the text differs where its BOS stays.
  long = 'One day, Tim and Lily went to the park. ' * 37
  for name in names:
    file = test_data / 'bench_agieval' / 'data' / 'v1' / f'{name}.jsonl'
    lines = file.read_text().splitlines()[:3]
    if name == 'math':
      lines[0] = json.dumps({**MATH, 'question': long})
    (v1 / file.name).write_text('\n'.join(lines))
  tasks = [harness.agieval_task(tmp_path, tmp_path, name) for name in names]
  target = tmp_path / 'tokenizer'
  target.mkdir()
  harness.vocab_export.write(stories.tokenizer, target, max_positions=512)
  folder = test_data / 'ckpt_stories260K' / 'hf'
  theirs = harness.load_theirs(folder, target, bos=True)
  expected, _ = harness.run(theirs, tmp_path, tasks, num_fewshot=0)
  found = []
  for module, subjects in (
    (multiple_choice, names[:1]),
    (exam, names[1:]),
  ):
    made = evaluators.make(
      module,
      path=tmp_path / 'bench_agieval',
      protocol='agieval@lmeval',
      subjects=subjects,
    )
    found += made.evaluate(stories, name='agi', step=0).predictions
  assert [p['id'] for p in found if p['cut_tokens']][-1] == 'math/0'
  for prediction in found:
    subject, number = prediction['id'].split('/')
    sample = expected['samples'][f'own_agieval_{subject}'][int(number)]
    assert sample['doc_id'] == int(number)
    if subject in agieval.CLOZE:
      (text,) = sample['resps'][0]
      assert prediction['response'].strip() == text.strip()
      assert prediction['points'] == sample['acc']
    else:
      theirs = [logprob for ((logprob, _),) in sample['resps']]
      np.testing.assert_allclose(prediction['scores'], theirs, atol=1e-4)
      for metric in ('acc', 'acc_norm'):
        assert prediction[metric] == sample[metric]


def test_gaokao_is_weighted_by_points(stories, test_data):
  subjects = ('2010-2013_English_MCQs', '2010-2022_Physics_MCQs')
  made = evaluators.make(
    exam,
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
  single = evaluators.make(
    multiple_choice,
    path=test_data / 'bench_gaokao',
    protocol='gaokao@loglik',
    subjects=subjects[:1],
    limit=4,
  )
  assert len(single.evaluate(stories, name='gk', step=0).predictions) == 4


def test_bad_exams_are_refused(tmp_path, test_data):
  with pytest.raises(ValueError, match="'agieval' is unknown; take one of agi"):
    evaluators.make(exam, path='x', protocol='agieval')
  with pytest.raises(ValueError, match="template 'magic' is unknown; take one"):
    evaluators.make(
      exam, path='x', protocol='gaokao@official', template='magic'
    )
  with pytest.raises(ValueError, match="no template 'no.jinja'; is the path"):
    evaluators.make(
      exam, path='x', protocol='gaokao@official', template='no.jinja'
    )
  assert evaluators.make(exam, path='', protocol='gaokao@official') is None
  with pytest.raises(ValueError, match='is no folder; give the one with Data'):
    evaluators.make(exam, path='x', protocol='gaokao@official')
  with pytest.raises(ValueError, match='there is no .*English_MCQs.json; is'):
    evaluators.make(
      exam,
      path=tmp_path,
      protocol='gaokao@official',
      subjects=('2010-2013_English_MCQs',),
    )
  with pytest.raises(ValueError, match="AGIEval has no subject 'law'; it has"):
    evaluators.make(
      exam, path=tmp_path, protocol='agieval@official', subjects=('law',)
    )
  with pytest.raises(ValueError, match='there is no file .*sat-math.jsonl'):
    agieval.questions(tmp_path, subjects=('sat-math',), limit=0)
  write_agieval(tmp_path, sat_math=[{**EN, 'label': 'E'}])
  with pytest.raises(ValueError, match="question 1: the label 'E' is not amo"):
    agieval.questions(tmp_path, subjects=('sat-math',), limit=0)
  with pytest.raises(ValueError, match="template='alpaca' is for one; take"):
    evaluators.make(
      exam, path='', protocol='agieval@official_few_shot', template='alpaca'
    )
  with pytest.raises(ValueError, match="lmeval in text has no subject 'sat-ma"):
    evaluators.make(
      exam, path=tmp_path, protocol='agieval@lmeval', subjects=('sat-math',)
    )
  for change, words in (
    ({'label': ['A', 'E']}, r"the label \['A', 'E'\] is not among A, B, C"),
    ({'label': None}, 'the label None is not among'),
    ({'label': []}, r'the label \[\] is not among'),
    ({'label': [['A']]}, 'is not among A, B, C'),
    ({'options': ['(A)', 1]}, 'the option 1 is no text'),
    ({'options': None}, 'the options None are no list of 1 to 7'),
    ({'question': 3}, 'the question 3 is no text'),
  ):
    write_agieval(tmp_path, jec_qa_kd=[{**EN, **change}])
    with pytest.raises(ValueError, match=words):
      agieval.questions(tmp_path, subjects=('jec-qa-kd',), limit=0)
  write_agieval(tmp_path, math=[{**MATH, 'answer': ''}])
  with pytest.raises(ValueError, match='question 1: there is no answer'):
    agieval.questions(tmp_path, subjects=('math',), limit=0)
  write_agieval(tmp_path, sat_math=[EN])
  table = tmp_path / 'data' / 'few_shot_prompts.csv'
  for text, words in (
    (None, 'there is no .*few_shot_prompts.csv, which has the demonstrations'),
    (',math\n', "has no column 'sat-math'"),
    (',sat-math\nsample 1,who?\n', "'sample 1' of sat-math: 'who.' is no Pyt"),
  ):
    if text:
      table.write_text(text)
    with pytest.raises(ValueError, match=words):
      agieval.questions(tmp_path, subjects=('sat-math',), shots=True, limit=0)
  write_agieval(tmp_path, sat_math=[{'question': 'a'}])
  with pytest.raises(
    ValueError, match="math.jsonl:1: the field 'passage' is mi"
  ):
    agieval.questions(tmp_path, subjects=('sat-math',), limit=0)
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
      gaokao.questions(tmp_path, subjects=('2010-2013_English_MCQs',), limit=0)
