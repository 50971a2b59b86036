"""The key/value cache of LLaMA: prefill, one step more, a shared prefix.

Slots are not positions. A batch of prompts is padded on the right, and what
comes after is written by all rows into the same slot, so a short row has empty
slots in its middle. `position_BS` says which position a slot holds, and a
query sees the slots with its own or an earlier one. Keys and values are laid
out [B, K, S, H], as the products read them; a cache of one row has no B, since
a CPU would copy it whole, three times a step, to leave out that 1.
"""

import jax
import jax.numpy as jnp

from lbe.models import attention
from lbe.models import forward
from lbe.models.attention import blocks

# The position of padding and of an unused slot: behind every query.
EMPTY = 2**30
# Large and finite: a row with nothing to attend to stays finite.
_MASKED = -1e30
_CACHE_DIMS = ('batch', 'kv_heads', None, None)


def prepare(params, execution):
  """The parameters as `prefill` and `step` take them.

  In the compute dtype, and where `execution` unrolls, a tuple of layers:
  inside a loop of steps a slice of a stack would be copied at every step.
  """
  params = jax.tree.map(lambda x: x.astype(execution.compute_dtype), params)
  layers = forward.stacked(params)
  if not execution.scan:
    num_layers = layers['attn_norm_LD'].shape[0]
    layers = tuple(forward.unstacked(layers, num_layers))
  return {**params, 'layers': layers}


def prefill(
  params, c, ids_BT, *, positions_BT, num_slots, prefix=None, constrain
):
  """([B, T, D] states, the cache with `num_slots` slots) of rows that begin.

  Padding has the position EMPTY. With a `prefix`, positions go on from it.
  """

  def layer(x_BTD, w, past):
    kept = []

    def attend(q_BTNH, k_BTKH, v_BTKH):
      k, v = (constrain(_rows(x), _CACHE_DIMS) for x in (k_BTKH, v_BTKH))
      kept.extend((k, v))
      # In blocks: all scores of long prompts would not fit into memory.
      outs = [
        _attend(
          q_BTNH[:, start:stop],
          k[:, :, :stop],
          v[:, :, :stop],
          positions_BT[:, start:stop],
          positions_BT[:, :stop],
          past,
        )
        for start, stop in blocks.bounds(q_BTNH.shape[1])
      ]
      return jnp.concatenate(outs, axis=1)

    x_BTD = forward.decoder_layer(c, w, x_BTD, tables, attend, constrain)
    return x_BTD, tuple(kept)

  tables = forward.rope_tables(c, positions_BT)
  x_BTD = _embed(params, ids_BT, constrain)
  layers = params['layers']
  if isinstance(layers, tuple):
    kept = []
    for i, w in enumerate(layers):
      x_BTD, kv = layer(x_BTD, w, _at_layer(prefix, i))
      kept.append(kv)
    k, v = zip(*kept, strict=True)
  else:
    x_BTD, (k, v) = jax.lax.scan(
      lambda x, xs: layer(x, *xs), x_BTD, (layers, prefix)
    )
  B, T = ids_BT.shape
  more = num_slots - T

  def widen(x):
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, more), (0, 0)])
    return _without_b(x) if B == 1 else x

  cache = {
    'k': jax.tree.map(widen, k),
    'v': jax.tree.map(widen, v),
    'position_BS': jnp.pad(
      positions_BT, ((0, 0), (0, more)), constant_values=EMPTY
    ),
  }
  return _final_norm(params, c, x_BTD), cache


