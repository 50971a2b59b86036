"""The chunked loss against whole logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.mesh import sharding
from lbe.training import loss

VOCAB_SIZE, PADDED = 37, 64


def arrays(*, B=3, T=11, D=8, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(B, T, D)).astype(np.float32)
  # Padding columns that would win if they counted.
  head = rng.normal(size=(D, PADDED)).astype(np.float32)
  head[:, VOCAB_SIZE:] *= 20
  targets = rng.integers(0, VOCAB_SIZE, (B, T), np.int32)
  weights = rng.integers(0, 2, (B, T)).astype(np.float32)
  return x, head, targets, weights


def whole(x, head, targets):
  logits = (x @ head)[..., :VOCAB_SIZE]
  return -jnp.take_along_axis(
    jax.nn.log_softmax(logits), targets[..., None], axis=-1
  )[..., 0]


def test_a_loss_worked_by_hand():
  """Bits for nats, a mean for a sum, weights that are not counted."""
  head = jnp.array([[0.0, np.log(3), 99.0]])  # the last column is padding
  got = loss.sums(
    jnp.ones((1, 3, 1)),
    head,
    jnp.array([[0, 1, 0]]),
    jnp.array([[1, 1, 0]]),
    vocab_size=2,
  )
  # p = 1/4 and 3/4: ln 4 + ln(4/3); the third target has no weight.
  assert got['loss_sum'] == pytest.approx(np.log(4) + np.log(4 / 3))
  assert got['weight_sum'] == 2
  assert all(x.dtype == jnp.float32 for x in got.values())


@pytest.mark.parametrize('chunk', [1, 4, 6, 9, 1000])
def test_chunks_do_not_change_the_loss_or_its_gradients(chunk):
  """A chunk lost at the end of a length that chunks do not divide (11)."""
  x, head, targets, weights = arrays()

  def chunked(x, head):
    return loss.sums(
      x, head, targets, weights, vocab_size=VOCAB_SIZE, chunk=chunk
    )['objective']

  def direct(x, head):
    return jnp.sum(whole(x, head, targets) * weights)

  got = jax.value_and_grad(chunked, argnums=(0, 1))(x, head)
  expected = jax.value_and_grad(direct, argnums=(0, 1))(x, head)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    got,
    expected,
  )


@pytest.mark.parametrize('token', [0, 5, 6, 32])
def test_each_token_has_its_own_loss(token):
  """Chunks put together in the wrong order: other sums would not notice."""
  x, head, targets, _ = arrays()
  weights = np.zeros(33, np.float32)
  weights[token] = 1
  weights = weights.reshape(3, 11)
  got = loss.sums(x, head, targets, weights, vocab_size=VOCAB_SIZE, chunk=6)
  expected = np.sum(whole(x, head, targets) * weights)
  np.testing.assert_allclose(got['loss_sum'], expected, atol=1e-5)


def test_z_loss_is_the_squared_normalizer_and_not_a_part_of_the_loss():
  """A gradient without its term, or a loss that nobody can compare."""
  x, head, targets, weights = arrays()

  def direct(x, head):
    norm = jax.nn.logsumexp((x @ head)[..., :VOCAB_SIZE], axis=-1)
    nll = whole(x, head, targets)
    return jnp.sum((nll + 0.1 * norm**2) * weights)

  def ours(x, head):
    how = dict(vocab_size=VOCAB_SIZE, z_loss=0.1, chunk=7)
    return loss.sums(x, head, targets, weights, **how)['objective']

  got = jax.value_and_grad(ours, argnums=(0, 1))(x, head)
  expected = jax.value_and_grad(direct, argnums=(0, 1))(x, head)
  for a, b in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  found = loss.sums(
    x, head, targets, weights, vocab_size=VOCAB_SIZE, z_loss=0.1
  )
  expected = np.sum(whole(x, head, targets) * weights)
  np.testing.assert_allclose(found['loss_sum'], expected, rtol=1e-5)


@pytest.mark.parametrize(
  'shape', [(8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 1, 2), (1, 2, 2, 2)], ids=str
)
@pytest.mark.parametrize('vocab_size', [VOCAB_SIZE, PADDED])
def test_a_mesh_changes_neither_the_loss_nor_its_gradients(shape, vocab_size):
  """Sums over an axis too many or too few; a target in another's columns; and
  padding that is not left out, or looked for where there is none."""
  x, head, targets, weights = arrays(B=8, T=12)
  mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)))

  def ours(mesh):
    def total(x, head):
      found = loss.sums(
        x,
        head,
        targets,
        weights,
        vocab_size=vocab_size,
        z_loss=0.1,
        chunk=5,
        mesh=mesh,
      )
      return found['objective'], found['loss_sum']

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(
      x, head
    )

  for a, b in zip(*map(jax.tree.leaves, (ours(mesh), ours(None))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_padding_columns_take_no_mass_and_no_gradient():
  """Padding that takes probability: a loss that a real model cannot reach."""
  x, head, targets, weights = arrays()
  gradient = jax.grad(
    lambda head: loss.sums(x, head, targets, weights, vocab_size=VOCAB_SIZE)[
      'objective'
    ]
  )(head)
  assert not np.any(gradient[:, VOCAB_SIZE:])


@pytest.mark.parametrize('vocab_size', [VOCAB_SIZE, PADDED])
def test_the_likeliest_is_the_first_of_equals(vocab_size):
  """A greedy match where another choice would have been made: rows that were
  never trained are equal to the bit."""
  x, head, _, _ = arrays()
  head[:, 5:30] = 50 * head[:, [5]]
  logits = jnp.einsum('BTD,DV->BTV', x, head, precision='highest')
  logits = np.asarray(logits)[..., :vocab_size]
  first = logits.argmax(-1)
  assert 5 < np.sum(first == 5) < first.size
  for target in (4, 5, 6, 29, 36):
    asked = np.full(first.shape, target, np.int32)
    logprobs, norm, likeliest = loss.logprobs(
      x, head, asked, vocab_size=vocab_size, chunk=7
    )
    np.testing.assert_array_equal(likeliest, first == target)
    expected = jax.nn.logsumexp(logits, axis=-1)
    np.testing.assert_allclose(norm, expected, rtol=1e-5)
    np.testing.assert_allclose(
      logprobs, logits[..., target] - expected, rtol=1e-4, atol=1e-4
    )


def test_bfloat16_states_give_a_float32_loss():
  """Logits rounded to bfloat16, 1 part in 256 of each."""
  x, head, targets, weights = arrays()
  x, head = (jnp.asarray(a, jnp.bfloat16) for a in (x, head))
  got = loss.sums(x, head, targets, weights, vocab_size=VOCAB_SIZE)['loss_sum']
  wide = whole(*(a.astype(jnp.float32) for a in (x, head)), targets)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, np.sum(wide * weights), rtol=1e-6)


def test_whole_logits_never_exist():
  """A backward pass that keeps every chunk's logits, or does not chunk."""
  B, T, D, V = 4, 512, 16, 4096

  def total(x, head, targets):
    weights = jnp.ones((B, T))
    found = loss.sums(x, head, targets, weights, vocab_size=V, chunk=128)
    return found['objective']

  shapes = (
    jax.ShapeDtypeStruct((B, T, D), jnp.float32),
    jax.ShapeDtypeStruct((D, V), jnp.float32),
    jax.ShapeDtypeStruct((B, T), jnp.int32),
  )
  compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*shapes).compile()
  whole_logits = B * T * V * 4
  assert compiled.memory_analysis().temp_size_in_bytes < whole_logits / 3
