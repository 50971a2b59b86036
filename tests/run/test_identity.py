"""What makes a run another one."""

import json

from configs import common
from lbe.run import identity


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
  identity.check_same_run(tmp_path, new, said.append)
  assert any("evals.quality.judge: 'endpoint' → None" in x for x in said)
