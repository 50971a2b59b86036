"""Evaluators that a config asks for."""

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
    evaluators.make(config, prepared, None)
  config.evals.x = common.perplexity(source='a')
  with pytest.raises(ValueError, match='set data.sources.a.holdout'):
    evaluators.make(config, prepared, None)
  config.evals.x = common.perplexity(source='a', path='b.txt')
  with pytest.raises(ValueError, match='clear one of them'):
    evaluators.make(config, prepared, None)
  config.evals.x = common.perplexity()
  assert evaluators.make(config, prepared, None) == []
