"""The rules table, meshes, and the checks before anything compiles."""

import functools
import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import weights

TINY = architecture.Config(
  vocab_size=100,
  dim=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=64,
)
RUN = dict(
  num_heads=4,
  num_kv_heads=2,
  mlp_dim=64,
  dim=32,
  padded_vocab_size=128,
  batch_size=16,
  seq_len=64,
  num_microbatches=2,
)


def test_the_rules_give_these_specs():
  """A dim that moves to another mesh axis unseen."""
  specs = jax.tree.map(
    sharding.spec, weights.dims(TINY), is_leaf=lambda x: isinstance(x, tuple)
  )
  assert specs == {
    'embed_VD': P('tensor', 'fsdp'),
    'layers': {
      'attn_norm_LD': P(None, None),
      'q_LDNH': P(None, 'fsdp', 'tensor', None),
      'k_LDKH': P(None, 'fsdp', 'tensor', None),
      'v_LDKH': P(None, 'fsdp', 'tensor', None),
      'o_LNHD': P(None, 'tensor', None, 'fsdp'),
      'mlp_norm_LD': P(None, None),
      'gate_LDF': P(None, 'fsdp', 'tensor'),
      'up_LDF': P(None, 'fsdp', 'tensor'),
      'down_LFD': P(None, 'tensor', 'fsdp'),
    },
    'final_norm_D': P(None),
    'head_DV': P('fsdp', 'tensor'),
  }
  assert sharding.spec(('batch', 'position', None)) == P(
    ('data', 'fsdp'), 'context', None
  )


def test_minus_one_takes_the_devices_that_are_left():
  """A mesh that leaves devices idle."""
  mesh = sharding.make_mesh({'data': 2, 'fsdp': -1, 'tensor': 2})
  assert dict(mesh.shape) == dict(data=2, fsdp=2, context=1, tensor=2)
  assert {t.name for t in mesh.axis_types} == {'Auto'}
  mesh = sharding.make_mesh({'data': -1}, devices=jax.devices()[:1])
  assert mesh.size == 1


@pytest.mark.parametrize(
  'shape, message',
  [
    ({'data': 3}, 'asks for 3 devices, but there are 8'),
    ({'data': 16}, 'asks for 16 devices, but there are 8'),
    ({'data': 3, 'fsdp': -1}, 'a multiple of 3 devices, but there are 8'),
    ({'data': -1, 'fsdp': -1}, 'at most one is -1'),
    ({'data': 0}, 'sizes are positive'),
    ({'model': 8}, 'mesh.model is no mesh axis; the axes are data, fsdp'),
  ],
  ids=str,
)
def test_a_mesh_that_does_not_fill_the_devices_is_refused(shape, message):
  """Devices left out of a run, or an error from deep inside XLA."""
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(shape)


@pytest.mark.parametrize(
  'shape, change, message',
  [
    ({'data': 8}, {'num_microbatches': 3}, 'num_microbatches=3 does not'),
    ({'data': 8}, {'num_microbatches': 0}, 'num_microbatches=0 does not'),
    ({'data': 8}, {'batch_size': 8}, '= 4 rows cannot .* data . fsdp = 8'),
    ({'context': 8}, {'seq_len': 72}, 'seq_len=72 cannot .* 2 . context = 16'),
    ({'fsdp': 8}, {'dim': 36}, 'width 36 cannot .* fsdp = 8; lower mesh.fsdp'),
    ({'tensor': 8}, {}, '4 query heads cannot .* tensor = 8'),
    ({'tensor': 4, 'data': 2}, {}, '2 key/value heads cannot .* tensor = 4'),
    ({'tensor': 2, 'data': 4}, {'mlp_dim': 63}, 'MLP width 63 cannot'),
    (
      {'tensor': 2, 'data': 4},
      {'padded_vocab_size': 101},
      '101 vocabulary rows cannot .* raise vocab_multiple',
    ),
  ],
  ids=str,
)
def test_a_run_that_the_mesh_does_not_divide_is_refused(shape, change, message):
  """An error of XLA's after minutes of compiling."""
  mesh = sharding.make_mesh(shape)
  with pytest.raises(ValueError, match=message):
    sharding.check(mesh, **{**RUN, **change})


def test_a_run_that_the_mesh_divides_passes():
  """A check that is stricter than the mesh."""
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  sharding.check(mesh, **RUN)


def test_parameters_are_created_in_their_shards_with_the_same_numbers():
  """A whole model on one device first, or numbers that the mesh decides."""
  mesh = sharding.make_mesh({'fsdp': 4, 'tensor': 2})
  make = functools.partial(weights.init, TINY)
  sharded = jax.jit(
    make, out_shardings=sharding.shardings(mesh, weights.dims(TINY))
  )(jax.random.key(3))
  q_LDNH = sharded['layers']['q_LDNH']
  assert {s.data.shape for s in q_LDNH.addressable_shards} == {(2, 8, 2, 8)}
  jax.tree.map(
    np.testing.assert_array_equal, sharded, jax.jit(make)(jax.random.key(3))
  )


def test_activations_are_constrained_by_their_logical_dims():
  """A constraint that names the wrong axes: every device holds all rows."""
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  place = sharding.constrain(mesh)
  x = jax.jit(lambda x: place(x, ('batch', 'position', 'mlp')))(
    np.zeros((8, 4, 6))
  )
  assert {s.data.shape for s in x.addressable_shards} == {(2, 4, 3)}


@pytest.mark.parametrize('processes, parts', [([0] * 4, 1), ([0, 0, 1, 1], 2)])
def test_gpus_that_name_no_slice_are_parted_by_host(processes, parts):
  """Catches an attribute that some devices lack: a run would not start."""
  devices = [
    types.SimpleNamespace(platform='gpu', process_index=p) for p in processes
  ]
  assert sharding.num_parts(devices) == parts
