"""Samples, references, repetition, languages of what a model writes."""

import json

import pytest
import sacrebleu

from lbe.chat import prompts
from lbe.evals import generation

import evaluators
import harness


@pytest.fixture(scope='module')
def stories(test_data):
  return harness.load_ours(test_data / 'ckpt_stories260K' / 'hf', batch_size=4)


def write(path, *records):
  path.write_text('\n'.join(json.dumps(r, ensure_ascii=False) for r in records))
  return path


def make(path, **changes):
  changes = {'path': path, 'max_new_tokens': 24, **changes}
  return evaluators.make(generation, **changes)


def test_samples_and_scores_of_a_real_model(stories, tmp_path):
  """chrF and BLEU are sacrebleu's own; greedy text is exactly itself."""
  texts = ['Once upon a time', 'Tim and Lily went to the']
  greedy = [r.text for r in stories.generate(texts, max_new_tokens=24)]
  path = write(
    tmp_path / 'p.jsonl',
    {'id': 'a', 'prompt': texts[0], 'reference': greedy[0], 'language': 'en'},
    {'prompt': texts[1], 'reference': ['a dog', 'the cat'], 'language': 'en'},
    {'question': 'Who?', 'language': 'zh'},
  )
  result = make(path).evaluate(stories, name='gen', step=2)
  first, second, third = result.predictions
  assert (first['id'], second['id'], third['id']) == ('a', '2', '3')
  assert first['response'] == greedy[0] and first['step'] == 2
  assert (first['exact_match'], first['f1']) == (1.0, 1.0)
  assert 'references' not in third
  rows = {r['name']: r for r in result.rows}
  references = [[greedy[0], 'a dog'], [None, 'the cat']]
  for name, metric in (
    ('chrf', sacrebleu.CHRF()),
    ('bleu', sacrebleu.BLEU()),
  ):
    expected = metric.corpus_score(greedy, references)
    assert rows[name]['value'] == expected.score
    assert rows[name]['signature'] == str(metric.get_signature())
  assert rows['exact_match']['count'] == 2
  assert rows['ended_by_length']['value'] == 1.0
  # The Chinese one is in English; whether English is English scripts tell not.
  assert rows['in_language']['value'] == 0.0
  assert rows['in_language']['count'] == 1
  assert 'do not tell en from other' in rows['empty']['warning']
  assert rows['tokens']['value'] == 24
  assert rows['chrf']['protocol'] == 'generation@greedy'


def test_bleu_cuts_chinese_by_letter_and_languages_stand_apart(
  stories, tmp_path
):
  """One tokenizer for all would score Chinese by sentences."""
  text = stories.generate(['Once'], max_new_tokens=24)[0].text
  reference = f'{text} 我们很高兴。'
  records = [
    {'prompt': 'Once', 'language': code, 'reference': reference}
    for code in ('zh', 'en')
  ]
  path = write(tmp_path / 'p.jsonl', *records)
  rows = {
    r['name']: r for r in make(path).evaluate(stories, name='g', step=0).rows
  }
  for name, tokenize in (('bleu/zh', 'zh'), ('bleu/en', '13a')):
    bleu = sacrebleu.BLEU(tokenize=tokenize)
    expected = bleu.corpus_score([text], [[reference]]).score
    assert rows[name]['value'] == expected
    assert rows[name]['signature'] == str(bleu.get_signature())
  assert rows['bleu/zh']['value'] != rows['bleu/en']['value']


