"""The compiled part of generation: prefill, then one token at a time.

Prefill and the loop over tokens are one program, which runs on from its state
where somebody looks at the text in between. Numbers of any kind are arguments;
a new program is compiled for other shapes only, and these come in few sizes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lbe.inference import sampling
from lbe.mesh import compilation
from lbe.mesh import sharding
from lbe.models import cache as cache_lib
from lbe.models import forward


def bucket(length):
  """The padded length: 32, 48, 64, 96, 128, … ."""
  power = max(32, 1 << (length - 1).bit_length())
  return power * 3 // 4 if power > 32 and length <= power * 3 // 4 else power


def place(mesh, array, dims):
  """A host's array on the mesh, its dims laid out where they divide."""
  if mesh is None:
    return array
  array = np.asarray(array)
  where = jax.sharding.NamedSharding(mesh, sharding.spec(dims))
  where = sharding.fitted(where, array.shape)
  return jax.make_array_from_callback(array.shape, where, lambda i: array[i])


class Functions(NamedTuple):
  """The compiled functions of one model, execution and mesh.

  prepare(params): what the others take as `params`, made once a call.
  prefix(params, ids_1T, length): what all rows begin with; for the others.
  begin(params, batch, prefix, settings, eos_E, seed, bound, num_new=X):
    (state, shown) after `bound` new tokens, of at most X, or less where all
    rows have ended. `batch` has ids_BT and lengths_B of prompts; seeds_B,
    samples_B and live_B of rows; and where rows are several samples of a
    prompt source_B, the prompt of each. `shown` is (ids_BX, counts_B, done_B)
    on every host.
  go_on(params, state, prefix, done_B, bound): the same from there on; the
    state that is given is used up.
  """

  prepare: callable
  prefix: callable
  begin: callable
  go_on: callable


@functools.lru_cache(maxsize=8)
def functions(c, execution, mesh):
  """The Functions; `mesh` may be None for one device."""

  def constrain(x, dims):
    if mesh is None:
      return x
    where = jax.sharding.NamedSharding(mesh, sharding.spec(dims))
    return jax.lax.with_sharding_constraint(x, sharding.fitted(where, x.shape))

  def shown(state):
    return tuple(
      constrain(state[name], (None,) * state[name].ndim)
      for name in ('new_BX', 'count_B', 'done_B')
    )

  def prefix(params, ids_1T, length):
    T = ids_1T.shape[1]
    at_T = jnp.arange(T, dtype=jnp.int32)
    _, cache = cache_lib.prefill(
      params,
      c,
      ids_1T,
      positions_BT=jnp.where(at_T < length, at_T, cache_lib.EMPTY)[None],
      num_slots=T,
      constrain=constrain,
    )
    ids_T = jnp.where(at_T < length, ids_1T[0], c.padded_vocab_size)
    return {
      'past': cache_lib.as_prefix(cache),
      'length': length,
      'seen_V': jnp.zeros(c.padded_vocab_size, bool).at[ids_T].set(True),
    }

  def begin(params, batch, prefix, settings, eos_E, seed, bound, *, num_new):
    ids_BT, lengths_B = batch['ids_BT'], batch['lengths_B']
    B, T = ids_BT.shape
    start = prefix['length'] if prefix else 0
    at_T = jnp.arange(T, dtype=jnp.int32)
    real_BT = at_T < lengths_B[:, None]
    x_BTD, cache = cache_lib.prefill(
      params,
      c,
      ids_BT,
      positions_BT=jnp.where(real_BT, start + at_T, cache_lib.EMPTY),
      num_slots=T + num_new,
      prefix=prefix and prefix['past'],
      constrain=constrain,
    )
    rows_B = jnp.arange(B)
    seen_BV = jnp.zeros((B, c.padded_vocab_size), bool)
    if prefix:
      seen_BV |= prefix['seen_V']
    # Out of bounds, the ids of padding are dropped.
    outside_BT = jnp.where(real_BT, ids_BT, c.padded_vocab_size)
    state = {
      'x_BD': x_BTD[rows_B, lengths_B - 1],
      'position_B': start + lengths_B,
      'seen_BV': seen_BV.at[rows_B[:, None], outside_BT].set(True),
      'cache': cache,
    }
    if 'source_B' in batch:
      source_B = batch['source_B']
      B = source_B.shape[0]
      cache = cache_lib.take_rows(state.pop('cache'), source_B)
      state = {name: x[source_B] for name, x in state.items()}
      state['cache'] = cache

    def key(row, sample):
      own = jax.random.fold_in(jax.random.key(seed), row)
      return jax.random.fold_in(own, sample)

    state |= {
      'number': jnp.int32(0),
      'new_BX': jnp.zeros((B, num_new), jnp.int32),
      'count_B': jnp.zeros(B, jnp.int32),
      'done_B': ~batch['live_B'],
      'keys_B': jax.vmap(key)(batch['seeds_B'], batch['samples_B']),
      'settings': settings,
      'eos_E': eos_E,
    }
    state = loop(params, state, prefix, bound)
    return state, shown(state)

  def go_on(params, state, prefix, done_B, bound):
    state = loop(params, {**state, 'done_B': done_B}, prefix, bound)
    return state, shown(state)

  def loop(params, state, prefix, bound):
    still = ('keys_B', 'settings', 'eos_E')
    kept = {name: state[name] for name in still}
    state = {name: x for name, x in state.items() if name not in still}
    B, X = state['new_BX'].shape
    first_slot = state['cache']['position_BS'].shape[1] - X
    rows_B = jnp.arange(B)

    def more(state):
      return (state['number'] < bound) & ~jnp.all(state['done_B'])

    def body(state):
      number = state['number']
      logits_BV = forward.logits(params, c, state['x_BD'][:, None])[:, 0]
      token_B = sampling.choose(
        constrain(logits_BV, ('batch', None)),
        state['seen_BV'],
        kept['settings'],
        jax.vmap(lambda key: jax.random.fold_in(key, number))(kept['keys_B']),
      )
      ended_B = jnp.any(token_B[:, None] == kept['eos_E'], axis=-1)
      done_B = state['done_B'] | ended_B
      x_B1D, cache = cache_lib.step(
        params,
        c,
        token_B[:, None],
        positions_BT=state['position_B'][:, None],
        slot=first_slot + number,
        cache=state['cache'],
        prefix=prefix and prefix['past'],
        constrain=constrain,
      )
      new_B1 = jnp.where(done_B, 0, token_B)[:, None]
      return {
        'number': number + 1,
        'x_BD': x_B1D[:, 0],
        'position_B': state['position_B'] + 1,
        'seen_BV': state['seen_BV'].at[rows_B, token_B].set(True),
        'cache': cache,
        'new_BX': jax.lax.dynamic_update_slice(
          state['new_BX'], new_B1, (0, number)
        ),
        'count_B': state['count_B'] + ~done_B,
        'done_B': done_B,
      }

    return jax.lax.while_loop(more, body, state) | kept

  def prepare(params):
    return cache_lib.prepare(params, execution)

  return Functions(
    prepare=compilation.jit(prepare),
    prefix=compilation.jit(prefix),
    begin=compilation.jit(begin, static_argnames=('num_new',)),
    go_on=compilation.jit(go_on, donate_argnums=1),
  )
