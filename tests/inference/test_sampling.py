"""Sampling: what may be drawn as in transformers, draws by their shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from lbe.inference import sampling

B, V = 6, 1000


def random_logits(scale=3.0):
  rng = np.random.default_rng(0)
  return (scale * rng.standard_normal((B, V))).astype(np.float32)


@jax.jit
def kept(logits_BV, settings):
  return sampling.kept(logits_BV, settings)


def settings(**changes):
  return sampling.Settings(**{'temperature': 1.0, **changes}).check()


def theirs(logits_BV, *processors):
  scores = torch.tensor(logits_BV)
  for processor in processors:
    scores = processor(None, scores)
  return scores.numpy()


@pytest.mark.parametrize(
  'changes',
  [
    dict(temperature=0.3),
    dict(top_k=1),
    dict(top_k=40),
    dict(top_k=5000),
    dict(top_p=0.001),
    dict(top_p=0.5),
    dict(top_p=0.95),
    dict(min_p=0.02),
    dict(min_p=1.0),
    dict(temperature=0.7, top_k=50, top_p=0.9),
    dict(temperature=1.5, top_k=200, top_p=0.8, min_p=0.05),
  ],
  ids=str,
)
def test_what_may_be_drawn_is_what_transformers_keeps(changes):
  """Order of the filters, borders, and a mass over all tokens or the kept."""
  logits_BV = random_logits()
  processors = [
    transformers.TemperatureLogitsWarper(changes.get('temperature', 1.0))
  ]
  if 'top_k' in changes:
    processors.append(transformers.TopKLogitsWarper(min(changes['top_k'], V)))
  if 'top_p' in changes:
    processors.append(transformers.TopPLogitsWarper(changes['top_p']))
  if 'min_p' in changes:
    processors.append(transformers.MinPLogitsWarper(changes['min_p']))
  wanted = theirs(logits_BV, *processors)
  found = np.asarray(kept(logits_BV, settings(**changes)))
  assert ((found > -1e29) == np.isfinite(wanted)).all()
  stay = np.isfinite(wanted)
  below = (wanted - wanted.max(-1, keepdims=True))[stay]
  np.testing.assert_allclose(found[stay], below, atol=1e-4)


def test_equal_logits_at_the_border_go_together():
  """Whichever of two equal tokens has the lower id is no reason to keep it."""
  logits_BV = jnp.array([[1.0, 3.0, 2.0, 2.0, -1.0]])
  found = np.asarray(kept(logits_BV, settings(top_k=2)))[0]
  assert (found > -1e29).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize('penalty', [1.3, 0.8])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
  """Also on prompt tokens; negative logits are multiplied."""
  logits_BV = random_logits()
  seen_BT = np.random.default_rng(1).integers(V, size=(B, 300))
  seen_BV = np.zeros((B, V), bool)
  seen_BV[np.arange(B)[:, None], seen_BT] = True
  processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
  wanted = processor(torch.tensor(seen_BT), torch.tensor(logits_BV)).numpy()
  found = sampling.penalized(logits_BV, seen_BV, np.float32(penalty))
  np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-6)


def test_draws_follow_their_probabilities():
  """20,000 of one row, across blocks; what was filtered is never drawn."""
  logits_V = random_logits(2.0)[0]
  logits_V[300:600] = -1e30
  num = 20_000
  keys = jax.random.split(jax.random.key(0), num)
  draw = jax.jit(sampling.draw)
  drawn = np.asarray(draw(np.tile(logits_V, (num, 1)), keys))
  p_V = np.asarray(jax.nn.softmax(logits_V))
  found_V = np.bincount(drawn, minlength=V)
  assert not found_V[300:600].any()
  often = p_V > 2e-3
  expected = num * p_V[often]
  chi2 = ((found_V[often] - expected) ** 2 / expected).sum()
  # Mean and six standard deviations of chi-squared.
  assert chi2 < often.sum() + 6 * np.sqrt(2 * often.sum())
  # The rare ones together, which one coarse number would round away.
  assert abs(found_V[~often].sum() / num - p_V[~often].sum()) < 0.02


def test_a_draw_is_its_key_s_alone():
  """The same number for a row in any batch."""
  logits_BV = random_logits()
  keys = jax.random.split(jax.random.key(3), B)
  drawn = sampling.draw(logits_BV, keys)
  assert len(set(np.asarray(drawn).tolist())) > 1
  for b in range(B):
    alone = sampling.draw(logits_BV[b : b + 1], keys[b : b + 1])
    assert alone[0] == drawn[b]


def test_a_low_temperature_is_greedy_and_no_nan():
  """Logits over 1e-30 are infinite."""
  logits_BV = random_logits()
  keys = jax.random.split(jax.random.key(0), B)
  for temperature in (1e-4, 1e-30):
    drawn = sampling.choose(
      logits_BV,
      np.zeros((B, V), bool),
      settings(temperature=temperature, top_p=0.9),
      keys,
    )
    assert drawn.tolist() == logits_BV.argmax(-1).tolist()


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(temperature=-1.0), 'temperature=-1.0 is out of range'),
    (dict(temperature=float('nan')), 'temperature=nan is out of range'),
    (dict(top_k=-1), 'top_k=-1 is out of range'),
    (dict(top_k=1.5), 'top_k=1.5 is out of range'),
    (dict(top_p=0.0), 'top_p=0.0 is out of range'),
    (dict(top_p=1.1), 'top_p=1.1 is out of range'),
    (dict(min_p=-0.1), 'min_p=-0.1 is out of range'),
    (dict(repetition_penalty=0.0), 'repetition_penalty=0.0 is out of range'),
  ],
)
def test_a_setting_out_of_range_is_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    settings(**changes)