def test_stored_responses_are_scored_in_place_of_a_model(stories, tmp_path):
  """One character without end is in no wrong language: it is not usable."""
  told = {'language': 'zh', 'reference': '我很高兴'}
  english = {'language': 'en', 'answers': {'text': ['Al'], 'answer_start': [3]}}
  path = write(
    tmp_path / 'p.jsonl',
    *({'id': i, 'prompt': '?', **told} for i in (1, 2, 3)),
    {'id': 4, 'question': 'Who?', 'context': 'It is Al.', **english},
  )
  texts = ['他很高兴。', '的' * 60, '42', 'al!']
  responses = write(
    tmp_path / 'r.jsonl',
    *({'id': i, 'response': text} for i, text in enumerate(texts, 1)),
  )
  made = make(path, responses=responses)
  result = made.evaluate(stories, name='g', step=0)
  unusable = [p['unusable'] for p in result.predictions]
  assert unusable == ['', 'repetition', 'no letters', '']
  rows = {r['name']: r for r in result.rows}
  assert rows['usable']['value'] == 0.5 and rows['usable']['count'] == 4
  assert {r['num_unusable'] for r in result.rows} == {2}
  assert 'tokens' not in rows
  assert rows['f1']['protocol'] == 'generation@stored'
  assert rows['f1/zh']['f1_script'] == 'cmrc'
  assert rows['f1/zh']['value'] == pytest.approx(3 / 4 / 3)
  assert rows['f1/en']['f1_script'] == 'squad2'
  assert rows['f1/en']['value'] == 1.0
  assert rows['f1']['f1_script'] == 'cmrc, squad2'
  # One is long enough to be told, of three in Chinese.
  assert rows['in_language']['language_identifier'] == 'scripts'
  assert rows['in_language']['value'] == 1.0
  assert rows['in_language_of_all']['value'] == pytest.approx(1 / 3)
  assert (
    '2 of 4 responses are unusable (1 repetition, 1 no letters)'
    in rows['usable']['warning']
  )
  with pytest.raises(ValueError, match='p.jsonl:4: the question has a context'):
    make(path)
  with pytest.raises(ValueError, match="f1_script='bleu' is unknown; take one"):
    make(path, responses=responses, f1_script='bleu')


def test_samples_differ_by_seed_only(stories, tmp_path):
  path = write(tmp_path / 'p.jsonl', {'prompt': 'Once'}, {'prompt': 'Tim'})

  def texts(**changes):
    made = make(path, temperature=1.0, **changes)
    found = made.evaluate(stories, name='gen', step=0)
    assert found.rows[0]['protocol'] == 'generation@sampled'
    return [p['response'] for p in found.predictions]

  assert texts() == texts() != texts(seed=1)


def test_long_prompts_are_cut_and_counted(stories, tmp_path):
  path = write(tmp_path / 'p.jsonl', {'prompt': 'A dog. ' * 300})
  result = make(path).evaluate(stories, name='gen', step=0)
  assert result.predictions[0]['cut_tokens'] > 0
  assert result.rows[0]['num_cut'] == 1
  with pytest.raises(ValueError, match='max_new_tokens=512 leaves no room for'):
    make(path, max_new_tokens=512).evaluate(stories, name='gen', step=0)


def test_repetition_by_hand():
  assert generation.repetition('a b c') == 0.0
  assert generation.repetition('a b c d e') == 0.0
  # Five runs of four words, of which four differ.
  assert generation.repetition('a b c d a b c d') == pytest.approx(1 / 5)
  assert generation.repetition('猫猫猫猫猫') == 0.5


def test_bad_prompts_are_named_by_file_and_line(tmp_path):
  path = tmp_path / 'p.jsonl'
  for text, words in (
    ('', 'p.jsonl has no prompts; a line is one JSON object'),
    ('{"text": "a"}', 'p.jsonl:1: there is none of the fields prompt, questio'),
    ('{"prompt": ""}', "p.jsonl:1: the field 'prompt' is empty"),
    ('{"prompt": 3}', "p.jsonl:1: the field 'prompt' is int, not str"),
    ('{"prompt": "a", "reference": [1]}', "the field 'reference' is a text or"),
    ('{"prompt": "a", "reference": 1}', "the field 'reference' is a text or a"),
    (
      '{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}',
      "p.jsonl:2: the id '1' stands in .*p.jsonl:1 already",
    ),
    ('{"prompt": ', 'p.jsonl:1: invalid JSON'),
  ):
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
      make(path)
  assert make('') is None
  path.write_text('{"prompt": "a", "language": "zh"}')
  with pytest.raises(ValueError, match="take 'scripts', 'lingua', or the path"):
    make(path, language_identifier='lid.bin')
  path.write_text('{"prompt": "a", "language": "xx", "reference": "b"}')
  with pytest.raises(ValueError, match="language 'xx' is unknown; known are"):
    make(path)
  with pytest.raises(ValueError, match="template 'magic' is unknown"):
    make(path, template='magic')
  responses = write(tmp_path / 'r.jsonl', {'id': '2', 'response': 'a'})
  wheres = {p.id: p.where for p in prompts.read(path, template='')}
  with pytest.raises(ValueError, match="r.jsonl:1: the id '2' is none of the"):
    prompts.read_responses(responses, wheres)
  wheres['2'] = 'p.jsonl:2'
  with pytest.raises(ValueError, match="no response to 1 of 2 prompts.*'1'"):
    prompts.read_responses(responses, wheres)
