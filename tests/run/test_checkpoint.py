"""What is saved is what is loaded, on any mesh; old ones go as asked."""

import functools
import math
import resource
import time

import jax
import numpy as np
import pytest

from lbe.mesh import sharding
from lbe.models import weights
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.training import groups
from lbe.training import optim
from lbe.training import step as step_lib

import runs
import tiny

TINY = tiny.TINY
ALL = groups.Partition([tiny.everything(0.1)], weights.dims(TINY))
TX = optim.make(ALL, {'rest': lambda step: 0.1}, **tiny.OPTIM)
META = {'model': TINY.to_json(), 'tokenizer': None, 'config': None}
META['source'] = {'dtype': 'float32'}


def mesh(data, fsdp, tensor):
  return sharding.make_mesh(
    dict(data=data, fsdp=fsdp, context=1, tensor=tensor),
    devices=jax.devices()[: data * fsdp * tensor],
  )


@functools.cache
def state(seed=0):
  return step_lib.init_state(weights.init(TINY, jax.random.key(seed)), TX, ALL)


def abstract(on):
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    jax.eval_shape(state.__wrapped__),  # a trace is not to be remembered
    step_lib.state_shardings(on, TINY, TX, ALL),
  )


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def make(root, on=(1, 1, 1), **changes):
  settings = dict(every=10, keep=2) | changes
  return checkpoint.Checkpointer(root, abstract(mesh(*on)), **settings)


def steps(root):
  folder = root / 'checkpoints'
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_a_state_comes_back_on_another_mesh_in_its_shards(tmp_path):
  """Eight chips wrote it, four read it: same numbers, new places."""
  placed = jax.device_put(
    state(), step_lib.state_shardings(mesh(2, 2, 2), TINY, TX, ALL)
  )
  saver = make(tmp_path)
  saver.save(10, placed, data={'step': 10}, meta=META)
  saver.close()
  reader = make(tmp_path, on=(1, 4, 1))
  assert reader.latest() == 10
  reader.close()
  found, data, meta = checkpoint.load_state(tmp_path, abstract(mesh(1, 4, 1)))
  assert_equal(found, state())
  assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(
    lambda x: x.sharding, abstract(mesh(1, 4, 1))
  )
  assert data == {'step': 10}
  assert meta == {'version': 1, 'step': 10, **META}
  assert checkpoint.read_meta(tmp_path) == meta


def test_arrays_larger_than_the_limit_in_flight_are_saved(
  tmp_path, monkeypatch
):
  """A stacked weight of 7B is 5.8 GB on one device; Orbax refuses a request
  that is not smaller than its limit."""
  monkeypatch.setattr(checkpoint, 'IN_FLIGHT_BYTES', 1)
  saver = make(tmp_path)
  saver.save(10, state(), data={}, meta=META)
  saver.close()
  found, _, _ = checkpoint.load_state(tmp_path, abstract(mesh(1, 4, 1)))
  assert_equal(found, state())
  for name in ('embed_VD', 'layers/down_LFD'):
    assert checkpoint.load_array(tmp_path, name).size > 0


@pytest.mark.parametrize('best_is, best', [('lower', 2), ('higher', 1)])
def test_the_latest_and_the_best_are_kept(best_is, best, tmp_path):
  """An accuracy whose worst was kept; a save without the metric is no best."""
  how = dict(keep=1, keep_best='eval/zh/x', best_is=best_is)
  saver = make(tmp_path, **how)
  assert saver.lacks_best() and not make(tmp_path).lacks_best()
  for step, score in ((1, 3.0), (2, 1.0), (3, math.nan), (4, None)):
    metrics = {} if score is None else {'eval/zh/x': score}
    assert saver.is_best(metrics) == (step == 1 or step == best)
    saver.save(step, state(), data={}, meta=META, metrics=metrics)
  saver.close()
  assert steps(tmp_path) == sorted({best, 4})
  resumed = make(tmp_path, **how)
  assert resumed.latest() == 4
  assert not resumed.is_best({'eval/zh/x': 2.0})
  assert resumed.is_best({'eval/zh/x': 0.5 if best_is == 'lower' else 3.5})
  # Another score than the one that the run began with.
  other = make(tmp_path, **how | {'keep_best': 'eval/zh/y'})
  other.save(5, state(), data={}, meta=META, metrics={'eval/zh/y': 1.0})
  other.close()
  assert steps(tmp_path) == [5]


