"""The exact prompts of every protocol, as the official scripts make them.

tests/golden/exams.json came out of ruixiangcui/AGIEval (5c77d07) and
OpenLMLab/GAOKAO-Bench (6dbb24f) for the questions below, which were written
for it; so did the hashes, for the published files. tests/golden/choices.json is
out of hendrycks/test (4450500), hkust-nlp/ceval (cba65ae), ymcui's
Chinese-LLaMA-Alpaca-2 (2a334d1) and the task files of lm-evaluation-harness
0.4.13, for the files that write_choices writes.
"""

import csv
import hashlib
import json

import pytest

from lbe.evals import multiple_choice
from lbe.exams import agieval
from lbe.exams import gaokao
from lbe.exams import item

import conftest
import evaluators
import exam_files

ENGLISH = [
  ('Tim has 3 red and 4 blue cups.', 'How many cups has Tim?', '7 6 5 4 3'),
  (None, 'Which of these is even?', '1 2 3 5'),
  ('', 'What is $2^{3}$?', '6 8 9'),
]
CHINESE = [
  ('小明有三个杯子。', '他有几个杯子？', '一 二 三 四'),
  (None, '下列哪个是水果？', '桌子 苹果 石头 铁'),
  ('', '一年有几个月？', '十二 十 八'),
]
MATH = [('$1+2=$', '3'), ('Half of 1 is', '\\frac{1}{2}'), ('$x^{2}=4$', '2')]


def choice(passage, question, options, label):
  letters = 'ABCDE'
  return {
    'passage': passage,
    'question': question,
    'options': [
      f'({letters[i]}){text}' for i, text in enumerate(options.split())
    ],
    'label': label,
    'answer': None,
    'other': None,
  }


def cloze(question, answer):
  return {
    'passage': None,
    'question': question,
    'options': None,
    'label': None,
    'answer': answer,
    'other': None,
  }


AGIEVAL = {
  'sat-math': [choice(*q, 'B') for q in ENGLISH],
  'gaokao-history': [choice(*q, 'A') for q in CHINESE],
  'math': [cloze(*q) for q in MATH],
  'gaokao-mathcloze': [cloze(*q) for q in MATH],
}
GAOKAO = {
  '2010-2013_English_MCQs': [
    (' 1. He __ tea.\nA. like  B. likes  C. liking  D. to like\n\n', ['B']),
    ('2. They __ here.\nA. is  B. am  C. are  D. be', ['C']),
    ('\n3. I __ it.\nA. did  B. done  C. doing  D. does', ['A']),
  ],
  '2010-2022_Physics_MCQs': [
    ('1. 光比声音 ( )\nA. 快\nB. 慢\nC. 亮\nD. 一样', ['A']),
    ('2. 冰 ( )\nA. 是固体\nB. 会融化\nC. 是气体\nD. 很热', ['AB']),
    ('3. 下列是能量的有 ( )\nA. 热\nB. 光\nC. 电\nD. 红', ['ABC']),
  ],
  '2010-2022_Geography_MCQs': [
    ('山。\n1. 上 ( )\nA. 冷 B. 热\n2. 下 ( )\nA. 冷 B. 热', ['A', 'B']),
    ('1. 太阳 ( )\nA. 升 B. 落\n2. 月亮 ( )\nA. 圆 B. 方', ['A', 'A']),
    ('河。\n1. 水 ( )\nA. 流 B. 停\n2. 岸 ( )\nA. 高 B. 低', ['A', 'B']),
  ],
  '2010-2022_Chinese_Lang_and_Usage_MCQs': [
    ('1. 选词。\nA. 一\nB. 二\nC. 三\nD. 四', ['D']),
    ('2. 选句。\nA. 甲\nB. 乙\nC. 丙\nD. 丁', ['C']),
    ('3. 选字。\nA. 天\nB. 地\nC. 人\nD. 和', ['B']),
  ],
  '2012-2022_English_Cloze_Test': [
    ('I got up. 1 Then 2 and 3 at 4 for 5.\nA. a B. b C. c D. d E. e F. f G. g',
     list('ABCDE')),
    ('We sang 1 2 3 4 5.\nA. a B. b C. c D. d E. e F. f G. g', list('GFEDC')),
    ('It rained 1 2 3 4 5.\nA. a B. b C. c D. d E. e F. f G. g', list('BADCF')),
  ],
}  # fmt: skip


