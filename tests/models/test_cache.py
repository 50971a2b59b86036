"""The key/value cache: step by step equals all at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.models import architecture
from lbe.models import cache as cache_lib
from lbe.models import forward
from lbe.models import weights
from lbe.models.attention import blocks

import tiny

TINY = tiny.ODD
ADAPTED = architecture.Config(
  **{
    **vars(TINY),
    'lora': architecture.Lora(
      weights=('q_LDNH', 'down_LFD'), rank=4, alpha=8.0
    ),
  }
)
SCANNED = forward.Execution(compute_dtype='float32')
UNROLLED = forward.Execution(compute_dtype='float32', scan=False)
LENGTHS = (7, 1, 4)
NUM_NEW = 5


@functools.cache
def params(c=TINY):
  made = jax.jit(functools.partial(weights.init, c))(jax.random.key(0))
  # An adapter's second half begins at zero, where nothing would show.
  return jax.tree.map(lambda x: jnp.where(x == 0, 0.05, x), made)


@functools.cache
def rows():
  """Ids of three rows, each as long as its prompt and what follows."""
  rng = np.random.default_rng(0)
  return [rng.integers(97, size=n + NUM_NEW, dtype=np.int32) for n in LENGTHS]


def full(c, ids_T):
  """[T, V] logits without a cache."""
  x_BTD = forward.hidden(
    params(c),
    c,
    ids_T[None],
    positions_BT=np.arange(len(ids_T), dtype=np.int32)[None],
    segments_BT=np.ones((1, len(ids_T)), np.int32),
    execution=SCANNED,
  )
  return np.asarray(forward.logits(params(c), c, x_BTD))[0]


def cached(c, execution, *, shared=0, chosen=(0, 1, 2)):
  """[B, V] logits at the end of ragged prompts, and of each step after it.

  The first `shared` ids of row 0 are a prefix in front of all `chosen`.
  """
  same = dict(execution=execution, constrain=lambda x, dims: x)
  ready = cache_lib.prepare(params(c), execution)
  prefix = None
  if shared:
    at_P = np.arange(shared + 3, dtype=np.int32)
    at_P[shared:] = cache_lib.EMPTY  # a bucket is longer than what it holds
    _, cache = cache_lib.prefill(
      ready,
      c,
      np.pad(rows()[0][:shared], (0, 3))[None],
      positions_BT=at_P[None],
      num_slots=shared + 3,
      **same,
    )
    prefix = cache_lib.as_prefix(cache)
  B, W = len(chosen), 8
  lengths_B = np.array([LENGTHS[row] for row in chosen])
  ids_BT = np.zeros((B, W), np.int32)
  for b, n in enumerate(lengths_B):
    ids_BT[b, :n] = rows()[chosen[b]][:n]
  at_T = np.arange(W, dtype=np.int32)
  positions_BT = np.where(
    at_T < lengths_B[:, None], shared + at_T, cache_lib.EMPTY
  ).astype(np.int32)
  x_BTD, cache = cache_lib.prefill(
    ready,
    c,
    ids_BT,
    positions_BT=positions_BT,
    num_slots=W + NUM_NEW,
    prefix=prefix,
    **same,
  )
  found = [x_BTD[np.arange(B), lengths_B - 1]]

  @jax.jit
  def step(ids_BT, positions_BT, slot, cache):
    return cache_lib.step(
      ready,
      c,
      ids_BT,
      positions_BT=positions_BT,
      slot=slot,
      cache=cache,
      prefix=prefix,
      **same,
    )

  for n in range(NUM_NEW):
    now_B1 = np.array([[rows()[row][LENGTHS[row] + n]] for row in chosen])
    at_B1 = (shared + lengths_B + n)[:, None].astype(np.int32)
    x_BTD, cache = step(now_B1, at_B1, W + n, cache)
    found.append(x_BTD[:, 0])
  return [
    np.asarray(forward.logits(params(c), c, x[:, None]))[:, 0] for x in found
  ]


@pytest.mark.parametrize('execution', [SCANNED, UNROLLED])
@pytest.mark.parametrize('c', [TINY, ADAPTED], ids=['plain', 'lora'])
def test_ragged_rows_step_by_step_equal_the_full_forward(c, execution):
  """A key in the wrong slot, padding that is seen, RoPE at a slot's number."""
  found = cached(c, execution)
  for b, n in enumerate(LENGTHS):
    logits_TV = full(c, rows()[b])
    for i, logits_BV in enumerate(found):
      np.testing.assert_allclose(logits_BV[b], logits_TV[n - 1 + i], atol=2e-5)


