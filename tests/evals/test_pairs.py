"""Accuracies of pairs: the harness beside us, averages and ties by hand."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.evals import pairs
from lbe.inference import score
from lbe.text import lines

import harness

PARADIGMS = ('adjunct_island', 'passive_1', 'anaphor_gender_agreement')


@pytest.fixture(scope='module')
def model(test_data):
  return harness.load_ours(test_data / 'ckpt_stories260K' / 'hf')


@pytest.fixture(scope='module')
def folder(test_data, model, tmp_path_factory):
  """Of the model, and of its tokenizer as transformers reads it."""
  target = tmp_path_factory.mktemp('tokenizer')
  harness.vocab_export.write(model.tokenizer, target, max_positions=512)
  return test_data / 'ckpt_stories260K' / 'hf', target


def make(**changes):
  fields = dict(path='', texts=None, sides=('good', 'bad'), parts=(), limit=0)
  return pairs.make(**fields | {'seed': 0, 'protocol': pairs.SWAP} | changes)


def test_pairs_are_those_of_the_harness(test_data, model, folder, tmp_path):
  """Its own task files on transformers: each score, each answer, the group."""
  tasks = [
    harness.blimp_task(tmp_path, test_data, x, limit=20) for x in PARADIGMS
  ]
  theirs = harness.load_theirs(*folder, bos=True, batch_size=64)
  expected, _ = harness.run(theirs, tmp_path, tasks, num_fewshot=0)
  copy = tmp_path / 'blimp'
  copy.mkdir()
  for paradigm in PARADIGMS:
    file = f'{paradigm}.jsonl'
    shutil.copy(test_data / 'bench_blimp' / 'data' / file, copy / file)
  made = make(protocol='pairs@blimp', path=copy, limit=20)
  result = made.evaluate(model, name='own', step=1)
  found = harness.own_pairs_equal(result, expected)
  assert found['pairs'] == 60
  assert found['answers_differ'] == 0
  assert found['largest_logprob_difference'] < 1e-4
  rows = {r['name']: r for r in result.rows}
  for paradigm in PARADIGMS:
    row = rows[f'acc/UID/{paradigm}']
    theirs = expected['results'][f'own_blimp_{paradigm}']
    assert row['value'] == theirs['acc,none']
    assert row['count'] == 20 and len(row['interval95']) == 2
  # The group's mean is of paradigms, not of pairs.
  few = pairs.Pairs(made.pairs[5:], made.protocol, parts=made._parts)
  first, *others = (
    [r['acc'] for r in result.predictions[a:b]]
    for a, b in ((5, 20), (20, 40), (40, 60))
  )
  mean = np.mean([np.mean(first), *map(np.mean, others)])
  row = few.evaluate(model, name='own', step=1).rows[0]
  assert row['value'] == pytest.approx(mean, abs=1e-12)
  assert row['count'] == 55


def test_xcopa_is_that_of_the_harness(test_data, model, folder, tmp_path):
  """Swahili, whose connectors are two words."""
  task = harness.xcopa_task(tmp_path, test_data, 'sw', limit=20)
  theirs = harness.load_theirs(*folder, bos=True, batch_size=8)
  expected, _ = harness.run(theirs, tmp_path, [task], num_fewshot=0)
  found = harness.own_equals(
    model, test_data, 'xcopa', ['sw'], expected, limit=20, bos=True
  )
  assert found['answers_differ'] == 0
  assert found['largest_logprob_difference'] < 1e-4


def write(path, pairs):
  lines.write(path, [{'good': a, 'bad': b, 'of': c} for a, b, c in pairs])
  return path


def test_a_file_of_ones_own_is_told_by_its_parts(model, tmp_path):
  texts = [
    (
      'Once upon a time there was a dog.',
      'Time a upon once was dog there.',
      'x',
    ),
    ('She was happy.', 'She were was happy happy.', 'x'),
    ('Zq xq xq zq.', 'Once upon a time.', 'y'),
  ]
  path = write(tmp_path / 'own.jsonl', texts)
  result = make(protocol='pairs@own', path=path, parts=('of',)).evaluate(
    model, name='own', step=1
  )
  # No space before the text, no end behind it.
  ids = model.tokenizer.encode(texts[1][0])
  whole = score.continuation([model.tokenizer.bos_id], ids, max_len=512)[0]
  (expected,) = model.score([whole])
  scores = result.predictions[1]['scores']
  assert scores[0] == pytest.approx(expected.logprob, abs=1e-4)
  rows = {r['name']: (r['value'], r['count']) for r in result.rows}
  assert rows == {
    'acc': (pytest.approx(2 / 3), 3),
    'acc/of/x': (1, 2),
    'acc/of/y': (0, 1),
  }


def test_a_model_that_knows_nothing_has_half(model, test_data):
  """Catches a tie for the right side: uniform logits would have all of it."""
  nothing = dataclasses.replace(
    model, params=jax.tree.map(jnp.zeros_like, model.params)
  )
  text = (test_data / 'text_ntrex' / 'newstest2019-src.eng.txt').read_text()
  made = make(protocol='pairs@swap', texts={'': text.split('\n')}, limit=30)
  result = made.evaluate(nothing, name='own', step=1)
  row = result.rows[0]
  # Sides of other lengths are no ties.
  assert row['num_ties'] > 15 and 'equal scores' in row['warning']
  right = [
    p['acc'] for p in made.evaluate(nothing, name='o', step=1).predictions
  ]
  assert right.count(0.5) == row['num_ties']
  right = [p['acc'] for p in result.predictions]
  assert right.count(0.5) == row['num_ties']
  knows = made.evaluate(model, name='own', step=1).rows[0]
  assert knows['num_ties'] == 0 and 'warning' not in knows


def test_what_a_protocol_does_not_take_is_refused(tmp_path):
  with pytest.raises(ValueError, match="'pairs@none' is unknown; take one of"):
    make(protocol='pairs@none')
  with pytest.raises(ValueError, match='name two fields'):
    make(protocol='pairs@own', path=tmp_path, sides=('a', 'a'))
  with pytest.raises(ValueError, match='limit=-1 is below 0'):
    make(limit=-1)
  assert make(protocol='pairs@own') is make(protocol='pairs@swap') is None
