"""Scores of tokens: every way to compute them together equals one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.inference import model as model_lib
from lbe.inference import score
from lbe.mesh import compilation
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.vocab import tokenizers

FP32 = forward.Execution(compute_dtype='float32', scan=False)
TINY = architecture.Config(
  vocab_size=300,
  dim=64,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=16,
  mlp_dim=96,
  max_positions=256,
  init_std=0.3,
)
BYTES = tokenizers.load('bytes')


@functools.cache
def params():
  return weights.init(TINY, jax.random.key(0))


def run(requests, *, mesh=(1, 1, 1), batch_size=4, execution=FP32):
  names = ('data', 'fsdp', 'tensor')
  made = sharding.make_mesh(
    dict(zip(names, mesh, strict=True)),
    devices=jax.devices()[: int(np.prod(mesh))],
  )
  placed = jax.device_put(
    params(), sharding.shardings(made, weights.dims(TINY))
  )
  return score.score(
    placed,
    TINY,
    requests,
    execution=execution,
    mesh=made,
    batch_size=batch_size,
  )


@jax.jit
def plain_logits(ids_BT):
  T = ids_BT.shape[1]
  x_BTD = forward.hidden(
    params(),
    TINY,
    ids_BT,
    positions_BT=jnp.arange(T)[None],
    segments_BT=jnp.ones((1, T), jnp.int32),
    execution=FP32,
  )
  return forward.logits(params(), TINY, x_BTD)[0, :, :300]


def one_by_one(request):
  """(logprob, greedy, normalizer) by the plain forward pass."""
  # Padding behind a causal model's text changes nothing in it.
  ids_BT = np.zeros((1, 128), np.int32)
  ids_BT[0, : len(request.ids)] = request.ids
  logits_TV = np.asarray(plain_logits(ids_BT))
  norm_T = np.log(np.exp(logits_TV).sum(-1))
  at, targets = request.positions, request.targets
  return (
    float((logits_TV[at, targets] - norm_T[at]).sum()),
    bool((logits_TV[at].argmax(-1) == targets).all()),
    float(norm_T[at].sum()),
  )


@functools.cache
def requests():
  """Exams with shared beginnings and short or long choices, and documents."""
  rng = np.random.default_rng(0)

  def ids(n):
    return rng.integers(3, 300, n).tolist()

  found = []
  # Behind what is shared, four long choices are more than a block of queries.
  for shortest, longest in ((1, 6), (36, 40)):
    beginning = [1, *ids(70)]
    for _ in range(5):
      context = beginning + ids(rng.integers(4, 18))
      for _ in range(4):
        choice = ids(rng.integers(shortest, longest))
        found.append(score.continuation(context, choice, max_len=128)[0])
  for n in (1, 40, 300):
    found += score.windows(ids(n), prefix_id=1, max_len=128)
  # Two targets at one place, and places that are not side by side.
  found.append(score.Request(*map(np.array, ([1, 8, 9], [2, 2], [4, 5]))))
  found.append(score.Request(*map(np.array, ([1, 8, 9, 7], [0, 3], [8, 5]))))
  return found


@functools.cache
def expected():
  return [one_by_one(r) for r in requests()]


def check(found):
  for mine, theirs in zip(found, expected(), strict=True):
    np.testing.assert_allclose(mine.logprob, theirs[0], atol=2e-4)
    np.testing.assert_allclose(mine.normalizer, theirs[2], atol=2e-4)
    assert mine.greedy == theirs[1]


def test_scores_are_those_of_the_plain_forward_pass():
  """Branches that see each other, shared keys at wrong positions, padding."""
  check(run(requests()))


def test_beginnings_are_shared_once():
  """The two exams' contexts are two groups; what is shared is not repeated."""
  rows = score._make_rows(requests(), TINY.dim)
  shared = [
    (n, len(group)) for n, group in score._shared(rows, lambda n: n) if n
  ]
  assert shared == [(64, 5), (64, 5)]
  with_choices = [r for r in rows if len(set(r.owners)) == 4]
  assert len(with_choices) == 10  # four choices are one row
  assert max(len(r.ids) for r in with_choices) > 64 + 128


def test_documents_stay_apart():
  """All begin with BOS; as one row they would cost the square of the sum."""
  rng = np.random.default_rng(0)
  documents = [
    request
    for _ in range(4)
    for request in score.windows(
      rng.integers(3, 300, 100).tolist(), prefix_id=1, max_len=128
    )
  ]
  rows = score._make_rows(documents, TINY.dim)
  assert [len(r.ids) for r in rows] == [100] * 4


@pytest.mark.parametrize('batch_size', [1, 16])
def test_batch_size_and_order_move_no_score(batch_size):
  check(run(requests()[::-1], batch_size=batch_size)[::-1])


