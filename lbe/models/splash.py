"""Splash attention: the TPU kernel, on each device's own rows and heads."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as masks,
)

from lbe import sharding

# The kernel's tiles are multiples of this.
_LANES = 128
# Tiles of queries and keys; the largest that divide the length are taken.
_BLOCK = 1024


def attend(q_BTNH, k_BTKH, v_BTKH, *, segments_BT, mesh, interpret=False):
  """Causal attention inside segments, as attention.attend, in q's dtype.

  Keys are at the places of the queries, so that "not later" is by index. A
  length that is no multiple of 128 is padded. Softmax and sums are float32.
  """
  T, N, H = q_BTNH.shape[1:]
  pad = -T % _LANES
  heads = N // mesh.shape['tensor']
  block = next(
    b for b in range(min(_BLOCK, T + pad), 0, -_LANES) if (T + pad) % b == 0
  )
  run = kernel.make_splash_mha(
    masks.MultiHeadMask([masks.CausalMask((T + pad, T + pad))] * heads),
    block_sizes=kernel.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      use_fused_bwd_kernel=True,
    ),
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name='attention',
    interpret=interpret,
  )

  def padded(x):
    return jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))

  def local(q_BTNH, k_BTKH, v_BTKH, segments_BT):
    segments_BT = padded(segments_BT)
    q, k, v = (jnp.swapaxes(padded(x), 1, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
    out = jax.vmap(run)(q, k, v, kernel.SegmentIds(segments_BT, segments_BT))
    return jnp.swapaxes(out, 1, 2)[:, :T]

  heads = sharding.spec(('batch', 'position', 'heads', None))
  kv_heads = sharding.spec(('batch', 'position', 'kv_heads', None))
  q_BTNH = (q_BTNH.astype(jnp.float32) * H**-0.5).astype(q_BTNH.dtype)
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(heads, kv_heads, kv_heads, sharding.spec(('batch', 'position'))),
    out_specs=heads,
    check_vma=False,
  )(q_BTNH, k_BTKH, v_BTKH, segments_BT)
