"""What suits a chip: remat, layers scanned or not, compiler options.

A config that takes a chip's name applies it last, and the command line goes
over it:

  --config=configs/zh_pretrain.py:1m,v5p

Mesh and microbatches depend on how many chips there are: fsdp over all of them
is the default, and `python -m lbe.plan --search` finds what is faster. XLA's
options for a chip stand here and nowhere else. They are those of published
recipes (AI-Hypercomputer/tpu-recipes and JAX-Toolbox's GPU_performance.md);
LOG.md says what has been measured here.
"""

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
  # float32 is as fast as bfloat16 or faster, and unrolled layers are.
  'cpu': dict(compute_dtype='float32', scan=False),
}


def on(config, chip):
  """The config with what suits the chip; '' leaves it as it is."""
  if not chip:
    return config
  if chip not in CHIPS:
    raise ValueError(
      f'{chip!r} is no chip with settings; take one of {", ".join(CHIPS)}.'
    )
  suits = dict(CHIPS[chip])
  config.compiler_options = suits.pop('options', ())
  if 'first_moment_dtype' in suits:
    config.optim.first_moment_dtype = suits.pop('first_moment_dtype')
  config.execution.update(suits)
  return config
