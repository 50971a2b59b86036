"""A bilingual toy, from nothing to a Hugging Face folder, in minutes on a CPU.

  bash launch/local.sh

Trains a tokenizer and a tiny LLaMA on the English and Chinese sample that
comes with the package, scores both languages while it trains, writes a few
lines, and exports. What it writes is babble; that every step works is the
point.
"""

import importlib.resources
import os

from lbe.configs import common

SAMPLE = os.fspath(importlib.resources.files('lbe') / 'data' / 'sample')


def get_config():
  config = common.base()
  config.tokenizer = 'train'
  config.tokenizer_vocab_size = 2000
  config.model.update(
    dim=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=352,
    max_positions=256,
    tied=True,
  )
  config.execution.compute_dtype = 'float32'
  config.execution.scan = False
  for name in ('en', 'zh'):
    config.data.sources[name] = common.source(
      path=os.path.join(SAMPLE, f'{name}.txt'),
      proportion=0.5,
      holdout=0.1,
    )
    config.evals[name] = common.perplexity(source=name, every=50)
  config.data.seq_len = 128
  config.data.batch_size = 16
  config.budget.steps = 150
  config.optim.peak_lr = 3e-3
  config.eval_batch_size = 16
  config.checkpoint.every = 50
  config.export_hf = True
  config.sample_prompts = ('The', '今天')
  config.sample_max_new_tokens = 40
  return config
