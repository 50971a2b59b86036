"""Cross entropy over the vocabulary in chunks; sums, never means."""

import functools

import jax
import jax.numpy as jnp

from lbe.mesh import sharding
from lbe.models import forward

# Positions of a chunk on each device; its logits are the largest array.
CHUNK = 1024
# The head's gradient is summed over devices in about as many pieces.
_PIECES = 8


def _logits(x_CD, head_DV, vocab_size, **cut):
  """float32 [C, V], of a vocabulary that is `cut` as mask_padding has it."""
  logits_CV = jnp.einsum(
    'CD,DV->CV',
    x_CD,
    head_DV.astype(x_CD.dtype),
    # float32 products stay float32 where a chip would round them.
    precision='highest' if x_CD.dtype == jnp.float32 else None,
    preferred_element_type=jnp.float32,
  )
  return forward.mask_padding(logits_CV, vocab_size, **cut)


# ---------------------------------------------------------------- training


def sums(
  x_BTD: jax.Array,
  head_DV: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
  *,
  vocab_size: int,
  z_loss: float = 0.0,
  chunk: int = CHUNK,
  mesh: jax.sharding.Mesh | None = None,
) -> dict[str, jax.Array]:
  """dict(objective, loss_sum in nats, weight_sum), float32 scalars.

  `objective` is what is to be minimized, and alone has a gradient: the loss,
  and `z_loss` times the squared normalizer of every target (PaLM, 2022).
  Columns from `vocab_size` on are padding and hold no mass. Over a `mesh`
  every device has its own rows and its own part of the vocabulary.

  Logits exist for `chunk` targets at a time and once: where a gradient is
  asked for it is made beside the loss, from products in x's dtype that are
  summed in float32. Divide once, over everything that was summed:
  microbatches, hosts, sources.
  """
  weights_BT = weights_BT.astype(jnp.float32)
  objective, loss_sum = _sums(
    x_BTD,
    head_DV,
    targets_BT,
    weights_BT,
    (vocab_size, float(z_loss), chunk, mesh),
  )
  return dict(
    objective=objective,
    loss_sum=jax.lax.stop_gradient(loss_sum),
    weight_sum=jnp.sum(weights_BT),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums(x_BTD, head_DV, targets_BT, weights_BT, how):
  total, _ = _over_mesh(x_BTD, head_DV, targets_BT, weights_BT, how, False)
  return total


def _sums_forward(x_BTD, head_DV, targets_BT, weights_BT, how):
  total, (d_x_BTD, d_head_DV) = _over_mesh(
    x_BTD, head_DV, targets_BT, weights_BT, how, True
  )
  return total, (d_x_BTD, d_head_DV.astype(head_DV.dtype))


def _sums_backward(how, gradients, cotangents):
  del how
  scale, _ = cotangents
  d_x_BTD, d_head_DV = ((g * scale).astype(g.dtype) for g in gradients)
  return d_x_BTD, d_head_DV, None, None


_sums.defvjp(_sums_forward, _sums_backward)


def _over_mesh(x_BTD, head_DV, targets_BT, weights_BT, how, with_gradients):
  """((objective, loss sum), gradients of x and of the head, or None)."""
  vocab_size, z_loss, chunk, mesh = how
  head_DV = head_DV.astype(x_BTD.dtype)  # before it is gathered
  local = functools.partial(
    _local,
    vocab_size=vocab_size,
    z_loss=z_loss,
    chunk=chunk,
    with_gradients=with_gradients,
  )
  if mesh is None:
    return local(x_BTD, head_DV, targets_BT, weights_BT, mesh=None)
  rows = sharding.spec(('batch', 'position'))
  x = sharding.spec(('batch', 'position', None))
  nowhere = jax.sharding.PartitionSpec()
  return jax.shard_map(
    functools.partial(local, mesh=mesh),
    mesh=mesh,
    in_specs=(x, sharding.spec(('embed', 'vocab')), rows, rows),
    out_specs=(
      (nowhere, nowhere),
      (x, sharding.spec(('embed', 'vocab'))) if with_gradients else None,
    ),
    check_vma=False,
  )(x_BTD, head_DV, targets_BT, weights_BT)


def _local(
  x_BTD,
  head_DV,
  targets_BT,
  weights_BT,
  *,
  vocab_size,
  z_loss,
  chunk,
  with_gradients,
  mesh,
):
  """As _over_mesh, of one device's rows and of its columns.

  Forward and backward in one walk through the chunks: the logits of a chunk
  are there once, and what the gradients of x and of the head need of them is
  taken at once, as if the objective's own gradient were 1; `_sums_backward`
  multiplies by what it is.
  """
  B, T, D = x_BTD.shape
  num = -(-B * T // chunk)
  size = -(-B * T // num)  # chunks of equal size; the last one is padded
  over_vocab, parts, first = sharding.RULES['vocab'], 1, 0
  if mesh is not None:
    parts = mesh.shape[over_vocab]
    head_DV = sharding.gather(head_DV, 0, mesh)
    first = jax.lax.axis_index(over_vocab) * head_DV.shape[1]
  product = functools.partial(
    jnp.einsum,
    precision='highest' if x_BTD.dtype == jnp.float32 else None,
    preferred_element_type=jnp.float32,
  )
  # Else what is turned round becomes a part of the product.
  turned = jax.lax.optimization_barrier

  def chunks(x):
    x = x.reshape(B * T, *x.shape[2:])
    x = jnp.pad(x, ((0, num * size - B * T),) + ((0, 0),) * (x.ndim - 1))
    return x.reshape(num, size, *x.shape[1:])

  def over_columns(reduce, x):
    return reduce(x, over_vocab) if mesh is not None else x

  def one(total, chunk):
    x_CD, targets_C, weights_C = chunk
    objective, loss_sum, d_head_DV = total
    logits_CV = _logits(x_CD, head_DV, vocab_size, parts=parts, first=first)
    largest_C = over_columns(jax.lax.pmax, jnp.max(logits_CV, axis=1))
    exp_CV = jnp.exp(logits_CV - largest_C[:, None])
    sum_C = over_columns(jax.lax.psum, jnp.sum(exp_CV, axis=1))
    norm_C = jnp.log(sum_C) + largest_C
    # A target is a column of one device alone; the others add nothing.
    own_C = targets_C - first
    inside_C = (own_C >= 0) & (own_C < head_DV.shape[1])
    target_C = jnp.take_along_axis(
      logits_CV, jnp.clip(own_C, 0, head_DV.shape[1] - 1)[:, None], axis=1
    )[:, 0]
    target_C = over_columns(jax.lax.psum, jnp.where(inside_C, target_C, 0.0))
    nll_C = norm_C - target_C
    loss_sum += jnp.sum(nll_C * weights_C)
    objective += jnp.sum((nll_C + z_loss * norm_C**2) * weights_C)
    if not with_gradients:
      return (objective, loss_sum, None), None
    # d nll = softmax - one at the target, and d norm² = 2 norm softmax; the
    # softmax is exp / sum, so that both are one factor for each row of exp.
    column = jax.lax.broadcasted_iota(jnp.int32, logits_CV.shape, 1)
    scale_C = weights_C * (1 + 2 * z_loss * norm_C) / sum_C
    d_logits_CV = exp_CV * scale_C[:, None] - jnp.where(
      column == own_C[:, None], weights_C[:, None], 0.0
    )
    d_logits_CV = d_logits_CV.astype(x_CD.dtype)
    # Where x and its gradient are turned round by themselves, which are small,
    # XLA's products on a CPU take a sixth and a quarter less.
    d_x_DC = turned(product('DV,CV->DC', head_DV, d_logits_CV))
    d_x_CD = over_columns(jax.lax.psum, d_x_DC.T).astype(x_CD.dtype)
    d_head_DV += product('DC,CV->DV', turned(x_CD.T), d_logits_CV)
    return (objective, loss_sum, d_head_DV), d_x_CD

  zero = jnp.zeros((), jnp.float32)
  start = (
    zero,
    zero,
    jnp.zeros(head_DV.shape, jnp.float32) if with_gradients else None,
  )
  given = tuple(chunks(x) for x in (x_BTD, targets_BT, weights_BT))
  if num == 1:
    (objective, loss_sum, d_head_DV), d_x = one(
      start, tuple(x[0] for x in given)
    )
  else:
    (objective, loss_sum, d_head_DV), d_x = jax.lax.scan(one, start, given)
  if mesh is not None:
    over_rows = tuple(a for a in sharding.AXES if a != over_vocab)
    objective, loss_sum = jax.lax.psum((objective, loss_sum), over_rows)
  if not with_gradients:
    return (objective, loss_sum), None
  if mesh is not None:
    # Summed over devices once, behind the loop, in the dtype of the products
    # as every weight's, and straight into the parts of the weight; a few
    # columns at a time, so that it is not there twice.
    columns = -(-d_head_DV.shape[1] // _PIECES // 128) * 128
    d_head_DV = jnp.concatenate(
      [
        sharding.sum_scatter(
          d_head_DV[:, start : start + columns].astype(x_BTD.dtype), 0, mesh
        )
        for start in range(0, d_head_DV.shape[1], columns)
      ],
      axis=1,
    )
    over_rest = tuple(a for a in over_rows if a != sharding.RULES['embed'])
    d_head_DV = jax.lax.psum(d_head_DV, over_rest)
  d_x_BTD = d_x.reshape(num * size, D)[: B * T].reshape(B, T, D)
  return (objective, loss_sum), (d_x_BTD, d_head_DV)


# ----------------------------------------------------------------- scoring


def logprobs(
  x_BQD: jax.Array,
  head_DV: jax.Array,
  targets_BQ: jax.Array,
  *,
  vocab_size: int,
  chunk: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """float32 log-probabilities and normalizers, and which are the likeliest.

  Three [B, Q] arrays of the targets; a logit is its log-probability and the
  normalizer. In chunks of the same positions of all rows, without a backward
  pass; 0 is a chunk whose logits are half as large as the matrix, of 128 to
  CHUNK positions: on a CPU neither more nor fewer are as fast.
  """
  B, Q, D = x_BQD.shape
  chunk = chunk or max(128, min(D // 2, CHUNK))
  num = -(-Q // max(1, chunk // B))
  size = -(-Q // num)

  def body(x_BCD, targets_BC):
    targets_C = targets_BC.reshape(B * size)
    logits_CV = _logits(x_BCD.reshape(B * size, D), head_DV, vocab_size)
    target_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=1)[:, 0]
    norm_C = jax.nn.logsumexp(logits_CV, axis=1)
    # Of equal ones the first; a CPU's argmax takes longer than all the rest.
    largest_C = jnp.max(logits_CV, axis=1)
    column_CV = jax.lax.broadcasted_iota(jnp.int32, logits_CV.shape, 1)
    earlier_CV = column_CV < targets_C[:, None]
    earlier_CV &= logits_CV == largest_C[:, None]
    likeliest_C = (target_C == largest_C) & ~jnp.any(earlier_CV, axis=1)
    return tuple(
      x_C.reshape(B, size) for x_C in (target_C - norm_C, norm_C, likeliest_C)
    )

  if num == 1:
    return body(x_BQD, targets_BQ)
  pad = (0, num * size - Q)
  x_BXCD = jnp.pad(x_BQD, ((0, 0), pad, (0, 0))).reshape(B, num, size, D)
  targets_BXC = jnp.pad(targets_BQ, ((0, 0), pad)).reshape(B, num, size)
  scored = jax.lax.map(
    lambda xs: body(*xs),
    (jnp.moveaxis(x_BXCD, 1, 0), jnp.moveaxis(targets_BXC, 1, 0)),
  )
  return tuple(
    jnp.moveaxis(x_XBC, 0, 1).reshape(B, num * size)[:, :Q] for x_XBC in scored
  )