def write(folder):
  """The questions above in the form of both repositories."""
  (folder / 'data' / 'v1').mkdir(parents=True)
  for name, records in AGIEVAL.items():
    lines = (json.dumps(r, ensure_ascii=False) for r in records)
    (folder / 'data' / 'v1' / f'{name}.jsonl').write_text('\n'.join(lines))
  with open(folder / 'data' / 'few_shot_prompts.csv', 'w', newline='') as f:
    table = csv.writer(f)
    table.writerow(['', *AGIEVAL])
    # Five demonstrations: one file has no more than three.
    for i in range(5):
      cells = [str(r[i % 3]) for r in AGIEVAL.values()]
      told = ['Because,\n\nas one sees.'] * len(cells)
      if i > 2:
        cells[0] = told[0] = ''
      table.writerow([f'sample {i + 1}', *cells])
      table.writerow([f'explanation {i + 1}', *told])
  data = folder / 'Data' / 'Objective_Questions'
  data.mkdir(parents=True)
  for name, questions in GAOKAO.items():
    examples = [
      {'question': q, 'answer': a, 'score': 6, 'index': i}
      for i, (q, a) in enumerate(questions)
    ]
    text = json.dumps({'keywords': name, 'example': examples})
    (data / f'{name}.json').write_text(text)
  return folder


def agieval_prompts(path, subjects=()):
  """By protocol and question what a model is asked."""
  plain = agieval.questions(path, subjects=subjects, limit=0)
  return {
    'agieval@official': {q.id: q.prompt for q in plain},
    'agieval@official, second stage': {
      q.id: f'{q.prompt}\nFIRST OUTPUT\n{q.second}' for q in plain
    },
    'agieval@official_few_shot': {
      q.id: q.text(q.max_shots)
      for q in agieval.questions(path, subjects=subjects, shots=True, limit=0)
    },
    'agieval@official_few_shot, in turns': {
      q.id: [
        *(text for shot in q.shots for text in shot),
        q.prompt.replace(item.NUMBER, str(len(q.shots) + 1)),
      ]
      for q in agieval.questions(path, subjects=subjects, shots=True, limit=0)
    },
  }


def gaokao_prompts(path, subjects=()):
  found = gaokao.questions(path, subjects=subjects, limit=0)
  assert all(q.prompt == q.system + q.user for q in found)
  return {'gaokao@official': {q.id: [q.system, q.user] for q in found}}


def test_prompts_are_those_of_the_official_scripts(tmp_path):
  """Each space and line end, the letters of both cues, numbers, headers."""
  write(tmp_path)
  found = {
    **agieval_prompts(tmp_path, tuple(AGIEVAL)),
    **gaokao_prompts(tmp_path, tuple(GAOKAO)),
  }
  golden = conftest.ROOT / 'tests' / 'golden' / 'exams.json'
  expected = json.loads(golden.read_text(encoding='utf-8'))
  assert list(found) == list(expected)
  for protocol, prompts in expected.items():
    assert found[protocol] == prompts, protocol


@pytest.mark.parametrize('shots', [5, 3])
def test_demonstrations_are_as_many_as_the_file_has(tmp_path, shots):
  write(tmp_path)
  name = 'gaokao-history' if shots == 5 else 'sat-math'
  found = agieval.questions(tmp_path, subjects=(name,), shots=True, limit=0)
  assert {len(q.shots) for q in found} == {shots}


