"""Scored texts that are trained on: of one source, of others, of evaluators."""

import itertools
import json
import random

import numpy as np
import pytest

from lbe.assemble import data
from lbe.configs import common
from lbe.data import order
from lbe.data import overlaps
from lbe.data import tokenized
from lbe.vocab import tokenizers

import tiny


def describe(config, folder):
  prepared = data.prepare(config, tokenizers.load('bytes'), folder)
  found = [tokenized.describe(p, name) for name, p in prepared.items()]
  return '\n'.join(found), prepared


def test_heldout_text_that_training_text_repeats_is_counted(tmp_path):
  """Fifty characters in a row count, forty-nine do not."""
  shared = ''.join(chr(0x4E00 + i) for i in range(60))
  config = tiny.config(tmp_path, a=dict(holdout=0.3))
  documents = [f'{i} ' + 'x' * i for i in range(20)]
  for length in (49, 50, 51):
    for k in itertools.count():
      # Until one of the two is held out and the other is not.
      pair = [f'{k}a{shared[:length]}b', f'{k}c{shared[:length]}d']
      held = order.is_heldout(
        np.array([order.text_hash(t) for t in pair], np.uint64), 0.3
      )
      if held[0] != held[1]:
        break
    path = tmp_path / f'{length}.txt'
    path.write_text('\n\n'.join(documents + pair))
    config.data.sources.a.path = str(path)
    told, prepared = describe(config, tmp_path)
    num = prepared['a'].shared['']['num']
    assert num == (length >= 50), length
    assert f' documents, {num} of them (' in told


def test_heldout_texts_are_sought_in_all_sources(tmp_path):
  """The same file as two sources: all that is held out of one is learnt."""
  config = tiny.config(
    tmp_path, a=dict(proportion=0.5, holdout=0.4), b=dict(proportion=0.5)
  )
  config.data.sources.b.path = config.data.sources.a.path
  told, prepared = describe(config, tmp_path)
  num = prepared['a'].heldout.num_documents
  assert num > 3
  assert f'held out of a: {num} documents, {num} of them (100.0%) share' in told
  assert f'{num} of b)' in told
  again, _ = describe(config, tmp_path)  # as it was kept
  assert again == told
  # A source that is not trained on gives nothing away.
  config.data.sources.a.proportion = 1.0
  config.data.sources.b.proportion = 0.0
  _, prepared = describe(config, tmp_path)
  assert 'b' not in prepared['a'].shared['']['with']


def test_short_texts_count_where_they_are_the_same(tmp_path):
  """A document of twenty characters cannot share fifty."""
  config = tiny.config(
    tmp_path, a=dict(proportion=0.5, holdout=0.4), b=dict(proportion=0.5)
  )
  for name in 'ab':
    path = tmp_path / f'short_{name}.txt'
    path.write_text('\n\n'.join(f'{i} {name * (i % 2)}' for i in range(40)))
    config.data.sources[name].path = str(path)
  _, prepared = describe(config, tmp_path)
  found = prepared['a'].shared['']
  same = [t for t in prepared['a'].heldout.texts() if 'a' not in t]
  assert found['num'] == len(same) and 0 < len(same) < found['of']


def test_conversations_share_what_is_said_not_how_it_is_written(tmp_path):
  """The names of fields alone are fifty characters in a row."""
  config = tiny.config(
    tmp_path, a=dict(proportion=0.5, holdout=0.4), b=dict(proportion=0.5)
  )
  said = [f'Say {i} ' + chr(0x4E00 + i) * 60 for i in range(30)]
  path = tmp_path / 'a.jsonl'
  path.write_text(
    '\n'.join(
      json.dumps(
        {
          'conversations': [
            {'from': 'human', 'value': 'What is it?'},
            {'from': 'gpt', 'value': text},
          ]
        }
      )
      for text in said
    )
  )
  config.data.seq_len = 512
  config.data.sources.a.update(path=str(path), template='plain')
  _, prepared = describe(config, tmp_path)
  assert prepared['a'].shared['']['num'] == 0
  (tmp_path / 'c.txt').write_text('\n\n'.join(said))
  config.data.sources.b.path = str(tmp_path / 'c.txt')
  _, prepared = describe(config, tmp_path)
  found = prepared['a'].shared['']
  assert found['num'] == found['of'] == found['with']['b'] > 3


