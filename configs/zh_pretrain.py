r"""LLaMA-7B further pretrained on Chinese, with English replay.

The paper's nested scales (arXiv 2401.01055, 3.1): `:10k`, `:100k` and `:1m`
documents of one seeded order, so that each lies inside the next; `:all` takes
everything. Chinese documents are counted; English replay comes on top as 20%
of the tokens (`--config.data.sources.en.proportion`, with zh's beside it).

A chip's name behind the scale (`:1m,v5p`) brings the settings that suit it,
of configs/hardware.py. One H200, 4 rows of 2,048 at a time (119 of 130 GiB by
`plan`):
  python -m lbe.train --config=configs/zh_pretrain.py:100k,h200 --workdir=DIR \
    --config.init_from=llama-7b-hf --config.data.sources.zh.path=zh/ \
    --config.data.sources.en.path=en/ --config.num_microbatches=32
A TPU host with eight chips (fsdp over all of them is the default):
  python -m lbe.train --config=configs/zh_pretrain.py:1m,v6e --workdir=DIR ...
What it will take on a slice, or on h200:1, without one (docs/plans.md):
  python -m lbe.plan --config=configs/zh_pretrain.py:1m,v5p \
    --config.model.preset=llama_7b --topology=v5p:4x4x4
A TPU pod, the same command on every worker:
  gcloud compute tpus tpu-vm ssh NAME --worker=all --command='python -m \
    lbe.train --distributed --config=configs/zh_pretrain.py:1m --workdir=DIR'

The paper states no optimisation settings. `full` (the default preset) takes
a cautious rate for full training; its sources are noted beside the numbers.
"""

from lbe.configs import common
from lbe.configs import hardware

SCALES = {'10k': 10_000, '100k': 100_000, '1m': 1_000_000, 'all': 0}


def get_config(choice='1m', *, also='nothing'):
  scale, _, chip = choice.partition(',')
  if scale not in SCALES:
    raise ValueError(
      f'zh_pretrain.py:{scale} is unknown; take one of '
      f'{", ".join(":" + name for name in SCALES)}.'
    )
  return hardware.on(of('zh', documents=SCALES[scale]), chip, also=also)


def of(language, *, documents):
  """The run in a language, by its code, of so many documents; 0 is all."""
  config = common.base()
  config.data.sources[language] = common.source(
    path='',
    proportion=0.8,
    holdout=0.001,
    max_documents=documents,
  )
  config.data.sources.en = common.source(
    path='',
    proportion=0.2,
    holdout=0.001,
  )
  for name in (language, 'en'):
    config.evals[name] = common.perplexity(
      source=name,
      every=200,
      limit=1000,
    )
  config.data.seq_len = 2048  # LLaMA-1's context
  config.data.batch_size = 128  # 262,144 tokens
  # Each document of the language once.
  config.budget.epochs = 1.0
  config.budget.of = language
  config.execution.remat = 'full'
  # LLaMA-1's AdamW and clipping (arXiv 2302.13971, section 2.2) at a tenth of
  # its rate, as the run starts from trained weights.
  config.optim.peak_lr = 3e-5
  config.optim.b2 = 0.95
  config.optim.weight_decay = 0.1
  config.optim.clip_norm = 1.0
  config.checkpoint.every = 200
  config.export_hf = True
  return config