def write_choices(folder):
  """MMLU, C-Eval, CMMLU and XCOPA with three questions each."""
  exam_files.write_mmlu(folder / 'mmlu')
  exam_files.write_ceval(folder / 'ceval')
  for split, rows in (
    ('dev', [f'例{i}？,甲,乙,丙,丁,{x}' for i, x in enumerate('ABCDA')]),
    ('test', [' 什么是土？,一,二,三,四,C', '哪个？,a,b,c,d,A', '问,0,1,2,3,D']),
  ):
    path = folder / 'cmmlu' / split / 'agronomy.csv'
    path.parent.mkdir(parents=True)
    rows = [f'{i},{row}' for i, row in enumerate(rows)]
    path.write_text('\n'.join([',Question,A,B,C,D,Answer', *rows]))
  path = folder / 'xcopa' / 'id' / 'test.id.jsonl'
  path.parent.mkdir(parents=True)
  path.write_text(
    '\n'.join(
      json.dumps(
        dict(zip(XCOPA, record, strict=True), label=0, idx=i, changed=False)
      )
      for i, record in enumerate(
        [
          ('Ia jatuh.', 'Lantai licin.', 'Ia duduk.', 'cause'),
          (' Hujan turun. ', 'Jalan basah.', 'Ani lapar.', 'effect'),
          ('Lampu mati!', 'Ibu masak.', 'Ayah tidur.', 'effect'),
        ]
      )
    )
  )


XCOPA = ('premise', 'choice1', 'choice2', 'question')


def test_choices_are_asked_as_the_official_scripts_ask(tmp_path):
  """Three questions of each, without and with five demonstrations."""
  write_choices(tmp_path)
  golden = conftest.ROOT / 'tests' / 'golden' / 'choices.json'
  expected = json.loads(golden.read_text(encoding='utf-8'))
  official = {p for p in multiple_choice.PROTOCOLS if p[:3] in ('mml', 'cev')}
  assert set(expected) == official | {'cmmlu@lmeval', 'xcopa@lmeval'}
  for protocol, by_shots in expected.items():
    exam, _ = protocol.split('@')
    subject = {'mmlu': 'college_physics', 'ceval': 'law'}.get(exam)
    for num_shots, prompts in by_shots.items():
      made = evaluators.make(
        multiple_choice,
        path=tmp_path / exam,
        protocol=protocol,
        num_shots=int(num_shots),
        subjects=(subject or {'cmmlu': 'agronomy', 'xcopa': 'id'}[exam],),
      )
      found = [
        [i.context, *i.choices] if exam == 'xcopa' else i.context
        for i in made.items
      ]
      assert found == prompts, (protocol, num_shots)


def digest(prompts):
  """sha256 of what a protocol asks in all files, ordered by their names."""
  texts = [
    text if isinstance(text, str) else '\0'.join(text)
    for _, text in sorted(prompts.items(), key=_order)
  ]
  return hashlib.sha256('\0\0'.join(texts).encode()).hexdigest()[:16]


def _order(pair):
  subject, number = pair[0].split('/')
  return subject, int(number)


def test_all_prompts_of_the_published_files_are_the_official_ones(test_data):
  """8,269 questions in four forms and 1,781, byte for byte.

  That lsat-rc and gaokao-chinese lose demonstrations, as GPT-4's tokenizer
  counts them, is in the third.
  """
  found = {
    **agieval_prompts(test_data / 'bench_agieval'),
    **gaokao_prompts(test_data / 'bench_gaokao'),
  }
  assert {protocol: digest(prompts) for protocol, prompts in found.items()} == {
    'agieval@official': 'dc99f3342653dd63',
    'agieval@official, second stage': '618bfc6f663974b8',
    'agieval@official_few_shot': '247ef492e23c2a53',
    'agieval@official_few_shot, in turns': '1e3e5a8cf9b562b2',
    'gaokao@official': '168ade13d5ade60c',
  }
