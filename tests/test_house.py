"""The house: rooms in their order, and nothing loose beside the commands."""

import ast

import pytest

import conftest

# Each room imports from rooms before it alone; the commands from all.
ROOMS = (
  'text mesh models vocab run chat training convert inference data exams '
  'judging evals assemble studies'
).split()
LBE = conftest.ROOT / 'lbe'
FILES = sorted(LBE.glob('**/[!_]*.py')) + sorted(LBE.glob('*/**/__init__.py'))


def name_of(path):
  return '.'.join(path.relative_to(LBE).with_suffix('').parts)


def floor(module):
  room = module.split('.')[0]
  return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def test_at_the_top_lie_commands_alone():
  """Catches a library that is put down where people look for programs."""
  for path in LBE.glob('*'):
    if path.suffix == '.py' and path.stem != '__init__':
      assert "\nif __name__ == '__main__':\n" in path.read_text(), path
    elif path.is_dir() and path.name != '__pycache__':
      assert path.name in [*ROOMS, 'configs'], path


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_imports_only_go_down(path):
  """Catches a library that reaches up, or into a program or a config."""
  me = name_of(path)
  for it in conftest.imports(path):
    assert it != 'ml_collections' or floor(me) >= floor('assemble'), me
    if it[:4] == 'lbe.':
      below = floor(it[4:]) < floor(me) or me.split('.')[0] == it.split('.')[1]
      assert below or floor(me) == len(ROOMS) > floor(it[4:]), f'{me} → {it}'
      assert it == 'lbe.evals.core' or not me[:6] == it[4:10] == 'evals.'


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_a_module_is_imported_under_its_own_name(path):
  """Catches one module that is called by another's name."""
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and node.module.split('.')[0] == 'lbe':
      for alias in node.names:
        assert alias.asname in (None, f'{alias.name}_lib'), path
