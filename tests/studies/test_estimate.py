"""What a dry run tells, worked out by hand."""

import dataclasses
import importlib

import ml_collections
import pytest

from lbe.configs import common
from lbe.mesh import hardware
from lbe.models import architecture
from lbe.studies import estimate
from lbe.studies import grid
from lbe.studies import verdicts

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
