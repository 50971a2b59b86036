"""Responses that leave the asked language, counted and shown."""

import csv
import json

import pytest

from benchmarks import parity_lm_eval as parity
from lbe.data import languages
from lbe.evals import code_switching
from lbe.judging import sheets

import runs


def write(path, *records):
  path.write_text('\n'.join(json.dumps(r, ensure_ascii=False) for r in records))
  return str(path)


def make(path, **changes):
  fields = dict(
    path=path,
    responses='',
    language='',
    template='',
    limit=0,
    language_identifier='scripts',
    english_words='',
    sheet='',
    sheet_size=10,
    max_new_tokens=8,
    temperature=0.0,
    top_k=0,
    top_p=1.0,
    seed=0,
    stop=(),
  )
  return code_switching.make(**{**fields, **changes})


@pytest.fixture(scope='module')
def model(test_data):
  return parity.load_ours(test_data / 'ckpt_stories260K' / 'hf')


CASES = (
  # id, language, response, switched, line passes, words pass
  ('1', 'zh', '我今天很高兴，因为天气很好。', False, True, True),
  ('2', 'zh', '我今天 really happy about everything here', True, False, None),
  (
    '3',
    'zh',
    '这是一个很长很长的句子，里面有 weather 这个词。',
    True,
    True,
    False,
  ),
  ('4', 'zh', '', False, None, None),
  ('5', 'ar', 'هذا نص عربي طويل بما يكفي لكي يحسب', False, True, True),
  ('6', 'id', 'Saya sangat senang hari ini karena cuaca', False, True, None),
)


@pytest.fixture
def scored(model, tmp_path):
  prompts = write(
    tmp_path / 'p.jsonl',
    *({'id': i, 'prompt': '?', 'language': code} for i, code, *_ in CASES),
  )
  responses = write(
    tmp_path / 'r.jsonl',
    *({'id': i, 'response': text} for i, _, text, *_ in CASES),
  )
  made = make(
    prompts, responses=responses, sheet=str(tmp_path / 's.csv'), sheet_size=4
  )
  return made.evaluate(model, name='cs', step=1)


def test_every_response_is_judged_by_both_protocols(scored):
  for case, found in zip(CASES, scored.predictions, strict=True):
    got = tuple(found[k] for k in ('switched', 'line_pass', 'word_pass'))
    assert got == case[3:], case
  (span,) = scored.predictions[2]['spans']
  assert span['text'] == 'weather' and span['what'] == 'Latin'
  text = scored.predictions[2]['response']
  assert text[span['start'] : span['stop']] == 'weather'


def test_rates_by_hand(scored):
  """Empty responses are counted apart; rates go by language as well."""
  assert scored.metrics['empty'] == pytest.approx(1 / 6)
  rows = {r['name']: r for r in scored.rows}
  assert rows['switched']['value'] == pytest.approx(2 / 5)
  assert rows['switched']['count'] == 5
  assert rows['switched']['protocol'] == 'code_switching@scripts'
  assert rows['switched/zh']['value'] == pytest.approx(2 / 3)
  assert rows['switched/ar']['value'] == 0.0
  letters = [p['letters'] for p in scored.predictions]
  outside = [p['letters_outside'] for p in scored.predictions]
  assert outside[0] == 0 and outside[2] == len('weather')
  assert rows['letters_outside']['value'] == pytest.approx(
    sum(outside) / sum(letters)
  )
  assert rows['line_pass']['value'] == pytest.approx(4 / 5)
  assert rows['line_pass']['protocol'] == 'code_switching@lines'
  # Of those that pass, and not of languages with Latin letters.
  assert rows['word_pass']['value'] == pytest.approx(2 / 3)
  assert rows['word_pass']['count'] == 3


def test_a_sheet_comes_back_as_agreement(scored, tmp_path):
  """Blind: nothing on the sheet says what the detector said."""
  path = tmp_path / 's_1.csv'
  with open(path, encoding='utf-8-sig', newline='') as f:
    rows = list(csv.DictReader(f))
  assert len(rows) == 4 and {r['switched'] for r in rows} == {''}
  said = {p['id']: p['switched'] for p in scored.predictions}
  assert sum(said[r['id']] for r in rows) == 2
  with pytest.raises(ValueError, match='has no marks in the column `switched`'):
    sheets.agreement(path)
  # One person agrees but for one flagged response.
  flagged = next(r['id'] for r in rows if said[r['id']])
  for r in rows:
    r['switched'] = 'no' if r['id'] == flagged else str(int(said[r['id']]))
  with open(path, 'w', encoding='utf-8-sig', newline='') as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  assert sheets.agreement(path) == {
    'num': 4,
    'agreement': 0.75,
    'kappa': pytest.approx(0.5),
    'precision': 0.5,
    'recall': 1.0,
    'switched': pytest.approx(0.5 * 2 / 5),
  }
  output = runs.run('judge', f'--sheet={path}')
  assert 'agreement: 0.75' in output and 'kappa: 0.5' in output
  path.write_text(path.read_text('utf-8-sig').replace(',no', ',perhaps'))
  with pytest.raises(ValueError, match="the mark 'perhaps' is neither of 1"):
    sheets.agreement(path)


def test_a_model_is_asked(model, tmp_path):
  """An English model does not answer in Chinese."""
  path = write(tmp_path / 'p.jsonl', {'prompt': 'Once upon', 'language': 'zh'})
  result = make(path, max_new_tokens=40).evaluate(model, name='cs', step=0)
  assert result.metrics['switched'] == 1.0
  assert result.metrics['line_pass'] == 0.0


def test_lingua_tells_languages_of_one_script_apart(model, tmp_path):
  text = (
    'Saya pergi ke pasar untuk membeli sayuran segar. '
    'Yesterday I was walking home through the old town with my friends.'
  )
  path = write(tmp_path / 'p.jsonl', {'id': 1, 'prompt': '?', 'language': 'id'})
  responses = write(tmp_path / 'r.jsonl', {'id': 1, 'response': text})
  for name, switched in (('scripts', False), ('lingua', True)):
    made = make(path, responses=responses, language_identifier=name)
    (found,) = made.evaluate(model, name='cs', step=0).predictions
    assert found['switched'] == switched
  assert 'Yesterday' in found['spans'][0]['text']
  assert languages.segment_of('lingua', 'zh') is not None  # Japanese has Han
  assert languages.segment_of('lingua', 'gu') is None
  assert languages.segment_of('scripts', 'id') is None


def test_unknown_languages_are_refused(tmp_path):
  path = write(tmp_path / 'p.jsonl', {'prompt': 'a', 'language': 'xx'})
  with pytest.raises(ValueError, match="'1' asks for the language 'xx'; known"):
    make(path)
  path = write(tmp_path / 'p.jsonl', {'prompt': 'a'})
  with pytest.raises(ValueError, match="asks for the language ''; known are"):
    make(path)
  assert make('') is None
