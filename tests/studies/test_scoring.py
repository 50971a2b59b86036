"""Scores of cells: what is asked again, and what keeps no other from them."""

import dataclasses
import json

import pytest

from lbe.configs import common
from lbe.evals import schedule
from lbe.studies import folder
from lbe.studies import scoring
from lbe.vocab import tokenizers

import judge_server
import runs
import tiny


@pytest.fixture
def config():
  config = common.base()
  config.execution.update(compute_dtype='float32', scan=False)
  config.eval_batch_size = 8
  return config


def study(path, evals, *names):
  """A study of stored models, of which none is there yet."""
  cells = [
    dict(
      name=name,
      kind='model',
      identity=f'i-{name}',
      axes={},
      inputs={},
      config={'path': str(path / 'models' / name)},
    )
    for name in names
  ]
  evals = {
    name: {'identity': name, 'fields': fields.to_dict(), 'cells': {}}
    for name, fields in evals.items()
  }
  for cell in cells:
    told = {'state': folder.DONE, 'identity': cell['identity']}
    folder.write_cell(path, cell['name'], told)
  record = dict(study='toy', cells=cells, evals=evals, claims=[])
  folder.write(path, record)
  return record


def store(path, name):
  tokenizer = tokenizers.load('bytes')
  model = dataclasses.replace(tiny.TINY, vocab_size=tokenizer.vocab_size)
  runs.save_random(path / 'models' / name, model, tokenizer)


def test_a_judge_that_was_down_is_asked_again(tmp_path, config):
  """Catches scores of half of the responses that stay for good."""
  for file, fields in (
    ('questions', {'category': 'c', 'question': 'Which?'}),
    ('responses', {'response': 'This.'}),
  ):
    (tmp_path / f'{file}.jsonl').write_text(
      ''.join(json.dumps({'id': i, **fields}) + '\n' for i in 'ab')
    )
  store(tmp_path, 'm')
  is_down = True

  def behave(number, prompt):
    return {'status': 503, 'body': 'busy'} if is_down else judge_server.GOOD

  with judge_server.serving(behave) as server:
    judge = common.endpoint(
      model='judge-1',
      base_url=server.url,
      key_env='',
      cache=str(tmp_path / 'judged.jsonl'),
      max_tries=1,
    )
    quality = common.response_quality(
      questions=str(tmp_path / 'questions.jsonl'),
      responses=str(tmp_path / 'responses.jsonl'),
      judge=judge,
    )
    record = study(tmp_path, dict(quality=quality), 'm')

    def score():
      groups = scoring.groups(tmp_path, record, {'m'})
      for names in groups:
        scoring.score(tmp_path, record, names, config, say=lambda text: None)
      found = folder.read_score(tmp_path, 'm', 'quality')['rows']
      return groups, {row['name']: row['value'] for row in found}

    groups, found = score()
    assert groups == [['m']] and found['judge_failures'] == 2
    is_down = False
    groups, found = score()
    assert groups == [['m']] and found['judge_failures'] == 0
    assert found['fluency'] == 3
    asked = len(server.seen)
    assert score() == ([], found) and len(server.seen) == asked


def test_a_cell_that_cannot_be_scored_stops_no_other(tmp_path, config):
  """Catches a night's scores that wait behind one model without memory."""
  (tmp_path / 'zh.txt').write_text('春天来了。' * 9, 'utf-8')
  zh = common.perplexity(path=str(tmp_path / 'zh.txt'), max_len=32)
  record = study(tmp_path, dict(zh=zh), 'bad', 'good')
  store(tmp_path, 'good')
  said = []
  with pytest.raises(ValueError, match='1 of 2 cells are not scored: bad; why'):
    scoring.score(tmp_path, record, ['bad', 'good'], config, say=said.append)
  assert scoring.unscored(tmp_path, record, 'bad') == ['zh']
  assert scoring.unscored(tmp_path, record, 'good') == []
  assert said[0].startswith('bad: not scored: ') and 'models/bad' in said[0]
  assert {row['cell'] for row in folder.rows(tmp_path, record)} == {'good'}


def test_an_evaluator_that_fails_keeps_no_other_from_its_scores(
  tmp_path, config, monkeypatch
):
  """Those behind it were never scored, and every cell wrote its responses."""
  (tmp_path / 'zh.txt').write_text('春天来了。' * 9, 'utf-8')
  text = common.perplexity(path=str(tmp_path / 'zh.txt'), max_len=32)
  record = study(tmp_path, dict(a=text, zh=text), *'xyz')
  for name in 'xyz':
    store(tmp_path, name)
  evaluate, asked, said = schedule.evaluate, [], []

  def refused(it, model, *, step):
    asked.append(it.name)
    if it.name == 'a':
      raise ValueError('401: no such key')
    return evaluate(it, model, step=step)

  monkeypatch.setattr(schedule, 'evaluate', refused)
  with pytest.raises(ValueError, match='3 of 3 cells are not scored: x, y, z'):
    scoring.score(tmp_path, record, [*'xyz'], config, say=said.append)
  for name in 'xyz':
    assert scoring.unscored(tmp_path, record, name) == ['a']
  assert asked.count('a') == 2 and asked.count('zh') == 3
  assert 'x: not scored by a: 401: no such key' in said
  assert 'z: not scored by a, which two cells had an error with' in said


def test_what_was_made_by_another_version_is_not_scored(tmp_path):
  """Catches weights of one rate under the name of another."""
  record = study(tmp_path, dict(zh=common.perplexity()), 'a', 'b')
  told = {'state': folder.DONE, 'identity': 'i-before'}
  folder.write_cell(tmp_path, 'a', told)
  assert scoring.groups(tmp_path, record, {'a', 'b'}) == [['b']]
