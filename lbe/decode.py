"""Generation with a key/value cache: prefill, then one token at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lbe.models import llama


def generate(
  params,
  c,
  prompts,
  *,
  max_new_tokens,
  execution,
  temperature=0.0,
  top_k=0,
  top_p=1.0,
  seed=0,
  eos_id=None,
):
  """New ids for each prompt (lists of at least one id), without the prompt.

  Temperature 0 is greedy. `top_k` 0 and `top_p` 1 keep every token. Row i
  draws from a key made of (seed, i), whatever stands in the other rows. A row
  ends before `eos_id`. Raises ValueError for an empty prompt, a setting out
  of its range, and more tokens than the model has positions.
  """
  if not prompts or not all(len(p) for p in prompts):
    raise ValueError('a prompt is empty; begin it with BOS.')
  for name, value, fine in (
    ('temperature', temperature, temperature >= 0),
    ('top_k', top_k, top_k >= 0),
    ('top_p', top_p, 0 < top_p <= 1),
    ('max_new_tokens', max_new_tokens, max_new_tokens >= 1),
  ):
    if not fine:
      raise ValueError(
        f'{name}={value} is out of range: temperature and top_k are at least '
        '0, top_p lies above 0 up to 1, max_new_tokens is at least 1.'
      )
  longest = max(len(p) for p in prompts)
  if longest + max_new_tokens > c.max_positions:
    raise ValueError(
      f'{longest} prompt tokens and max_new_tokens={max_new_tokens} are more '
      f'than the {c.max_positions} positions of the model; ask for fewer.'
    )
  # Padded on the right to one of few lengths, so few programs are compiled.
  width = min(-(-longest // 32) * 32, c.max_positions)
  ids_BT = np.zeros((len(prompts), width), np.int32)
  for i, prompt in enumerate(prompts):
    ids_BT[i, : len(prompt)] = prompt
  run = _compiled(
    c,
    execution,
    max_new_tokens,
    bool(temperature),
    int(min(top_k, c.vocab_size)),
    top_p < 1,
    -1 if eos_id is None else int(eos_id),
  )
  new_BX, lengths_B = run(
    params,
    ids_BT,
    np.array([len(p) for p in prompts], np.int32),
    np.float32(temperature or 1.0),
    np.float32(top_p),
    jax.random.key(seed),
  )
  new_BX, lengths_B = np.asarray(new_BX), np.asarray(lengths_B)
  return [row[:n].tolist() for row, n in zip(new_BX, lengths_B, strict=True)]


@dataclasses.dataclass(frozen=True)
class Response:
  """What a model wrote: the text up to a stop string, and its tokens.

  `ended` is 'eos', 'stop' (a stop string) or 'length'.
  """

  text: str
  ids: tuple
  ended: str


def respond(
  params,
  c,
  tokenizer,
  prompts,
  *,
  max_new_tokens,
  execution,
  mesh,
  batch_size,
  stop=(),
  **sampling,
):
  """A Response for each prompt (lists of ids, BOS included).

  `stop` are strings, looked for in the decoded text, which ends before the
  first. Row i draws from a key made of (seed, i), whatever the batch size.
  """
  del mesh
  responses = []
  for start in range(0, len(prompts), batch_size):
    batch = prompts[start : start + batch_size]
    new = generate(
      params,
      c,
      batch,
      max_new_tokens=max_new_tokens,
      execution=execution,
      eos_id=tokenizer.eos_id,
      **sampling,
    )
    for prompt, ids in zip(batch, new, strict=True):
      # The prompt is decoded with what follows, so that no space is lost.
      text = tokenizer.decode(prompt + ids)[len(tokenizer.decode(prompt)) :]
      ended = 'eos' if len(ids) < max_new_tokens else 'length'
      cuts = [at for s in stop if (at := text.find(s)) >= 0]
      if cuts:
        text, ended = text[: min(cuts)], 'stop'
      responses.append(Response(text, tuple(ids), ended))
  return responses


@functools.lru_cache(maxsize=16)
def _compiled(c, execution, max_new_tokens, sampled, top_k, top_p_on, eos_id):
  @jax.jit
  def run(params, ids_BT, lengths_B, temperature, top_p, key):
    B, T = ids_BT.shape
    rows_B = jnp.arange(B)
    keys_B = jax.vmap(lambda i: jax.random.fold_in(key, i))(rows_B)
    cache = llama.init_cache(
      c,
      num_rows=B,
      max_len=min(T + max_new_tokens, c.max_positions),
      dtype=execution.compute_dtype,
    )
    # Slots behind a prompt's end hold padding until a new token is written
    # there; no query sees a slot behind its own position.
    x_BTD, cache = llama.hidden_cached(
      params,
      c,
      ids_BT,
      positions_BT=jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T)),
      cache=cache,
      execution=execution,
    )
    last_BD = x_BTD[rows_B, lengths_B - 1]

    def choose(x_BD, number):
      logits_BV = llama.logits(params, c, x_BD[:, None])[:, 0]
      if not sampled:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
      logits_BV = llama.mask_padding(logits_BV / temperature, c.vocab_size)
      if top_k:
        kth_B = jax.lax.top_k(logits_BV, top_k)[0][:, -1]
        logits_BV = jnp.where(logits_BV < kth_B[:, None], -1e30, logits_BV)
      if top_p_on:
        logits_BV = _nucleus(logits_BV, top_p)
      step_keys = jax.vmap(lambda k: jax.random.fold_in(k, number))(keys_B)
      return jax.vmap(jax.random.categorical)(step_keys, logits_BV).astype(
        jnp.int32
      )

    def more(carry):
      number, *_, done_B, _ = carry
      return (number < max_new_tokens) & ~jnp.all(done_B)

    def body(carry):
      number, x_BD, cache, new_BX, lengths, done_B, at_B = carry
      token_B = choose(x_BD, number)
      done_B |= token_B == eos_id
      new_BX = new_BX.at[:, number].set(jnp.where(done_B, 0, token_B))
      lengths += ~done_B
      x_B1D, cache = llama.hidden_cached(
        params,
        c,
        token_B[:, None],
        positions_BT=at_B[:, None],
        cache=cache,
        execution=execution,
      )
      return (
        number + 1,
        x_B1D[:, 0],
        cache,
        new_BX,
        lengths,
        done_B,
        at_B + 1,
      )

    carry = (
      jnp.int32(0),
      last_BD,
      cache,
      jnp.zeros((B, max_new_tokens), jnp.int32),
      jnp.zeros(B, jnp.int32),
      jnp.zeros(B, bool),
      lengths_B,
    )
    carry = jax.lax.while_loop(more, body, carry)
    return carry[3], carry[4]

  return run


def _nucleus(logits_BV, top_p):
  """Keeps the smallest set of tokens whose mass reaches `top_p`."""
  sorted_BV = -jnp.sort(-logits_BV, axis=-1)
  mass_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
  # The first token is always kept: the mass before it is 0.
  before_BV = mass_BV - jax.nn.softmax(sorted_BV, axis=-1)
  kept_B = jnp.sum(before_BV < top_p, axis=-1)
  threshold_B1 = jnp.take_along_axis(sorted_BV, kept_B[:, None] - 1, axis=-1)
  return jnp.where(logits_BV < threshold_B1, -1e30, logits_BV)
