"""From logits to a token: what may be drawn, and a draw of its own per row.

All settings are numbers inside the compiled function: other ones compile
nothing. Their order and their meaning are those of transformers' processors:
repetition penalty, temperature, top-k, top-p, min-p.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Out of the draw; finite, so that differences of two are no NaN.
_OUT = -1e30
# Tokens drawn from at a time: first a block of so many, then one of them.
_BLOCK = 128


class Settings(NamedTuple):
  """How tokens are drawn; temperature 0 is greedy.

  `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 change nothing.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0

  def check(self) -> 'Settings':
    """The settings as float32 and int32; ValueError for one out of range."""
    for name, fine, range_ in (
      ('temperature', 0 <= self.temperature < float('inf'), 'at least 0'),
      ('top_k', 0 <= self.top_k < 2**31, 'a whole number, 0 or more'),
      ('top_p', 0 < self.top_p <= 1, 'above 0 and at most 1'),
      ('min_p', 0 <= self.min_p <= 1, 'from 0 to 1'),
      (
        'repetition_penalty',
        0 < self.repetition_penalty < float('inf'),
        'above 0; 1 is none',
      ),
    ):
      value = getattr(self, name)
      if not fine or (name == 'top_k' and value != int(value)):
        raise ValueError(f'{name}={value} is out of range: it is {range_}.')
    return Settings(
      *(
        np.int32(value) if name == 'top_k' else np.float32(value)
        for name, value in self._asdict().items()
      )
    )


def choose(
  logits_BV: jax.Array,
  seen_BV: jax.Array,
  settings: Settings,
  keys_B: jax.Array,
) -> jax.Array:
  """int32 [B]: the next token of each row, greedy or drawn with its key.

  `seen_BV` are the tokens of prompt and response so far.
  """

  def penalize(x_BV):
    return penalized(x_BV, seen_BV, settings.repetition_penalty)

  return jax.lax.switch(
    (settings.temperature > 0) * 2 + (settings.repetition_penalty != 1),
    [
      _likeliest,
      lambda x: _likeliest(penalize(x)),
      lambda x: draw(kept(x, settings), keys_B),
      lambda x: draw(kept(penalize(x), settings), keys_B),
    ],
    logits_BV,
  )


def without(logits_BV: jax.Array, silent_V: jax.Array) -> jax.Array:
  """The logits, in which the ids of `silent_V` are never chosen."""
  return jnp.where(silent_V, _OUT, logits_BV)


def _likeliest(logits_BV):
  """The argmax, the first of equals; on a CPU faster than jnp.argmax."""
  V = logits_BV.shape[-1]
  largest_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
  column_BV = jax.lax.broadcasted_iota(jnp.int32, logits_BV.shape, 1)
  equal_BV = jnp.where(logits_BV == largest_B1, column_BV, V - 1)
  return jnp.min(equal_BV, axis=-1)


def penalized(logits_BV, seen_BV, penalty):
  """Positive logits of seen tokens over the penalty, negative ones times it."""
  less_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
  return jnp.where(seen_BV, less_BV, logits_BV)


def kept(logits_BV, settings):
  """Logits below the largest, over the temperature; -1e30 is not drawn."""
  B, V = logits_BV.shape
  logits_BV -= jnp.max(logits_BV, axis=-1, keepdims=True)
  logits_BV = jnp.maximum(logits_BV / settings.temperature, _OUT)
  off_B = jnp.full(B, _OUT)

  def kth():
    k = jnp.minimum(settings.top_k, V).astype(jnp.float32)
    return _lowest(logits_BV, jnp.ones_like(logits_BV), k)

  floor_B = jax.lax.cond(settings.top_k > 0, kth, lambda: off_B)
  logits_BV = jnp.where(logits_BV >= floor_B[:, None], logits_BV, _OUT)

  def nucleus():
    p_BV = jax.nn.softmax(logits_BV, axis=-1)
    return _lowest(logits_BV, p_BV, settings.top_p)

  floor_B = jax.lax.cond(settings.top_p < 1, nucleus, lambda: off_B)
  # The largest is at 0.
  floor_B = jnp.maximum(floor_B, jnp.log(settings.min_p))
  return jnp.where(logits_BV >= floor_B[:, None], logits_BV, _OUT)


def _lowest(logits_BV, weights_BV, target):
  """[B]: the lowest of the largest logits whose weights reach `target`.

  Exact, and without a sort, which a CPU does slowly: it is made bit by bit.
  Equal logits go together.
  """
  bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.int32)
  rank_BV = _ordered(bits_BV)

  def halve(bounds):
    low_B, high_B = bounds
    # Without overflow; rounded down, so that it ends.
    middle_B = (low_B >> 1) + (high_B >> 1) + (low_B & high_B & 1)
    in_BV = rank_BV >= middle_B[:, None]
    enough_B = jnp.sum(jnp.where(in_BV, weights_BV, 0), axis=-1) >= target
    return (
      jnp.where(enough_B, middle_B, low_B),
      jnp.where(enough_B, high_B, middle_B),
    )

  # All from `low` on are enough; those from `high` on are not.
  low_B, high_B = jnp.min(rank_BV, axis=-1), jnp.max(rank_BV, axis=-1) + 1
  low_B, _ = jax.lax.while_loop(
    lambda bounds: jnp.any(bounds[0] + 1 < bounds[1]), halve, (low_B, high_B)
  )
  return jax.lax.bitcast_convert_type(_ordered(low_B), jnp.float32)


def _ordered(bits):
  """The bits of floats as integers in the same order; its own inverse."""
  return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def draw(logits_BV, keys_B):
  """int32 [B]: a token of each row's softmax, by its own key."""
  B, V = logits_BV.shape
  more = -V % _BLOCK
  logits_BV = jnp.pad(logits_BV, ((0, 0), (0, more)), constant_values=_OUT)
  p_BV = jnp.exp(logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True))
  p_BXY = p_BV.reshape(B, -1, _BLOCK)
  # Two numbers of 23 bits each: one alone would round small probabilities.
  uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
  block_B = _invert(jnp.sum(p_BXY, axis=-1), uniform_B2[:, 0])
  p_BY = jnp.take_along_axis(p_BXY, block_B[:, None, None], axis=1)[:, 0]
  return block_B * _BLOCK + _invert(p_BY, uniform_B2[:, 1])


def _invert(p_BX, uniform_B):
  """The first index whose cumulative sum exceeds its share `uniform`."""
  sums_BX = jnp.where(p_BX > 0, jnp.cumsum(p_BX, axis=-1), 0)
  total_B = jnp.max(sums_BX, axis=-1)
  # Below the total also when rounded, so there is one, and it has p > 0.
  target_B = jnp.minimum(uniform_B * total_B, jnp.nextafter(total_B, 0.0))
  return jnp.argmax(sums_BX > target_B[:, None], axis=-1).astype(jnp.int32)
