"""tokamax's kernels for NVIDIA, on each device's own rows and heads.

On Hopper the one that is written for its tensor cores (Mosaic), elsewhere the
one in Triton. They share a key head among its query heads; forward they skip
what no query of a tile sees, backward not. cuDNN's, behind
jax.nn.dot_product_attention, knows no segments.
"""

import jax
import jax.numpy as jnp
import tokamax
from absl import logging

from lbe.models.attention import context

# Rows are padded to a multiple of Mosaic's tiles.
_TILE = 128
# tokamax warns, at length, of every shape that it has not timed.
logging.get_absl_logger().addFilter(
  lambda record: not str(record.msg).startswith('Autotuning cache miss')
)


def attend(q_BTNH, k_BTKH, v_BTKH, *, segments_BT, mesh, implementation=''):
  """Causal attention inside segments, as reference.attend, in q's dtype.

  A query sees so many keys before it as its segment has tokens before it, and
  none behind it: a window of its own. Padding sees padding. `implementation`
  is tokamax's name of one, '' is the device's.
  """
  T = q_BTNH.shape[1]
  if not implementation:
    # '9.0'; of Blackwell the tiles of Mosaic's kernel are too large.
    capability = mesh.devices.flat[0].compute_capability
    implementation = 'mosaic' if capability.startswith('9.') else 'triton'

  def padded(x):
    return jnp.pad(x, ((0, 0), (0, -T % _TILE)) + ((0, 0),) * (x.ndim - 2))

  def local(*arrays):
    q_BTNH, k_BTKH, v_BTKH, segments_BT = (padded(x) for x in arrays)
    out_BTNH = tokamax.dot_product_attention(
      q_BTNH,
      k_BTKH,
      v_BTKH,
      local_window_size=(_before(segments_BT)[:, None], 0),
      implementation=implementation,
    )
    return out_BTNH[:, :T]

  return context.over_mesh(local, mesh, q_BTNH, k_BTKH, v_BTKH, segments_BT)


def _before(segments_BT):
  """int32 [B, T]: how many tokens of its segment stand before each."""
  index_BT = jnp.broadcast_to(
    jnp.arange(segments_BT.shape[1], dtype=jnp.int32), segments_BT.shape
  )
  starts_BT = segments_BT != jnp.roll(segments_BT, 1, axis=1)
  return index_BT - jax.lax.cummax(jnp.where(starts_BT, index_BT, 0), axis=1)
