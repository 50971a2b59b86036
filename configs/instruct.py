"""What the instruction configs share: sizes, templates, published recipes.

The paper states no settings for instruction tuning. `RECIPES` are those that
its neighbours published; each names its source. They differ in batch, length,
epochs and rate, so results under two of them do not compare.

Their batch counts examples; here the same number counts rows, each of several
examples, packed. So an epoch has fewer updates than theirs, of more examples
each, at the same rate: a run says how many examples a step has. For as many
updates as theirs lower `data.batch_size`.
"""

from lbe.configs import common


def alpaca(config):
  """tatsu-lab/stanford_alpaca, LLaMA-7B, all weights."""
  config.optim.peak_lr = 2e-5
  config.optim.weight_decay = 0.0
  config.optim.warmup_fraction = 0.03
  config.optim.final_fraction = 0.0
  config.data.batch_size, config.data.seq_len = 128, 512
  config.budget.epochs = 3.0


def belle(config):
  """LianjiaTech/BELLE, train/scripts/run_sft.sh, all weights."""
  config.optim.peak_lr = 8e-6
  config.optim.weight_decay = 1e-5
  config.optim.warmup_fraction = 0.05
  config.optim.final_fraction = 0.0
  config.data.batch_size, config.data.seq_len = 64, 1024
  config.budget.epochs = 2.0


def belle_lora(config):
  """LianjiaTech/BELLE, LoRA on all linear weights."""
  config.optim.peak_lr = 3e-4
  config.optim.weight_decay = 1e-5
  config.optim.warmup_fraction = 0.01
  config.optim.final_fraction = 0.0
  config.data.batch_size, config.data.seq_len = 8, 1024
  config.budget.epochs = 10.0
  common.adapt(config)
  config.lora.update(rank=16, alpha=32.0, dropout=0.05)


def bactrian_x(config):
  """mbzuai-nlp/bactrian-x, LLaMA: LoRA on q, k, v, o."""
  config.optim.peak_lr = 3e-4
  config.optim.weight_decay = 0.0
  # Alpaca's share. Its own 200 steps are 0.098 of the 2,032 that 4 epochs of
  # 65,017 examples take by 128.
  config.optim.warmup_fraction = 0.03
  config.optim.schedule = 'linear'
  config.optim.final_fraction = 0.0
  config.data.batch_size, config.data.seq_len = 128, 768
  config.budget.epochs = 4.0
  common.adapt(config, params='layers/(q|k|v|o)_.*')
  config.lora.update(rank=64, alpha=16.0, dropout=0.05)


def chinese_alpaca(config):
  """ymcui/Chinese-LLaMA-Alpaca 7B: LoRA, embedding and head whole."""
  config.optim.peak_lr = 1e-4
  config.optim.weight_decay = 0.0
  config.optim.warmup_fraction = 0.03
  config.optim.final_fraction = 0.0
  config.data.batch_size, config.data.seq_len = 512, 512
  config.budget.epochs = 1.0
  common.adapt(config, also='all')
  config.lora.update(rank=8, alpha=32.0, dropout=0.05)


RECIPES = {
  'alpaca': alpaca,
  'belle': belle,
  'belle_lora': belle_lora,
  'bactrian_x': bactrian_x,
  'chinese_alpaca': chinese_alpaca,
}


def base(recipe):
  """A config with a recipe's settings; ValueError for an unknown one."""
  if recipe not in RECIPES:
    raise ValueError(
      f'recipe {recipe!r} is unknown; take one of {", ".join(RECIPES)}.'
    )
  config = common.base()
  config.optim.b2 = 0.999  # of torch's AdamW, which all of them took
  RECIPES[recipe](config)
  config.execution.remat = 'full'
  config.checkpoint.every = 200
  config.export_hf = True
  return config


def source(template, **changes):
  """Conversations; what cannot be read or does not fit is counted."""
  return common.source(
    **{
      'template': template,
      'too_long': 'cut_prompt',
      'on_bad_record': 'skip',
      **changes,
    }
  )
