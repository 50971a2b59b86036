"""The Triton kernel that comes with jax, on each device's own rows and heads.

For NVIDIA. It honours segments, which jax.nn.dot_product_attention does not;
jax's private entry to cuDNN does, but takes the keys' offsets by the number of
query heads, so that grouped keys would be read from a wrong head.
"""

import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as kernel

from lbe.models.attention import context

# Lengths are padded to a multiple of this, the larger tile of the kernel.
_TILE = 128


def attend(q_BTNH, k_BTKH, v_BTKH, *, segments_BT, mesh, interpret=False):
  """Causal attention inside segments, as reference.attend, in q's dtype.

  Keys stand where the queries do, so that "not later" is by index. Keys
  and values are repeated for the query heads that share them.
  """
  T, H = q_BTNH.shape[1], q_BTNH.shape[3]

  def padded(x):
    return jnp.pad(x, ((0, 0), (0, -T % _TILE)) + ((0, 0),) * (x.ndim - 2))

  def local(q_BTNH, k_BTKH, v_BTKH, segments_BT):
    groups = q_BTNH.shape[2] // k_BTKH.shape[2]
    k_BTNH, v_BTNH = (jnp.repeat(x, groups, axis=2) for x in (k_BTKH, v_BTKH))
    out_BTNH = kernel.mha(
      *(padded(x) for x in (q_BTNH, k_BTNH, v_BTNH, segments_BT)),
      sm_scale=H**-0.5,
      causal=True,
      interpret=interpret,
    )
    return out_BTNH[:, :T]

  return context.over_mesh(local, mesh, q_BTNH, k_BTKH, v_BTKH, segments_BT)
