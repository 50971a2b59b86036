"""Responses that leave the asked language, counted and shown."""

import csv
import json

import pytest

from lbe.evals import code_switching
from lbe.judging import sheets
from lbe.text import languages

import evaluators
import harness
import runs


def write(path, *records):
  path.write_text('\n'.join(json.dumps(r, ensure_ascii=False) for r in records))
  return str(path)


def make(path, **changes):
  settings = dict(template='', max_new_tokens=8, sheet_size=10)
  return evaluators.make(code_switching, path=path, **{**settings, **changes})


@pytest.fixture(scope='module')
def model(test_data):
  return harness.load_ours(test_data / 'ckpt_stories260K' / 'hf')


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
  ('6', 'id', 'Saya sangat senang hari ini karena cuaca', None, None, None),
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
  """Empty responses are counted apart, and what scripts do not tell; rates go
  by language as well."""
  assert scored.metrics['empty'] == pytest.approx(1 / 6)
  rows = {r['name']: r for r in scored.rows}
  assert rows['switched']['value'] == pytest.approx(2 / 4)
  assert rows['switched']['count'] == 4
  assert rows['switched']['protocol'] == 'code_switching@scripts'
  assert rows['switched/zh']['value'] == pytest.approx(2 / 3)
  assert rows['switched/ar']['value'] == 0.0
  # An Indonesian response in English would have had 0.0000.
  assert [n for n in rows if n.endswith('/id')] == ['empty/id', 'usable/id']
  assert 'do not tell id from other' in rows['empty']['warning']
  letters = [p['letters'] for p in scored.predictions]
  outside = [p['letters_outside'] for p in scored.predictions]
  assert outside[0] == 0 and outside[2] == len('weather')
  assert rows['letters_outside']['value'] == pytest.approx(
    sum(outside) / sum(letters[:5])
  )
  assert rows['line_pass']['value'] == pytest.approx(3 / 4)
  assert rows['line_pass']['protocol'] == 'code_switching@lines'
  # Of those that pass, and not of languages with Latin letters.
  assert rows['word_pass']['value'] == pytest.approx(2 / 3)
  assert rows['word_pass']['count'] == 3
  # One of the six is empty, and two of five that are told are not switched.
  assert rows['usable']['value'] == pytest.approx(5 / 6)
  assert rows['unswitched_of_all']['value'] == pytest.approx(2 / 5)
  assert rows['line_pass_of_all']['value'] == pytest.approx(3 / 5)
  assert rows['word_pass_of_all']['value'] == pytest.approx(2 / 5)
  assert rows['switched']['num_unusable'] == 1


def test_one_character_without_end_is_no_perfect_score(model, tmp_path):
  """Its rates are 0.000 switched of 1, and 0 of all."""
  path = write(
    tmp_path / 'p.jsonl', {'id': '1', 'prompt': '?', 'language': 'zh'}
  )
  responses = write(tmp_path / 'r.jsonl', {'id': '1', 'response': '的' * 200})
  made = make(path, responses=responses)
  rows = {r['name']: r for r in made.evaluate(model, name='cs', step=1).rows}
  assert rows['switched']['value'] == 0.0
  assert all(r['num_unusable'] == 1 for r in rows.values())
  assert all(r['count'] == 1 for r in rows.values())
  for name in ('usable', 'unswitched_of_all', 'line_pass_of_all'):
    assert rows[name]['value'] == 0.0
  assert '1 of 1 responses are unus' in rows['usable']['warning']
  output = runs.run('judge', f'--switching={responses}', '--language=zh')
  assert 'warning: ' in output and '| usable ↑ | 0.0000 |' in output


def test_a_sheet_comes_back_as_agreement(scored, tmp_path):
  """Blind: nothing on the sheet says what the detector said."""
  path = tmp_path / 's_1.csv'
  with open(path, encoding='utf-8-sig', newline='') as f:
    rows = list(csv.DictReader(f))
  assert len(rows) == 4 and {r['switched'] for r in rows} == {''}
  said = {p['id']: bool(p['switched']) for p in scored.predictions}
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


def judged(text, language, **settings):
  detector = code_switching.Detector(
    'scripts', {language}, **{'english_words': '', **settings}
  )
  return detector.judge(text, language)


def test_words_pass_by_a_list_of_english_words(tmp_path):
  """Pinyin is no English; with the benchmark's list it need not count."""
  words = tmp_path / 'words'
  words.write_text('weather\nParis\nday\n')
  listed = {'english_words': str(words)}
  pinyin = '这是一个很长很长的句子，里面有 pinyin 这个词。'
  weather = pinyin.replace('pinyin', 'weather')
  assert judged(pinyin, 'zh')['word_pass'] is False
  assert judged(pinyin, 'zh', **listed)['word_pass'] is True
  assert judged(weather, 'zh', **listed)['word_pass'] is False
  assert judged(weather.replace('wea', 'Wea'), 'zh')['word_pass'] is True
  assert judged(weather.replace('weather', 'day'), 'zh')['word_pass'] is True
  with pytest.raises(ValueError, match='english_words=.*: there is no file'):
    judged(pinyin, 'zh', english_words=str(tmp_path / 'no'))


def test_lines_are_those_of_the_benchmark():
  """Short lines, numbers and a next question are in no language."""
  line = 'هذا نص عربي طويل بما يكفي لكي يحسب'
  assert judged(f'{line}\nfour words are short', 'ar')['line_pass'] is True
  assert judged(f'{line}\nfive words are one more', 'ar')['line_pass'] is False
  assert judged(f'{line}\n1 2 3 4 5 6', 'ar')['line_pass'] is True
  assert (
    judged(f'{line}\nQ: and then something else', 'ar')['line_pass'] is True
  )
  assert judged('four words are short', 'ar')['line_pass'] is None


