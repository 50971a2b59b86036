"""Attention in blocks of queries, for chips without a kernel of their own.

A block meets the keys that are not later than its last query. Scores are not
kept but made again in the backward pass: as FlashAttention (Dao et al., 2022),
in plain XLA. Longer rows have longer blocks, so that few are unrolled.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

_MASKED = -1e30
# A block is as short as this, and a row has this many at most.
_SHORTEST = 128
_MOST = 8


def attend(q_BTNH, k_BTKH, v_BTKH, *, segments_BT, precision):
  """Causal attention inside segments, as attention.attend, in q's dtype.

  Keys are at the places of the queries, so that "not later" is by index.
  """
  B, T, N, H = q_BTNH.shape
  K = k_BTKH.shape[2]
  q_BKGTH = jnp.moveaxis(q_BTNH.reshape(B, T, K, N // K, H), 1, 3)
  k_BKTH, v_BKTH = (jnp.swapaxes(x, 1, 2) for x in (k_BTKH, v_BTKH))
  out_BKGTH = _attend(precision, q_BKGTH, k_BKTH, v_BKTH, segments_BT)
  return jnp.moveaxis(out_BKGTH, 3, 1).reshape(B, T, N, H)


def _bounds(T):
  size = max(_SHORTEST, -(-T // _MOST))
  return [(start, min(start + size, T)) for start in range(0, T, size)]


def _product(spec, a, b, precision):
  return jnp.einsum(
    spec, a, b, precision=precision, preferred_element_type=jnp.float32
  )


def _scores(q_BKGTH, k_BKTH, segments_BT, start, stop, precision):
  """float32 [B, K, G, Q, S] of queries start to stop, and what they see."""
  q_BKGQH = q_BKGTH[:, :, :, start:stop]
  scores = _product(
    'BKGQH,BKSH->BKGQS', q_BKGQH, k_BKTH[:, :, :stop], precision
  )
  own_BQ, segments_BS = segments_BT[:, start:stop], segments_BT[:, :stop]
  visible_BQS = (
    (own_BQ[:, :, None] == segments_BS[:, None, :])
    & (own_BQ[:, :, None] > 0)
    & (jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None, :])
  )
  visible = visible_BQS[:, None, None]
  return jnp.where(visible, scores * q_BKGTH.shape[-1] ** -0.5, _MASKED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(precision, q_BKGTH, k_BKTH, v_BKTH, segments_BT):
  return _forward(precision, q_BKGTH, k_BKTH, v_BKTH, segments_BT)[0]


def _forward(precision, q_BKGTH, k_BKTH, v_BKTH, segments_BT):
  outs, norms = [], []
  for start, stop in _bounds(q_BKGTH.shape[3]):
    scores = _scores(q_BKGTH, k_BKTH, segments_BT, start, stop, precision)
    largest = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = _product(
      'BKGQS,BKSH->BKGQH',
      weights.astype(v_BKTH.dtype),
      v_BKTH[:, :, :stop],
      precision,
    )
    outs.append((out / total).astype(q_BKGTH.dtype))
    norms.append(largest + jnp.log(total))
  out_BKGTH = checkpoint_name(jnp.concatenate(outs, axis=3), 'attention')
  norm_BKGT1 = checkpoint_name(jnp.concatenate(norms, axis=3), 'attention')
  return out_BKGTH, (
    q_BKGTH,
    k_BKTH,
    v_BKTH,
    segments_BT,
    out_BKGTH,
    norm_BKGT1,
  )


def _backward(precision, saved, of_out_BKGTH):
  q_BKGTH, k_BKTH, v_BKTH, segments_BT, out_BKGTH, norm_BKGT1 = saved
  T, H = q_BKGTH.shape[3:]
  product = functools.partial(_product, precision=precision)
  dot_BKGT1 = jnp.sum(
    of_out_BKGTH.astype(jnp.float32) * out_BKGTH.astype(jnp.float32),
    axis=-1,
    keepdims=True,
  )
  of_q, of_k, of_v = [], 0.0, 0.0
  for start, stop in _bounds(T):
    at = (slice(None),) * 3 + (slice(start, stop),)
    scores = _scores(q_BKGTH, k_BKTH, segments_BT, start, stop, precision)
    weights = jnp.where(
      scores > _MASKED / 2, jnp.exp(scores - norm_BKGT1[at]), 0.0
    )
    of_weights = product(
      'BKGQH,BKSH->BKGQS', of_out_BKGTH[at], v_BKTH[:, :, :stop]
    )
    of_scores = weights * (of_weights - dot_BKGT1[at]) * H**-0.5
    of_scores = of_scores.astype(q_BKGTH.dtype)
    weights = weights.astype(q_BKGTH.dtype)
    of_q.append(product('BKGQS,BKSH->BKGQH', of_scores, k_BKTH[:, :, :stop]))
    later = ((0, 0), (0, 0), (0, T - stop), (0, 0))
    of_k += jnp.pad(product('BKGQS,BKGQH->BKSH', of_scores, q_BKGTH[at]), later)
    of_v += jnp.pad(
      product('BKGQS,BKGQH->BKSH', weights, of_out_BKGTH[at]), later
    )
  return (
    jnp.concatenate(of_q, axis=3).astype(q_BKGTH.dtype),
    of_k.astype(k_BKTH.dtype),
    of_v.astype(v_BKTH.dtype),
    None,
  )


_attend.defvjp(_forward, _backward)
