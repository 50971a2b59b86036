"""Trees of texts: every way they share a row equals each text by itself."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from lbe.inference import model as model_lib
from lbe.inference import score
from lbe.inference import trees
from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import weights
from lbe.vocab import tokenizers

import tiny

C = dataclasses.replace(tiny.TINY, vocab_size=259, max_positions=300)


def model(*, fsdp=1, batch_size=1):
  mesh = sharding.make_mesh({'fsdp': fsdp}, devices=jax.devices()[:fsdp])
  params = jax.device_put(
    weights.init(C, jax.random.key(0)),
    sharding.shardings(mesh, weights.dims(C)),
  )
  return model_lib.Model(
    params=params,
    config=C,
    tokenizer=tokenizers.load('bytes'),
    mesh=mesh,
    execution=forward.Execution(compute_dtype='float32', scan=False),
    batch_size=batch_size,
    max_len=C.max_positions,
  )


@functools.cache
def texts():
  """Equal ones, beginnings of others, none, and longer than all positions."""
  rng = np.random.default_rng(0)
  found = [[], [5], [5, 6], [5, 6], [5, 7], [6]]
  for n in (3, 20, 62, 63, 64, 126, 127, 128, 255, 256, 300, 310):
    own = rng.integers(3, 259, n).tolist()
    other = rng.integers(3, 259, n).tolist()
    found += [own, own[: n // 2] + other, own[:-1] + [9], own[:2] + other[:9]]
    found += [own[: n // 3], own]
  return [found[i] for i in rng.permutation(len(found))]


@functools.cache
def expected():
  """Each by the plain forward pass, in windows where it is too long."""
  one = model()
  scored = []
  for ids in texts():
    requests = score.windows(ids, prefix_id=1, max_len=300)
    scored.append(sum(s.logprob for s in one.score(list(requests))))
  return np.array(scored)


@pytest.mark.parametrize('fsdp, batch_size', [(1, 1), (1, 8), (2, 1)])
def test_texts_in_trees_are_scored_as_by_themselves(fsdp, batch_size):
  """Catches a token that sees a neighbour's, and a score that is another's."""
  found = model(fsdp=fsdp, batch_size=batch_size).score_texts(texts())
  np.testing.assert_allclose(found, expected(), rtol=2e-6, atol=2e-5)


def test_what_texts_begin_with_is_run_once():
  """5 6 7, 5 6 8 and 5 9 behind the root 1; their ends are not run."""
  _, made = trees._sorted([[5, 9], [5, 6, 8], [5, 6, 7]])
  assert trees._rows(made, 8) == [0, 3]
  arrays, parts_NL = trees._batch(made, [0, 3], 1, 8, 1)
  row = {name: x[0].tolist() for name, x in arrays.items()}
  assert row['ids_BT'] == [1, 5, 6, 0, 0, 0, 0, 0]
  assert row['positions_BT'] == [0, 1, 2, 0, 0, 0, 0, 0]
  assert row['scored_BQ'] == [0, 1, 2, 2, 1, 0, 0, 0, 0]
  assert row['targets_BQ'] == [5, 6, 7, 8, 9, 0, 0, 0, 0]
  # The 6 ends where 5 9 leaves it.
  assert row['until_BT'][:3] == [8, 8, 3]
  assert parts_NL.tolist() == [[0, 1, 2], [0, 1, 3], [0, 4, 9]]
  # Rows of three run tokens at most: the last text begins a row.
  assert trees._rows(made, 2) == [0, 1, 2, 3]


def test_equal_texts_make_no_room_for_others():
  """Their common end is run, as no leaf is; BLiMP repeats its sentences."""
  texts = [[5, 6, 7], [6, 7, 8], [9, 8, 7]]
  _, made = trees._sorted(texts * 2)
  starts = trees._rows(made, 8)
  assert starts == [0, 4, 6]
  arrays, _ = trees._batch(made, starts, 2, 8, 1)
  assert arrays['ids_BT'][:, :7].tolist() == [
    [1, 5, 6, 7, 6, 7, 8],
    [1, 9, 8, 7, 0, 0, 0],
  ]


def test_no_text_is_no_score():
  assert len(model().score_texts([])) == 0
