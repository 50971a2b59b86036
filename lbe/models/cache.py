"""Keys and values that are kept: rows that begin, a step more, a shared prefix.

Slots are not positions. A batch of prompts is padded on the right, and what
comes after is written by all rows into the same slot, so a short row has empty
slots in its middle. `position_BS` says which position a slot holds, and a
query sees the slots with its own or an earlier one. Keys and values are laid
out [B, K, S, H], as the products read them; a cache of one row has no B, since
a CPU would copy it whole, three times a step, to leave out that 1.

What is kept of all layers is a stack [L, ...] where these are scanned and a
tuple where they are unrolled: `x[i]` is what layer i has, in either.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lbe.models import architecture
from lbe.models import attention
from lbe.models import forward
from lbe.models import int8
from lbe.models.attention import blocks
from lbe.models.attention import reference
from lbe.models.attention import tiles

# The position of padding and of an unused slot: behind every query.
EMPTY = 2**30
_CACHE_DIMS = ('batch', 'kv_heads', None, None)
# Of shorter rows all scores at once are as fast as tiles.
_TILED_FROM = 512


def prepare(params: dict, execution: forward.Execution) -> dict:
  """The parameters as a loop of steps takes them, in the compute dtype.

  Where `execution` unrolls, a tuple of layers: inside such a loop a slice of a
  stack would be copied at every step.
  """
  params = jax.tree.map(
    lambda x: x.astype(execution.compute_dtype),
    params,
    is_leaf=lambda x: isinstance(x, int8.Int8),
  )
  return {**params, 'layers': forward.layers(params, execution)}


def prefill(
  params: dict,
  c: architecture.Config,
  ids_BT: jax.Array,
  *,
  positions_BT: jax.Array,
  num_slots: int,
  execution: forward.Execution,
  constrain: Callable,
  in_tiles: bool = False,
  prefix: dict | None = None,
  branches_BT: jax.Array | None = None,
  until_BT: jax.Array | None = None,
) -> tuple[jax.Array, dict]:
  """([B, T, D] states, the cache with `num_slots` slots) of rows that begin.

  Padding has the position EMPTY. With a `prefix`, positions go on from it.
  With `branches_BT` rows are trees: of those before it a token sees what has
  its own branch or an earlier one, and is seen `until_BT` a branch beyond its
  own. `params` may be those of `prepare`. `in_tiles` is for one CPU, and long
  rows there (see attention.tiles).
  """
  B, T = ids_BT.shape
  queries, keys = [positions_BT], [positions_BT]
  if branches_BT is not None:
    queries, keys = [*queries, branches_BT], [*keys, branches_BT, until_BT]

  def visible(start, stop):
    return _sees(
      *(x_BT[:, start:stop, None] for x_BT in queries),
      *(x_BT[:, None, :stop] for x_BT in keys),
    )

  def attend(i, kept, past, q_BTNH, k_BTKH, v_BTKH):
    k, v = (constrain(_rows(x), _CACHE_DIMS) for x in (k_BTKH, v_BTKH))
    if in_tiles and T > _TILED_FROM:
      return (
        _attend_in_tiles(q_BTNH, k, v, queries, keys, prefix, past),
        kept,
        (k, v),
      )
    outs = []
    # In blocks: all scores of long prompts would not fit into memory.
    for start, stop in blocks.bounds(T):
      own = (k[:, :, :stop], v[:, :, :stop], visible(start, stop))
      shared = _shared(prefix, past, positions_BT[:, start:stop])
      outs.append(_attend(q_BTNH[:, start:stop], [*shared, own]))
    return jnp.concatenate(outs, axis=1), kept, (k, v)

  def widen(x):
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, num_slots - T), (0, 0)])
    return _without_b(x) if B == 1 else x

  x_BTD, _, (k, v) = _forward(
    params, c, ids_BT, positions_BT, attend, (), prefix, execution, constrain
  )
  return x_BTD, {
    'k': jax.tree.map(widen, k),
    'v': jax.tree.map(widen, v),
    'position_BS': jnp.pad(
      positions_BT, ((0, 0), (0, num_slots - T)), constant_values=EMPTY
    ),
  }


def step(
  params: dict,
  c: architecture.Config,
  ids_BT: jax.Array,
  *,
  positions_BT: jax.Array,
  slot: jax.Array,
  cache: dict,
  execution: forward.Execution,
  constrain: Callable,
  prefix: dict | None = None,
) -> tuple[jax.Array, dict]:
  """As `prefill`, of T tokens more; they are written from `slot` on."""
  B, T = ids_BT.shape
  position_BS = jax.lax.dynamic_update_slice(
    cache['position_BS'], positions_BT, (0, slot)
  )
  assert T <= position_BS.shape[1]
  visible_BTS = positions_BT[:, :, None] >= position_BS[:, None]

  def write(kept, i, x_BTKH):
    """Keys or values with new slots, of layer i in a stack or of one layer."""
    x = _without_b(_rows(x_BTKH)) if B == 1 else _rows(x_BTKH)
    start = (*[0] * (x.ndim - 2), slot, 0)
    if i is None:
      return jax.lax.dynamic_update_slice(kept, x, start)
    return jax.lax.dynamic_update_slice(kept, x[None], (i, *start))

  def attend(i, kept, past, q_BTNH, k_BTKH, v_BTKH):
    # A stack travels from layer to layer, so that it is written in place.
    kept = write(kept[0], i, k_BTKH), write(kept[1], i, v_BTKH)
    k, v = kept if i is None else (x[i] for x in kept)
    own = (*((k[None], v[None]) if B == 1 else (k, v)), visible_BTS)
    shared = _shared(prefix, past, positions_BT)
    return _attend(q_BTNH, [*shared, own]), kept, None

  kept = cache['k'], cache['v']
  x_BTD, (k, v), _ = _forward(
    params, c, ids_BT, positions_BT, attend, kept, prefix, execution, constrain
  )
  return x_BTD, {'k': k, 'v': v, 'position_BS': position_BS}


def as_prefix(cache: dict) -> dict:
  """The cache of one row as the past that all rows of a batch share."""
  (position_P,) = cache['position_BS']
  return {'k': cache['k'], 'v': cache['v'], 'position_P': position_P}


def take_rows(cache: dict, rows_B: jax.Array) -> dict:
  """The cache of these rows, at least two; one may be taken several times."""
  assert len(rows_B) > 1
  one = len(cache['position_BS']) == 1

  def take(x):
    x = jnp.expand_dims(x, -4) if one else x
    return jnp.take(x, rows_B, axis=x.ndim - 4)

  return {
    'k': jax.tree.map(take, cache['k']),
    'v': jax.tree.map(take, cache['v']),
    'position_BS': cache['position_BS'][rows_B],
  }


def _forward(
  params, c, ids_BT, positions_BT, attend, kept, prefix, execution, constrain
):
  """(states behind the final norm, `kept` behind all layers, the layers' own).

  `attend(i, kept, past, q, k, v)` gives the attention's output [B, T, N, H] of
  layer i, what goes on to the next one, and what the layer has for itself;
  `past` are its keys and values of the prefix. Of unrolled layers, which are
  traced once, `kept` is what is kept of one, and i is None.
  """
  tables = forward.rope_tables(c, positions_BT)
  layers = params['layers']
  if not isinstance(layers, tuple):
    layers = forward.layers(params, execution)

  def layer(x_BTD, w, kept, past, i=None):
    behind = []

    def attend_here(q_BTNH, k_BTKH, v_BTKH):
      out_BTNH, *rest = attend(i, kept, past, q_BTNH, k_BTKH, v_BTKH)
      behind.extend(rest)
      return out_BTNH

    x_BTD = forward.decoder_layer(c, w, x_BTD, tables, attend_here, constrain)
    return x_BTD, *behind

  alike = jax.jit(layer)

  def one(carry, w, i):
    x_BTD, kept = carry
    past = None if prefix is None else (prefix['k'][i], prefix['v'][i])
    if not isinstance(layers, tuple):
      x_BTD, kept, own = layer(x_BTD, w, kept, past, i)
      return (x_BTD, kept), own
    x_BTD, new, own = alike(x_BTD, w, tuple(x[i] for x in kept), past)
    kept = tuple(
      (*x[:i], x_i, *x[i + 1 :]) for x, x_i in zip(kept, new, strict=True)
    )
    return (x_BTD, kept), own

  x_BTD = constrain(
    forward.embed(params, ids_BT, execution), ('batch', 'position', None)
  )
  (x_BTD, kept), own = forward.through_layers(one, (x_BTD, kept), layers)
  x_BTD = forward.rms_norm(x_BTD, params['final_norm_D'], c.norm_eps)
  return x_BTD, kept, own


def _without_b(x):
  """[…, 1, K, S, H] as […, K, S, H]."""
  return jnp.squeeze(x, axis=-4)


def _rows(x):
  """[B, T, K, ·] as [B, K, T, ·], and back."""
  return jnp.swapaxes(x, 1, 2)


def _sees(query, *others):
  """What a query sees of a key: (branch), position, (branch, until)."""
  if len(others) == 1:
    return query >= others[0]
  own_branch, position, branch, until = others
  return (query >= position) & (own_branch >= branch) & (own_branch < until)


def _attend_in_tiles(q_BTNH, k, v, queries, keys, prefix, past):
  """As `_attend` of a layer's past and the rows' own keys and values."""
  B = len(q_BTNH)
  if prefix is not None:
    # A prefix is of the trunk, which all branches see.
    position_P = prefix['position_P']
    trunk = [
      position_P,
      jnp.zeros_like(position_P),
      jnp.full_like(position_P, EMPTY),
    ]
    trunk = trunk[: len(keys)]
    keys = [
      jnp.concatenate([jnp.broadcast_to(x_P, (B, len(x_P))), x_BT], axis=1)
      for x_P, x_BT in zip(trunk, keys, strict=True)
    ]
    k, v = (
      jnp.concatenate([jnp.broadcast_to(x, (B, *x.shape)), own], axis=2)
      for x, own in zip(past, (k, v), strict=True)
    )
  return tiles.attend_kept(
    q_BTNH,
    k,
    v,
    queries=queries,
    keys=keys,
    sees=_sees,
    precision=attention.precision(q_BTNH.dtype),
  )


def _shared(prefix, past, positions_BT):
  """What a layer has of a prefix, as a list of parts for `_attend`."""
  if prefix is None:
    return []
  visible_BTP = positions_BT[:, :, None] >= prefix['position_P']
  return [(*past, visible_BTP)]


def _attend(q_BTNH, parts):
  """[B, T, N, H] of parts (keys, values, visible [B, T, S]), as one softmax.

  Keys and values are [B, K, S, H], or [K, S, H] of what all rows share, which
  is not repeated for each row. Scores are float32 and stay where their product
  made them, those of a shared part as [K, B, M, S]: joining parts, or turning
  one round, would copy the largest arrays there are.
  """
  B, T, N, H = q_BTNH.shape
  K = parts[0][0].shape[-3]
  product = functools.partial(
    reference.product, precision=attention.precision(q_BTNH.dtype)
  )
  # The queries of a key/value head together, M = T * G, so that a step's
  # products are small matrices on the cache as it lies.
  q_BKMH = _rows(q_BTNH.reshape(B, T, K, -1)).reshape(B, K, -1, H)

  def turned(x, k):
    """[B, K, M, ·] as the scores of keys k lie, and back."""
    return jnp.swapaxes(x, 0, 1) if k.ndim == 3 else x

  scores = []
  for k, _, visible_BTS in parts:
    spec = 'KBMH,KSH->KBMS' if k.ndim == 3 else 'BKMH,BKSH->BKMS'
    own = product(spec, turned(q_BKMH, k), k) * H**-0.5
    visible = turned(visible_BTS[:, None, :, None], k)
    of_queries = own.reshape(*own.shape[:2], T, N // K, -1)
    scores.append(
      jnp.where(visible, of_queries, reference.MASKED).reshape(own.shape)
    )
  largest_BKM1 = functools.reduce(
    jnp.maximum,
    [
      turned(jnp.max(own, axis=-1, keepdims=True), k)
      for own, (k, _, _) in zip(scores, parts, strict=True)
    ],
  )
  out_BKMH, sum_BKM1 = 0.0, 0.0
  for own, (k, v, _) in zip(scores, parts, strict=True):
    spec = 'KBMS,KSH->KBMH' if k.ndim == 3 else 'BKMS,BKSH->BKMH'
    weights = jnp.exp(own - turned(largest_BKM1, k))
    sum_BKM1 += turned(jnp.sum(weights, axis=-1, keepdims=True), k)
    out_BKMH += turned(product(spec, weights.astype(v.dtype), v), k)
  out_BKMH /= sum_BKM1
  out_BTNH = _rows(out_BKMH.reshape(B, K, T, -1)).reshape(B, T, N, H)
  return out_BTNH.astype(q_BTNH.dtype)
