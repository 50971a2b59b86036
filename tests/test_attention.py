"""Attention against a loop over heads and positions in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe import sharding
from lbe.models import attention
from lbe.models import splash


def naive(q_BTNH, k_BSKH, v_BSKH, q_pos, kv_pos, q_seg, kv_seg):
  """One query at a time, in float64; zeros where nothing is visible."""
  B, T, N, H = q_BTNH.shape
  num_groups = N // k_BSKH.shape[2]
  out = np.zeros((B, T, N, H))
  for b in range(B):
    for t in range(T):
      see = (kv_seg[b] == q_seg[b, t]) & (kv_pos[b] <= q_pos[b, t])
      if not q_seg[b, t] or not see.any():
        continue
      for n in range(N):
        k, v = (x[b, see, n // num_groups] for x in (k_BSKH, v_BSKH))
        score = k.astype(np.float64) @ q_BTNH[b, t, n] / np.sqrt(H)
        weight = np.exp(score - score.max())
        out[b, t, n] = weight @ v / weight.sum()
  return out


def arrays(*, B=2, T=11, N=6, K=2, H=8, seed=0):
  """q, k, v, positions and segments of two uneven documents and padding."""
  rng = np.random.default_rng(seed)
  q, k, v = (
    rng.normal(size=(B, T, heads, H)).astype(np.float32) for heads in (N, K, K)
  )
  segments = np.array([[1] * 4 + [2] * 5 + [0] * 2, [1] * 9 + [2] * 2])
  positions = np.array(
    [[*range(4), *range(5), *range(2)], [*range(9), *range(2)]]
  )
  return q, k, v, positions.astype(np.int32), segments.astype(np.int32)


def attend(q, k, v, positions, segments):
  return attention.attend(
    q,
    k,
    v,
    q_positions_BT=positions,
    kv_positions_BS=positions,
    q_segments_BT=segments,
    kv_segments_BS=segments,
  )


@pytest.mark.parametrize('N, K', [(6, 2), (4, 4), (4, 1)])
def test_attention_equals_a_loop_over_heads_and_positions(N, K):
  """Query heads that read the wrong key head, a wrong scale or mask."""
  q, k, v, positions, segments = arrays(N=N, K=K)
  out = attend(q, k, v, positions, segments)
  expected = naive(q, k, v, positions, positions, segments, segments)
  real = segments > 0
  np.testing.assert_allclose(out[real], expected[real], atol=2e-6)


def test_queries_and_keys_may_be_of_different_lengths():
  """A decoder's one query against a cache with slots still unwritten."""
  q, k, v, positions, segments = arrays()
  q_positions = np.array([[6], [3]], np.int32)
  kv_positions = np.tile(np.arange(11, dtype=np.int32), (2, 1))
  ones = np.ones_like(kv_positions)
  out = attention.attend(
    q[:, :1],
    k,
    v,
    q_positions_BT=q_positions,
    kv_positions_BS=kv_positions,
    q_segments_BT=ones[:, :1],
    kv_segments_BS=ones,
  )
  expected = naive(q[:, :1], k, v, q_positions, kv_positions, ones[:, :1], ones)
  np.testing.assert_allclose(out, expected, atol=2e-6)


def test_padding_stays_finite_forward_and_backward():
  """A softmax over nothing, which makes every gradient of the row NaN."""
  q, k, v, positions, segments = arrays()
  segments = np.zeros_like(segments)
  out, gradients = jax.value_and_grad(
    lambda *qkv: attend(*qkv, positions, segments).sum(), argnums=(0, 1, 2)
  )(q, k, v)
  assert np.isfinite(out)
  assert all(np.all(np.isfinite(g)) for g in gradients)


def test_padding_gets_no_weight_and_no_gradient():
  """Padding that is a document of its own number, seen by the others."""
  q, k, v, positions, segments = arrays()

  def total(k, v):
    out = attend(q, k, v, positions, segments)
    return jnp.where(segments[:, :, None, None] > 0, out, 0).sum()

  for gradient in jax.grad(total, argnums=(0, 1))(k, v):
    assert not np.any(gradient[segments == 0])
    assert np.any(gradient[segments > 0])


def test_another_document_changes_no_bit():
  """A mask whose leak is too small for a tolerance to see."""
  q, k, v, positions, segments = arrays()
  one = attend(q, k, v, positions, segments)
  first = (segments == 1)[:, :, None, None]
  q, k, v = (np.where(first, x * 3 + 1, x) for x in (q, k, v))
  two = attend(q, k, v, positions, segments)
  np.testing.assert_array_equal(one[segments == 2], two[segments == 2])
  assert np.all(np.any(one[segments == 1] != two[segments == 1], axis=(1, 2)))


