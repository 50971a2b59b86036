"""Attention in tiles of queries and keys, for CPUs.

Scores of a tile stay in a core's cache, and tiles that no query sees are not
made: a tile meets keys from where the document of its first query begins to its
own last query, so that a packed row costs what its documents cost and not its
square. As FlashAttention (Dao et al., 2022), in plain XLA; the loops' lengths
depend on the data, which a GPU would ask the host for at every tile.

A tile is of R rows at once, [R * K, M, S] for K key heads and the M queries of
their G query heads: XLA works on one tile after the other, and cores share what
is elementwise in it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lbe.models.attention import context
from lbe.models.attention import reference

# Queries of a tile, and its keys; of rows from _LONG tokens on more, since only
# such products are given to several cores by XLA.
_TILE, _LONG_TILE, _LONG = 128, 512, 2048
# Scores of a tile: more leave the cache, fewer are too few to share.
_SCORES = 2**19


def attend(q_BTNH, k_BTKH, v_BTKH, *, segments_BT, precision, mesh=None):
  """Causal attention inside segments, as reference.attend, in q's dtype.

  Keys stand where the queries do, so that "not later" is by index, and a
  segment is one stretch of its row. Softmax and sums are float32.
  """

  def local(*arrays):
    cut = _Cut(*arrays[0].shape, arrays[1].shape[2])
    q_BTNH, k_BTKH, v_BTKH, segments_BT = (cut.padded(x) for x in arrays)
    first_BT = _first_seen(segments_BT)
    out_BTNH = _attend((precision, cut), q_BTNH, k_BTKH, v_BTKH, first_BT)
    return out_BTNH[:, : cut.T]

  arrays = q_BTNH, k_BTKH, v_BTKH, segments_BT
  return (
    local(*arrays) if mesh is None else context.over_mesh(local, mesh, *arrays)
  )


def attend_kept(q_BTNH, k_BKSH, v_BKSH, *, queries, keys, sees, precision):
  """[B, T, N, H] of queries that are the last T of S keys; has no gradient.

  `sees(*queries, *keys)` is what queries see of keys, of those that are not
  later: `queries` are arrays [B, T] and `keys` [B, S], which it gets as
  [R, Q, 1] and [R, 1, S]. Softmax and sums are float32.
  """
  B, T, N, H = q_BTNH.shape
  _, K, S, _ = k_BKSH.shape
  cut = _Cut(B, T, N, H, K)
  tile, num_past = cut.tile, S - T
  q_nCMH = cut.queries(cut.padded(q_BTNH))
  queries = [cut.padded(x_BT) for x_BT in queries]
  behind = -S % tile
  keys = [jnp.pad(x_BS, ((0, 0), (0, behind))) for x_BS in keys]
  k_gCSH, v_gCSH = (
    jnp.pad(
      x.reshape(-1, cut.rows * K, S, H), ((0, 0), (0, 0), (0, behind), (0, 0))
    )
    for x in (k_BKSH, v_BKSH)
  )

  def one(n):
    rows, i = cut.place(n)

    def of(x, number):
      return jax.lax.dynamic_slice(
        x, (rows * cut.rows, number * tile), (cut.rows, tile)
      )

    query_Q1 = num_past + i * tile + jnp.arange(tile)[:, None]

    def part(j):
      visible_RQS = sees(
        *(of(x, i)[:, :, None] for x in queries),
        *(of(x, j)[:, None, :] for x in keys),
      )
      visible_RQS &= j * tile + jnp.arange(tile) <= query_Q1
      # Made once: XLA would make it again for each head, and twice.
      visible_RQS = jax.lax.optimization_barrier(visible_RQS)
      return *(_of(x, rows, j, tile) for x in (k_gCSH, v_gCSH)), visible_RQS

    high = -(-jnp.minimum(num_past + (i + 1) * tile, S) // tile)
    return _softmax(q_nCMH[n], part, 0, high, precision)[0]

  out_nCMH = jax.lax.map(one, jnp.arange(cut.number))
  return cut.joined(out_nCMH)[:, :T].astype(q_BTNH.dtype)


def _first_seen(segments_BT):
  """int32 [B, T]: the first token of each one's segment; T of padding."""
  T = segments_BT.shape[1]
  index_BT = jnp.broadcast_to(jnp.arange(T), segments_BT.shape)
  begins_BT = segments_BT != jnp.roll(segments_BT, 1, axis=1)
  first_BT = jax.lax.cummax(jnp.where(begins_BT, index_BT, 0), axis=1)
  return jnp.where(segments_BT > 0, first_BT, T)


