"""Every config loads at once, and refuses what it does not know."""

import importlib
import json
import pathlib
import subprocess
import sys

import pytest

import runs

CONFIGS = sorted(
  path.stem
  for path in (runs.ROOT / 'configs').glob('[!_]*.py')
  if path.stem not in ('common', 'hardware', 'instruct', 'stored', 'study')
)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_starts_from_the_known_fields(name):
  """A field that no program reads would be a silent no-op."""
  from lbe.configs import common

  config = importlib.import_module(f'lbe.configs.{name}').get_config()
  known = set(common.base().to_dict())
  assert set(config.to_dict()) == known
  assert config.is_locked


def test_configs_import_neither_jax_nor_the_rooms():
  """Loading a config is instant, and works where jax is not.

  The table of languages, which imports nothing either, they may read.
  """
  code = (
    'import sys, importlib\n'
    f'for name in {CONFIGS}: importlib.import_module("lbe.configs." + name)\n'
    'bad = {"jax", "numpy", "grain"} & set(sys.modules)\n'
    'ours = {m for m in sys.modules if m.startswith("lbe.")}\n'
    'bad |= {m for m in ours if not m.startswith("lbe.configs")}\n'
    'bad -= {"lbe.text", "lbe.text.language_table"}\n'
    'assert not bad, bad'
  )
  subprocess.run([sys.executable, '-c', code], cwd=runs.ROOT, check=True)


def test_a_misspelt_field_is_refused_with_the_nearest_known_one(tmp_path):
  """A typo on the command line must not train with the default."""
  output = runs.run(
    'train',
    '--config=configs/quickstart.py',
    '--config.optim.peek_lr=1',
    f'--workdir={tmp_path}',
    status=1,
  )
  assert (
    "error: in the config or its overrides: 'peek_lr': "
    'Did you mean "peak_lr" instead of "peek_lr"?\n'
  ) in output
  assert 'Traceback' not in output


@pytest.mark.parametrize(
  'written, there_is',
  [
    ('judge_model=gpt-4o', 'evals.quality.judge.model\n'),
    ('base_url=http://a/v1', 'evals.quality.judge.base_url\n'),
    ('judge=people', 'evals.quality.judge.backoff_s, '),
  ],
)
def test_a_judges_fields_are_told_where_they_stand_now(
  tmp_path, written, there_is
):
  """Commands of before a judge was a block end with what to write instead."""
  output = runs.run(
    'evaluate',
    '--config=configs/eval_quality.py',
    f'--config.evals.quality.{written}',
    f'--workdir={tmp_path}',
    status=1,
  )
  field = f'evals.quality.{written.partition("=")[0]}'
  assert f'\ninstead of {field} there is {there_is}' in output
  assert 'Traceback' not in output


def test_a_config_says_which_judge():
  """Each has its own fields, and nothing of the others'."""
  from lbe.configs import eval_quality

  fields = {
    kind: set(eval_quality.get_config(kind).evals.quality.judge)
    for kind in ('endpoint', 'local', 'people')
  }
  assert fields['people'] == {'kind'}
  assert {'kind', 'model', 'base_url', 'key_env'} <= fields['endpoint']
  assert fields['local'] - fields['endpoint'] == {
    'template',
    'batch_size',
    'dtype',
  }
  assert eval_quality.get_config().evals.quality.judge.kind == 'endpoint'
  with pytest.raises(ValueError, match='eval_quality.py:gpt is unknown; take'):
    eval_quality.get_config('gpt')


def test_a_config_finds_its_neighbours_from_any_folder(tmp_path):
  """A run that is started elsewhere, or by an installed lbe, has them too."""
  config = f'--config={runs.ROOT}/configs/zh_pretrain.py:1m'
  process = runs.start('train', config, '--config.nope=1', cwd=tmp_path)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 1
  assert "error: in the config or its overrides: 'nope'" in output


def test_the_scales_of_the_paper_are_nested():
  """`:10k`, `:100k` and `:1m` differ in nothing but the documents taken."""
  from lbe.configs import zh_pretrain

  taken = []
  for scale in ('10k', '100k', '1m'):
    config = zh_pretrain.get_config(scale)
    taken.append(config.data.sources.zh.max_documents)
    with config.unlocked():
      config.data.sources.zh.max_documents = 0
    everything = zh_pretrain.get_config('all')
    assert config.to_dict() == everything.to_dict()
  assert taken == [10_000, 100_000, 1_000_000]
  on_chip = zh_pretrain.get_config('1m,v6e')
  assert on_chip.compiler_options == ('xla_tpu_scoped_vmem_limit_kib=98304',)
  with pytest.raises(ValueError, match="'v9' is no chip with settings"):
    zh_pretrain.get_config('1m,v9')
  with pytest.raises(ValueError, match='zh_pretrain.py:2m is unknown'):
    zh_pretrain.get_config('2m')


def test_quickstart_sample_exists():
  """The embedded text is found whatever the current folder is."""
  from lbe.configs import quickstart

  for source in quickstart.get_config().data.sources.values():
    assert pathlib.Path(source.path).stat().st_size > 10_000


@pytest.mark.parametrize('choice', ['', ':en'])
def test_the_command_of_zh_alpaca_lora_runs(test_data, tmp_path, choice):
  """A source `en` without a path refused the command that the file shows."""
  talks = [{'instruction': f'{i}?', 'output': 'Yes.'} for i in range(600)]
  (tmp_path / 'zh.json').write_text(json.dumps(talks))
  more = []
  if choice:
    (tmp_path / 'en.json').write_text(json.dumps(talks))
    more = [f'--config.data.sources.en.path={tmp_path / "en.json"}']
  output = runs.run(
    'train',
    '--dry_run',
    f'--config=configs/zh_alpaca_lora.py{choice}',
    f'--workdir={tmp_path / "run"}',
    f'--config.init_from={test_data / "ckpt_stories260K" / "hf"}',
    f'--config.data.sources.zh.path={tmp_path / "zh.json"}',
    *more,
    '--config.data.batch_size=8',
    '--config.data.num_workers=1',
  )
  assert 'dry run: everything above holds' in output
  assert ('\nen ' in output) == bool(choice)


def test_an_unknown_choice_of_zh_alpaca_lora_is_refused():
  from lbe.configs import zh_alpaca_lora

  with pytest.raises(ValueError, match='zh_alpaca_lora.py:fr is unknown; take'):
    zh_alpaca_lora.get_config('fr')
