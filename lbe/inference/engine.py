"""The compiled part of scores and of generation, which is a token at a time.

Prefill and the loop over tokens are one program, which runs on from its state
where somebody looks at the text in between. Numbers of any kind are arguments;
a new program is compiled for other shapes only, and these come in few sizes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lbe.inference import sampling
from lbe.mesh import compilation
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import cache as cache_lib
from lbe.models import forward
from lbe.training import loss


def bucket(length: int) -> int:
  """The padded length: 32, 48, 64, 96, 128, … ."""
  power = max(32, 1 << (length - 1).bit_length())
  return power * 3 // 4 if power > 32 and length <= power * 3 // 4 else power


class Functions(NamedTuple):
  """The compiled functions of one model, execution and mesh.

  prepare(params): what `begin` and `go_on` take as `params`, made once a call;
    the others take either.
  prefix(params, ids_1T, length): what all rows begin with; for the others.
  begin(params, batch, prefix, settings, eos_E, silent_V, seed, bound,
    num_new=X): (state, shown) after `bound` new tokens, of at most X, or less
    where all rows have ended. Of `silent_V`, bool over the padded vocabulary
    or None, the ids are never chosen. `batch` has ids_BT and lengths_B of
    prompts; seeds_B, samples_B and live_B of rows; and where rows are several
    samples of a prompt source_B, the prompt of each. `shown` is (ids_BX,
    counts_B, done_B) on every host.
  go_on(params, state, prefix, done_B, bound): the same from there on; the
    state that is given is used up.
  score(params, batch, prefix): log-probabilities and normalizers of targets,
    and which are the likeliest, each [B, Q] and on every host. `batch` has
    ids_BT, positions_BT, branches_BT and until_BT of rows (see cache.prefill),
    and scored_BQ and targets_BQ.
  """

  prepare: Callable
  prefix: Callable
  begin: Callable
  go_on: Callable
  score: Callable


@functools.lru_cache(maxsize=8)
def functions(
  c: architecture.Config,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh | None,
) -> Functions:
  """The Functions; `mesh` may be None for one device.

  The one home of compiled programs for scores and generation: they live as
  long as their model is among the last eight.
  """
  constrain = sharding.constrain(mesh)
  how = {'execution': execution, 'constrain': constrain}
  one_device = mesh is None or mesh.size == 1
  in_tiles = one_device and _platform(mesh) == 'cpu'

  def everywhere(*arrays):
    return tuple(constrain(x, (None,) * x.ndim) for x in arrays)

  def shown(state):
    return everywhere(*(state[x] for x in ('new_BX', 'count_B', 'done_B')))

  def prepare(params):
    return cache_lib.prepare(params, execution)

  def prefix(params, ids_1T, length):
    T = ids_1T.shape[1]
    at_T = jnp.arange(T, dtype=jnp.int32)
    _, cache = cache_lib.prefill(
      params,
      c,
      ids_1T,
      positions_BT=jnp.where(at_T < length, at_T, cache_lib.EMPTY)[None],
      num_slots=T,
      in_tiles=in_tiles,
      **how,
    )
    ids_T = jnp.where(at_T < length, ids_1T[0], c.padded_vocab_size)
    return {
      'past': cache_lib.as_prefix(cache),
      'length': length,
      'seen_V': jnp.zeros(c.padded_vocab_size, bool).at[ids_T].set(True),
    }

  def begin(
    params, batch, prefix, settings, eos_E, silent_V, seed, bound, *, num_new
  ):
    state = _prefilled(
      params, c, batch, prefix, num_new=num_new, in_tiles=in_tiles, **how
    )
    B = len(batch['live_B'])

    def key(row, sample):
      # Of a row's own seed and the number of the sample, so that no draw
      # depends on what else is in the batch.
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
      'silent_V': silent_V,
    }
    state = _loop(params, c, state, prefix, bound, **how)
    return state, shown(state)

  def go_on(params, state, prefix, done_B, bound):
    state = {**state, 'done_B': done_B}
    state = _loop(params, c, state, prefix, bound, **how)
    return state, shown(state)

  def score_rows(params, batch, prefix):
    x_BTD, _ = cache_lib.prefill(
      params,
      c,
      batch['ids_BT'],
      positions_BT=batch['positions_BT'],
      branches_BT=batch['branches_BT'],
      until_BT=batch['until_BT'],
      num_slots=batch['ids_BT'].shape[1],
      prefix=prefix and prefix['past'],
      in_tiles=in_tiles,
      **how,
    )
    x_BQD = jnp.take_along_axis(x_BTD, batch['scored_BQ'][:, :, None], axis=1)
    return everywhere(
      *loss.logprobs(
        x_BQD,
        forward.head_DV(params, c),
        batch['targets_BQ'],
        vocab_size=c.vocab_size,
      )
    )

  return Functions(
    prepare=compilation.jit(prepare),
    prefix=compilation.jit(prefix),
    begin=compilation.jit(begin, static_argnames=('num_new',)),
    go_on=compilation.jit(go_on, donate_argnums=1),
    score=compilation.jit(score_rows),
  )


def _platform(mesh):
  devices = jax.devices() if mesh is None else mesh.devices.flat
  return devices[0].platform


def _prefilled(
  params, c, batch, prefix, *, num_new, in_tiles, execution, constrain
):
  """The part of a state that prompts decide, for rows or for their samples."""
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
    in_tiles=in_tiles,
    execution=execution,
    constrain=constrain,
  )
  rows_B = jnp.arange(B)
  seen_BV = jnp.zeros((B, c.padded_vocab_size), bool)
  if prefix:
    seen_BV |= prefix['seen_V']
  # Out of bounds, the ids of padding are dropped.
  outside_BT = jnp.where(real_BT, ids_BT, c.padded_vocab_size)
  state = {
    # The first new token comes from the last one of the prompt, wherever
    # padding has put it.
    'x_BD': x_BTD[rows_B, lengths_B - 1],
    'position_B': start + lengths_B,
    'seen_BV': seen_BV.at[rows_B[:, None], outside_BT].set(True),
  }
  if 'source_B' in batch:
    # Prompts were computed once each; from here on every sample has a row.
    state = {name: x[batch['source_B']] for name, x in state.items()}
    cache = cache_lib.take_rows(cache, batch['source_B'])
  return {**state, 'cache': cache}


def _loop(params, c, state, prefix, bound, *, execution, constrain):
  """The state after `bound` tokens, or after fewer where all rows have ended.

  A row that has ended goes on with the others, so that shapes stay; what it
  draws is neither written nor counted. A token is chosen from the states of
  the step before and then run through the model, so that the state always
  holds what the next one is chosen from: whoever looks in between goes on with
  nothing to do again.
  """
  # What no step changes stays outside of what the loop carries.
  names = ('keys_B', 'settings', 'eos_E', 'silent_V')
  still = {name: state[name] for name in names}
  state = {name: x for name, x in state.items() if name not in still}
  B, X = state['new_BX'].shape
  # All rows write into the same slot; that a short prompt leaves some empty
  # in front of it does no harm, since positions decide who sees what.
  first_slot = state['cache']['position_BS'].shape[1] - X
  rows_B = jnp.arange(B)

  def more(state):
    return (state['number'] < bound) & ~jnp.all(state['done_B'])

  def body(state):
    number = state['number']
    logits_BV = forward.logits(params, c, state['x_BD'][:, None])[:, 0]
    if still['silent_V'] is not None:
      logits_BV = sampling.without(logits_BV, still['silent_V'])
    token_B = sampling.choose(
      constrain(logits_BV, ('batch', None)),
      state['seen_BV'],
      still['settings'],
      jax.vmap(lambda key: jax.random.fold_in(key, number))(still['keys_B']),
    )
    ended_B = jnp.any(token_B[:, None] == still['eos_E'], axis=-1)
    done_B = state['done_B'] | ended_B
    x_B1D, cache = cache_lib.step(
      params,
      c,
      token_B[:, None],
      positions_BT=state['position_B'][:, None],
      slot=first_slot + number,
      cache=state['cache'],
      prefix=prefix and prefix['past'],
      execution=execution,
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

  return jax.lax.while_loop(more, body, state) | still
