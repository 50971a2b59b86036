r"""Instruction tuning of any small LLaMA: the real job, small.

`:full` trains all weights, `:lora` adapters alone, `:lora_vocabulary` adapters
with embedding and head. English and Chinese Alpaca, 5,000 examples each.

  python -m lbe.train --config=configs/small_instruct.py:lora \
    --workdir=runs/small_instruct --config.init_from=HF_DIR \
    --config.data.sources.en.path=alpaca.json \
    --config.data.sources.zh.path=alpaca_zh/

Where LBE_TEST_DATA names the folder of test data, model and examples are taken
from there unless they are given.
"""

import os

from lbe.configs import common
from lbe.configs import instruct

VARIANTS = {'full': None, 'lora': 'nothing', 'lora_vocabulary': 'all'}


def get_config(variant='full'):
  if variant not in VARIANTS:
    raise ValueError(
      f'small_instruct.py:{variant} is unknown; take one of '
      f'{", ".join(":" + name for name in VARIANTS)}.'
    )
  data = os.environ.get('LBE_TEST_DATA', '')
  config = common.base()
  if data:
    config.init_from = os.path.join(data, 'ckpt_stories260K', 'hf')
  for name, folder in (('en', 'en_original'), ('zh', 'zh_translated')):
    config.data.sources[name] = instruct.source(
      'alpaca',
      path=os.path.join(data, 'sft_alpaca_en_zh', folder) if data else '',
      proportion=0.5,
      holdout=0.02,
      max_documents=5_000,
    )
    config.evals[name] = common.perplexity(source=name, limit=200)
  # Whether two words, or characters, that changed places are seen: what it knew
  # of its languages before.
  config.evals.swap = common.pairs(
    path=os.path.join(data, 'text_ntrex') if data else '',
    languages=('en', 'zh'),
    limit=200,
    at_start=True,
  )
  config.evals.in_context = common.in_context(every=10)
  config.data.seq_len, config.data.batch_size = 512, 16
  config.budget.epochs = 1.0
  config.execution.compute_dtype = 'float32'
  config.execution.scan = False
  config.optim.peak_lr = 1e-3
  config.optim.weight_decay = 0.0
  if VARIANTS[variant]:
    common.adapt(config, also=VARIANTS[variant])
    config.lora.update(rank=8, alpha=16.0)
  return config
