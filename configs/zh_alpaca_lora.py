r"""Chinese-Alpaca's recipe: LoRA on LLaMA-7B with an extended vocabulary.

Embedding and head are trained whole beside adapters of rank 8 on all linear
weights: 6.22% of the parameters with 49,953 pieces.

  python -m lbe.train --config=configs/zh_alpaca_lora.py --workdir=DIR \
    --config.init_from=CKPT_OR_HF --config.data.sources.zh.path=alpaca_zh.json

With English beside it: --config.data.sources.zh.proportion=0.8
--config.data.sources.en.proportion=0.2 --config.data.sources.en.path=FILE.
"""

from lbe.configs import common
from lbe.configs import instruct


def get_config():
  config = instruct.base('chinese_alpaca')
  for name, proportion in (('zh', 1.0), ('en', 0.0)):
    config.data.sources[name] = instruct.source(
      'chinese_alpaca_1', path='', holdout=0.002, proportion=proportion
    )
  config.evals.zh = common.perplexity(source='zh', every=200, limit=500)
  config.budget.of = 'zh'
  return config
