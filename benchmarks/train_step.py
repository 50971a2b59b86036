"""Tokens per second of our train step beside transformers with torch's AdamW.

  PYTHONPATH=. python benchmarks/train_step.py            # CPU or one GPU
  PYTHONPATH=. python benchmarks/train_step.py --shape=1b --dtype=bfloat16

Same shapes, same dtype, same batch, clipping and AdamW on both sides, timed in
turns: ours, theirs, ours, theirs. A ratio above 1 means that ours is faster.
The peer is eager with SDPA attention and the fused AdamW, or with --compile
under torch.compile, too. Ours is --setting=fast (no remat; unrolled on a CPU)
or lean (scanned, full remat). On a CPU the peak memory of each side is that of
a process of its own, over what it has after its imports.
"""

import os
import resource
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import torch
import transformers
from absl import app
from absl import flags

from benchmarks import record
from configs import common
from lbe import assemble
from lbe import batch as batch_lib
from lbe import sharding
from lbe.models import llama

_SHAPE = flags.DEFINE_enum(
  'shape', '58m', ['small', '58m', '1b'], 'Of the model.'
)
_SETTING = flags.DEFINE_enum('setting', 'fast', ['fast', 'lean'], 'Of ours.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.'
)
_COMPILE = flags.DEFINE_bool('compile', False, 'torch.compile for the peer.')
_PAIRS = flags.DEFINE_integer('pairs', 9, 'Alternating measurements.')
_STEPS = flags.DEFINE_integer('steps', 3, 'Steps of each measurement.')
_PEAK_OF = flags.DEFINE_enum(
  'peak_of', None, ['ours', 'theirs'], 'Only prints the peak memory of a side.'
)

SHAPES = {
  'small': dict(
    model=dict(dim=384, num_layers=6, num_heads=6, mlp_dim=1024),
    vocab_size=8192,
    seq_len=256,
    batch_size=4,
  ),
  '58m': dict(
    model=dict(dim=512, num_layers=8, num_heads=8, mlp_dim=1376),
    vocab_size=32000,
    seq_len=512,
    batch_size=4,
  ),
  # TinyLlama's.
  '1b': dict(
    model=dict(
      dim=2048, num_layers=22, num_heads=32, num_kv_heads=4, mlp_dim=5632
    ),
    vocab_size=32000,
    seq_len=2048,
    batch_size=8,
  ),
}


class _Pieces:
  def __init__(self, vocab_size):
    self.vocab_size = vocab_size


def _config(shape):
  config = common.base()
  config.model.update(shape['model'])
  return config


def make_training(
  shape, vocab_size, *, seq_len, batch_size, dtype='float32', lean=False
):
  """(architecture, assemble.Training, state) of random weights, one device."""
  config = _config(dict(model=shape))
  on_cpu = jax.default_backend() == 'cpu'
  config.execution.update(
    compute_dtype=dtype,
    scan=lean or not on_cpu,
    remat='full' if lean else 'none',
  )
  config.data.update(seq_len=seq_len, batch_size=batch_size)
  config.mesh.update(data=1, fsdp=1)
  model = assemble.make_model_config(config, _Pieces(vocab_size))
  mesh = sharding.make_mesh(config.mesh.to_dict(), devices=jax.devices()[:1])
  training = assemble.make_training(
    config, model, mesh, assemble.make_partition(config, model, 1000)
  )
  params = assemble.init_params(model, mesh, seed=0)
  return model, training, assemble.new_state(training, params)


def make_ours(shape, ids_BT):
  """A function that runs n steps and returns when they are done."""
  B, T = ids_BT.shape
  model, training, state = make_training(
    shape['model'],
    shape['vocab_size'],
    seq_len=T,
    batch_size=B,
    dtype=_DTYPE.value,
    lean=_SETTING.value == 'lean',
  )
  weights_BT = np.ones((B, T), np.float32)
  weights_BT[:, -1] = 0
  batch = batch_lib.place(
    training.abstract_batch,
    {
      'ids_BT': ids_BT,
      'targets_BT': np.roll(ids_BT, -1, axis=1),
      'weights_BT': weights_BT,
      'positions_BT': np.tile(np.arange(T, dtype=np.int32), (B, 1)),
      'segments_BT': np.ones((B, T), np.int32),
      'num_bytes_B': np.ones(B, np.int32),
    },
    slice(0, B),
  )

  def run(num_steps):
    nonlocal state
    for _ in range(num_steps):
      state, metrics = training.step(state, batch)
    return float(metrics['loss_sum'] / metrics['weight_sum'])

  return model, run


