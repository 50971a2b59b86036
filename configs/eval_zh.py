"""Perplexity and bits per byte of a stored model on Chinese and English.

  python -m lbe.evaluate --config=configs/eval_zh.py --workdir=runs/eval \
    --config.init_from=CKPT_OR_HF --config.evals.zh.path=zh.txt \
    --config.evals.en.path=en.txt
"""

from configs import common


def get_config():
  config = common.base()
  config.evals.zh = common.perplexity(path='')
  config.evals.en = common.perplexity(path='')
  config.execution.compute_dtype = 'float32'
  return config