def test_the_best_is_kept_where_its_score_came_behind_its_saving(tmp_path):
  """It was deleted as one without a score, and a worse one kept as the best."""
  how = dict(keep=1, keep_best='eval/zh/x', best_is='lower')
  saver = make(tmp_path, **how)
  saver.save(1, state(), data={}, meta=META, metrics={})
  saver.close()
  for late, step in ((2.0, 2), (1.0, 4)):  # processes that know its score
    resumed = make(tmp_path, **how)
    resumed.scored_late({1: late})
    assert not resumed.lacks_best()
    assert resumed.is_best({'eval/zh/x': 0.5})
    assert not resumed.is_best({'eval/zh/x': 3.0})
    for i in (0, 1):
      metrics = {'eval/zh/x': 3.0 + i}
      resumed.save(step + i, state(), data={}, meta=META, metrics=metrics)
    resumed.close()
    assert steps(tmp_path) == [1, step + 1]


def test_saving_is_due_every_so_many_steps(tmp_path):
  saver = make(tmp_path)
  assert [s for s in range(1, 31) if saver.due(s)] == [10, 20, 30]
  with pytest.raises(ValueError, match='every=0 and checkpoint.keep=2'):
    make(tmp_path, every=0)


def test_a_half_written_checkpoint_is_not_found(tmp_path):
  """A kill while saving leaves a folder without its last parts."""
  saver = make(tmp_path)
  saver.save(10, state(), data={}, meta=META)
  saver.close()
  torn = tmp_path / 'checkpoints' / '20'
  (torn / 'params').mkdir(parents=True)
  assert checkpoint.find(tmp_path).name == '10'
  assert not checkpoint.is_checkpoint(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match='holds no finished checkpoint'):
    checkpoint.find(torn)


def test_a_folder_of_a_model_or_a_run_is_not_free(tmp_path):
  """Catches a checkpoint, and a certificate, in the midst of another model."""
  checkpoint.check_free(tmp_path)
  (tmp_path / 'config.json').touch()
  with pytest.raises(ValueError, match='already holds a model or a run'):
    checkpoint.check_free(tmp_path)


def test_weights_alone_keep_their_dtype_and_load_as_another(tmp_path):
  """An imported model stays in the dtype that it had."""
  import ml_dtypes

  params = jax.tree.map(
    lambda x: np.asarray(x).astype(ml_dtypes.bfloat16), state()['params']
  )
  checkpoint.save_model(tmp_path, params, meta=META)
  one = checkpoint.load_array(tmp_path, 'layers/q_LDNH')
  assert one.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(one, params['layers']['q_LDNH'])
  as_float = checkpoint.load_params(tmp_path, abstract(mesh(1, 2, 1))['params'])
  assert_equal(as_float, jax.tree.map(lambda x: x.astype(np.float32), params))


def test_relative_paths_are_paths(tmp_path, monkeypatch):
  """What a person types; Orbax takes absolute ones only."""
  monkeypatch.chdir(tmp_path)
  checkpoint.save_model('run', state()['params'], meta=META)
  assert checkpoint.read_meta('run')['step'] == 0
  found = checkpoint.load_array('run', 'layers/q_LDNH')
  np.testing.assert_array_equal(found, state()['params']['layers']['q_LDNH'])
  params = checkpoint.load_params('run', abstract(mesh(1, 2, 1))['params'])
  assert_equal(params, state()['params'])
  make('run').close()


def test_another_format_version_is_refused(tmp_path):
  checkpoint.save_model(tmp_path, state()['params'], meta=META)
  import json

  (path,) = tmp_path.glob('checkpoints/0/meta/*')
  path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 9}))
  checksums.write(path.parent.parent)
  with pytest.raises(ValueError, match='format version 9, this lbe reads 1'):
    checkpoint.read_meta(tmp_path)


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(tmp_path):
  """Refused writes while saving; with room again the run goes on."""
  command = (
    *runs.TINY,
    '--config.budget.steps=200',
    '--config.checkpoint.every=40',
    '--config.log_every=40',
    f'--workdir={tmp_path}',
  )
  process = runs.start('train', *command)
  while not checkpoint.is_checkpoint(tmp_path):
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.01)
  limit = 20_000
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 1, output
  assert f'error: saving into {tmp_path} failed' in output
  last = checkpoint.find(tmp_path).name
  assert f'the last whole checkpoint is {last}' in output
  output = runs.run('train', *command)
  assert f'resuming at step {last}' in output
  assert checkpoint.find(tmp_path).name == '200'