def test_softmax_is_float32_in_bfloat16_compute():
  """Scores rounded to bfloat16 before the softmax: 1 part in 256."""
  q, k, v, positions, segments = arrays()
  q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in (4 * q, k, v))
  out = attend(q, k, v, positions, segments)
  assert out.dtype == jnp.bfloat16
  expected = naive(
    *(np.asarray(x, np.float32) for x in (q, k, v)),
    positions,
    positions,
    segments,
    segments,
  )
  error = np.abs(np.asarray(out, np.float32) - expected)[segments > 0]
  # Rounded weights and a rounded result; rounded scores give 5 times that.
  assert error.mean() < 1.5e-3


def _packed(B, T):
  """Positions and segments of three uneven documents and padding."""
  starts = np.array([0.0, 0.3, 0.8]) * T
  segments = (np.arange(T) >= starts[:, None]).sum(0)
  positions = np.arange(T) - np.ceil(starts).astype(int)[segments - 1]
  segments[-5:] = 0
  return (
    np.broadcast_to(x, (B, T)).astype(np.int32) for x in (positions, segments)
  )


def _run(implementation, q, k, v, positions, segments):
  """By an implementation; kernels of a TPU are interpreted."""
  if implementation == 'splash':
    mesh = sharding.make_mesh({'data': 2, 'fsdp': 1}, devices=jax.devices()[:2])
    return splash.attend(
      q, k, v, segments_BT=segments, mesh=mesh, interpret=True
    )
  return attention.attend_rows(
    q,
    k,
    v,
    positions_BT=positions,
    segments_BT=segments,
    implementation=implementation,
    mesh=None,
  )


SHAPES = [
  (4, 2, 256, 128),
  (2, 1, 200, 128),
  (4, 4, 128, 128),
  (2, 2, 130, 64),
  (2, 1, 128, 80),
  (2, 2, 160, 96),
]


@pytest.mark.parametrize('implementation', ['blocks', 'splash'])
@pytest.mark.parametrize('N, K, T, H', SHAPES)
def test_outputs_and_gradients_equal_the_reference(implementation, N, K, T, H):
  """A wrong scale, mask, group of heads, block border or cut of padding."""
  B = 2
  rng = np.random.default_rng(0)
  q, k, v = (
    rng.normal(size=(B, T, heads, H)).astype(np.float32) for heads in (N, K, K)
  )
  positions, segments = _packed(B, T)
  real = (segments > 0)[:, :, None, None]
  weight = rng.normal(size=q.shape) * real

  def both(run):
    def total(qkv):
      out = run(*qkv, positions, segments)
      return jnp.sum(out * weight), out

    (_, out), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(
      (q, k, v)
    )
    return [out * real, *gradients]

  expected = both(attend)
  got = both(functools.partial(_run, implementation))
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('implementation', ['blocks', 'splash'])
def test_another_document_changes_no_bit_of_any_implementation(implementation):
  """A mask whose leak is too small for a tolerance to see."""
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(3, 2, 256, 2, 128)).astype(np.float32)
  positions, segments = _packed(2, 256)
  run = jax.jit(functools.partial(_run, implementation))
  one = run(q, k, v, positions, segments)
  first = (segments == 1)[:, :, None, None]
  q, k, v = (np.where(first, x * 3 + 1, x) for x in (q, k, v))
  two = run(q, k, v, positions, segments)
  for other in (2, 3):
    np.testing.assert_array_equal(
      one[segments == other], two[segments == other]
    )
  assert np.all(np.any(one[segments == 1] != two[segments == 1], axis=(1, 2)))


def test_blocks_keep_no_scores_for_the_backward_pass():
  """Memory that grows with the square of the length in every layer."""
  q, k, v = np.zeros((3, 1, 512, 2, 32), np.float32)
  positions, segments = _packed(1, 512)

  def run(*qkv):
    return _run('blocks', *qkv, positions, segments)

  _, backward = jax.vjp(run, q, k, v)
  kept = sum(np.size(x) for x in jax.tree.leaves(backward))
  assert kept < 6 * q.size < 512**2


def test_an_implementation_that_the_platform_lacks_is_refused():
  """A TPU's kernel that fails on a CPU somewhere inside of Mosaic."""
  mesh = sharding.make_mesh({'fsdp': -1})
  with pytest.raises(ValueError, match="'splash' runs on TPUs, and this is"):
    attention.chosen('splash', mesh)
  assert attention.chosen('auto', mesh) == 'blocks'


def test_rows_that_are_cut_over_devices_need_the_reference():
  """A block that takes another device's queries for its own first ones."""
  mesh = sharding.make_mesh({'context': 2, 'fsdp': -1})
  with pytest.raises(ValueError, match="'blocks' sees whole rows, but"):
    attention.chosen('blocks', mesh)
  assert attention.chosen('auto', mesh) == 'xla'