class _Cut(NamedTuple):
  """Rows [B, T, N, H] with K key heads, and how they are cut into tiles."""

  B: int
  T: int
  N: int
  H: int
  K: int

  @property
  def tile(self):
    """Queries of a tile: as many tiles as it takes, of equal size."""
    most = _TILE if self.T < _LONG else _LONG_TILE
    size = -(-self.T // -(-self.T // most))
    return -(-size // 8) * 8

  @property
  def rows(self):
    """R, the rows of a tile."""
    most = max(1, _SCORES // (self.N * self.tile**2))
    return max(r for r in range(1, self.B + 1) if self.B % r == 0 and r <= most)

  @property
  def of_row(self):
    """Tiles of a row."""
    return -(-self.T // self.tile)

  @property
  def number(self):
    return self.B // self.rows * self.of_row

  def padded(self, x_BT):
    pad = [(0, 0)] * x_BT.ndim
    pad[1] = (0, self.of_row * self.tile - self.T)
    return jnp.pad(x_BT, pad)

  def queries(self, x_BTNH):
    """[n, R * K, M, H]: all tiles of queries."""
    K, R, tile, H = self.K, self.rows, self.tile, x_BTNH.shape[-1]
    x = x_BTNH.reshape(-1, R, self.of_row, tile, K, self.N // K, H)
    x = jnp.transpose(x, (0, 2, 1, 4, 5, 3, 6))
    return x.reshape(self.number, R * K, -1, H)

  def joined(self, x_nCMH):
    """The inverse of `queries`."""
    K, R, tile, H = self.K, self.rows, self.tile, x_nCMH.shape[-1]
    x = x_nCMH.reshape(-1, self.of_row, R, K, self.N // K, tile, H)
    x = jnp.transpose(x, (0, 2, 1, 5, 3, 4, 6))
    return x.reshape(self.B, -1, self.N, H)

  def keys(self, x_BTKH):
    """[B / R, R * K, T, H]."""
    x_BKTH = jnp.swapaxes(x_BTKH, 1, 2)
    return x_BKTH.reshape(-1, self.rows * self.K, *x_BKTH.shape[2:])

  def place(self, n):
    """(which rows, which of their tiles)."""
    if self.of_row == 1:
      return n, 0
    return n // self.of_row, n % self.of_row

  def visible(self, n, first_BT):
    """(visible(j) [R, Q, S], the first tile of keys, that behind the last)."""
    rows, i = self.place(n)
    at, tile = (rows * self.rows, i * self.tile), self.tile
    first_RQ = jax.lax.dynamic_slice(first_BT, at, (self.rows, tile))
    query_Q1 = i * tile + jnp.arange(tile)[:, None]

    def visible(j):
      key_S = j * tile + jnp.arange(tile)
      return (key_S <= query_Q1) & (key_S >= first_RQ[:, :, None])

    if self.of_row == 1:
      return visible, 0, 1
    return visible, jnp.min(first_RQ) // tile, i + 1


def _of(x_gCTH, rows, j, tile):
  """Tile j of keys, [C, S, H]."""
  _, C, _, H = x_gCTH.shape
  at = (rows, 0, j * tile, 0)
  return jax.lax.dynamic_slice(x_gCTH, at, (1, C, tile, H))[0]


def _over(low, high, add, start):
  """add(j, so far) from low to high; one tile, known to be one, is no loop."""
  if isinstance(high, int) and high - low == 1:
    return add(low, start)
  return jax.lax.fori_loop(low, high, add, start)


# ------------------------------------------------------------------- products


def _scores(q_CMH, k_CSH, visible_RQS, precision):
  """float32 [C, M, S], -1e30 where unseen."""
  scores = reference.product('CMH,CSH->CMS', q_CMH, k_CSH, precision)
  R, Q, S = visible_RQS.shape
  by_row = scores.reshape(R, -1, Q, S) * q_CMH.shape[-1] ** -0.5
  seen = jnp.where(visible_RQS[:, None], by_row, reference.MASKED)
  return seen.reshape(scores.shape)


def _softmax(q_CMH, part, low, high, precision):
  """(out [C, M, H], norm [C, M, 1]) over parts low to high, in float32.

  `part(j)` is keys and values [C, S, H], and what is visible of them.
  """

  def add(j, so_far):
    largest, total, out = so_far
    k_CSH, v_CSH, visible_RQS = part(j)
    scores = _scores(q_CMH, k_CSH, visible_RQS, precision)
    new = jnp.maximum(largest, jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - new)
    # What was masked alone has weights of 1, until something is seen.
    kept = jnp.exp(largest - new)
    total = total * kept + jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(v_CSH.dtype)
    more = reference.product('CMS,CSH->CMH', weights, v_CSH, precision)
    return new, total, out * kept + more

  zeros = jnp.zeros(q_CMH.shape, jnp.float32)
  start = (zeros[..., :1] + reference.MASKED, zeros[..., :1], zeros)
  largest, total, out = _over(low, high, add, start)
  # Of queries that see nothing, padding, weights are 0 in the backward pass.
  norm = jnp.where(largest > reference.MASKED / 2, largest + jnp.log(total), 0)
  return out / jnp.where(total > 0, total, 1), norm


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how, q_BTNH, k_BTKH, v_BTKH, first_BT):
  return _forward(how, q_BTNH, k_BTKH, v_BTKH, first_BT)[0]


def _forward(how, q_BTNH, k_BTKH, v_BTKH, first_BT):
  precision, cut = how
  q_nCMH = cut.queries(q_BTNH)
  k_gCTH, v_gCTH = cut.keys(k_BTKH), cut.keys(v_BTKH)

  def one(n):
    rows, _ = cut.place(n)
    visible, low, high = cut.visible(n, first_BT)

    def part(j):
      keys = (_of(x, rows, j, cut.tile) for x in (k_gCTH, v_gCTH))
      return (*keys, visible(j))

    return _softmax(q_nCMH[n], part, low, high, precision)

  out_nCMH, norm_nCM1 = jax.lax.map(one, jnp.arange(cut.number))
  out_BTNH = cut.joined(out_nCMH).astype(q_BTNH.dtype)
  out_BTNH = checkpoint_name(out_BTNH, 'attention')
  norm_nCM1 = checkpoint_name(norm_nCM1, 'attention')
  return out_BTNH, (q_BTNH, k_BTKH, v_BTKH, first_BT, out_BTNH, norm_nCM1)


def _backward(how, saved, d_out_BTNH):
  precision, cut = how
  q_BTNH, k_BTKH, v_BTKH, first_BT, out_BTNH, norm_nCM1 = saved
  tile, scale = cut.tile, cut.H**-0.5
  product = functools.partial(reference.product, precision=precision)
  dot_BTN1 = jnp.sum(
    d_out_BTNH.astype(jnp.float32) * out_BTNH.astype(jnp.float32),
    axis=-1,
    keepdims=True,
  )
  q_nCMH, d_out_nCMH, dot_nCM1 = (
    cut.queries(x) for x in (q_BTNH, d_out_BTNH, dot_BTN1)
  )
  k_gCTH, v_gCTH = cut.keys(k_BTKH), cut.keys(v_BTKH)

  def one(d_keys, n):
    rows, _ = cut.place(n)
    visible, low, high = cut.visible(n, first_BT)
    q_CMH, d_out_CMH, dot_CM1 = q_nCMH[n], d_out_nCMH[n], dot_nCM1[n]

    def add(j, so_far):
      d_q, *d_keys = so_far
      k_CSH, v_CSH = (_of(x, rows, j, tile) for x in (k_gCTH, v_gCTH))
      scores = _scores(q_CMH, k_CSH, visible(j), precision)
      weights = jnp.exp(scores - norm_nCM1[n])
      d_weights = product('CMH,CSH->CMS', d_out_CMH, v_CSH)
      d_scores = weights * (d_weights - dot_CM1) * scale
      d_scores = d_scores.astype(q_CMH.dtype)
      weights = weights.astype(q_CMH.dtype)
      at = (rows, 0, 0, j * tile)
      for i, (a, b) in enumerate(((q_CMH, d_scores), (d_out_CMH, weights))):
        # With keys last no product needs a copy of all weights turned round.
        more = product('CMH,CMS->CHS', a, b)[None]
        own = jax.lax.dynamic_slice(d_keys[i], at, more.shape) + more
        d_keys[i] = jax.lax.dynamic_update_slice(d_keys[i], own, at)
      return d_q + product('CMS,CSH->CMH', d_scores, k_CSH), *d_keys

    zeros = jnp.zeros(q_CMH.shape, jnp.float32)
    d_q, *d_keys = _over(low, high, add, (zeros, *d_keys))
    return tuple(d_keys), d_q

  g, C, T, H = k_gCTH.shape
  zeros = jnp.zeros((g, C, H, T), jnp.float32)
  d_keys, d_q_nCMH = jax.lax.scan(one, (zeros, zeros), jnp.arange(cut.number))
  d_k_BTKH, d_v_BTKH = (
    jnp.transpose(x.reshape(cut.B, cut.K, H, T), (0, 3, 1, 2)) for x in d_keys
  )
  return (
    cut.joined(d_q_nCMH).astype(q_BTNH.dtype),
    d_k_BTKH.astype(k_BTKH.dtype),
    d_v_BTKH.astype(v_BTKH.dtype),
    None,
  )


_attend.defvjp(_forward, _backward)
