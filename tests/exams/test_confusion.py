"""Prompts and rates of the Language Confusion Benchmark, by its folders."""

import json

import pytest

from lbe.configs import eval_confusion
from lbe.evals import code_switching
from lbe.exams import confusion

import evaluators

ZH, EN = '我今天很高兴，因为天气非常好。', 'I am very happy because of the sun'
AR = 'هذا نص عربي طويل بما يكفي لكي يحسب'


def write(folder, **texts):
  """Files SOURCE__LANG of prompts."""
  for name, prompts in texts.items():
    source, language = name.split('__')
    (folder / source).mkdir(parents=True, exist_ok=True)
    rows = ''.join(f'"{p}",{source},{language}\n' for p in prompts)
    (folder / source / f'{language}.csv').write_text(
      f'prompt,source,language\n{rows}'
    )
  return folder


def test_prompts_have_the_language_of_their_file(tmp_path):
  write(tmp_path, okapi__zh=['甲?', '乙,\n?'], aya__zh=['丙'], aya__ar=['?'])
  found = confusion.prompts(tmp_path)
  assert [(p.id, p.text, p.language) for p in found] == [
    ('aya/ar/0', '?', 'ar'),
    ('aya/zh/0', '丙', 'zh'),
    ('okapi/zh/0', '甲?', 'zh'),
    ('okapi/zh/1', '乙,\n?', 'zh'),
  ]
  assert [p.record['source'] for p in found][1:3] == ['aya', 'okapi']
  some = confusion.prompts(tmp_path, languages=('zh',), limit=1)
  assert [p.id for p in some] == ['aya/zh/0', 'okapi/zh/0']


def test_languages_without_an_entry_are_said(tmp_path, caplog):
  caplog.set_level('INFO')
  write(tmp_path, okapi__zh=['甲?'], okapi__xx=['a'])
  assert [p.language for p in confusion.prompts(tmp_path)] == ['zh']
  assert 'xx are not asked' in caplog.text


@pytest.mark.parametrize(
  ('languages', 'told'),
  [
    (('hi',), "has no subject 'hi'; it has ar, zh"),
    (('hx',), "language 'hx' is unknown; the nearest"),
  ],
)
def test_a_language_that_is_not_there_is_told(tmp_path, languages, told):
  write(tmp_path, okapi__zh=['甲?'], okapi__ar=['?'])
  with pytest.raises(ValueError, match=told):
    confusion.prompts(tmp_path, languages=languages)


def test_a_folder_that_is_no_task_is_told(tmp_path):
  with pytest.raises(ValueError, match='is no folder; give the one with SOURC'):
    confusion.prompts(tmp_path / 'none')
  write(tmp_path / 'test_sets' / 'monolingual', okapi__zh=['甲?'])
  with pytest.raises(ValueError, match='has no SOURCE/LANG.csv; give test_set'):
    confusion.prompts(tmp_path / 'test_sets')
  task = write(tmp_path / 'task', okapi__zh=[' '])
  with pytest.raises(ValueError, match='zh.csv, line 2: the prompt is empty'):
    confusion.prompts(task)
  (task / 'okapi' / 'zh.csv').write_text('text\n甲\n')
  with pytest.raises(ValueError, match="zh.csv has no column 'prompt'; it has"):
    confusion.prompts(task)
  with pytest.raises(ValueError, match="languages=.'zh',. are chosen of a fol"):
    evaluators.make(
      code_switching, path=task / 'okapi' / 'zh.csv', languages=('zh',)
    )


def test_a_mean_of_languages_is_one_of_their_sources(tmp_path):
  """As the benchmark averages; a plain mean has 3 of 6 lines right."""
  texts = {'a__zh': [ZH, ZH, EN], 'b__zh': [EN], 'a__ar': [AR, EN]}
  task = write(
    tmp_path / 'task', **{k: ['?'] * len(v) for k, v in texts.items()}
  )
  responses = tmp_path / 'r.jsonl'
  responses.write_text(
    '\n'.join(
      json.dumps({'id': f'{k.replace("__", "/")}/{i}', 'response': text})
      for k, v in texts.items()
      for i, text in enumerate(v)
    )
  )
  made = evaluators.make(
    code_switching, path=task, responses=responses, template=''
  )
  records = [
    {
      **made._detector.judge(text, p.language),
      'language': p.language,
      'source': p.record['source'],
    }
    for p, text in zip(made.prompts, made._written, strict=True)
  ]
  rates = {r['name']: r for r in code_switching.rates(records)}
  assert rates['line_pass']['value'] == pytest.approx(3 / 6)
  assert rates['line_pass_macro/zh']['value'] == pytest.approx(1 / 3)
  assert rates['line_pass_macro']['value'] == pytest.approx((1 / 3 + 1 / 2) / 2)
  assert rates['line_pass_macro']['count'] == 6
  assert 'line_pass_macro/ar' not in rates


def test_the_config_has_both_tasks(test_data):
  """2,495 prompts of six languages, of which one is asked here."""
  config = eval_confusion.get_config('zh')
  root = test_data / 'bench_language_confusion' / 'test_sets'
  for task, number in (('monolingual', 200), ('crosslingual', 299)):
    fields = config.evals[task].to_dict()
    assert fields['languages'] == ('zh',)
    prompts = confusion.prompts(root / task, languages=fields['languages'])
    assert len(prompts) == number
  everything = [
    p for task in config.evals for p in confusion.prompts(root / task)
  ]
  assert len(everything) == 2495
