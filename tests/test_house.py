"""The floors of the package: imports only go down."""

import conftest
import pytest

FLOORS = [
  'hardware loss metrics program sharding vocab.load',
  'optim models data.sources data.mixing data.packing data.templates vocab',
  'step checkpoint decode models.hf data.build data.loader',
  'assemble certificate evals',  # and above them the programs
]
FLOOR = {name: i for i, line in enumerate(FLOORS) for name in line.split()}
FILES = [p for p in conftest.ROOT.glob('lbe/**/*.py') if p.stem[:2] != '__']


def floor(name):
  known = [k for k in FLOOR if f'{name}.'.startswith(f'{k}.')]
  return FLOOR[max(known, key=len)] if known else len(FLOORS)


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
def test_imports_only_go_down(path):
  """Catches a library that reaches up, or into a program or a config."""
  me = '.'.join(path.relative_to(conftest.ROOT / 'lbe').with_suffix('').parts)
  for it in conftest.imports(path):
    if it == 'ml_collections':
      assert floor(me) >= FLOOR['assemble'], f'{me} sees configs'
    elif it.startswith('lbe.'):
      it = it.removeprefix('lbe.')
      assert floor(it) <= min(floor(me), FLOOR['assemble']), f'{me} → {it}'
      siblings = me.startswith('evals.') and it.startswith('evals.')
      assert not siblings or it == 'evals.core', f'{me} → {it}'
