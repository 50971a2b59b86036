"""Attention in blocks of queries, for chips without a kernel of their own.

A block meets the keys that are not later than its last query. Scores are not
kept but made again in the backward pass: as FlashAttention (Dao et al., 2022),
in plain XLA. Longer rows have longer blocks, so that few are unrolled.

Where rows are cut over devices, a device's number decides where its blocks
stand among the keys; how many keys a block meets must be known before, so that
it is as many as the last device needs: of C devices 3 C - 1 chunks instead of
2 C.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lbe.models.attention import context
from lbe.models.attention import reference

# A block is as short as this, and a row has this many at most.
_SHORTEST = 128
_MOST = 8


def attend(q_BTNH, k_BTKH, v_BTKH, *, segments_BT, precision, mesh=None):
  """Causal attention inside segments, as reference.attend, in q's dtype.

  Keys stand where the queries do, so that "not later" is by index; over
  a mesh that cuts rows, these come in context's order.
  """
  T, num = q_BTNH.shape[1], context.size(mesh)
  if num == 1:
    blocks = tuple((start, stop, stop) for start, stop in bounds(T))
    return _local(
      q_BTNH,
      k_BTKH,
      v_BTKH,
      segments_BT,
      segments_BT,
      jnp.arange(T),
      how=(precision, blocks),
    )
  chunk = T // num // 2
  blocks = tuple(
    (first + start, first + stop, other + stop)
    for first, other in ((0, T // 2 - chunk), (chunk, T - chunk))
    for start, stop in bounds(chunk, _MOST // 2)
  )
  indices = context.indices(T, num)

  def local(q_BTNH, k_BTKH, v_BTKH, segments_BT):
    k_BSKH, v_BSKH, segments_BS = (
      context.gather(x, num) for x in (k_BTKH, v_BTKH, segments_BT)
    )
    index_T = jnp.asarray(indices)[jax.lax.axis_index(context.AXIS)]
    how = (precision, blocks)
    return _local(
      q_BTNH, k_BSKH, v_BSKH, segments_BT, segments_BS, index_T, how=how
    )

  return context.over_mesh(local, mesh, q_BTNH, k_BTKH, v_BTKH, segments_BT)


def _local(q_BTNH, k_BSKH, v_BSKH, segments_BT, segments_BS, index_T, *, how):
  B, T, N, H = q_BTNH.shape
  K = k_BSKH.shape[2]
  q_BKGTH = jnp.moveaxis(q_BTNH.reshape(B, T, K, N // K, H), 1, 3)
  k_BKSH, v_BKSH = (jnp.swapaxes(x, 1, 2) for x in (k_BSKH, v_BSKH))
  out_BKGTH = _attend(
    how, q_BKGTH, k_BKSH, v_BKSH, segments_BT, segments_BS, index_T
  )
  return jnp.moveaxis(out_BKGTH, 3, 1).reshape(B, T, N, H)


def bounds(T, most=_MOST):
  """[(start, stop)] of the blocks that T queries are cut into."""
  size = max(_SHORTEST, -(-T // most))
  return [(start, min(start + size, T)) for start in range(0, T, size)]


def _scores(precision, block, q_BKGTH, k_BKSH, seen):
  """float32 [B, K, G, Q, S] of a block's queries, and -1e30 where unseen."""
  segments_BT, segments_BS, index_T = seen
  start, stop, end = block
  scores = reference.product(
    'BKGQH,BKSH->BKGQS',
    q_BKGTH[:, :, :, start:stop],
    k_BKSH[:, :, :end],
    precision,
  )
  own_BQ, segments_BS = segments_BT[:, start:stop], segments_BS[:, :end]
  visible_BQS = (
    (own_BQ[:, :, None] == segments_BS[:, None, :])
    & (own_BQ[:, :, None] > 0)
    & (index_T[start:stop, None] >= jnp.arange(end)[None, :])
  )
  visible = visible_BQS[:, None, None]
  return jnp.where(
    visible, scores * q_BKGTH.shape[-1] ** -0.5, reference.MASKED
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how, q_BKGTH, k_BKSH, v_BKSH, *seen):
  return _forward(how, q_BKGTH, k_BKSH, v_BKSH, *seen)[0]


def _forward(how, q_BKGTH, k_BKSH, v_BKSH, *seen):
  precision, blocks = how
  outs, norms = [], []
  for block in blocks:
    scores = _scores(precision, block, q_BKGTH, k_BKSH, seen)
    largest = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = reference.product(
      'BKGQS,BKSH->BKGQH',
      weights.astype(v_BKSH.dtype),
      v_BKSH[:, :, : block[2]],
      precision,
    )
    outs.append((out / total).astype(q_BKGTH.dtype))
    # A query that sees nothing has weights of 0 in the backward pass.
    norms.append(
      jnp.where(largest > reference.MASKED / 2, largest + jnp.log(total), 0)
    )
  out_BKGTH = checkpoint_name(jnp.concatenate(outs, axis=3), 'attention')
  norm_BKGT1 = checkpoint_name(jnp.concatenate(norms, axis=3), 'attention')
  return out_BKGTH, (q_BKGTH, k_BKSH, v_BKSH, seen, out_BKGTH, norm_BKGT1)


def _backward(how, saved, d_out_BKGTH):
  precision, blocks = how
  q_BKGTH, k_BKSH, v_BKSH, seen, out_BKGTH, norm_BKGT1 = saved
  S, H = k_BKSH.shape[2:]
  product = functools.partial(reference.product, precision=precision)
  dot_BKGT1 = jnp.sum(
    d_out_BKGTH.astype(jnp.float32) * out_BKGTH.astype(jnp.float32),
    axis=-1,
    keepdims=True,
  )
  d_q, d_k, d_v = [], 0.0, 0.0
  for block in blocks:
    start, stop, end = block
    at = (slice(None),) * 3 + (slice(start, stop),)
    scores = _scores(precision, block, q_BKGTH, k_BKSH, seen)
    weights = jnp.exp(scores - norm_BKGT1[at])
    d_weights = product(
      'BKGQH,BKSH->BKGQS', d_out_BKGTH[at], v_BKSH[:, :, :end]
    )
    d_scores = weights * (d_weights - dot_BKGT1[at]) * H**-0.5
    d_scores = d_scores.astype(q_BKGTH.dtype)
    weights = weights.astype(q_BKGTH.dtype)
    d_q.append(product('BKGQS,BKSH->BKGQH', d_scores, k_BKSH[:, :, :end]))
    # With keys last, no product needs a copy of all weights turned round.
    later = ((0, 0), (0, 0), (0, 0), (0, S - end))
    d_k += jnp.pad(product('BKGQH,BKGQS->BKHS', q_BKGTH[at], d_scores), later)
    d_v += jnp.pad(
      product('BKGQH,BKGQS->BKHS', d_out_BKGTH[at], weights), later
    )
  return (
    jnp.concatenate(d_q, axis=3).astype(q_BKGTH.dtype),
    jnp.swapaxes(d_k, 2, 3).astype(k_BKSH.dtype),
    jnp.swapaxes(d_v, 2, 3).astype(v_BKSH.dtype),
    None,
    None,
    None,
  )


_attend.defvjp(_forward, _backward)
