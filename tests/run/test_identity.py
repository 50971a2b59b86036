"""What makes a run another one."""

import json

import pytest

from lbe.configs import common
from lbe.run import identity

import tiny


def test_a_run_from_before_a_judge_was_a_block_is_resumed(tmp_path):
  """Its saved config has the judge's fields flat among the evaluator's."""
  config = common.base()
  config.evals.quality = common.response_quality()
  new = {
    'config': json.loads(config.to_json_best_effort()),
    'model': {},
    'tokenizer': '',
    'data': {},
    'num_steps': 1,
  }
  old = json.loads(json.dumps(new))
  judge = old['config']['evals']['quality'].pop('judge')
  old['config']['evals']['quality'] |= {'judge': 'endpoint', **judge}
  (tmp_path / 'config.json').write_text(json.dumps(old))
  said = []
  identity.check_same_run(
    tmp_path, identity.recorded(tmp_path), new, said.append
  )
  assert any("evals.quality.judge: 'endpoint' → None" in x for x in said)


def test_a_run_from_before_a_field_is_resumed(tmp_path):
  """What an earlier version did not know is off where it is empty."""
  config = tiny.config(tmp_path, a={})
  old = json.loads(config.to_json_best_effort())
  del old['data']['sources']['a']['trim_turns']
  new = json.loads(config.to_json_best_effort())
  assert identity.differences(old, new) == ({}, {})
  config.data.sources.a.trim_turns = True
  new = json.loads(config.to_json_best_effort())
  decisive, _ = identity.differences(old, new)
  assert decisive == {'data.sources.a.trim_turns': (None, True)}


def test_what_decides_numbers_is_told_from_what_does_not(tmp_path):
  """A moved text is the same text; another rate is another run."""
  config = tiny.config(tmp_path, a={})
  old = json.loads(config.to_json_best_effort())
  config.mesh.data = 8
  config.data.sources.a.path = '/moved'
  config.data.sources.a.max_epochs = 4.0
  config.optim.peak_lr = 1.0
  config.execution.remat = 'full'
  config.execution.compute_dtype = 'float32'
  new = json.loads(config.to_json_best_effort())
  decisive, free = identity.differences(old, new)
  assert set(decisive) == {'optim.peak_lr', 'execution.compute_dtype'}
  assert set(free) == {
    'mesh.data',
    'data.sources.a.path',
    'data.sources.a.max_epochs',
    'execution.remat',
  }


def test_a_base_and_a_tokenizer_may_move_but_not_change(tmp_path):
  """Their fingerprints decide; runs of before had none of the base."""
  config = tiny.config(tmp_path, a={})
  config.init_from, config.tokenizer = 'base', 'tok.model'
  old = {
    'config': json.loads(config.to_json_best_effort()),
    'base': 'b',
    'model': {},
    'tokenizer': 't',
    'data': {},
    'num_steps': 1,
  }
  config.init_from, config.tokenizer = '/moved/base', './tok.model'
  new = old | {'config': json.loads(config.to_json_best_effort())}
  for before, after, refused in (
    (old, new, ''),
    (old, new | {'base': 'c'}, 'init_from'),
    (old, new | {'tokenizer': 'u'}, 'tokenizer'),
    ({k: x for k, x in old.items() if k != 'base'}, new, 'init_from'),
  ):
    (tmp_path / 'config.json').write_text(json.dumps(before))
    said = []
    if not refused:
      identity.check_same_run(tmp_path, before, after, said.append)
      assert "init_from: 'base' → '/moved/base'" in said[0]
      assert "tokenizer: 'tok.model' → './tok.model'" in said[1]
      continue
    with pytest.raises(ValueError, match=f'another run.*\n  {refused}: '):
      identity.check_same_run(tmp_path, before, after, said.append)


def test_a_folder_of_scores_is_no_workdir(tmp_path):
  """Catches a run that cuts the rows of `evaluate`, which have no step."""
  identity.check_trains(tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps({'scored': 'runs/base'}))
  with pytest.raises(ValueError, match=r'scores of runs/base .*another --work'):
    identity.check_trains(tmp_path)


def test_another_run_is_told_before_anything_is_read(tmp_path):
  """Catches hours of tokenizing before a refusal; what may move is none."""
  config = tiny.config(tmp_path, a={})
  old = {'config': json.loads(config.to_json_best_effort())}
  config.tokenizer = config.init_from = '/moved'
  config.budget.steps = 7
  identity.check_config('runs/zh', old, config)
  config.data.seq_len = 64
  with pytest.raises(ValueError, match=r'(?s)runs/zh .*data.seq_len: 32 → 64'):
    identity.check_config('runs/zh', old, config)
