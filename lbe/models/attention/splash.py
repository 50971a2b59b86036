"""Splash attention: the TPU kernel, on each device's own rows and heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as masks,
)

from lbe.mesh import sharding
from lbe.models.attention import context

# The kernel's tiles are multiples of this.
_LANES = 128
# Queries and keys of a tile by chip; the largest that divide the length are
# taken, and longer ones where a chip has room for them.
TILES = {'TPU v6': 2048, 'TPU7x': 2048, '': 1024}
# Keys of a tile whose scores exist at a time.
_COMPUTED = 512
# The fused backward pass writes the queries' gradient once for every tile of
# keys, so that more tiles than this take a pass of their own.
_MOST_PARTS = 4


def attend(q_BTNH, k_BTKH, v_BTKH, *, segments_BT, mesh, interpret=False):
  """Causal attention inside segments, as reference.attend, in q's dtype.

  Keys stand where the queries do, so that "not later" is by index; over
  a mesh that cuts rows, these come in context's order. A length that is no
  multiple of 128 is padded. Softmax and sums are float32.
  """
  T, N, H = q_BTNH.shape[1:]
  num = context.size(mesh)
  run = _kernel(
    T,
    num,
    N // mesh.shape['tensor'],
    _tile(mesh.devices.flat[0].device_kind),
    interpret,
  )

  def padded(x):
    pad = ((0, 0), (0, -x.shape[1] % _LANES)) + ((0, 0),) * (x.ndim - 2)
    return jnp.pad(x, pad)

  def local(q_BTNH, k_BTKH, v_BTKH, segments_BT, run):
    own = q_BTNH.shape[1]
    k_BSKH, v_BSKH, segments_BS = (
      padded(context.gather(x, num)) for x in (k_BTKH, v_BTKH, segments_BT)
    )
    segments = kernel.SegmentIds(padded(segments_BT), segments_BS)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (padded(q_BTNH), k_BSKH, v_BSKH))
    out = jax.vmap(run)(q, k, v, segments)
    return jnp.swapaxes(out, 1, 2)[:, :own]

  by_query = jax.sharding.NamedSharding(mesh, sharding.spec((None, 'position')))
  q_BTNH = (q_BTNH.astype(jnp.float32) * H**-0.5).astype(q_BTNH.dtype)
  return context.over_mesh(
    local,
    mesh,
    q_BTNH,
    k_BTKH,
    v_BTKH,
    segments_BT,
    run,
    more_specs=(run.manual_sharding_spec(by_query),),
  )


def _tile(device_kind):
  known = [kind for kind in TILES if device_kind.startswith(kind)]
  return TILES[max(known, key=len)]


def _divisor(length, most):
  """The largest multiple of _LANES up to `most` that divides `length`."""
  return next(b for b in range(most, 0, -_LANES) if length % b == 0)


@functools.cache
def _kernel(T, num, num_heads, tile, interpret):
  """The kernel for rows of T tokens cut over `num` devices."""
  indices = context.indices(T, num) if num > 1 else np.arange(T)[None]
  own, chunk = indices.shape[1], indices.shape[1] // 2
  pad = -own % _LANES
  # Padding queries see the first key, so that they stay finite.
  indices = np.pad(indices, ((0, 0), (0, pad))).astype(np.int32)
  # A tile holds queries of one chunk where it can: others see more than half.
  whole_chunks = num > 1 and chunk % _LANES == 0
  num_keys = T + -T % _LANES
  block_q = _divisor(chunk if whole_chunks else own + pad, tile)
  block_kv = _divisor(num_keys, tile)
  fused = num_keys // block_kv <= _MOST_PARTS
  mask = _Causal(indices.reshape(-1), num_keys)
  with jax.ensure_compile_time_eval():
    return kernel.make_splash_mha(
      masks.MultiHeadMask([mask] * num_heads),
      block_sizes=kernel.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_kv_compute=_divisor(block_kv, _COMPUTED),
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_kv_dkv_compute=_divisor(block_kv, _COMPUTED),
        block_q_dq=None if fused else block_q,
        block_kv_dq=None if fused else block_kv,
        use_fused_bwd_kernel=fused,
      ),
      head_shards=1,
      q_seq_shards=num,
      residual_checkpoint_name='attention',
      interpret=interpret,
    )


class _Causal(masks.CausalMask):
  """Of queries at these indices. Tiles that are all or nothing are one value.

  The kernel asks for every tile, twice and on the host: at 32,768 tokens that
  took 15 seconds.
  """

  def __init__(self, indices, num_keys):
    super().__init__((len(indices), num_keys))
    self.q_sequence = indices

  def __getitem__(self, tile):
    queries, keys = tile
    indices = self.q_sequence[queries]
    if indices.max() < keys.start:
      return np.zeros((1, 1), bool)
    if indices.min() >= keys.stop - 1:
      return np.ones((1, 1), bool)
    return super().__getitem__(tile)
