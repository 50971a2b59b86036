"""What every test gets: eight CPU devices, and the folder of real data."""

import ast
import os
import pathlib

import pytest

# Before anything imports jax.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
_DEVICES = '--xla_force_host_platform_device_count'
if _DEVICES not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")} {_DEVICES}=8'.strip()
  )
# Nothing is fetched, and forked tokenizer threads do not warn.
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def test_data() -> pathlib.Path:
  """The folder of real test data: LBE_TEST_DATA, or ../shared/data."""
  path = pathlib.Path(
    os.environ.get('LBE_TEST_DATA') or ROOT.parent / 'shared' / 'data'
  )
  if not path.is_dir():
    reason = (
      f'there is no folder of test data at {path}; set LBE_TEST_DATA to one'
    )
    if os.environ.get('LBE_REQUIRE_TEST_DATA') == '1':
      pytest.fail(f'LBE_REQUIRE_TEST_DATA=1, but {reason}', pytrace=False)
    pytest.skip(reason)
  return path.resolve()


def imports(path: pathlib.Path) -> list[str]:
  """The modules that a Python file imports, wherever it does so."""
  names = []
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom):
      ours = node.module.split('.')[0] == 'lbe'
      names += (
        [f'{node.module}.{alias.name}' for alias in node.names]
        if ours
        else [node.module.split('.')[0]]
      )
    elif isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
  return names
