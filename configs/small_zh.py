"""Chinese pretraining of any small Hugging Face LLaMA: the real job, small.

  python -m lbe.train --config=configs/small_zh.py --workdir=runs/small_zh \
    --config.init_from=HF_DIR --config.data.sources.zh.path=ZH_FOLDER \
    --config.data.sources.en.path=EN_FOLDER

`configs/small_zh.py:replay` mixes in 20% English, `:no_replay` (the default)
trains on Chinese alone. Where LBE_TEST_DATA names the folder of test data,
the model and the texts are taken from there unless they are given.

Forgetting is measured best on what the base model knows best: texts that it
wrote itself, before training. `python -m lbe.generate --model=HF_DIR
--num_samples=500 --temperature=1 --max_new_tokens=511 --output=own.jsonl`
writes some, `--config.evals.own.path=own.jsonl` scores them.
"""

import os

from lbe.configs import common


def get_config(variant='no_replay'):
  if variant not in ('replay', 'no_replay'):
    raise ValueError(
      f'small_zh.py:{variant} is unknown; take :replay or :no_replay.'
    )
  data = os.environ.get('LBE_TEST_DATA', '')
  config = common.base()
  if data:
    config.init_from = os.path.join(data, 'ckpt_stories260K', 'hf')
  config.data.sources.zh = common.source(
    path=os.path.join(data, 'text_zh_niutrans_modern') if data else '',
    kind='text',
    holdout=0.01,
  )

  def english(split):
    path = os.path.join(data, 'text_en_wikitext2', f'wiki.{split}.raw.txt')
    return dict(path=path if data else '', cut='heading')

  if variant == 'replay':
    config.data.sources.zh.proportion = 0.8
    config.data.sources.en = common.source(proportion=0.2, **english('test'))
  config.evals.zh = common.perplexity(source='zh', every=100, limit=200)
  config.evals.en = common.perplexity(
    **english('validation'), every=100, limit=20
  )
  # Whether two words, or characters, that changed places are seen.
  pairs = dict(limit=200, every=100, at_start=True)
  config.evals.zh_swap = common.pairs(source='zh', **pairs)
  config.evals.en_swap = common.pairs(**english('validation'), **pairs)
  config.evals.in_context = common.in_context(every=10)
  config.evals.own = common.perplexity(path='', every=100)
  if data:
    config.forgetting.source = ('en/bits_per_byte',)
    config.forgetting.target = ('zh/bits_per_byte',)
  config.execution.compute_dtype = 'float32'
  config.execution.scan = False
  config.data.seq_len = 256
  config.data.batch_size = 16
  config.budget.steps = 300
  config.optim.peak_lr = 1e-3
  config.optim.weight_decay = 0.01
  config.checkpoint.every = 100
  return config
