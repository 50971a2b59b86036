"""Rows cut over the mesh axis `context`, so that all devices work alike.

A causal row cut into C equal parts gives the last device most to attend to.
So it is cut into 2 C chunks, and device i holds chunks i and 2 C - 1 - i: the
"balanced" order. With C = 2 and eight tokens, device 0 holds 0 1 6 7 and
device 1 holds 2 3 4 5. `forward.hidden` puts a row into this order and its
states back into that of the batch, once each; between them only attention looks
beyond a token, and it gathers the keys and values of the whole row.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lbe.mesh import sharding

AXIS = sharding.RULES['position']


def size(mesh):
  """Over how many devices a row is cut."""
  return 1 if mesh is None else mesh.shape[AXIS]


def indices(T, num):
  """int32 [num, T / num]: the index in its row of each token a device holds."""
  chunks = np.arange(T, dtype=np.int32).reshape(2 * num, -1)
  return np.concatenate([chunks[:num], chunks[: num - 1 : -1]], axis=1)


def balance(x_BT, mesh):
  """Rows [B, T, ...] in the order of the batch, in the balanced one."""
  return _exchange(x_BT, mesh, _to_balanced)


def unbalance(x_BT, mesh):
  """The inverse of `balance`."""
  return _exchange(x_BT, mesh, _from_balanced)


def gather(x_BT, num):
  """Inside shard_map: a device's part [B, T / num, ...], as the whole row."""
  if num == 1:
    return x_BT
  x_BT = jax.lax.all_gather(x_BT, AXIS, axis=1, tiled=True)
  chunks = jnp.split(x_BT, 2 * num, axis=1)
  return jnp.concatenate([*chunks[::2], *chunks[::-2]], axis=1)


def over_mesh(
  local, mesh, q_BTNH, k_BTKH, v_BTKH, segments_BT, *more, more_specs=()
):
  """[B, T, N, H]: `local` of each device's own rows, positions and heads.

  `more` are arguments of `local` behind these, with a PartitionSpec each.
  """
  heads = sharding.spec(('batch', 'position', 'heads', None))
  kv_heads = sharding.spec(('batch', 'position', 'kv_heads', None))
  rows = sharding.spec(('batch', 'position'))
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(heads, kv_heads, kv_heads, rows, *more_specs),
    out_specs=heads,
    check_vma=False,
  )(q_BTNH, k_BTKH, v_BTKH, segments_BT, *more)


def _exchange(x_BT, mesh, local):
  if size(mesh) == 1:
    return x_BT
  where = sharding.spec(('batch', 'position') + (None,) * (x_BT.ndim - 2))
  return jax.shard_map(
    lambda x: local(x, size(mesh)),
    mesh=mesh,
    in_specs=where,
    out_specs=where,
    check_vma=False,
  )(x_BT)


def _holder(chunk, num):
  return min(chunk, 2 * num - 1 - chunk)


def _to_balanced(x_BT, num):
  # A device's even chunk goes to one device and its odd one to another; each
  # device gets one of both: an even device its early chunk from an even one.
  even, odd = (
    jax.lax.ppermute(
      part, AXIS, [(i, _holder(2 * i + is_odd, num)) for i in range(num)]
    )
    for is_odd, part in enumerate(jnp.split(x_BT, 2, axis=1))
  )
  return jnp.concatenate(_swapped_on_odd(even, odd), axis=1)


def _from_balanced(x_BT, num):
  parts = _swapped_on_odd(*jnp.split(x_BT, 2, axis=1))
  even_and_odd = [
    jax.lax.ppermute(
      part, AXIS, [(_holder(2 * i + is_odd, num), i) for i in range(num)]
    )
    for is_odd, part in enumerate(parts)
  ]
  return jnp.concatenate(even_and_odd, axis=1)


def _swapped_on_odd(a, b):
  is_odd = jax.lax.axis_index(AXIS) % 2 == 1
  return jnp.where(is_odd, b, a), jnp.where(is_odd, a, b)
