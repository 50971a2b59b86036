"""Plans of real sizes on TPU slices and GPUs, compiled on this machine's CPU.

  PYTHONPATH=. python benchmarks/plan_sweep.py          # about an hour
  PYTHONPATH=. python benchmarks/plan_sweep.py --only=7b_v5p

Each is the program that a user types (python -m lbe.plan), in a process of
its own; bf16 products, float32 weights, gradients and AdamW moments, splash
attention, layers scanned, everything made again (remat 'full'). Beside ours
stands MaxText 0.2.5's peak where it was measured: its own ahead-of-time
compilation of the same shapes (fsdp over all chips, splash, remat 'full', the
same dtypes) under jax 0.12.0.1 and libtpu 0.0.52. On GPUs the settings are
those of configs/hardware.py.
"""

import json
import subprocess
import sys
import tempfile

from absl import app
from absl import flags

from benchmarks import record

_ONLY = flags.DEFINE_string('only', '', 'Cases whose names begin so.')

_MICROBATCHES = '--config.num_microbatches=%d'
# Name: preset, topology (and behind a comma a preset of configs/hardware.py),
# tokens of a row, rows of a chip, more flags, and the peak of MaxText in GiB.
CASES = {
  '7b_v5p': ('llama2_7b', 'v5p:4x4x4', 2048, 4, (), 5.525),
  '13b_v5p': ('llama2_13b', 'v5p:4x4x4', 2048, 4, (), 9.143),
  '70b_v5p_512': ('llama2_70b', 'v5p:8x8x8', 4096, 2, (), 17.017),
  '8b_v6e': ('llama31_8b', 'v6e:16x16', 8192, 1, (), 7.493),
  '70b_v5p_256': ('llama2_70b', 'v5p:8x8x4', 4096, 2, (), None),
  '70b_two_slices': (
    'llama2_70b',
    '2*v5p:4x4x4',
    4096,
    2,
    ('--config.mesh.data=2',),
    None,
  ),
  '7b_v4': ('llama_7b', 'v4:4x4x4', 2048, 4, (), None),
  '13b_v4': ('llama_13b', 'v4:4x4x4', 2048, 4, (), None),
  '7b_v5e': ('llama_7b', 'v5e:16x16', 2048, 4, (), None),
  '13b_v5e': ('llama_13b', 'v5e:16x16', 2048, 4, (), None),
  '7b_v6e': ('llama_7b', 'v6e:16x16', 2048, 4, (), None),
  '13b_v6e': ('llama_13b', 'v6e:16x16', 2048, 4, (), None),
  '7b_v5p_49953': (
    'llama_7b',
    'v5p:4x4x4',
    2048,
    4,
    ('--vocab_size=49953',),
    None,
  ),
  '7b_v5p_4096': ('llama2_7b', 'v5p:4x4x4', 4096, 2, (), 5.526),
  '8b_v6e_x2': ('llama31_8b', 'v6e:16x16', 8192, 2, (), 10.667),
  '8b_v6e_x3': ('llama31_8b', 'v6e:16x16', 8192, 3, (), 14.052),
  # With the presets of configs/hardware.py.
  '7b_h200': ('llama_7b', 'h200:1,h200-7b', 2048, 128, (), None),
  '7b_lora_h100': ('llama_7b', 'h100:1,h100-7b-lora', 2048, 128, (), None),
  '7b_adafactor_h100': ('llama_7b', 'h100:1,h100-7b', 2048, 128, (), None),
  '7b_h100': ('llama_7b', 'h100:8,h100x8-7b', 2048, 16, (), None),
  # With those of the chip.
  '7b_h200_4096': (
    'llama2_7b',
    'h200:1',
    4096,
    64,
    (_MICROBATCHES % 16,),
    None,
  ),
  '7b_h200_blocks': (
    'llama_7b',
    'h200:1',
    2048,
    64,
    (_MICROBATCHES % 8,),
    None,
  ),
  '7b_h200_tokamax': (
    'llama_7b',
    'h200:1',
    2048,
    64,
    (_MICROBATCHES % 8, '--config.execution.attention=tokamax'),
    None,
  ),
  '13b_h100': ('llama_13b', 'h100:8', 2048, 32, (_MICROBATCHES % 16,), None),
  '70b_h100': ('llama2_70b', '8*h100:8', 4096, 4, (_MICROBATCHES % 4,), None),
  '8b_lora_h100': (
    'llama31_8b',
    'h100:1',
    4096,
    64,
    (
      _MICROBATCHES % 16,
      '--config.lora.params=layers/(q|k|v|o|gate|up|down)_.*',
      '--config.optim.groups.body.frozen=True',
      '--config.optim.groups.vocabulary.frozen=True',
      '--config.optim.frozen_dtype=bfloat16',
    ),
    None,
  ),
}


def main(argv):
  del argv
  for name, (preset, topology, seq_len, rows, more, peer) in CASES.items():
    if not name.startswith(_ONLY.value):
      continue
    topology, _, suits = topology.partition(',')
    chip = topology.split('*')[-1].split(':')[0]
    chips = json.loads(
      subprocess.check_output(
        [
          sys.executable,
          '-c',
          'from lbe.mesh import topology\n'
          f'print(len(topology.devices({topology!r})))',
        ],
        stderr=subprocess.DEVNULL,
      )
    )
    suits = f'1m,{suits or chip}' if chip in ('h100', 'h200') else '1m'
    with tempfile.NamedTemporaryFile() as file:
      subprocess.run(
        [
          sys.executable,
          '-m',
          'lbe.plan',
          f'--config=configs/zh_pretrain.py:{suits}',
          f'--config.model.preset={preset}',
          f'--topology={topology}',
          f'--config.data.seq_len={seq_len}',
          f'--config.data.batch_size={rows * chips}',
          *(() if ',' in suits else ('--config.execution.remat=full',)),
          f'--json={file.name}',
          *more,
        ],
        check=True,
      )
      plan = json.load(file)
    keep = (
      'topology devices mesh pieces fits memory peak_bytes params_bytes '
      'opt_state_bytes model_flops flops memory_moved collectives '
      'largest_gather resharded seconds seconds_compute seconds_memory '
      'seconds_network mfu tokens_per_second_per_device compile_seconds'
    ).split()
    figures = {k: plan[k] for k in keep if k in plan}
    record.write(
      'plan',
      {
        'case': name,
        'model': preset,
        'rows_of_a_chip': rows,
        'seq_len': seq_len,
        **figures,
        'estimate_bytes': sum(plan['estimate'].values()),
        'peak_gib': round(plan.get('peak_bytes', 0) / 2**30, 3),
        'maxtext_peak_gib': peer,
      },
      packages=('jax', 'libtpu'),
    )


if __name__ == '__main__':
  app.run(main)