def step(
  params, c, ids_BT, *, positions_BT, slot, cache, prefix=None, constrain
):
  """As `prefill`, of T tokens more; they are written from `slot` on."""
  B, T = ids_BT.shape
  tables = forward.rope_tables(c, positions_BT)
  position_BS = jax.lax.dynamic_update_slice(
    cache['position_BS'], positions_BT, (0, slot)
  )

  def layer(x_BTD, w, k_cache, v_cache, past, i=None):
    """`i` is the layer's number where the caches are stacks of all layers."""
    kept = []

    def write(cache, x_BTKH):
      x = _rows(x_BTKH).astype(cache.dtype)
      x = _without_b(x) if B == 1 else x
      x, layer = (x, ()) if i is None else (x[None], (i,))
      start = (*layer, *[0] * (cache.ndim - len(layer) - 2), slot, 0)
      return jax.lax.dynamic_update_slice(cache, x, start)

    def attend(q_BTNH, k_BTKH, v_BTKH):
      kept.extend((write(k_cache, k_BTKH), write(v_cache, v_BTKH)))
      k, v = kept if i is None else (x[i] for x in kept)
      if B == 1:
        k, v = k[None], v[None]
      return _attend(q_BTNH, k, v, positions_BT, position_BS, past)

    x_BTD = forward.decoder_layer(c, w, x_BTD, tables, attend, constrain)
    return x_BTD, *kept

  assert T <= position_BS.shape[1]
  x_BTD = _embed(params, ids_BT, constrain)
  layers, k, v = params['layers'], cache['k'], cache['v']
  if isinstance(layers, tuple):
    k, v = list(k), list(v)
    for i, w in enumerate(layers):
      x_BTD, k[i], v[i] = layer(x_BTD, w, k[i], v[i], _at_layer(prefix, i))
    k, v = tuple(k), tuple(v)
  else:

    def body(carry, xs):
      w, past, i = xs
      return layer(carry[0], w, *carry[1:], past, i), None

    (x_BTD, k, v), _ = jax.lax.scan(
      body, (x_BTD, k, v), (layers, prefix, jnp.arange(c.num_layers))
    )
  cache = {'k': k, 'v': v, 'position_BS': position_BS}
  return _final_norm(params, c, x_BTD), cache


def as_prefix(cache):
  """The cache of one row as the past that all rows of a batch share."""
  (position_P,) = cache['position_BS']
  k, v = cache['k'], cache['v']
  if isinstance(k, tuple):
    return tuple((*kv, position_P) for kv in zip(k, v, strict=True))
  return k, v, jnp.broadcast_to(position_P, (k.shape[0], *position_P.shape))


def take_rows(cache, rows_B):
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


def _without_b(x):
  """[…, 1, K, S, H] as […, K, S, H]."""
  return jnp.squeeze(x, axis=-4)


def _at_layer(prefix, i):
  return None if prefix is None else prefix[i]


def _rows(x):
  """[B, T, K, ·] as [B, K, T, ·], and back."""
  return jnp.swapaxes(x, 1, 2)


def _embed(params, ids_BT, constrain):
  return constrain(params['embed_VD'][ids_BT], ('batch', 'position', None))


def _final_norm(params, c, x_BTD):
  return forward.rms_norm(x_BTD, params['final_norm_D'], c.norm_eps)


def _attend(q_BTNH, k_BKSH, v_BKSH, positions_BT, position_BS, prefix):
  """Attention of [B, T, N, H] over a shared prefix and the own slots at once.

  One softmax over both, in float32; the prefix, (k_KPH, v_KPH, position_P) or
  None, is not repeated for each row.
  """
  B, T, N, H = q_BTNH.shape
  K = k_BKSH.shape[1]
  # The queries of a key/value head together, so that a step's products are
  # small matrices on the cache as it lies.
  q_BKMH = _rows(q_BTNH.reshape(B, T, K, -1)).reshape(B, K, -1, H)
  exact = attention.precision(q_BTNH.dtype)

  def logits(spec, k, position_BS):
    logits_BKMS = jnp.einsum(
      spec, q_BKMH, k, precision=exact, preferred_element_type=jnp.float32
    )
    visible_BTS = positions_BT[:, :, None] >= position_BS[:, None, :]
    visible_BTGS = jnp.repeat(visible_BTS, N // K, axis=1)
    return jnp.where(visible_BTGS[:, None], logits_BKMS * H**-0.5, _MASKED)

  def mix(spec, weights, v):
    return jnp.einsum(
      spec,
      weights.astype(v.dtype),
      v,
      precision=exact,
      preferred_element_type=jnp.float32,
    )

  own_BKMS = logits('BKMH,BKSH->BKMS', k_BKSH, position_BS)
  if prefix is None:
    weights_BKMS = jax.nn.softmax(own_BKMS, axis=-1)
    out_BKMH = mix('BKMS,BKSH->BKMH', weights_BKMS, v_BKSH)
  else:
    k_KPH, v_KPH, position_P = prefix
    P = position_P.shape[0]
    shared_BKMP = logits('BKMH,KPH->BKMP', k_KPH, position_P[None])
    both = jnp.concatenate([shared_BKMP, own_BKMS], axis=-1)
    weights = jax.nn.softmax(both, axis=-1)
    out_BKMH = mix('BKMP,KPH->BKMH', weights[..., :P], v_KPH) + mix(
      'BKMS,BKSH->BKMH', weights[..., P:], v_BKSH
    )
  out_BTNH = _rows(out_BKMH.reshape(B, K, T, -1)).reshape(B, T, N, H)
  return out_BTNH.astype(q_BTNH.dtype)
