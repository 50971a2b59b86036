r"""LLaMA-7B tuned on Chinese instructions, 1K, 5K or 950K as in the paper.

`:SIZE` or `:SIZE,RECIPE`, as `:5k` or `:950k,belle_lora`. Sizes are nested:
the 1K lie inside the 5K, in one seeded order. Recipes are those of
configs/instruct.py; `belle` is the default.

  python -m lbe.train --config=configs/zh_instruct.py:5k --workdir=DIR \
    --config.init_from=CKPT_OR_HF --config.data.sources.zh.path=belle.jsonl

The paper removed duplicates and poor examples from 1.5M to get 950K; its rules
are not known.
"""

from lbe.configs import common
from lbe.configs import instruct

SIZES = {'1k': 1_000, '5k': 5_000, '950k': 950_000, 'all': 0}


def get_config(choice='5k'):
  size, _, recipe = choice.partition(',')
  if size not in SIZES:
    raise ValueError(
      f'zh_instruct.py:{size} is unknown; take one of '
      f'{", ".join(":" + name for name in SIZES)}.'
    )
  config = instruct.base(recipe or 'belle')
  config.data.sources.zh = instruct.source(
    'belle', path='', holdout=0.002, max_documents=SIZES[size]
  )
  config.evals.zh = common.perplexity(source='zh', every=200, limit=500)
  config.budget.of = 'zh'
  return config
