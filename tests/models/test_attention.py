"""Attention against a loop over heads and positions in numpy."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from jax.experimental import topologies

from lbe.mesh import sharding
from lbe.mesh import topology
from lbe.models import attention
from lbe.models import forward
from lbe.models.attention import context
from lbe.models.attention import reference
from lbe.models.attention import splash
from lbe.models.attention import tiles


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
  return reference.attend(
    q,
    k,
    v,
    q_positions_BT=positions,
    kv_positions_BS=positions,
    q_segments_BT=segments,
    kv_segments_BS=segments,
    precision=attention.precision(q.dtype),
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
  out = reference.attend(
    q[:, :1],
    k,
    v,
    q_positions_BT=q_positions,
    kv_positions_BS=kv_positions,
    q_segments_BT=ones[:, :1],
    kv_segments_BS=ones,
    precision=attention.precision(q.dtype),
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


def _tokamax():
  module = pytest.importorskip(
    'lbe.models.attention.tokamax', reason="pip install 'lbe[test]'"
  )
  flags.FLAGS.mark_as_parsed()  # tokamax would take pytest's for its own
  return module


def _run(implementation, q, k, v, positions, segments, context_axis=1):
  """By an implementation, rows maybe cut; Pallas on TPUs is interpreted.

  tokamax runs in plain XLA: its kernels cannot be interpreted.
  """
  mesh = sharding.make_mesh(
    {'data': 2, 'fsdp': 1, 'context': context_axis},
    devices=jax.devices()[: 2 * context_axis],
  )
  if implementation == 'splash':
    run = functools.partial(splash.attend, mesh=mesh, interpret=True)
  elif implementation == 'tokamax':
    run = functools.partial(_tokamax().attend, mesh=mesh, implementation='xla')
  else:
    run = functools.partial(
      attention.attend_rows, implementation=implementation, mesh=mesh
    )
  q, k, v, positions, segments = (
    context.balance(jnp.asarray(x), mesh)
    for x in (q, k, v, positions, segments)
  )
  if implementation not in ('splash', 'tokamax'):
    run = functools.partial(run, positions_BT=positions)
  return context.unbalance(run(q, k, v, segments_BT=segments), mesh)


def _both(run, qkv, positions, segments, weight):
  """The output and three gradients; those of padding at zero."""

  def total(qkv):
    out = run(*qkv, positions, segments)
    return jnp.sum(out * weight), out

  (_, out), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(qkv)
  return [out * (segments > 0)[:, :, None, None], *gradients]


SHAPES = [
  (4, 2, 256, 128),
  (2, 1, 200, 128),
  (2, 2, 130, 64),
  (2, 1, 128, 80),
  (2, 2, 160, 96),
]
# Chunks with and without padding to a kernel's tiles, over 2 and 4 devices.
CUT_SHAPES = [(2, 4, 2, 512, 64), (4, 2, 1, 200, 80)]
KERNELS = ['blocks', 'splash', 'tokamax', 'tiles']


@pytest.mark.parametrize(
  'implementation, C, N, K, T, H',
  [(kernel, 1, *shape) for kernel in KERNELS for shape in SHAPES]
  + [(kernel, *shape) for kernel in KERNELS[:2] for shape in CUT_SHAPES],
)
def test_outputs_and_gradients_equal_the_reference(
  implementation, C, N, K, T, H
):
  """A wrong scale, mask, group of heads, block border or cut of padding."""
  B = 2
  rng = np.random.default_rng(0)
  q, k, v = (
    rng.normal(size=(B, T, heads, H)).astype(np.float32) for heads in (N, K, K)
  )
  positions, segments = _packed(B, T)
  weight = rng.normal(size=q.shape) * (segments > 0)[:, :, None, None]
  expected = _both(attend, (q, k, v), positions, segments, weight)
  run = functools.partial(_run, implementation, context_axis=C)
  got = _both(run, (q, k, v), positions, segments, weight)
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize(
  'implementation, C',
  [*((k, 1) for k in KERNELS), ('blocks', 2), ('splash', 2)],
)
def test_another_document_changes_no_bit_of_any_implementation(
  implementation, C
):
  """A mask whose leak is too small for a tolerance to see."""
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(3, 2, 256, 2, 128)).astype(np.float32)
  positions, segments = _packed(2, 256)
  run = jax.jit(functools.partial(_run, implementation, context_axis=C))
  one = run(q, k, v, positions, segments)
  first = (segments == 1)[:, :, None, None]
  q, k, v = (np.where(first, x * 3 + 1, x) for x in (q, k, v))
  two = run(q, k, v, positions, segments)
  for other in (2, 3):
    np.testing.assert_array_equal(
      one[segments == other], two[segments == other]
    )
  assert np.all(np.any(one[segments == 1] != two[segments == 1], axis=(1, 2)))


@pytest.mark.parametrize('implementation', ['blocks', 'tiles'])
def test_what_is_asked_of_padding_reaches_no_key(implementation):
  """Weights made again as if a query that sees nothing saw everything."""
  q, k, v = np.random.default_rng(0).normal(size=(3, 2, 200, 2, 32))
  positions, segments = _packed(2, 200)
  segments = np.where(segments == segments.max(), 0, segments)
  _, backward = jax.vjp(
    lambda *qkv: _run(implementation, *qkv, positions, segments),
    *(x.astype(np.float32) for x in (q, k, v)),
  )
  asked = np.ones(q.shape, np.float32) * (segments == 0)[:, :, None, None]
  assert asked.any()
  for gradient in backward(asked):
    assert not np.any(gradient)


@pytest.mark.parametrize('implementation', ['blocks', 'tiles'])
def test_no_scores_are_kept_for_the_backward_pass(implementation):
  """Memory that grows with the square of the length in every layer."""
  q, k, v = np.zeros((3, 2, 512, 2, 32), np.float32)
  positions, segments = _packed(2, 512)

  def run(*qkv):
    return _run(implementation, *qkv, positions, segments)

  _, backward = jax.vjp(run, q, k, v)
  kept = sum(np.size(x) for x in jax.tree.leaves(backward))
  assert kept < 6 * q.size < 2 * 512**2


def test_tiles_that_no_query_sees_are_not_made():
  """Packed rows that cost their square: 0 times NaN would be NaN."""
  segments = np.repeat([[1, 2]], [128, 256], axis=1)
  positions = np.concatenate([np.arange(128), np.arange(256)])[None]
  q, k, v = np.random.default_rng(0).normal(size=(3, 2, 384, 2, 32))
  k[:, :128] = v[:, :128] = np.nan
  args = [np.repeat(x, 2, axis=0) for x in (positions, segments)]
  qkv = (x.astype(np.float32) for x in (q, k, v))
  out, backward = jax.vjp(lambda *x: _run('tiles', *x, *args), *qkv)
  assert np.isfinite(out[:, 128:]).all() and np.isnan(out[:, :128]).all()
  for gradient in backward(jnp.where(jnp.isnan(out), 0, out)):
    assert np.isfinite(gradient[:, 128:]).all()


@pytest.mark.parametrize(
  'B, N, K, T', [(16, 8, 2, 300), (3, 4, 4, 2048), (1, 2, 1, 2100)]
)
def test_tiles_of_few_rows_and_of_long_ones_equal_the_reference(B, N, K, T):
  """Rows in groups, and tiles of another size, with documents across them."""
  rng = np.random.default_rng(1)
  q, k, v = (
    rng.normal(size=(B, T, heads, 16)).astype(np.float32) for heads in (N, K, K)
  )
  cuts = np.sort(rng.integers(0, T, size=(B, 5)), axis=1)
  segments = 1 + (np.arange(T)[:, None] >= cuts[:, None]).sum(axis=-1)
  segments[:, -7:] = 0
  starts = np.where(np.diff(segments, axis=1, prepend=-1) != 0, np.arange(T), 0)
  positions = np.arange(T) - np.maximum.accumulate(starts, axis=1)
  weight = rng.normal(size=q.shape) * (segments > 0)[:, :, None, None]

  def run(q, k, v, positions, segments):
    return tiles.attend(
      q, k, v, segments_BT=jnp.asarray(segments), precision='highest'
    )

  expected = _both(attend, (q, k, v), positions, segments, weight)
  got = _both(run, (q, k, v), positions, segments, weight)
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5)


def test_devices_have_as_much_to_attend_to_in_the_balanced_order():
  """Equal parts of a row: the last of 4 devices would work 7 times the first's.

  What context's docstring shows, and every pair of a query and a key.
  """
  np.testing.assert_array_equal(
    context.indices(8, 2), [[0, 1, 6, 7], [2, 3, 4, 5]]
  )
  pairs = (context.indices(64, 4) + 1).sum(axis=1)
  np.testing.assert_array_equal(pairs, [64 * 65 / 2 / 4] * 4)


def test_a_row_in_the_balanced_order_comes_back():
  """A chunk that two devices hold, or none."""
  mesh = sharding.make_mesh({'context': 8})
  row = np.arange(32)[None]
  there = context.balance(row, mesh)
  np.testing.assert_array_equal(there[0], context.indices(32, 8).reshape(-1))
  np.testing.assert_array_equal(context.unbalance(there, mesh), row)


def test_an_implementation_that_the_platform_lacks_is_refused():
  """A kernel that fails elsewhere, somewhere inside of its compiler."""
  mesh = sharding.make_mesh({'fsdp': -1})
  with pytest.raises(
    ValueError, match="'splash' runs on TPUs, and this is cpu"
  ):
    attention.chosen('splash', mesh)
  with pytest.raises(
    ValueError, match="'tokamax' runs on GPUs, and this is cpu"
  ):
    attention.chosen('tokamax', mesh)
  assert attention.chosen('auto', mesh) == 'tiles'
  cut = sharding.make_mesh({'context': 8})
  assert attention.chosen('auto', cut) == 'blocks'
  for whole in ('tokamax', 'tiles'):
    with pytest.raises(ValueError, match=f'{whole}. sees whole rows, but mesh'):
      attention.chosen(whole, cut)
  with pytest.raises(ValueError, match='rounds the products of float32'):
    forward.Execution(attention='tokamax', compute_dtype='float32')


# ---------------------------------------------- compiled for what is not here


@pytest.mark.parametrize(
  'name, H, kernels',
  [
    ('h100:1', 80, '3 mosaic_gpu_v2'),
    ('h100:1', 128, '3 mosaic_gpu_v2'),
    ('a100-80:1', 80, '2 __gpu$xla.gpu.triton'),
  ],
)
def test_tokamax_is_compiled_for_a_gpu(name, H, kernels):
  """A head size, length or shared key that NVIDIA's compiler does not take."""
  pytest.importorskip(
    'jax_cuda13_plugin', reason="GPU compiler missing: pip install 'lbe[test]'"
  )
  module = _tokamax()
  mesh = sharding.make_mesh({}, devices=topology.devices(name))
  jax.config.update('jax_enable_compilation_cache', False)

  def struct(*shape, dtype=jnp.bfloat16):
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  def total(q, k, v, segments):
    out = module.attend(q, k, v, segments_BT=segments, mesh=mesh)
    return out.astype(jnp.float32).sum()

  q, k = struct(1, 200, 4, H), struct(1, 200, 2, H)
  with jax.default_device(mesh.devices.flat[0]):
    lowered = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(
      q, k, k, struct(1, 200, dtype=jnp.int32)
    )
  text = lowered.compile().as_text()
  jax.config.update('jax_enable_compilation_cache', True)
  count, kernel = kernels.split()
  assert text.count(f'custom_call_target="{kernel}"') == int(count)


