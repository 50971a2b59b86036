"""A stored model on Chinese and English: knowledge, perplexity.

  python -m lbe.evaluate --config=configs/eval_zh.py --workdir=runs/eval \
    --config.init_from=CKPT_OR_HF \
    --config.evals.ceval.path=ceval/ --config.evals.mmlu.path=mmlu/ \
    --config.evals.agieval.path=agieval/ --config.evals.gaokao.path=gaokao/ \
    --config.evals.zh.path=zh.txt --config.evals.en.path=en.txt

What is given no path is left out. C-Eval and MMLU with five demonstrations,
AGIEval and GAOKAO-Bench with none, as the paper has them, by the likelihood of
the letters, which a base model can give; `common.exam` has the official
protocols, which read the answer from a text. The same entries work in a
training config, where `every` and `at_start` set when they run.
"""

from lbe.configs import common


def get_config():
  config = common.base()
  config.evals.ceval = common.multiple_choice(protocol='ceval@official')
  config.evals.mmlu = common.multiple_choice(protocol='mmlu@hendrycks')
  config.evals.agieval = common.multiple_choice(protocol='agieval@loglik')
  config.evals.gaokao = common.multiple_choice(protocol='gaokao@loglik')
  config.evals.zh = common.perplexity(path='')
  config.evals.en = common.perplexity(path='')
  config.execution.compute_dtype = 'float32'
  return config
