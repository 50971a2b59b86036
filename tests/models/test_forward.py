"""The forward pass by itself: invariances, dtypes, what it sends."""

import dataclasses
import functools
import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.models import forward
from lbe.models import weights
from lbe.training import loss

import tiny

TINY = tiny.ODD
FP32 = forward.Execution(compute_dtype='float32')


@functools.cache
def tiny():
  return jax.jit(functools.partial(weights.init, TINY))(jax.random.key(0))


@functools.partial(jax.jit, static_argnames=('c', 'execution'))
def compute(params, ids_BT, positions_BT, segments_BT, *, c, execution):
  x_BTD = forward.hidden(
    params,
    c,
    ids_BT,
    positions_BT=positions_BT,
    segments_BT=segments_BT,
    execution=execution,
  )
  return forward.logits(params, c, x_BTD)


def packed(*documents, length):
  """One row of the documents: ids, positions, segments, each [1, length]."""
  ids, positions, segments = (np.zeros(length, np.int32) for _ in range(3))
  start = 0
  for i, document in enumerate(documents):
    at = slice(start, start + len(document))
    ids[at], positions[at] = document, np.arange(len(document))
    segments[at] = i + 1
    start = at.stop
  return ids[None], positions[None], segments[None]


def random_ids(*shape, seed=0):
  return np.random.default_rng(seed).integers(
    0, TINY.vocab_size, shape, np.int32
  )


def run(row, execution=FP32):
  return np.asarray(compute(tiny(), *row, c=TINY, execution=execution))


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('compute_dtype', 'float16', "'float16' is unknown; take one of bfloat16"),
    (
      'remat',
      'some',
      "remat='some' is unknown; take one of none, dots, dots_att",
    ),
    (
      'attention',
      'flash',
      "attention='flash' is unknown; take one of auto",
    ),
  ],
)
def test_execution_refuses_what_it_cannot_run(field, value, message):
  """A misspelt policy that falls back to none."""
  with pytest.raises(ValueError, match=message):
    forward.Execution(**{field: value})


def test_rope_turns_the_halves_by_the_position():
  """Interleaved pairs instead of halves, or the wrong sign; worked by hand."""
  c = dataclasses.replace(TINY, head_dim=4, rope_theta=100.0)
  # Frequencies 1 and 1/10; at position 2 the angles are 2 and 0.2.
  tables = forward.rope_tables(c, jnp.array([[2]]))
  x = jnp.array([1.0, 0.0, 0.0, 1.0])[None, None, None]
  turned = forward.rope(x, tables)[0, 0, 0]
  expected = [math.cos(2), -math.sin(0.2), math.sin(2), math.cos(0.2)]
  np.testing.assert_allclose(turned, expected, rtol=1e-6)


def test_packed_documents_equal_the_documents_alone():
  """Attention across documents, or positions that run through the row."""
  documents = [random_ids(n, seed=n) for n in (5, 9, 7)]
  row = run(packed(*documents, length=24))
  start = 0
  for document in documents:
    alone = run(packed(document, length=24))
    np.testing.assert_allclose(
      row[0, start : start + len(document)],
      alone[0, : len(document)],
      atol=1e-5,
    )
    start += len(document)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_perturbing_a_document_changes_no_bit_of_another(dtype):
  """A mask that only damps: a bit of document A in document B's logits."""
  a, b, other = (random_ids(n, seed=i) for i, n in enumerate((9, 8, 9)))
  execution = forward.Execution(compute_dtype=dtype)
  one = run(packed(a, b, length=20), execution)[0]
  two = run(packed(other, b, length=20), execution)[0]
  assert np.any(one[:9] != two[:9])
  np.testing.assert_array_equal(one[9:17], two[9:17])
  # The later document does not change the earlier one either.
  one, two = (run(packed(b, x, length=20), execution)[0] for x in (a, other))
  np.testing.assert_array_equal(one[:8], two[:8])
  assert np.any(one[8:17] != two[8:17])


def test_a_later_token_changes_no_earlier_logit():
  """A causal mask that is off by one."""
  ids = random_ids(12)
  changed = np.concatenate([ids[:7], (ids[7:] + 1) % 97])
  one, two = (run(packed(x, length=12))[0] for x in (ids, changed))
  np.testing.assert_array_equal(one[:7], two[:7])
  assert np.all(np.any(one[7:] != two[7:], axis=-1))


def _loss_and_gradients(execution):
  ids = random_ids(2, 12)
  positions = np.tile(np.arange(12, dtype=np.int32), (2, 1))

  @jax.jit
  def compute(params):
    def loss_sum(params):
      x_BTD = forward.hidden(
        params,
        TINY,
        ids[:, :-1],
        positions_BT=positions[:, :-1],
        segments_BT=np.ones((2, 11), np.int32),
        execution=execution,
      )
      return loss.sums(
        x_BTD,
        forward.head_DV(params, TINY),
        ids[:, 1:],
        np.ones((2, 11), np.float32),
        vocab_size=97,
      )['objective']

    return jax.value_and_grad(loss_sum)(params)

  return compute(tiny())