def make_peer(c):
  """A LlamaForCausalLM of the same shape."""
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  return transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=c.vocab_size,
      hidden_size=c.dim,
      intermediate_size=c.mlp_dim,
      num_hidden_layers=c.num_layers,
      num_attention_heads=c.num_heads,
      num_key_value_heads=c.num_kv_heads,
      head_dim=c.head_dim,
      max_position_embeddings=c.max_positions,
      use_cache=False,
      attn_implementation='sdpa',
    )
  ).to(device)


def make_theirs(c, ids_BT):
  """The same with transformers and torch."""
  model = make_peer(c)
  device = model.device.type
  forward = torch.compile(model) if _COMPILE.value else model
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
  )
  ids = torch.tensor(ids_BT, dtype=torch.long, device=device)

  def run(num_steps):
    for _ in range(num_steps):
      # float32 parameters, products in the compute dtype: as ours.
      with torch.autocast(
        device, torch.bfloat16, enabled=_DTYPE.value == 'bfloat16'
      ):
        loss = forward(input_ids=ids, labels=ids).loss
      loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
    return loss.item()

  return run


def _peak(side):
  """Bytes, measured by this program in a process of its own."""
  same = [f'--{f.name}={f.value}' for f in (_SHAPE, _SETTING, _DTYPE, _COMPILE)]
  told = subprocess.run(
    [sys.executable, *sys.argv[:1], *same, f'--peak_of={side}'],
    capture_output=True,
    text=True,
    check=True,
  )
  return int(told.stdout.split()[-1])


def _measure_peak(shape, ids_BT):
  jax.devices()  # the backend's own memory is not the step's
  before = psutil.Process(os.getpid()).memory_info().rss
  if _PEAK_OF.value == 'ours':
    _, run = make_ours(shape, ids_BT)
  else:
    c = assemble.make_model_config(_config(shape), _Pieces(shape['vocab_size']))
    run = make_theirs(c, ids_BT)
  run(2)
  unit = 1 if sys.platform == 'darwin' else 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  print(peak - before)


def main(argv):
  del argv
  torch.set_float32_matmul_precision('highest')
  shape = SHAPES[_SHAPE.value]
  B, T = shape['batch_size'], shape['seq_len']
  ids_BT = np.random.default_rng(0).integers(
    shape['vocab_size'], size=(B, T), dtype=np.int32
  )
  if _PEAK_OF.value:
    return _measure_peak(shape, ids_BT)
  on_cpu = jax.default_backend() == 'cpu'
  peaks = {x: _peak(x) for x in ('ours', 'theirs')} if on_cpu else {}
  model, ours = make_ours(shape, ids_BT)
  theirs = make_theirs(model, ids_BT)
  times = {'ours': [], 'theirs': []}
  for run in (ours, theirs):
    run(2)  # compiles, and warms up
  for _ in range(_PAIRS.value):
    for name, run in (('ours', ours), ('theirs', theirs)):
      start = time.perf_counter()
      loss = run(_STEPS.value)
      times[name].append(time.perf_counter() - start)
      assert np.isfinite(loss)
  ratios = [b / a for a, b in zip(times['ours'], times['theirs'], strict=True)]
  tokens = B * T * _STEPS.value
  memory = {f'{x}_peak_mib': round(b / 2**20) for x, b in peaks.items()}
  if peaks:
    memory['peak_ratio'] = round(peaks['ours'] / peaks['theirs'], 3)
  record.write(
    'train_step',
    {
      'shape': _SHAPE.value,
      'setting': _SETTING.value,
      'parameters': llama.num_params(model),
      'batch': [B, T],
      'dtype': _DTYPE.value,
      'peer': 'transformers, sdpa, fused AdamW'
      + ', torch.compile' * _COMPILE.value,
      'pairs': _PAIRS.value,
      'ratio_median': round(statistics.median(ratios), 3),
      'ratio_range': [round(min(ratios), 3), round(max(ratios), 3)],
      **{
        f'{name}_tokens_per_second': round(tokens / statistics.median(t))
        for name, t in times.items()
      },
      **{f'{x}_peak_mib': round(b / 2**20) for x, b in peaks.items()},
      **(
        {'peak_ratio': round(peaks['ours'] / peaks['theirs'], 3)}
        if peaks
        else {}
      ),
    },
    packages=('jax', 'optax', 'torch', 'transformers'),
  )


if __name__ == '__main__':
  app.run(main)
