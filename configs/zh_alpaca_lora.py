r"""Chinese-Alpaca's recipe: LoRA on LLaMA-7B with an extended vocabulary.

Embedding and head are trained whole beside adapters of rank 8 on all linear
weights: 6.22% of the parameters with 49,953 pieces.

  python -m lbe.train --config=configs/zh_alpaca_lora.py --workdir=DIR \
    --config.init_from=CKPT_OR_HF --config.data.sources.zh.path=alpaca_zh.json

`:en` has English beside it, a fifth of the tokens; it asks for
--config.data.sources.en.path=FILE as well.
"""

from lbe.configs import common
from lbe.configs import instruct

PROPORTIONS = {'': {'zh': 1.0}, 'en': {'zh': 0.8, 'en': 0.2}}


def get_config(choice=''):
  if choice not in PROPORTIONS:
    raise ValueError(
      f'zh_alpaca_lora.py:{choice} is unknown; take :en, or nothing for '
      'Chinese alone.'
    )
  config = instruct.base('chinese_alpaca')
  for name, proportion in PROPORTIONS[choice].items():
    config.data.sources[name] = instruct.source(
      'chinese_alpaca_1', path='', holdout=0.002, proportion=proportion
    )
  config.evals.zh = common.perplexity(source='zh', every=200, limit=500)
  config.budget.of = 'zh'
  return config
