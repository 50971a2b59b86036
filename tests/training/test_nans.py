"""Where numbers stop being finite is named: the layer, and the row."""

import jax
import numpy as np
import pytest

from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import weights
from lbe.training import nans

import tiny


def find(params, batch, *, scan=False):
  mesh = sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])
  execution = forward.Execution(compute_dtype='float32', scan=scan)
  return nans.find(params, batch, tiny.TINY, execution=execution, mesh=mesh)


@pytest.fixture
def params():
  made = weights.init(tiny.TINY, jax.random.key(0))
  return jax.tree.map(np.array, made)


@pytest.fixture
def batch():
  batch = tiny.batch()
  batch['ids_BT'] %= 49
  return batch


@pytest.mark.parametrize('scan', [False, True])
def test_the_first_layer_and_its_row_are_named(scan, params, batch):
  """A run that dies of NaN, and a search that takes a day."""
  batch['ids_BT'][2, 3] = 49
  params['embed_VD'][:, 0] = 0
  params['embed_VD'][49, 0] = 1
  layers = params['layers']
  for i in range(2):
    layers['o_LNHD'][i, ..., 0] = layers['down_LFD'][i, :, 0] = 0
  for name in ('gate_LDF', 'up_LDF'):
    layers[name][1, 0] = 1e30
  told = find(params, batch, scan=scan)
  assert 'behind layer 1 (layers count from 0) are not finite first' in told
  assert 'in row 2 of the batch' in told


def test_a_parameter_a_loss_and_a_gradient_are_named(params, batch):
  """Looking at states alone finds none of these."""
  batch['weights_BT'][[0, 3]] = np.inf
  assert 'the loss of rows 0, 3 is not' in find(params, batch)
  batch['weights_BT'][:] = 1
  assert find(params, batch).startswith('each row by itself is finite')
  # Forward these cancel; backward the norm's scale gets the one alone.
  batch['weights_BT'][:] = 1e30
  params['layers']['mlp_norm_LD'][1] = 1e-20
  for name in ('gate_LDF', 'up_LDF'):
    params['layers'][name][1] *= 1e20
  told = find(params, batch)
  assert 'the gradient is not in rows 0, 1, 2, 3' in told
  assert 'nearest to the loss at layers/' in told and 'of layer 1' in told
  params['layers']['q_LDNH'][1, 0, 0, 0] = np.nan
  assert 'parameter layers/q_LDNH of layer 1 is not finite' in find(
    params, batch
  )