@pytest.mark.parametrize('execution', [SCANNED, UNROLLED])
@pytest.mark.parametrize('shared', [0, 6])
def test_one_row_alone_equals_the_full_forward(execution, shared):
  """Its cache has no axis of rows."""
  found = cached(TINY, execution, shared=shared, chosen=(2,))
  logits_TV = full(TINY, np.concatenate([rows()[0][:shared], rows()[2]]))
  for i, logits_BV in enumerate(found):
    np.testing.assert_allclose(
      logits_BV[0], logits_TV[shared + LENGTHS[2] - 1 + i], atol=2e-5
    )


def check(found, shared):
  """The logits of `cached` are those of each row behind the shared ids."""
  for b, n in enumerate(LENGTHS):
    whole = np.concatenate([rows()[0][:shared], rows()[b]])
    logits_TV = full(TINY, whole)
    for i, logits_BV in enumerate(found):
      np.testing.assert_allclose(
        logits_BV[b], logits_TV[shared + n - 1 + i], atol=2e-5
      )


@pytest.mark.parametrize('execution', [SCANNED, UNROLLED])
def test_a_shared_prefix_equals_the_same_ids_in_each_row(execution):
  """Two softmaxes instead of one, positions that begin again, its padding."""
  shared = 6
  found = cached(TINY, execution, shared=shared)
  check(found, shared)


@pytest.mark.parametrize('shared', [0, 6])
def test_a_prompt_in_blocks_equals_the_full_forward(shared, monkeypatch):
  """A block that misses its last keys, or the prefix."""
  monkeypatch.setattr(blocks, '_SHORTEST', 3)
  assert len(blocks.bounds(8)) == 3
  found = cached(TINY, UNROLLED, shared=shared)
  check(found, shared)


def test_bfloat16_is_computed_in_bfloat16():
  """Parameters that stay float32, so that each step reads twice as much."""
  for scan in (True, False):
    execution = forward.Execution(compute_dtype='bfloat16', scan=scan)
    ready = cache_lib.prepare(params(), execution)
    assert {str(x.dtype) for x in jax.tree.leaves(ready)} == {'bfloat16'}


@pytest.mark.parametrize('with_prefix', [False, True])
@pytest.mark.parametrize('with_branches', [False, True])
def test_long_rows_in_tiles_are_as_without(with_prefix, with_branches):
  """A branch that sees another, a prefix left out, a tile too few."""
  B, T = 3, 768
  rng = np.random.default_rng(0)
  ids_BT = rng.integers(97, size=(B, T), dtype=np.int32)
  lengths_B1 = np.array([[T], [500], [1]])
  at_BT = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
  real_BT = at_BT < lengths_B1
  same = dict(execution=SCANNED, constrain=lambda x, dims: x)
  more, shared = {}, 0
  if with_prefix:
    shared = 37
    at_P = np.where(np.arange(64) < shared, np.arange(64), cache_lib.EMPTY)
    _, cache = cache_lib.prefill(
      params(),
      TINY,
      rng.integers(97, size=(1, 64), dtype=np.int32),
      positions_BT=at_P.astype(np.int32)[None],
      num_slots=64,
      **same,
    )
    more['prefix'] = cache_lib.as_prefix(cache)
  positions_BT = shared + at_BT
  if with_branches:
    # A trunk of 300, and branches of 50 that go on from it.
    branch_BT = np.where(at_BT < 300, 0, 1 + (at_BT - 300) // 50)
    positions_BT = shared + np.where(
      at_BT < 300, at_BT, 300 + (at_BT - 300) % 50
    )
    more['branches_BT'] = np.where(real_BT, branch_BT, -1)
    until_BT = np.where(branch_BT == 0, 2**30, branch_BT + 1)
    more['until_BT'] = np.where(real_BT, until_BT, 0)
  positions_BT = np.where(real_BT, positions_BT, cache_lib.EMPTY)
  made = params()  # inside of the trace it would be kept as a part of it

  def run(in_tiles):
    return jax.jit(
      lambda ids_BT: cache_lib.prefill(
        made,
        TINY,
        ids_BT,
        positions_BT=positions_BT,
        num_slots=T,
        in_tiles=in_tiles,
        **more,
        **same,
      )
    )(ids_BT)

  (whole, cache), (tiled, its_cache) = run(False), run(True)
  np.testing.assert_allclose(tiled[real_BT], whole[real_BT], atol=1e-4)
  assert np.std(whole[real_BT]) > 0.1
  for a, b in zip(cache['k'], its_cache['k'], strict=True):
    kept = np.moveaxis(np.asarray(a - b), -2, 1)  # [B, T, K, H]
    np.testing.assert_allclose(kept[real_BT], 0, atol=1e-4)
