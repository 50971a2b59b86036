"""Compilation: what is kept, and what is told when it happens again."""

import subprocess
import sys
from concurrent import futures

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from jax.experimental.compilation_cache import compilation_cache

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.mesh import compilation
from lbe.mesh import sharding
from lbe.run import program
from lbe.vocab import tokenizers


@pytest.fixture
def told():
  return []


def test_a_shape_that_changes_is_named_with_its_function(told):
  """Catches silence, a line in the first round, and the wrong argument."""

  @compilation.jit
  def score(params, arrays):
    return params['w_DV'].sum() + sum(x.sum() for x in arrays.values())

  params = {'w_DV': np.ones((4, 3))}
  watch = compilation.Watch(told.append)
  with watch('round 0'):
    for length in (8, 24):
      ids_BT = np.ones((2, length), np.float32)
      score(params, {'ids_BT': ids_BT, 'count': np.int32(1)})
  assert told == []
  with watch('round 0'):
    score(params, {'ids_BT': np.ones((2, 12), np.int32), 'count': np.int32(1)})
  (line,) = told
  assert line.startswith('warning: round 0 compiled jit(score) again, ')
  assert line.endswith("s: arrays['ids_BT'] was float32[2,24], is int32[2,12]")
  with watch('round 0'):
    score(params, {'ids_BT': np.ones((2, 12), np.int32), 'count': np.int32(2)})
  assert len(told) == 1


def test_a_place_that_changes_is_named(told):
  """Other shardings compile again without any new shape."""

  @compilation.jit
  def double(x_VD):
    return 2 * x_VD

  mesh = sharding.make_mesh({'fsdp': 2}, devices=jax.devices()[:2])
  watch = compilation.Watch(told.append)
  for dims in ((None, None), (None, 'embed')):
    where = jax.sharding.NamedSharding(mesh, sharding.spec(dims))
    with watch('scoring'):
      double(jax.device_put(np.ones((4, 4), np.float32), where))
  (line,) = told
  assert 'x_VD was NamedSharding' in line and "'fsdp'" in line.split(', is ')[1]


def test_what_is_no_function_of_ours_is_told_by_its_name(told):
  watch = compilation.Watch(told.append)
  for n in (5, 7):
    with watch('saving'):
      jax.jit(lambda x: x + 1)(np.ones(n))
  (line,) = told
  assert line.startswith('warning: saving compiled jit(<lambda>) again, ')


def test_the_train_step_takes_what_it_was_compiled_for_only():
  """A batch of another length is an error with its name, not a compilation."""
  config = common.base()
  config.model.update(dim=16, num_layers=1, num_heads=2, mlp_dim=16)
  config.data.update(seq_len=16, batch_size=2)
  model = model_lib.make_config(config, tokenizers.load('bytes'))
  mesh = sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])
  training = step_lib.make_training(
    config, model, mesh, step_lib.make_partition(config, model), 10
  )
  step = training.step.lower(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  ).compile()
  state = jax.tree.map(
    lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding),
    training.abstract_state,
  )
  batch = {
    name: np.zeros((2, 8)[: len(x.shape)], x.dtype)
    for name, x in training.abstract_batch.items()
  }
  rates = training.rates(state['step'])
  before = compilation.num_compiled()
  with pytest.raises(TypeError, match=r"batch\['ids_BT'\].*int32\[2,16\]"):
    step(state, batch, rates)
  assert compilation.num_compiled() == before


@pytest.fixture
def settings():
  """JAX's settings of its cache are as before, and its cache is forgotten."""
  names = (
    'jax_compilation_cache_dir',
    'jax_enable_compilation_cache',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  files_of = compilation.compilation_cache.get_file_cache
  yield
  # Other tests share their folder with processes that keep no checksums.
  compilation.compilation_cache.get_file_cache = files_of
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def test_a_kept_program_that_is_damaged_is_made_anew(tmp_path, settings):
  """One flipped bit trained other numbers, or ended the process."""
  compilation_cache.reset_cache()
  compilation.keep(tmp_path)
  jax.config.update('jax_enable_compilation_cache', True)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)

  def found():
    before = compilation.num_found()
    jax.clear_caches()
    assert jax.jit(lambda x: 3 * x + 1)(2.0) == 7
    return compilation.num_found() - before

  assert found() == 0 < found()
  with futures.ThreadPoolExecutor(1) as beside:
    before = compilation.num_found()
    assert beside.submit(found).result() > 0
    assert compilation.num_found() == before  # what another thread found
  whole = {p: p.read_bytes() for p in tmp_path.glob('*-cache')}
  for at in (-1, 40):
    for path, data in whole.items():
      damaged = bytearray(data)
      damaged[at] ^= 1
      path.write_bytes(damaged)
    assert found() == 0 < found()


@pytest.mark.parametrize(
  ('flag', 'given', 'expected'),
  [
    (None, None, 'HOME/lbe/compiled'),
    (None, 'mine', 'mine'),
    ('flag', 'mine', 'flag'),
    ('', 'mine', None),
  ],
)
def test_where_compiled_programs_are_kept(
  tmp_path, monkeypatch, settings, flag, given, expected
):
  """A flag comes before the user's variable, that before the home folder."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  flags.FLAGS(['test'])
  jax.config.update('jax_compilation_cache_dir', given)
  with flagsaver.flagsaver(compilation_cache=flag):
    program.keep_compiled(tmp_path / 'workdir')
  found = jax.config.jax_compilation_cache_dir
  if not jax.config.jax_enable_compilation_cache:
    found = None
  assert found == (expected and expected.replace('HOME', str(tmp_path)))


@pytest.mark.parametrize('kind', ['ValueError', 'RuntimeError'])
def test_an_error_does_not_wait_for_what_compiles(kind):
  """Said at once, and the process stayed for the minutes of a compilation."""
  program_text = """
import time

from lbe.mesh import compilation
from lbe.run import program


def main(argv):
  compilation.beside(lambda: time.sleep(1000))
  raise KIND('the weights are damaged')


program.run(main)
"""
  ended = subprocess.run(
    [sys.executable, '-c', program_text.replace('KIND', kind)],
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert ended.returncode == 1
  *traceback, told = ended.stderr.splitlines()
  named = {'ValueError': 'error'}.get(kind, kind)
  assert told == f'{named}: the weights are damaged'
  assert bool(traceback) == (kind != 'ValueError')
