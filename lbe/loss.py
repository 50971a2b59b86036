"""Cross entropy over the vocabulary in chunks; sums, never means."""

import jax
import jax.numpy as jnp

# Positions of a chunk; its logits are the largest array of the loss.
CHUNK = 1024


def _logits(x_CD, head_DV, vocab_size):
  """float32 [C, V], those of padding columns at -1e30."""
  logits_CV = jnp.einsum(
    'CD,DV->CV',
    x_CD,
    head_DV.astype(x_CD.dtype),
    # float32 products stay float32 where a chip would round them.
    precision='highest' if x_CD.dtype == jnp.float32 else None,
    preferred_element_type=jnp.float32,
  )
  column = jax.lax.broadcasted_iota(jnp.int32, logits_CV.shape, 1)
  return jnp.where(column < vocab_size, logits_CV, -1e30)


def _nll(x_CD, head_DV, targets_C, vocab_size):
  """float32 negative log-likelihood [C] in nats."""
  logits_CV = _logits(x_CD, head_DV, vocab_size)
  target_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=1)[:, 0]
  return jax.nn.logsumexp(logits_CV, axis=1) - target_C


def per_token(x_BTD, head_DV, targets_BT, *, vocab_size, chunk=CHUNK):
  """float32 [B, T] negative log-likelihood in nats of every target.

  The logits exist for about `chunk` targets (the same positions of all rows)
  at a time, forward and backward. Columns from `vocab_size` on are padding
  and hold no mass.
  """
  B, T, D = x_BTD.shape
  num = -(-T // max(1, chunk // B))
  size = -(-T // num)

  @jax.checkpoint
  def body(x_BCD, targets_BC):
    nll_C = _nll(
      x_BCD.reshape(B * size, D),
      head_DV,
      targets_BC.reshape(B * size),
      vocab_size,
    )
    return nll_C.reshape(B, size)

  if num == 1:
    return body(x_BTD, targets_BT)
  # X chunks of equal size: a length that they do not divide is padded.
  pad = (0, num * size - T)
  x_BXCD = jnp.pad(x_BTD, ((0, 0), pad, (0, 0))).reshape(B, num, size, D)
  targets_BXC = jnp.pad(targets_BT, ((0, 0), pad)).reshape(B, num, size)
  nll_XBC = jax.lax.map(
    lambda xs: body(*xs),
    (jnp.moveaxis(x_BXCD, 1, 0), jnp.moveaxis(targets_BXC, 1, 0)),
  )
  return jnp.moveaxis(nll_XBC, 0, 1).reshape(B, num * size)[:, :T]


def logprobs(x_BQD, head_DV, targets_BQ, *, vocab_size, chunk=CHUNK):
  """float32 log-probabilities and normalizers, and which are the likeliest.

  Three [B, Q] arrays of the targets; a logit is its log-probability and the
  normalizer. In chunks as `per_token`, without a backward pass.
  """
  B, Q, D = x_BQD.shape
  num = -(-Q // max(1, chunk // B))
  size = -(-Q // num)

  def body(x_BCD, targets_BC):
    targets_C = targets_BC.reshape(B * size)
    logits_CV = _logits(x_BCD.reshape(B * size, D), head_DV, vocab_size)
    target_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=1)[:, 0]
    norm_C = jax.nn.logsumexp(logits_CV, axis=1)
    likeliest_C = jnp.argmax(logits_CV, axis=1) == targets_C
    found = (target_C - norm_C, norm_C, likeliest_C)
    return tuple(x_C.reshape(B, size) for x_C in found)

  if num == 1:
    return body(x_BQD, targets_BQ)
  pad = (0, num * size - Q)
  x_BXCD = jnp.pad(x_BQD, ((0, 0), pad, (0, 0))).reshape(B, num, size, D)
  targets_BXC = jnp.pad(targets_BQ, ((0, 0), pad)).reshape(B, num, size)
  found = jax.lax.map(
    lambda xs: body(*xs),
    (jnp.moveaxis(x_BXCD, 1, 0), jnp.moveaxis(targets_BXC, 1, 0)),
  )
  return tuple(
    jnp.moveaxis(x_XBC, 0, 1).reshape(B, num * size)[:, :Q] for x_XBC in found
  )


def sums(x_BTD, head_DV, targets_BT, weights_BT, *, vocab_size, chunk=CHUNK):
  """dict(loss_sum in nats, weight_sum), float32 scalars.

  Divide once, over everything that was summed: microbatches, hosts, sources.
  """
  nll_BT = per_token(
    x_BTD, head_DV, targets_BT, vocab_size=vocab_size, chunk=chunk
  )
  weights_BT = weights_BT.astype(jnp.float32)
  return dict(
    loss_sum=jnp.sum(nll_BT * weights_BT), weight_sum=jnp.sum(weights_BT)
  )
