"""Attention as one function; packed documents do not see each other."""

import functools
import importlib

import jax
import jax.numpy as jnp

from lbe.models import blocks
from lbe.models import context

# Large and finite: a row with nothing to attend to stays finite.
_MASKED = -1e30


def precision(dtype):
  """Of products: float32 ones stay float32 where a chip would round them."""
  return 'highest' if dtype == jnp.float32 else None


IMPLEMENTATIONS = ('auto', 'xla', 'blocks', 'splash', 'triton')
# Kernels, and the platform that each is written for.
_PLATFORMS = {'splash': 'tpu', 'triton': 'gpu'}


def chosen(implementation, mesh):
  """What 'auto' stands for: 'splash' on TPUs, 'blocks' elsewhere.

  Raises ValueError where the mesh or its platform lacks the implementation.
  """
  platform = mesh.devices.flat[0].platform if mesh is not None else 'no mesh'
  if implementation == 'auto':
    return 'splash' if platform == 'tpu' else 'blocks'
  if implementation == 'triton' and context.size(mesh) > 1:
    raise ValueError(
      f"execution.attention='triton' sees whole rows, but mesh.context="
      f"{context.size(mesh)} cuts them; set mesh.context=1, or take 'blocks'."
    )
  needed = _PLATFORMS.get(implementation, platform)
  if platform != needed:
    raise ValueError(
      f'execution.attention={implementation!r} runs on {needed.upper()}s, and '
      f"this is {platform}; take 'auto' or 'blocks'."
    )
  return implementation


def attend_rows(
  q_BTNH, k_BTKH, v_BTKH, *, positions_BT, segments_BT, implementation, mesh
):
  """Attention of whole rows to themselves: `attend` by an implementation.

  Positions count from 0 inside each segment, in the order of the row; over a
  mesh that cuts rows, tokens come in context's order.
  """
  implementation = chosen(implementation, mesh)
  if implementation == 'xla':
    return attend(
      q_BTNH,
      k_BTKH,
      v_BTKH,
      q_positions_BT=positions_BT,
      kv_positions_BS=positions_BT,
      q_segments_BT=segments_BT,
      kv_segments_BS=segments_BT,
    )
  if implementation == 'blocks':
    run = functools.partial(blocks.attend, precision=precision(q_BTNH.dtype))
  else:
    # Importing a kernel takes half a second.
    run = importlib.import_module(f'lbe.models.{implementation}').attend
  return run(q_BTNH, k_BTKH, v_BTKH, segments_BT=segments_BT, mesh=mesh)


def attend(
  q_BTNH,
  k_BSKH,
  v_BSKH,
  *,
  q_positions_BT,
  kv_positions_BS,
  q_segments_BT,
  kv_segments_BS,
):
  """Causal attention inside segments: [B, T, N, H] in q's dtype.

  The reference of every other implementation.

  A query sees the keys of its own segment at its own or an earlier position.
  Segment 0 is padding: it sees nothing, and its output is finite and unused.
  Logits, softmax and sums are float32; N = K * G query heads share K key and
  value heads, which are not repeated in memory.
  """
  B, T, N, H = q_BTNH.shape
  K = k_BSKH.shape[2]
  q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
  logits_BKGTS = jnp.einsum(
    'BTKGH,BSKH->BKGTS',
    q_BTKGH,
    k_BSKH,
    precision=precision(q_BTNH.dtype),
    preferred_element_type=jnp.float32,
  )
  logits_BKGTS *= H**-0.5
  visible_BTS = (
    (q_segments_BT[:, :, None] == kv_segments_BS[:, None, :])
    & (q_segments_BT[:, :, None] > 0)
    & (q_positions_BT[:, :, None] >= kv_positions_BS[:, None, :])
  )
  logits_BKGTS = jnp.where(visible_BTS[:, None, None], logits_BKGTS, _MASKED)
  weights_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BSKH.dtype)
  out_BTKGH = jnp.einsum(
    'BKGTS,BSKH->BTKGH',
    weights_BKGTS,
    v_BSKH,
    precision=precision(q_BTNH.dtype),
    preferred_element_type=jnp.float32,
  )
  return out_BTKGH.reshape(B, T, N, H).astype(q_BTNH.dtype)


def attend_parts(q_BTNH, parts):
  """Attention to several sets of keys with one softmax, [B, T, N, H].

  Each part is (keys, values, visible): [B, S, K, H] of the rows' own, or
  [S, K, H] that all rows share and that are not repeated in memory; `visible`
  broadcasts to [B, T, S]. Every query sees a key at least.
  """
  B, T, N, H = q_BTNH.shape
  K = parts[0][0].shape[-2]
  q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
  product = functools.partial(
    jnp.einsum,
    precision=precision(q_BTNH.dtype),
    preferred_element_type=jnp.float32,
  )
  logits = []
  for k, _, visible in parts:
    keys = 'BSKH' if k.ndim == 4 else 'SKH'
    found = product(f'BTKGH,{keys}->BKGTS', q_BTKGH, k) * H**-0.5
    logits.append(jnp.where(visible[:, None, None], found, _MASKED))
  # One softmax without joining the parts, divided behind the products.
  largest = functools.reduce(
    jnp.maximum, [jnp.max(x, axis=-1, keepdims=True) for x in logits]
  )
  out_BKGTH, sum_BKGT = 0.0, 0.0
  for (_, v, _), found in zip(parts, logits, strict=True):
    values = 'BSKH' if v.ndim == 4 else 'SKH'
    weights = jnp.exp(found - largest)
    sum_BKGT += jnp.sum(weights, axis=-1)
    out_BKGTH += product(
      f'BKGTS,{values}->BKGTH', weights.astype(q_BTNH.dtype), v
    )
  out_BTKGH = jnp.moveaxis(out_BKGTH / sum_BKGT[..., None], 3, 1)
  return out_BTKGH.reshape(B, T, N, H).astype(q_BTNH.dtype)
