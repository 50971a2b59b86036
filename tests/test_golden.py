"""Numbers that only a deliberate change may move.

`python tests/test_golden.py` writes golden.json anew; its diff is then read.
"""

import importlib
import json
import pathlib
import sys
import tempfile

PATH = pathlib.Path(__file__).with_name('golden.json')
CONFIGS = ('quickstart', 'small_zh', 'zh_pretrain')


def losses():
  """Of five steps of the tiny run, by step."""
  import runs

  with tempfile.TemporaryDirectory() as workdir:
    flags = ('--config.budget.steps=5', f'--workdir={workdir}')
    runs.run('train', *runs.TINY, *flags)
    return {str(k): v for k, v in runs.losses(workdir).items()}


def config(name):
  """The resolved config as JSON holds it, without this machine's paths."""
  found = importlib.import_module(f'lbe.configs.{name}').get_config()
  record = json.loads(found.to_json_best_effort())
  for source in record['data']['sources'].values():
    source['path'] = pathlib.Path(source['path']).name
  return record


def test_the_first_losses_have_not_moved():
  """Model, data order, initial weights or optimizer changed unnoticed."""
  expected = json.loads(PATH.read_text())['losses']
  found = losses()
  assert found.keys() == expected.keys()
  for step, value in expected.items():
    assert abs(found[step] - value) < 1e-4, (step, found[step], value)


def test_resolved_configs_have_not_moved(monkeypatch):
  """A default that changes in common.py changes every run."""
  monkeypatch.delenv('LBE_TEST_DATA', raising=False)
  expected = json.loads(PATH.read_text())['configs']
  assert {name: config(name) for name in CONFIGS} == expected


if __name__ == '__main__':
  sys.path.insert(0, str(PATH.parents[1]))
  record = {'losses': losses(), 'configs': {n: config(n) for n in CONFIGS}}
  PATH.write_text(json.dumps(record, indent=1) + '\n')