def test_stored_responses_are_judged_without_a_model(scored, tmp_path):
  """The program's rates are the evaluator's."""
  path = write(
    tmp_path / 'predictions.jsonl',
    *scored.predictions,
    {'evaluator': 'other', 'id': 1},
  )
  output = runs.run('judge', f'--switching={path}@cs')
  assert 'step 1:' in output
  for r in scored.rows:
    (line,) = [x for x in output.splitlines() if f'| {r["name"]} ' in x]
    assert f'| {r["value"]:.4f} |' in line
    assert f'| {r["count"]} responses |' in line
  with pytest.raises(AssertionError, match='records of several evaluators'):
    runs.run('judge', f'--switching={path}')
  bare = write(tmp_path / 'bare.jsonl', {'response': '你好 and hello there'})
  with pytest.raises(AssertionError, match='bare.jsonl:1 names no language'):
    runs.run('judge', f'--switching={bare}')
  output = runs.run('judge', f'--switching={bare}', '--language=zh')
  assert '| switched ↓ | 1.0000 |' in output


def test_rows_say_what_was_scored(scored, model, tmp_path):
  """Other responses are other data; no template made those of a file."""
  assert all('template' not in r for r in scored.rows)
  prompts = write(tmp_path / 'q.jsonl', {'prompt': '?', 'language': 'zh'})
  hashes = set()
  for text in ('好', '不好'):
    responses = write(tmp_path / 'a.jsonl', {'id': 1, 'response': text})
    made = make(prompts, responses=responses)
    hashes |= {
      r['data_hash'] for r in made.evaluate(model, name='a', step=0).rows
    }
  assert len(hashes) == 2


def test_marks_of_people_are_never_overwritten(scored, model, tmp_path):
  """A second round of evaluation must not lose a day's work."""
  path = tmp_path / 's_1.csv'
  unmarked = path.read_text('utf-8-sig')
  path.write_text(unmarked.replace(',\n', ',1\n', 1), 'utf-8')
  marked = path.read_text('utf-8')
  assert marked != unmarked
  sheets.write(scored.predictions, tmp_path / 's.csv', size=4, step=1)
  assert path.read_text('utf-8') == marked
  sheets.write(scored.predictions, tmp_path / 's.csv', size=4, step=2)
  assert (tmp_path / 's_2.csv').exists()
  with pytest.raises(ValueError, match='has marks, which would be lost'):
    make(str(tmp_path / 'p.jsonl'), sheet=str(path))


def test_a_sheets_recall_is_that_of_all_responses(tmp_path):
  """Half a sheet is flagged where few responses are."""
  path = tmp_path / 's.csv'
  records = [
    dict(id=str(i), language='zh', prompt='', response='', switched=i < 10)
    for i in range(100)
  ]
  sheets.write(records, path, size=20)
  with open(path, encoding='utf-8-sig', newline='') as f:
    rows = list(csv.DictReader(f))
  assert sum(int(r['id']) < 10 for r in rows) == 10
  # All that is flagged is right, and one in ten of the others was missed.
  others = [r['id'] for r in rows if int(r['id']) >= 10]
  for r in rows:
    r['switched'] = str(int(r['id'] not in others[1:]))
  with open(path, 'w', encoding='utf-8', newline='') as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  found = sheets.agreement(path)
  assert found['precision'] == 1.0 and found['agreement'] == 0.95
  assert found['recall'] == pytest.approx(10 / (10 + 90 * 0.1))
  assert found['switched'] == pytest.approx(0.19)


def test_sheets_that_do_not_fit_are_refused(scored, tmp_path):
  path = tmp_path / 's_1.csv'
  key = tmp_path / 's_1.csv.key'
  path.write_text('id,language,prompt,response,switched\n77,zh,a,b,1\n')
  with pytest.raises(ValueError, match="line 2: the id '77' is not in s_1.csv"):
    sheets.agreement(path)
  path.write_text('id,response\n1,a\n')
  with pytest.raises(ValueError, match='has no column switched; a sheet has'):
    sheets.agreement(path)
  key.unlink()
  with pytest.raises(ValueError, match='has no s_1.csv.key beside it'):
    sheets.agreement(path)


def test_lingua_tells_languages_of_one_script_apart(model, tmp_path):
  text = (
    'Saya pergi ke pasar untuk membeli sayuran segar. '
    'Yesterday I was walking home through the old town with my friends.'
  )
  path = write(tmp_path / 'p.jsonl', {'id': 1, 'prompt': '?', 'language': 'id'})
  responses = write(tmp_path / 'r.jsonl', {'id': 1, 'response': text})
  for name, switched in (('scripts', None), ('lingua', True)):
    made = make(path, responses=responses, language_identifier=name)
    (found,) = made.evaluate(model, name='cs', step=0).predictions
    assert found['switched'] == switched
  assert 'Yesterday' in found['spans'][0]['text']
  assert languages.segment_of('lingua', 'zh') is not None  # Japanese has Han
  assert languages.segment_of('lingua', 'gu') is None
  assert languages.segment_of('scripts', 'id') is None


def test_unknown_languages_are_refused(tmp_path):
  path = write(tmp_path / 'p.jsonl', {'prompt': 'a', 'language': 'xx'})
  with pytest.raises(
    ValueError, match="'1' .its.*language 'xx' is unknown; known"
  ):
    make(path)
  path = write(tmp_path / 'p.jsonl', {'prompt': 'a'})
  with pytest.raises(ValueError, match="language '' is unknown; known are"):
    make(path)
  assert make('') is None