@pytest.fixture(scope='module')
def tpus():
  """Eight chips that only the compiler knows, of a v5p slice."""
  pytest.importorskip(
    'libtpu', reason="TPU compiler missing: pip install 'lbe[tpu]'"
  )
  os.environ.update(TPU_SKIP_MDS_QUERY='1', ALLOW_MULTIPLE_LIBTPU_LOAD='1')
  return topologies.get_topology_desc('v5p:2x2x2', 'tpu').devices


_ROWS = {'data': 2, 'fsdp': 2, 'tensor': 2}
_CUT = {'fsdp': 2, 'context': 4}


@pytest.mark.parametrize(
  'axes, H', [(_ROWS, 64), (_ROWS, 96), (_CUT, 80), (_CUT, 128)]
)
def test_splash_is_compiled_for_a_tpu(tpus, axes, H):
  """A head size, a length or a cut that the chip's compiler does not take."""
  mesh = sharding.make_mesh(axes, devices=tpus)
  B, T = 4, 200

  def struct(dims, *shape, dtype=jnp.bfloat16):
    where = jax.sharding.NamedSharding(mesh, sharding.spec(dims))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  q = struct(('batch', 'position', 'heads', None), B, T, 4, H)
  k = struct(('batch', 'position', 'kv_heads', None), B, T, 2, H)
  segments = struct(('batch', 'position'), B, T, dtype=jnp.int32)

  def total(q, k, v, segments):
    out = splash.attend(q, k, v, segments_BT=segments, mesh=mesh)
    return out.astype(jnp.float32).sum()

  compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(
    q, k, k, segments
  )
  text = compiled.compile().as_text()
  assert text.count('tpu_custom_call') == 2
  # Of keys, values and segments, once for both passes.
  gathers = re.findall(r' all-gather(?:-start)?\(', text)
  assert len(gathers) == 3 * (axes == _CUT)
  assert ' all-to-all(' not in text