@pytest.mark.parametrize(
  'other',
  [
    dict(scan=False),
    *(
      dict(remat=policy)
      for policy in ('full', 'dots', 'dots_attention', 'attention', 'offload')
    ),
  ],
  ids=str,
)
def test_scan_and_remat_do_not_change_loss_or_gradients(other):
  """Layers in another order, or a weight that recomputation treats as new."""
  value, gradients = _plain_loss_and_gradients()
  other_value, other_gradients = _loss_and_gradients(
    dataclasses.replace(FP32, **other)
  )
  np.testing.assert_allclose(other_value, value, rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
    other_gradients,
    gradients,
  )


@functools.cache
def _plain_loss_and_gradients():
  return _loss_and_gradients(FP32)


def test_padding_columns_are_masked_and_take_no_gradient():
  """Padding rows that are sampled, or drift away from zero in training."""
  row = run(packed(random_ids(6), length=6))
  assert row.dtype == np.float32
  assert np.all(row[..., 97:] < -1e29) and np.all(np.abs(row[..., :97]) < 1e3)
  _, gradients = _plain_loss_and_gradients()
  assert not np.any(gradients['head_DV'][:, 97:])
  assert not np.any(gradients['embed_VD'][97:])


def test_padding_positions_are_finite():
  """A softmax over nothing: NaN in the row, and in every gradient."""
  assert np.all(np.isfinite(run(packed(random_ids(3), length=8))))


def test_bfloat16_runs_in_bfloat16_and_ends_in_float32():
  """A weight or table in float32 that silently lifts the whole stream."""
  row = packed(random_ids(8), length=8)
  params = tiny()  # a trace of it is not to be remembered
  x_BTD = jax.eval_shape(
    lambda: forward.hidden(
      params,
      TINY,
      row[0],
      positions_BT=row[1],
      segments_BT=row[2],
      execution=forward.Execution(compute_dtype='bfloat16'),
    )
  )
  assert x_BTD.dtype == jnp.bfloat16
  logits = run(row, forward.Execution(compute_dtype='bfloat16'))
  assert logits.dtype == np.float32
  assert np.any(logits != logits.astype(jnp.bfloat16).astype(np.float32))


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _equations(inner)


def test_norms_rope_softmax_and_loss_are_float32_in_bfloat16_runs():
  """Each would cost more of the quality than it saves in time."""
  row = packed(random_ids(8), length=8)

  def loss_sum(params):
    x_BTD = forward.hidden(
      params,
      TINY,
      row[0],
      positions_BT=row[1],
      segments_BT=row[2],
      execution=forward.Execution(compute_dtype='bfloat16'),
    )
    head_DV = forward.head_DV(params, TINY)
    weights_BT = jnp.ones_like(row[0])
    return loss.sums(x_BTD, head_DV, row[0], weights_BT, vocab_size=97)[
      'objective'
    ]

  found = {}
  for equation in _equations(jax.make_jaxpr(loss_sum)(tiny()).jaxpr):
    for x in equation.outvars:
      found.setdefault(equation.primitive.name, set()).add(str(x.aval.dtype))
  for name in ('rsqrt', 'cos', 'sin', 'exp', 'log'):
    assert found[name] == {'float32'}, name
  assert 'bfloat16' in found['logistic'], 'this was not bfloat16'


def test_float32_products_ask_for_float32_on_every_chip():
  """TF32 on a GPU and bfloat16 passes on a TPU, called float32 compute."""
  row = packed(random_ids(8), length=8)

  def loss_sum(params):
    x_BTD = forward.hidden(
      params,
      TINY,
      row[0],
      positions_BT=row[1],
      segments_BT=row[2],
      execution=FP32,
    )
    head_DV = forward.head_DV(params, TINY)
    weights_BT = jnp.ones_like(row[0])
    of_loss = loss.sums(x_BTD, head_DV, row[0], weights_BT, vocab_size=97)
    return of_loss['objective'] + forward.logits(params, TINY, x_BTD).max()

  text = str(jax.make_jaxpr(jax.grad(loss_sum))(tiny()))
  assert text.count('dot_general[') > 20
  assert text.count('dot_general[') == text.count(
    'precision=(Precision.HIGHEST'
  )


def test_unrolled_layers_are_traced_once(monkeypatch):
  """Each start traced each layer by itself, for a program that is the same."""
  traced, layer = [], forward.decoder_layer

  def counted(*args):
    traced.append(args)
    return layer(*args)

  monkeypatch.setattr(forward, 'decoder_layer', counted)
  c = dataclasses.replace(TINY, num_layers=5)
  unrolled = dataclasses.replace(FP32, scan=False)
  jax.eval_shape(
    functools.partial(forward.hidden, c=c, execution=unrolled),
    weights.shapes(c),
    ids_BT=np.zeros((1, 8), np.int32),
    positions_BT=np.arange(8)[None],
    segments_BT=np.ones((1, 8), np.int32),
  )
  assert len(traced) == 1
