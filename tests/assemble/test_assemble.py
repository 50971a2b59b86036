"""What a config may ask for, and what is said where it may not."""

import json

import pytest

from configs import common
from lbe.assemble import data
from lbe.assemble import evaluators
from lbe.assemble import model as model_lib
from lbe.assemble import step
from lbe.convert import stored
from lbe.mesh import sharding
from lbe.run import identity
from lbe.vocab import tokenizers


def tiny(tmp_path, **sources):
  config = common.base()
  config.tokenizer = 'bytes'
  config.model.update(dim=32, num_layers=2, num_heads=4, mlp_dim=64)
  config.data.seq_len = 32
  config.data.batch_size = 4
  config.budget.steps = 2
  for name, fields in sources.items():
    path = tmp_path / f'{name}.txt'
    path.write_text('\n\n'.join(f'{name} {i} ' * 20 for i in range(20)))
    config.data.sources[name] = common.source(path=str(path), **fields)
  return config


def test_proportions_must_sum_to_one(tmp_path):
  """Shares that were renormalised silently would hide a typo."""
  config = tiny(tmp_path, a=dict(proportion=0.5), b=dict(proportion=0.6))
  with pytest.raises(ValueError, match='sum to 1.1'):
    data.make_sources(config)


def test_a_negative_proportion_is_refused(tmp_path):
  """-0.2 and 1.2 sum to one."""
  config = tiny(tmp_path, a=dict(proportion=-0.2), b=dict(proportion=1.2))
  with pytest.raises(ValueError, match='a.proportion=-0.2 is negative'):
    data.make_sources(config)


def test_exactly_one_budget_is_asked_for(tmp_path):
  """Two budgets would leave it open which one ends the run."""
  config = tiny(tmp_path, a={})
  config.budget.tokens = 1000
  with pytest.raises(ValueError, match='set exactly one of'):
    data.count_steps(config, {}, None)


def test_budgets_in_text_count_the_source_they_name(tmp_path):
  """Half the epochs of a source with half the share take as many steps."""
  config = tiny(tmp_path, a=dict(proportion=0.25), b=dict(proportion=0.75))
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
  config = tiny(tmp_path, a={'proportion': 0.5}, b={'proportion': 0.5})
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


def test_a_run_from_scratch_needs_a_tokenizer_and_a_shape(tmp_path):
  """Defaults of zero must not build an empty model."""
  config = tiny(tmp_path, a={})
  config.tokenizer = ''
  with pytest.raises(ValueError, match="'train'"):
    model_lib.make_tokenizer(config, None, tmp_path)
  config.model.dim = 0
  with pytest.raises(ValueError, match='model.dim=0'):
    model_lib.make_config(config, tokenizers.load('bytes'))
  config.model.preset = 'llama_8b'
  with pytest.raises(ValueError, match="'llama_8b' is unknown"):
    model_lib.make_config(config, tokenizers.load('bytes'))


def test_a_folder_that_is_no_model_is_refused(tmp_path):
  """A typo in a path must be said before data is tokenized."""
  with pytest.raises(ValueError, match='neither a checkpoint'):
    stored.open_model(str(tmp_path))


def test_what_decides_numbers_is_told_from_what_does_not(tmp_path):
  """A moved text is the same text; another rate is another run."""
  config = tiny(tmp_path, a={})
  old = json.loads(config.to_json_best_effort())
  config.mesh.data = 8
  config.data.sources.a.path = '/moved'
  config.data.sources.a.max_epochs = 4.0
  config.optim.peak_lr = 1.0
  config.execution.remat = 'full'
  config.execution.compute_dtype = 'float32'
  new = json.loads(config.to_json_best_effort())
  decisive, free = identity.differences(old, new)
  assert set(decisive) == {'optim.peak_lr', 'execution.compute_dtype'}
  assert set(free) == {
    'mesh.data',
    'data.sources.a.path',
    'data.sources.a.max_epochs',
    'execution.remat',
  }


def test_an_evaluator_needs_texts(tmp_path):
  """An evaluator over nothing would report nothing, silently."""
  config = tiny(tmp_path, a={})
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


def test_a_sequence_longer_than_the_positions_is_refused(tmp_path):
  """RoPE would extrapolate silently."""
  config = tiny(tmp_path, a={})
  config.data.seq_len = 4096
  model = model_lib.make_config(config, tokenizers.load('bytes'))
  mesh = sharding.make_mesh(dict(data=1, fsdp=-1, context=1, tensor=1))
  with pytest.raises(ValueError, match='seq_len=4096 is longer'):
    step.check_fit(config, model, mesh)
