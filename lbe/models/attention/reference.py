"""Attention in one piece: what every other implementation must equal."""

import jax
import jax.numpy as jnp

# Large and finite: a row with nothing to attend to stays finite.
MASKED = -1e30


def product(
  spec: str, a: jax.Array, b: jax.Array, precision: str | None
) -> jax.Array:
  """jnp.einsum with sums, and a result, in float32."""
  return jnp.einsum(
    spec, a, b, precision=precision, preferred_element_type=jnp.float32
  )


def attend(
  q_BTNH,
  k_BSKH,
  v_BSKH,
  *,
  q_positions_BT,
  kv_positions_BS,
  q_segments_BT,
  kv_segments_BS,
  precision,
):
  """Causal attention inside segments: [B, T, N, H] in q's dtype.

  A query sees the keys of its own segment at its own or an earlier position.
  Segment 0 is padding: it sees nothing, and its output is finite and unused.
  Logits, softmax and sums are float32; N = K * G query heads share K key and
  value heads, which are not repeated in memory.
  """
  B, T, N, H = q_BTNH.shape
  K = k_BSKH.shape[2]
  q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
  logits_BKGTS = product('BTKGH,BSKH->BKGTS', q_BTKGH, k_BSKH, precision)
  logits_BKGTS *= H**-0.5
  visible_BTS = (
    (q_segments_BT[:, :, None] == kv_segments_BS[:, None, :])
    & (q_segments_BT[:, :, None] > 0)
    & (q_positions_BT[:, :, None] >= kv_positions_BS[:, None, :])
  )
  logits_BKGTS = jnp.where(visible_BTS[:, None, None], logits_BKGTS, MASKED)
  weights_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BSKH.dtype)
  out_BTKGH = product('BKGTS,BSKH->BTKGH', weights_BKGTS, v_BSKH, precision)
  return out_BTKGH.reshape(B, T, N, H).astype(q_BTNH.dtype)
