"""What a dry run tells, worked out by hand."""

import dataclasses
import importlib
import json
import pathlib

import jax
import ml_collections
import pytest

from lbe.configs import common
from lbe.mesh import hardware
from lbe.models import architecture
from lbe.studies import estimate
from lbe.studies import frozen
from lbe.studies import grid
from lbe.studies import verdicts
from lbe.text import lines

import tiny


def plain(asked):
  for cell in asked['cells']:
    if hasattr(cell['config'], 'to_dict'):
      cell['config'] = cell['config'].to_dict()
  return asked


def test_the_papers_grid_has_its_rows_and_their_flops():
  """Catches a row of Table 1 that is missing, and FLOPs of another shape."""
  module = importlib.import_module('lbe.configs.studies.zh_transfer')
  asked = plain(module.make(module.get_config()))
  asked['cells'] = grid.order(asked['cells'])
  names = {cell['name'] for cell in asked['cells']}
  assert sum(name.startswith('sft-') for name in names) == 6 + 6 + 7
  assert {'zh-10k', 'zh-100k', 'zh-1m', 'zh-ext-1m'} <= names
  rows = estimate.cells(asked, ml_collections.ConfigDict, names)
  by_name = {row['name']: row for row in rows}
  llama = architecture.PRESETS['llama_7b']
  per_token = hardware.flops_per_token(llama, 2048)
  assert by_name['zh-1m']['flops'] == per_token * 500_000_000
  extended, _, _ = by_name['sft-950k-zh-ext-1m']['shape']
  assert extended.vocab_size == 49_953 and extended.dim == 4096
  total = sum(row['flops'] for row in rows)
  hours = total / (459e12 * 0.5) / 3600
  line = estimate.elsewhere(rows, 'v5p-128', 2.0, 0.5)
  assert f'v5p-128: {hours:,.1f} chip-hours' in line
  assert f'{hours / 64:,.2f} hours on its 64 chips' in line
  assert f'; {2 * hours:,.0f} at 2 a chip-hour' in line


@pytest.mark.parametrize('size, scales', [('full', 4), ('tiny', 4)])
def test_the_micro_grid_is_a_grid(size, scales):
  """Catches a parent that is misspelt, and a claim about no cell."""
  module = importlib.import_module('lbe.configs.studies.micro')
  asked = plain(module.make(module.get_config(size)))
  cells = grid.order(asked['cells'])
  names = {cell['name'] for cell in cells}
  assert len(names) == 2 + 3 + scales * 2 + 4 + 4 + 2 + 9 + 16 + 3
  for claim in asked['claims']:
    assert claim['evaluator'] in asked['evals']
    assert grid.of_claim(cells, claim)
  verdicts.check(asked['claims'], asked['evals'])
  files = {
    f'{n}{part}.jsonl': {'sha256': n}
    for n in asked['files']
    for part in ('', '_eval')
  }
  assert len({c['identity'] for c in grid.identify(cells, files, {})}) == (
    len(names)
  )


def test_the_smallest_difference_is_that_of_the_formula():
  """3,900 questions for 2 points at a fifth of discordant pairs."""
  claim = {'terms': [{'cells': {'of': 'a'}}]}
  cells = [{'axes': {'of': 'a'}}] * 3

  def told(**more):
    return estimate.detectable(claim | more, cells)

  assert told(units=3_900).startswith('0.0201 over 3,900')
  # (4.303 + 0.84) * 0.02 * sqrt(2 / 3)
  assert told(seed_sd=0.02).startswith('0.084 over 3 seeds')
  assert 'not known' in told()


def test_steps_are_measured_on_the_devices_at_hand():
  config = common.base()
  config.data.update(seq_len=16, batch_size=8)
  model = dataclasses.replace(tiny.TINY, num_layers=1)
  assert estimate.measure(config, model) > 0


def test_a_dry_run_says_which_rows_no_mesh_divides():
  """Catches cells that train refuses on the very devices asked for."""
  config = common.base()
  config.data.update(seq_len=16, batch_size=12)
  model = dataclasses.replace(tiny.TINY, num_layers=1)
  row = dict(name='a', tokens=9, flops=1.0, disk=0, config=config)
  rows = [row | dict(shape=(model, 16, 12))]
  rows.append(dict(name='t', tokens=0, flops=0.0, disk=0, shape=None))
  assert '\n' not in estimate.elsewhere(rows, 'h100:4', 0.0, 0.4)
  for name, axis in (('h100:8', 8), ('2*h100:4', 8), ('tpu7x:2x2x1', 8)):
    _, told = estimate.elsewhere(rows, name, 0.0, 0.4).split('\n')
    assert told.startswith(f'{name}: train refuses a: data.batch_size'), told
    assert f'12 rows cannot be divided over mesh axis data * fsdp = {axis}' in (
      told
    )
  config.data.batch_size = 7
  config.mesh.fsdp = jax.device_count() + 1
  with pytest.raises(ValueError, match='here these cells cannot.*\na: mesh='):
    estimate.here(rows, lambda text: None)