@pytest.mark.parametrize('mesh', [(2, 2, 2), (8, 1, 1)])
def test_a_mesh_moves_no_score(mesh):
  check(run(requests(), mesh=mesh))


def test_scanned_equals_unrolled():
  scanned = forward.Execution(compute_dtype='float32', scan=True)
  check(run(requests(), execution=scanned))


def test_the_second_round_compiles_nothing():
  """Evaluation inside a run would stall it each time."""
  run(requests())
  before = compilation.num_compiled()
  run(requests())
  assert compilation.num_compiled() == before


def test_one_token_is_the_likeliest():
  """A wrong column, or padding columns that win."""
  found = run(
    [score.continuation([1, 7], [t], max_len=128)[0] for t in range(300)]
  )
  assert sum(s.greedy for s in found) == 1
  total = sum(np.exp(s.logprob) for s in found)
  np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_windows_by_hand():
  """Every token once; the last window is moved to the left."""

  def parts(ids):
    return [
      tuple(x.tolist() for x in w)
      for w in score.windows(ids, prefix_id=0, max_len=2)
    ]

  assert parts([5, 6, 7]) == [
    ([0, 5], [0, 1], [5, 6]),
    ([5, 6], [1], [7]),
  ]
  assert parts([5, 6]) == [([0, 5], [0, 1], [5, 6])]
  assert parts([5]) == [([0], [0], [5])]
  assert parts([]) == []


@pytest.mark.parametrize('length', [1, 3, 4, 5, 8, 11])
def test_windows_score_every_token_once_in_order(length):
  ids = list(range(100, 100 + length))
  scored = []
  for w in score.windows(ids, prefix_id=0, max_len=4):
    assert len(w.ids) <= 4
    scored += w.targets.tolist()
  assert scored == ids


def test_long_contexts_lose_their_left_end():
  """The target is never cut, and the count is exact."""
  request, cut = score.continuation(range(10), [50, 51], max_len=6)
  assert cut == 5
  assert request.ids.tolist() == [5, 6, 7, 8, 9, 50]
  assert request.positions.tolist() == [4, 5]
  assert request.targets.tolist() == [50, 51]
  request, cut = score.continuation(range(5), [50, 51], max_len=6)
  assert (request.ids.tolist(), cut) == ([0, 1, 2, 3, 4, 50], 0)
  with pytest.raises(ValueError, match='7 tokens is longer than the window'):
    score.continuation([1], range(7), max_len=6)


def test_the_cut_between_context_and_continuation(test_data):
  """Joint encoding; the space; a piece across the border; no context."""
  tokenizer = tokenizers.load(test_data / 'tok_llama_32000')

  def split(context, continuation, **settings):
    settings = {'bos': True, 'cut': 'harness'} | settings
    ((first, rest),) = score.split(
      tokenizer, [(context, continuation)], **settings
    )
    return [tokenizer.piece(t) for t in first], [
      tokenizer.piece(t) for t in rest
    ]

  assert split('Answer:', ' A') == (['<s>', '▁Answer', ':'], ['▁A'])
  assert split('Answer: ', 'A') == (['<s>', '▁Answer', ':'], ['▁A'])
  assert split('答案：', ' A')[1] == ['▁A']
  assert split('答案：', 'A')[1] == ['A']
  assert split('Answer:', ' A', bos=False)[0] == ['▁Answer', ':']
  assert split('', 'A b', bos=False) == (['<s>'], ['▁A', '▁b'])
  # 'under' and 'stand' are one piece.
  first, rest = split('I under', 'stand it')
  assert (first, rest) == (['<s>', '▁I', '▁under'], ['▁it'])
  first, rest = split('I under', 'stand it', cut='safe')
  assert (first, rest) == (['<s>', '▁I'], ['▁understand', '▁it'])
  with pytest.raises(ValueError, match="no token of its own behind 'I under'"):
    split('I under', 'stand')
  with pytest.raises(ValueError, match="cut='left' is unknown; take one of"):
    split('a', 'b', cut='left')


def test_a_model_that_is_no_numbers_has_no_scores():
  """It had acc 1.0 wherever the answer is A: the likeliest of NaN is first."""
  broken = params() | {'embed_VD': params()['embed_VD'].at[5, 0].set(np.nan)}
  mesh = sharding.make_mesh({}, devices=jax.devices()[:1])
  model = model_lib.Model(broken, TINY, BYTES, mesh, FP32, 4, 256)
  fine, bad = (
    score.Request(np.array(ids), np.array([0]), np.array([8]))
    for ids in ([7], [5])
  )
  assert model.score([fine])[0].logprob < 0
  with pytest.raises(ValueError, match=r'1 of 2 log-prob.* NaN.*float32'):
    model.score([fine, bad])
