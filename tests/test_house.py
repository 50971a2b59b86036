"""The floors of the package: imports only go down."""

import pytest

import conftest

FLOORS = [
  'compilation hardware hlo hosts identity loss metrics profile program '
  'sampling sharding topology workdir vocab.load data.scripts',
  'groups optim models vocab exams '
  'data.sources data.readers data.dataset_info data.mixing data.packing '
  'data.messages data.templates data.order '
  'data.cleaning data.contamination data.languages',
  'batch step checkpoint decode engine prompting score models.hf models.peft '
  'data.build data.shards data.tokenized data.overlaps data.loader data.beam',
  # And above them the programs.
  'assemble certificate evals judging prompts stored',
]
FILES = sorted(conftest.ROOT.glob('lbe/**/[!_]*.py'))
FLOOR = {name: i for i, line in enumerate(FLOORS) for name in line.split()}


def floor(name):
  known = (k for k in FLOOR if f'{name}.'.startswith(f'{k}.'))
  return FLOOR.get(max(known, key=len, default=''), len(FLOORS))


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
def test_imports_only_go_down(path):
  """Catches a library that reaches up, or into a program or a config."""
  me = '.'.join(path.relative_to(conftest.ROOT / 'lbe').with_suffix('').parts)
  for it in conftest.imports(path):
    assert it != 'ml_collections' or floor(me) >= FLOOR['assemble'], me
    if it[:4] == 'lbe.':
      assert floor(it[4:]) <= min(floor(me), FLOOR['assemble']), f'{me} → {it}'
      assert it == 'lbe.evals.core' or not me[:6] == it[4:10] == 'evals.'
