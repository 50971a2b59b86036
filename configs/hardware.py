"""What suits a chip: remat, layers scanned or not, compiler options.

A config that takes a chip's name applies it last, and the command line goes
over it:

  --config=configs/zh_pretrain.py:1m,v5p

Mesh and microbatches depend on how many chips there are: fsdp over all of them
is the default, and `python -m lbe.plan --search` finds what is faster; for a 7B
on GPUs PRESETS has them, as in zh_pretrain.py:1m,h200-7b. XLA's
options for a chip stand here and nowhere else. They are those of published
recipes (AI-Hypercomputer/tpu-recipes and JAX-Toolbox's GPU_performance.md);
LOG.md says what has been measured here.
"""

from lbe.configs import common

CHIPS = {
  # Little memory beside much speed: everything is made again.
  'v4': dict(remat='full'),
  'v5e': dict(remat='full'),
  'v6e': dict(remat='full', options=('xla_tpu_scoped_vmem_limit_kib=98304',)),
  # Room for products of the layers: only norms and SiLU are made again.
  'v5p': dict(remat='dots_attention'),
  'tpu7x': dict(
    remat='dots_attention', options=('xla_tpu_scoped_vmem_limit_kib=65536',)
  ),
  # Layers scanned: 32 unrolled ones of a 7B compile for longer than 15 minutes.
  'h100': dict(
    remat='attention',
    options=('xla_gpu_enable_latency_hiding_scheduler=True',),
  ),
  # One of them holds a 7B in training if the first moment is bfloat16.
  'h200': dict(
    remat='attention',
    first_moment_dtype='bfloat16',
    options=('xla_gpu_enable_latency_hiding_scheduler=True',),
  ),
  # float32 is as fast as bfloat16 or faster (with AMX a sixth slower), and
  # unrolled layers are faster than scanned ones.
  'cpu': dict(compute_dtype='float32', scan=False),
}

# A 7B with 128 rows of 2,048 on so many GPUs, chosen by `plan`: `gib` is the
# peak that the compiler states, of the 92% that programs take (72.8 of an H100,
# 129.7 of an H200).
PRESETS = {
  'h100-7b-lora': dict(
    chip='h100',
    lora=True,
    frozen_dtype='bfloat16',
    num_microbatches=32,
    remat='dots_attention',
    gib=57.5,
  ),
  # Adafactor: AdamW's moments have no room, in bfloat16 neither.
  'h100-7b': dict(chip='h100', kind='adafactor', num_microbatches=32, gib=57.7),
  'h200-7b': dict(
    chip='h200', num_microbatches=32, remat='dots_attention', gib=113.9
  ),
  'h100x8-7b': dict(
    chip='h100', num_microbatches=4, remat='dots_attention', gib=40.2
  ),
}


def on(config, name, *, also='nothing'):
  """The config with what suits a chip or is a preset; '' leaves it as it is.

  A preset's adapters come where the config has none of its own; `also` is that
  of common.adapt.
  """
  if not name:
    return config
  if name not in CHIPS and name not in PRESETS:
    raise ValueError(
      f'{name!r} is no chip with settings; take one of '
      f'{", ".join([*CHIPS, *PRESETS])}.'
    )
  preset = dict(PRESETS.get(name, {}))
  suits = CHIPS[preset.pop('chip', name)] | preset
  suits.pop('gib', None)
  config.compiler_options = suits.pop('options', ())
  config.num_microbatches = suits.pop(
    'num_microbatches', config.num_microbatches
  )
  if suits.pop('lora', False) and not config.lora.params:
    common.adapt(config, also=also)
  for field in ('kind', 'first_moment_dtype', 'frozen_dtype'):
    if field in suits:
      config.optim[field] = suits.pop(field)
  config.execution.update(suits)
  return config
