"""Evaluators that a config asks for."""

import json

import pytest

from lbe.assemble import data
from lbe.assemble import evaluators
from lbe.configs import common
from lbe.vocab import tokenizers

import tiny


def test_an_evaluator_needs_texts(tmp_path):
  """An evaluator over nothing would report nothing, silently."""
  config = tiny.config(tmp_path, a={})
  prepared = data.prepare(config, tokenizers.load('bytes'), tmp_path)
  config.evals.x = common.perplexity(source='b')
  with pytest.raises(ValueError, match="source='b' is no source"):
    evaluators.make(config, prepared, None, max_positions=64)
  config.evals.x = common.perplexity(source='a')
  with pytest.raises(ValueError, match='set data.sources.a.holdout'):
    evaluators.make(config, prepared, None, max_positions=64)
  config.data.sources.a.holdout = 1e-6  # it said to set what was set
  small = data.prepare(config, tokenizers.load('bytes'), tmp_path)
  with pytest.raises(
    ValueError, match=r'none of its \d+ fell .*holdout=1e-06; take a larger'
  ):
    evaluators.make(config, small, None, max_positions=64)
  config.evals.x = common.perplexity(source='a', path='b.txt')
  with pytest.raises(ValueError, match='clear one of them'):
    evaluators.make(config, prepared, None, max_positions=64)
  config.evals.x = common.perplexity()
  assert evaluators.make(config, prepared, None, max_positions=64) == []


def test_a_canary_is_checked_before_anything_is_compiled(tmp_path):
  """And made of the pieces of the base, which alone knows all of them."""
  config = tiny.config(tmp_path, a={})
  prepared = data.prepare(config, tokenizers.load('bytes'), tmp_path)
  config.evals.x = common.in_context()
  told = 'evals.x: length=64, but the model has 32 positions; take length=32'
  with pytest.raises(ValueError, match=told):
    evaluators.make(
      config, prepared, tokenizers.load('bytes'), max_positions=32
    )
  with pytest.raises(ValueError, match='evals.x: .* of the first 9 of the tok'):
    evaluators.make(
      config, prepared, tokenizers.load('bytes'), max_positions=64, num_old=9
    )


def test_conversations_of_which_nothing_is_scored_are_refused(tmp_path):
  """The run ended in a division by zero, after its last step."""
  config = tiny.config(tmp_path, a=dict(holdout=0.5, template='plain'))
  path = tmp_path / 'a.jsonl'
  turn = '{{"role": "{}", "content": "{}", "weight": 0}}'
  talks = (
    f'{{"messages": [{turn.format("user", i)}, {turn.format("gpt", i)}]}}\n'
    for i in range(20)
  )
  path.write_text(''.join(talks))
  config.data.sources.a.path = str(path)
  prepared = data.prepare(config, tokenizers.load('bytes'), tmp_path)
  config.evals.x = common.perplexity(source='a', limit=2)
  with pytest.raises(ValueError, match='evals.x: it scores 2 held-out conv'):
    evaluators.make(config, prepared, None, max_positions=64)


def test_conversations_of_which_nothing_is_learnt_are_not_scored(tmp_path):
  """One of them ended the evaluation, and the run before its first step."""
  config = tiny.config(tmp_path, a=dict(holdout=0.5, template='plain'))
  path = tmp_path / 'talks.jsonl'
  path.write_text(
    ''.join(
      json.dumps(
        {
          'messages': [
            {'role': 'user', 'content': f'{i}?'},
            {'role': 'assistant', 'content': f'{i}!', 'weight': i % 2},
          ]
        }
      )
      + '\n'
      for i in range(20)
    )
  )
  config.data.sources.a.path = str(path)
  tokenizer = tokenizers.load('bytes')
  prepared = data.prepare(config, tokenizer, tmp_path)
  config.evals.x = common.perplexity(source='a')
  (made,) = evaluators.make(config, prepared, tokenizer, max_positions=64)
  num_held_out = prepared['a'].heldout.num_documents
  assert 0 < len(made.task.documents) < num_held_out
  assert len(made.task.names) == len(made.task.documents)
  assert all(weights[1:].any() for _, weights in made.task.documents)


@pytest.mark.parametrize('kind', ['path', 'heldout', 'conversations'])
def test_a_document_has_one_name_in_every_run(tmp_path, kind):
  """By its place it would be another document under another seed."""
  config = tiny.config(tmp_path, a=dict(holdout=0.5))
  config.evals.x = common.perplexity(source='a')
  if kind == 'path':
    config.evals.x.update(source='', path=config.data.sources.a.path)
  if kind == 'conversations':
    path = tmp_path / 'a.jsonl'
    path.write_text(
      ''.join(
        f'{{"instruction": "{i}?", "output": "{i}!"}}\n' for i in range(20)
      )
    )
    config.data.sources.a.update(path=str(path), template='plain')

  def named(tokenizer, **changes):
    config.update(changes)
    prepared = data.prepare(config, tokenizer, tmp_path)
    (evaluator,) = evaluators.make(
      config, prepared, tokenizer, max_positions=64
    )
    return evaluator.task.names

  first = named(tokenizers.load('bytes'))
  assert len(set(first)) == len(first) > 3
  config.evals.x.limit = 2
  few = named(tokenizers.load('bytes'))
  assert few == first[:2]
  # The seed of batches and weights takes no other documents.
  config.data.seed = 0
  assert named(_Other(), seed=5) == few
  config.data.seed = None
  assert named(_Other()) != few
  config.data.seed = 5
  config.seed = 0
  assert named(_Other()) == named(_Other(), seed=5) != few
  config.evals.x.limit = 0
  assert sorted(named(_Other())) == sorted(first) and named(_Other()) != first


class _Other(tokenizers.Bytes):
  """Another tokenizer, of other ids."""

  fingerprint = 'other'
  bos_id, eos_id = 2, 1
