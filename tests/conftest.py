"""What every test gets: eight CPU devices, and the folder of real data."""

import ast
import contextlib
import ctypes
import gc
import os
import pathlib
import sys
import tempfile

import pytest

# Before anything imports jax.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the suite is compilation: without LLVM's optimizations and with XLA's
# older emitters it takes 0.4 of the time.
XLA_FLAGS = '--xla_force_host_platform_device_count={} ' + os.environ.get(
  'LBE_TEST_COMPILER',
  '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false',
)
if 'xla_force_host_platform' not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")} {XLA_FLAGS.format(8)}'.strip()
  )
# What one test, worker or program has compiled the next one need not; workers
# take the folder from the process that starts them.
if 'LBE_TESTS_COMPILED' not in os.environ:
  _COMPILED = tempfile.TemporaryDirectory(prefix='lbe-compiled-')
  os.environ['LBE_TESTS_COMPILED'] = _COMPILED.name
os.environ['JAX_COMPILATION_CACHE_DIR'] = os.environ['LBE_TESTS_COMPILED']
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
# Nothing is fetched, and forked tokenizer threads do not warn.
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
  """The programs first: begun last, one worker would wait for another."""
  items.sort(key=lambda item: item.path.parent != ROOT / 'tests')


class Failures:
  """Tells each failure at once: of a run that is cut off, too, one knows why.

  Of xdist's processes the one that all report to does.
  """

  def __init__(self, terminal):
    self.terminal = terminal

  def pytest_runtest_logreport(self, report):
    if report.failed:
      self.terminal.write_line(f'\n{report.nodeid}\n{report.longreprtext}')


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
  terminal = config.pluginmanager.get_plugin('terminalreporter')
  if terminal and 'PYTEST_XDIST_WORKER' not in os.environ:
    config.pluginmanager.register(Failures(terminal))


@pytest.fixture(scope='module', autouse=True)
def let_go_of_programs():
  """After each file of tests jax forgets what it has compiled.

  Its caches keep every program (241 of tests/inference/test_decode.py, 1 GiB)
  for as long as the process lives, and a worker runs a hundred files.
  """
  yield
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
    gc.collect()
    if sys.platform == 'linux':  # what was freed goes back to the system
      with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


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
