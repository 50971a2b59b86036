"""Forward passes that keep keys and values, or go on from kept ones."""

import functools

import jax
import jax.numpy as jnp

from lbe.mesh import compilation
from lbe.mesh import sharding
from lbe.models import attention
from lbe.models import forward as forward_lib
from lbe.models.attention import blocks


def constrain(mesh):
  """As sharding.constrain, without the axes that do not divide an array."""

  def place(x, dims):
    where = jax.sharding.NamedSharding(mesh, sharding.spec(dims))
    return jax.lax.with_sharding_constraint(x, sharding.fitted(where, x.shape))

  return place


def forward(
  params, c, ids_BT, *, positions_BT, attend, kept_L, execution, constrain
):
  """(states [B, T, D] behind the final norm, what `attend` kept, stacked).

  `attend(kept, new, q, k, v)` gives the attention's output [B, T, N, H]; what
  it appends to the list `new` is kept. `kept_L` is a tree of arrays [L, ...],
  of which `kept` is the layer's own.
  """
  tables = forward_lib.rope_tables(c, positions_BT)

  def body(x_BTD, per_layer):
    w, kept = per_layer
    new = []
    x_BTD = forward_lib.decoder_layer(
      c, w, x_BTD, tables, functools.partial(attend, kept, new), constrain
    )
    return x_BTD, new

  x_BTD = forward_lib.embed(params, ids_BT, execution)
  layers = forward_lib.stacked(params)
  if execution.scan:
    x_BTD, new_L = jax.lax.scan(body, x_BTD, (layers, kept_L))
  else:
    found = []
    for i, w in enumerate(forward_lib.unstacked(layers, c.num_layers)):
      own = jax.tree.map(lambda x_L, i=i: x_L[i], kept_L)
      x_BTD, new = body(x_BTD, (w, own))
      found.append(new)
    new_L = jax.tree.map(lambda *xs: jnp.stack(xs), *found)
  return forward_lib.rms_norm(x_BTD, params['final_norm_D'], c.norm_eps), new_L


def prefill(params, c, ids_BT, *, execution, constrain):
  """(states, [keys, values] each [L, B, T, K, H]) of rows of one text each.

  Padding stands behind the texts.
  """
  positions_BT = jnp.broadcast_to(
    jnp.arange(ids_BT.shape[1], dtype=jnp.int32), ids_BT.shape
  )
  ones_BT = jnp.ones_like(ids_BT)

  def attend(kept, new, q_BTNH, k_BTKH, v_BTKH):
    del kept
    new += [k_BTKH, v_BTKH]
    return blocks.attend(
      q_BTNH,
      k_BTKH,
      v_BTKH,
      segments_BT=ones_BT,
      precision=attention.precision(q_BTNH.dtype),
    )

  return forward(
    params,
    c,
    ids_BT,
    positions_BT=positions_BT,
    attend=attend,
    kept_L=None,
    execution=execution,
    constrain=constrain,
  )


def before(kept_PKH, length):
  """What all rows begin with, as attention.attend_behind takes it."""
  k_PKH, v_PKH = kept_PKH
  return k_PKH, v_PKH, jnp.arange(k_PKH.shape[0]) < length


@functools.lru_cache(maxsize=8)
def prefix_program(c, execution, mesh):
  """The jitted (params, ids [1, P]) → keys and values, each [L, P, K, H]."""

  @compilation.jit
  def keep_prefix(params, ids_1P):
    _, kept = prefill(
      params, c, ids_1P, execution=execution, constrain=constrain(mesh)
    )
    return [x_L1PKH[:, 0] for x_L1PKH in kept]

  return keep_prefix