def test_rows_of_as_many_updates_divide_over_a_host():
  """Catches 55 rows, with which a whole arm of the study fails."""
  module = importlib.import_module('lbe.configs.studies.vocabulary_scale')
  asked = plain(module.make(module.get_config()))
  asked['cells'] = grid.order(asked['cells'])
  names = {cell['name'] for cell in asked['cells']}
  rows = estimate.cells(asked, ml_collections.ConfigDict, names)
  assert sum('-updates-' in name for name in names) == 12
  for num_devices in (1, 2, 4, 8):
    assert not estimate.unfit(rows, num_devices)


# Cells of a study without any path: models, tokenizers, runs.
_STUDIES = {
  'vocabulary_scale': 2 + 3 * 4 * 3,
  'joint_vs_sequential': 1 + 3 * (5 + 1),
  'languages_13': 1 + 13 * 2,
  'code_switching': 1 + 3 * (14 + 1 + 1),
}


@pytest.mark.parametrize('name', _STUDIES)
def test_the_other_studies_are_grids(name):
  """Catches a cell that no evaluator scores, and a claim about no cell."""
  module = importlib.import_module(f'lbe.configs.studies.{name}')
  asked = plain(module.make(module.get_config()))
  assert asked['name'] == name
  cells = grid.order(asked['cells'])
  assert len(cells) == _STUDIES[name]
  verdicts.check(asked['claims'], asked['evals'])
  assert all(grid.of_claim(cells, claim) for claim in asked['claims'])
  files = {f'{n}.jsonl': {'sha256': n} for n in asked['files']}
  files |= {f'{n}_eval.jsonl': {'sha256': n} for n in asked['files']}
  grid.identify(cells, files, {})
  evals = {k: v.to_dict() for k, v in asked['evals'].items()}
  scored = set()
  for of in grid.identify_evals(evals, files, 'bfloat16').values():
    mine = {cell['name'] for cell in verdicts.cells_of(cells, of['cells'])}
    assert mine and 'cells' not in of['fields']
    scored |= mine
  instruct = {c['name'] for c in cells if c['axes']['stage'] == 'instruct'}
  assert instruct <= scored
  rows = estimate.cells(
    asked | {'cells': cells},
    ml_collections.ConfigDict,
    {c['name'] for c in cells},
  )
  assert sum(row['flops'] for row in rows) > 1e18


def write_few(path, template):
  """Three documents, or examples, where a study looks for its text."""
  path.parent.mkdir(parents=True, exist_ok=True)
  records = [{'instruction': x, 'input': '', 'output': x} for x in 'abc']
  text = '\n\n'.join(f' = {x} = \n\n{x}' for x in 'abc')
  if template:
    text = ''.join(map(lines.line, records))
    if path.suffix == '.json':
      text = json.dumps(records)
  path.write_text(text)


@pytest.mark.parametrize('name', [*_STUDIES, 'micro', 'zh_transfer'])
def test_a_study_with_all_of_its_fields_is_one(name, tmp_path, monkeypatch):
  """Catches a field that nobody has set before, and a file that nobody made."""
  monkeypatch.delenv('LBE_TEST_DATA', raising=False)
  module = importlib.import_module(f'lbe.configs.studies.{name}')
  config = module.get_config()
  fields = [field for field, value in config.items() if value == '']
  assert len(fields) >= 3
  for field in fields:
    config[field] = str(tmp_path / field)
  if 'replay' in config:
    config.replay = 0.1
  asked = plain(module.make(config))
  asked['evals'] = {k: v.to_dict() for k, v in asked['evals'].items()}
  asked = json.loads(json.dumps(asked))
  files = {f'{n}.jsonl': {'sha256': n} for n in asked['files']}
  for file, how in asked['files'].items():
    if 'path' in how:
      write_few(pathlib.Path(how['path']), how.get('template'))
      how['eval_documents'] = min(how.get('eval_documents', 0), 1)
    if 'cloze' not in how:
      files |= frozen.make(tmp_path, file, **how)
  cells = grid.identify(grid.order(asked['cells']), files, {})
  evals = grid.identify_evals(asked['evals'], files, '')
  verdicts.check(asked['claims'], asked['evals'])
  assert all(grid.of_claim(cells, claim) for claim in asked['claims'])
  for of in evals.values():
    assert verdicts.cells_of(cells, of['cells'])
  # Each evaluator that a field stands for is there.
  for field in set(fields) & {'questions', 'ceval', 'mmlu'}:
    assert any(
      str(tmp_path / field) in json.dumps(of['fields']) for of in evals.values()
    )
