"""Generation: cached equals full, rows are independent, limits hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe import decode
from lbe.models import llama

FP32 = llama.Execution(compute_dtype='float32')
TINY = llama.Config(
  vocab_size=50,
  dim=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=48,
  max_positions=64,
  init_std=0.3,
)
PROMPTS = [[1, 7, 3], [1], [1, 9, 9, 9, 9, 9, 4]]


@functools.cache
def params():
  return llama.init(TINY, jax.random.key(0))


def generate(prompts, **changes):
  settings = dict(max_new_tokens=12, execution=FP32) | changes
  return decode.generate(params(), TINY, prompts, **settings)


def test_greedy_equals_the_argmax_of_the_full_forward():
  """Cache slots, positions, padding on the right of shorter prompts."""
  for prompt, new in zip(PROMPTS, generate(PROMPTS), strict=True):
    ids = prompt + new
    T = len(ids)
    x_BTD = llama.hidden(
      params(),
      TINY,
      jnp.asarray([ids]),
      positions_BT=jnp.arange(T)[None],
      segments_BT=jnp.ones((1, T), jnp.int32),
      execution=FP32,
    )
    likeliest_T = llama.logits(params(), TINY, x_BTD)[0].argmax(-1)
    assert likeliest_T[len(prompt) - 1 : -1].tolist() == new


def test_a_row_does_not_hang_on_its_neighbours():
  """Keys made per row: the same sample in any company."""
  together = generate(PROMPTS, temperature=1.0, seed=3)
  assert generate(PROMPTS[:1], temperature=1.0, seed=3) == together[:1]
  assert generate(PROMPTS, temperature=1.0, seed=4) != together
  assert generate(PROMPTS, temperature=1.0, seed=3) == together


def test_samples_follow_the_distribution():
  """One token from BOS, 4,000 times, against the softmax; no padding id."""
  x_BTD = llama.hidden(
    params(),
    TINY,
    jnp.asarray([[1]]),
    positions_BT=jnp.zeros((1, 1), jnp.int32),
    segments_BT=jnp.ones((1, 1), jnp.int32),
    execution=FP32,
  )
  logits_V = llama.logits(params(), TINY, x_BTD)[0, 0]
  for temperature in (1.0, 0.5):
    p_V = np.asarray(jax.nn.softmax(logits_V / temperature))
    new = generate([[1]] * 4000, max_new_tokens=1, temperature=temperature)
    found_V = np.bincount(np.ravel(new), minlength=128) / 4000
    assert abs(found_V - p_V).sum() / 2 < 0.06
    assert not found_V[50:].any()


def test_top_k_and_top_p_keep_the_likeliest():
  """The sets that they keep, by sorting here."""
  free = generate([[1]] * 4000, max_new_tokens=1, temperature=1.0)
  order = np.argsort(-np.bincount(np.ravel(free), minlength=50))
  two = generate([[1]] * 500, max_new_tokens=1, temperature=9.0, top_k=2)
  assert {t for (t,) in two} <= set(order[:4].tolist())
  assert len({t for (t,) in two}) == 2
  (greedy,) = generate([[1]], max_new_tokens=1)
  for settings in (dict(top_k=1), dict(top_p=1e-6)):
    new = generate([[1]] * 50, max_new_tokens=1, temperature=5.0, **settings)
    assert new == [greedy] * 50


def test_a_row_ends_before_eos():
  """Others go on; what follows EOS is not returned."""
  whole = generate(PROMPTS)
  eos = whole[0][3]
  ended = generate(PROMPTS, eos_id=eos)
  for a, b in zip(ended, whole, strict=True):
    assert a == (b[: b.index(eos)] if eos in b else b)


def test_what_cannot_be_generated_is_refused():
  for prompts, settings, words in (
    ([], {}, 'a prompt is empty'),
    ([[1], []], {}, 'a prompt is empty'),
    ([[1]], dict(temperature=-1.0), 'temperature=-1.0 is out of range'),
    ([[1]], dict(top_p=0.0), 'top_p=0.0 is out of range'),
    ([[1]], dict(max_new_tokens=0), 'max_new_tokens=0 is out of range'),
    ([[1]], dict(max_new_tokens=64), 'more than the 64 positions'),
  ):
    with pytest.raises(ValueError, match=words):
      generate(prompts, **settings)