@pytest.mark.parametrize('empty', ['instruction', 'output'])
def test_what_cleaning_leaves_out_is_not_looked_at(tmp_path, empty):
  """A record in which nothing stands stopped each start of such a run."""
  config = tiny.config(tmp_path, a=dict(holdout=0.4))
  path = tmp_path / 'a.jsonl'
  records = [
    {'instruction': f'Say {i}.', 'output': 'the same again ' * 5}
    for i in range(30)
  ]
  records[7][empty] = ''
  path.write_text('\n'.join(map(json.dumps, records)))
  config.data.seq_len = 512
  config.data.sources.a.update(path=str(path), template='alpaca')
  config.data.sources.a.cleaning.drop_empty = True
  _, prepared = describe(config, tmp_path)
  found = prepared['a'].shared['']
  assert found['num'] == found['of'] == prepared['a'].heldout.num_documents > 3


def test_a_text_that_is_scored_and_trained_on_is_told(tmp_path):
  """A perplexity of what was learnt by heart looks like a good model."""
  config = tiny.config(tmp_path, a={})
  config.evals.wiki = common.perplexity(path=config.data.sources.a.path)
  told, _ = describe(config, tmp_path)
  words = 'warning: of the 20 texts that evals.wiki scores, 20 of them (100.0%)'
  assert words in told and '(20 of a)' in told
  (tmp_path / 'other.txt').write_text('Another text. ' * 20)
  config.evals.wiki.path = str(tmp_path / 'other.txt')
  told, _ = describe(config, tmp_path)
  assert 'evals.wiki' not in told


def test_every_run_of_fifty_characters_is_found():
  """Against a search of all runs, at every place and of odd lengths."""
  rng = np.random.default_rng(0)
  letters = list('ab界\U00020000')
  base = ''.join(rng.choice(letters, 400))
  scored, training = [], []
  for i in range(60):
    start, length = rng.integers(0, 300), rng.integers(40, 60)
    part = base[start : start + length]
    scored.append(''.join(rng.choice(letters, i)) + part)
    start = rng.integers(0, 300)
    training.append(base[start : start + 55] + ''.join(rng.choice(letters, i)))
  size = overlaps.OVERLAP
  runs = {t[i : i + size] for t in training for i in range(len(t) - size + 1)}
  expected = {
    n
    for n, t in enumerate(scored)
    if any(t[i : i + size] in runs for i in range(len(t) - size + 1))
  }
  found = overlaps.find({'x': scored}, (('a', t) for t in training))
  assert found['x']['a'] == expected and 5 < len(expected) < 55


def test_what_is_found_is_what_a_search_finds(monkeypatch):
  """Runs of few characters, which stand at many places, a piece at a time."""
  monkeypatch.setattr(overlaps, '_PAIRS', 7)
  draw = random.Random(0)

  def some(alphabet, most):
    return ''.join(draw.choices(alphabet, k=draw.randrange(most)))

  def shared(text, training):
    if len(text) < 50:
      return text == training
    return any(text[i : i + 50] in training for i in range(len(text) - 49))

  num_found = 0
  for _ in range(40):
    base = some('ab', 300) + 'a' * draw.randrange(120)

    def text(base=base):
      start = draw.randrange(len(base) + 1)
      end = start + draw.randrange(120)
      return some('xyz', 30) + base[start:end] + some('xyz', 30)

    scored = {'e': [text() for _ in range(6)] + ['ab'], 'f': [text(), 'ab']}
    training = [(draw.choice('pq'), text()) for _ in range(8)] + [('p', 'ab')]
    found = overlaps.find(scored, training)
    for name, texts in scored.items():
      for source, numbers in found[name].items():
        assert numbers == {
          number
          for number, one in enumerate(texts)
          if any(shared(one, t) for where, t in training if where == source)
        }
        num_found += len(numbers)
  assert num_found > 100
