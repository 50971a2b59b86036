"""Attention as one function; packed documents do not see each other."""

import functools
import importlib

import jax.numpy as jnp

from lbe.models.attention import blocks
from lbe.models.attention import context
from lbe.models.attention import reference

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
  """Attention of whole rows to themselves, by an implementation.

  Positions count from 0 inside each segment, in the order of the row; over a
  mesh that cuts rows, tokens come in context's order.
  """
  implementation = chosen(implementation, mesh)
  if implementation == 'xla':
    return reference.attend(
      q_BTNH,
      k_BTKH,
      v_BTKH,
      q_positions_BT=positions_BT,
      kv_positions_BS=positions_BT,
      q_segments_BT=segments_BT,
      kv_segments_BS=segments_BT,
      precision=precision(q_BTNH.dtype),
    )
  if implementation == 'blocks':
    run = functools.partial(blocks.attend, precision=precision(q_BTNH.dtype))
  else:
    # Importing a kernel takes half a second.
    run = importlib.import_module(
      f'lbe.models.attention.{implementation}'
    ).attend
  return run(q_BTNH, k_BTKH, v_BTKH, segments_BT=segments_BT, mesh=mesh)


def attend_behind(q_BTNH, k_BTKH, v_BTKH, *, visible, before=None):
  """Attention of rows to themselves and to what they all begin with.

  `visible(start, stop)`, which broadcasts to [B, stop - start, stop], says
  what queries `start` to `stop` see of the tokens before `stop`; none sees a
  later one, and each sees one at least. `before` is (keys [P, K, H], values
  [P, K, H], visible [P]), not repeated in memory for each row. One softmax,
  in blocks of queries: the scores of a long row never lie in memory at once.
  """
  B, T, N, H = q_BTNH.shape
  K = k_BTKH.shape[2]
  q_BKGTH = jnp.moveaxis(q_BTNH.reshape(B, T, K, N // K, H), 1, 3)
  k_BKTH, v_BKTH = (jnp.swapaxes(x, 1, 2) for x in (k_BTKH, v_BTKH))
  shared = []
  if before is not None:
    k_KPH, v_KPH = (jnp.swapaxes(x, 0, 1) for x in before[:2])
    shared = [(k_KPH, v_KPH, before[2])]
  outs = []
  for start, stop in blocks.bounds(T):
    visible_BQS = visible(start, stop)[:, None, None]
    own = (k_BKTH[:, :, :stop], v_BKTH[:, :, :stop], visible_BQS)
    q_BKGQH = q_BKGTH[:, :, :, start:stop]
    outs.append(_attend_parts(q_BKGQH, [*shared, own]))
  out_BTKGH = jnp.moveaxis(jnp.concatenate(outs, axis=3), 3, 1)
  return out_BTKGH.reshape(B, T, N, H).astype(q_BTNH.dtype)


def _attend_parts(q_BKGQH, parts):
  """float32 [B, K, G, Q, H] of (keys, values, visible), [B, K, S, H] or less.

  One softmax without joining the parts, divided behind the products.
  """
  product = functools.partial(
    jnp.einsum,
    precision=precision(q_BKGQH.dtype),
    preferred_element_type=jnp.float32,
  )

  def keys(x):
    return 'BKSH' if x.ndim == 4 else 'KSH'

  scores = []
  for k, _, visible in parts:
    found = product(f'BKGQH,{keys(k)}->BKGQS', q_BKGQH, k) * k.shape[-1] ** -0.5
    scores.append(jnp.where(visible, found, _MASKED))
  largest = functools.reduce(
    jnp.maximum, [jnp.max(x, axis=-1, keepdims=True) for x in scores]
  )
  out_BKGQH, sum_BKGQ1 = 0.0, 0.0
  for (_, v, _), found in zip(parts, scores, strict=True):
    weights = jnp.exp(found - largest)
    sum_BKGQ1 += jnp.sum(weights, axis=-1, keepdims=True)
    out_BKGQH += product(
      f'BKGQS,{keys(v)}->BKGQH', weights.astype(q_BKGQH.dtype), v
    )
  return out_BKGQH / sum_BKGQ1
