"""Sources, budget and loader that a config asks for."""

import pytest

from lbe.assemble import data
from lbe.vocab import tokenizers

import tiny


def test_proportions_must_sum_to_one(tmp_path):
  """Shares that were renormalised silently would hide a typo."""
  config = tiny.config(tmp_path, a=dict(proportion=0.5), b=dict(proportion=0.6))
  with pytest.raises(ValueError, match='sum to 1.1'):
    data.make_sources(config)


def test_a_negative_proportion_is_refused(tmp_path):
  """-0.2 and 1.2 sum to one."""
  config = tiny.config(
    tmp_path, a=dict(proportion=-0.2), b=dict(proportion=1.2)
  )
  with pytest.raises(ValueError, match='a.proportion=-0.2 is negative'):
    data.make_sources(config)


def test_exactly_one_budget_is_asked_for(tmp_path):
  """Two budgets would leave it open which one ends the run."""
  config = tiny.config(tmp_path, a={})
  config.budget.tokens = 1000
  with pytest.raises(ValueError, match='set exactly one of'):
    data.count_steps(config, {}, None)


def test_budgets_in_text_count_the_source_they_name(tmp_path):
  """Half the epochs of a source with half the share take as many steps."""
  config = tiny.config(
    tmp_path, a=dict(proportion=0.25), b=dict(proportion=0.75)
  )
  tokenizer = tokenizers.load('bytes')
  prepared = data.prepare(config, tokenizer, tmp_path)
  loader = data.make_loader(config, prepared, tokenizer)
  num_tokens = prepared['a'].train.num_tokens
  config.budget.steps = 0
  config.budget.update(epochs=2.0, of='a')
  steps = -(-num_tokens * 2 * 4 // (32 * 4))
  assert data.count_steps(config, prepared, loader) == steps
  config.budget.update(epochs=0.0, documents=40)
  assert data.count_steps(config, prepared, loader) == steps
  config.budget.update(documents=0, bytes=2 * prepared['a'].train.num_bytes)
  assert data.count_steps(config, prepared, loader) == steps


def test_a_source_that_runs_dry_is_refused(tmp_path):
  """A small source with a large share would be seen over and over."""
  config = tiny.config(tmp_path, a={'proportion': 0.5}, b={'proportion': 0.5})
  config.data.sources.b.max_epochs = 2.5
  prepared = data.prepare(config, tokenizers.load('bytes'), tmp_path)
  loader = data.make_loader(config, prepared, tokenizers.load('bytes'))
  few = next(n for n in range(1, 999) if loader.epochs(n)['b'] > 2.4)
  data.check_epochs(config, loader, few)
  many = next(n for n in range(1, 999) if loader.epochs(n)['b'] > 2.6)
  with pytest.raises(ValueError, match='sources.b would be seen 2.6.*runs dry'):
    data.check_epochs(config, loader, many)
  config.data.sources.b.max_epochs = 0.0
  data.check_epochs(config, loader, many)
