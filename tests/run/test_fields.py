"""Numbers that no run can have are told with their names."""

import pytest

from lbe.configs import common
from lbe.run import fields

import tiny


def test_the_defaults_are_in_range(tmp_path):
  """Every block that a config can have."""
  config = tiny.config(tmp_path, a={})
  for name in (
    'perplexity',
    'multiple_choice',
    'exam',
    'lm_eval',
    'generation',
    'code_switching',
    'response_quality',
  ):
    config.evals[name] = getattr(common, name)()
  config.evals.local = common.response_quality(judge=common.local_judge())
  fields.check(config)


@pytest.mark.parametrize(
  'name, value, words',
  [
    ('model.dim', None, 'model.dim=None: a run has to know it'),
    ('log_every', 0, 'log_every=0 is below 1'),
    ('data.batch_size', 0, 'data.batch_size=0 is below 1'),
    ('data.batch_size', -8, 'data.batch_size=-8 is below 1'),
    ('data.seq_len', 0, 'data.seq_len=0 is below 1'),
    ('checkpoint.every', 0, 'checkpoint.every=0 is below 1'),
    ('checkpoint.keep', -1, 'checkpoint.keep=-1 is below 1'),
    ('num_microbatches', 0, 'num_microbatches=0 is below 1'),
    ('eval_batch_size', 0, 'eval_batch_size=0 is below 1'),
    ('vocab_multiple', 0, 'vocab_multiple=0 is below 1'),
    ('lora.rank', 0, 'lora.rank=0 is below 1'),
    ('seed', -1, 'seed=-1 is below 0'),
    ('budget.steps', -1, 'budget.steps=-1 is below 0'),
    ('data.num_workers', -1, 'data.num_workers=-1 is below 0'),
    ('optim.peak_lr', float('nan'), 'optim.peak_lr=nan is no number'),
    ('optim.eps', float('inf'), 'optim.eps=inf is no number'),
    ('optim.eps', 0.0, 'optim.eps=0.0 is divided by'),
    ('optim.b2', 1.5, 'optim.b2=1.5 is above 1'),
    ('optim.clip_norm', -1.0, 'optim.clip_norm=-1.0 is below 0'),
    ('data.sources.a.max_bytes', -1, 'data.sources.a.max_bytes=-1 is below 0'),
    ('data.sources.a.cleaning.shingle', 0, 'cleaning.shingle=0 is below 1'),
    ('evals.zh.every', -1, 'evals.zh.every=-1 is below 0'),
    ('evals.zh.limit', -1, 'evals.zh.limit=-1 is below 0'),
  ],
)
def test_a_number_that_no_run_can_have_is_told(name, value, words, tmp_path):
  """A division by zero in the loop, after hours of tokenizing."""
  config = tiny.config(tmp_path, a={})
  config.evals.zh = common.perplexity()
  config.update_from_flattened_dict({name: value})
  with pytest.raises(ValueError, match=words):
    fields.check(config)
