"""Where a number stops being finite first: the layer, and the row of the batch.

For --debug_nans: it computes a step again, piece by piece, and takes its time.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.training import step as step_lib


def check(
  step: int,
  metrics: dict,
  params: dict,
  batch: dict,
  c: architecture.Config,
  *,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh,
):
  """Raises ValueError where the gradient of a step was not finite.

  `params` are those that the step began with; it waits for the device.
  """
  norm = float(metrics['grad_norm'])
  if not math.isfinite(norm):
    where = find(params, batch, c, execution=execution, mesh=mesh)
    raise ValueError(
      f'step {step:,}: the gradient has the norm {norm}; {where}'
    )


def find(
  params: dict,
  batch: dict,
  c: architecture.Config,
  *,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh,
) -> str:
  """What is not finite first: a parameter, a layer's states, loss or gradient.

  Looked at in this order; of states, loss and gradient also in which rows.
  """
  bad = _names(jax.jit(_finite)(params))
  if bad:
    return f'the parameter {bad[0]} is not finite (and {len(bad) - 1} others).'

  @jax.jit
  def states(params, batch):
    x_BTD, seen_LB = forward.hidden(
      params,
      c,
      batch['ids_BT'],
      positions_BT=batch['positions_BT'],
      segments_BT=batch['segments_BT'],
      execution=execution,
      mesh=mesh,
      look=_finite_rows,
    )
    embedded_B = _finite_rows(
      forward.embed(params, batch['ids_BT'], execution, mesh)
    )
    return [embedded_B, *seen_LB, _finite_rows(x_BTD)]

  seen = [np.asarray(x) for x in _gathered(mesh, states(params, batch))]
  names = ['the embedding', *map('layer {}'.format, range(c.num_layers))]
  for name, ok_B in zip([*names, 'the final norm'], seen, strict=True):
    if not ok_B.all():
      return (
        f'the states behind {name} (layers count from 0) are not finite first, '
        f'in {_rows(~ok_B)} of the batch.'
      )

  def objective(params, batch):
    how = {'execution': execution, 'mesh': mesh}
    return step_lib.batch_sums(params, batch, c, z_loss=0.0, **how)['objective']

  @jax.jit
  def one_row(params, batch, row):
    own_B1 = jnp.arange(len(batch['ids_BT']))[:, None] == row
    weights_BT = jnp.where(own_B1, batch['weights_BT'], 0.0)
    value, d_params = jax.value_and_grad(objective)(
      params, batch | {'weights_BT': weights_BT}
    )
    return jnp.isfinite(value), _finite(d_params)

  num_rows = len(batch['ids_BT'])
  bad_loss, bad_gradient, first = [], [], []
  for row in range(num_rows):
    ok, ok_gradient = one_row(params, batch, row)
    if not ok:
      bad_loss.append(row)
    elif bad := _names(ok_gradient, last=True):
      bad_gradient.append(row)
      first = first or bad
  if bad_loss:
    return f'all states are finite, the loss of {_rows(bad_loss)} is not.'
  if bad_gradient:
    return (
      f'the loss is finite, the gradient is not in {_rows(bad_gradient)}: '
      f'nearest to the loss at {first[0]}.'
    )
  return (
    'each row by itself is finite, forward and backward: their sum '
    'overflows, or a dropout or the loss on the normalizer (optim.z_loss) does.'
  )


def _finite(tree):
  """{path: bool, or [L] of what is stacked} of parameters."""
  return {
    name: jnp.isfinite(x).all(
      axis=tuple(range(int(weights.is_stacked(name)), x.ndim))
    )
    for name, x in weights.flatten(tree).items()
  }


def _names(finite, *, last=False):
  """Names of what is not finite, layers with their numbers, in their order."""
  bad = []
  for name, ok in finite.items():
    ok = np.atleast_1d(np.asarray(ok))
    for i in np.flatnonzero(~ok):
      of = f'{name} of layer {i}' if len(ok) > 1 else name
      bad.append((-i if last else i, of))
  return [of for _, of in sorted(bad, key=lambda x: x[0])]


def _finite_rows(x_BTD):
  return jnp.isfinite(x_BTD).all(axis=(1, 2))


def _gathered(mesh, tree):
  """Arrays as every host can read them."""
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.jit(lambda x: x, out_shardings=everywhere)(tree)


def _rows(bad):
  """'row 3', or 'rows 3, 4, 7' of numbers or of a mask."""
  bad = np.asarray(bad)
  numbers = np.flatnonzero(bad) if bad.dtype == bool else bad
  shown = ', '.join(map(str, numbers[:20])) + ', …' * (len(numbers) > 20)
  return f'row{"s" * (len(numbers) > 1)} {shown}'
