"""Tokens per second of our train step beside transformers with torch's AdamW.

  PYTHONPATH=. python benchmarks/train_step.py            # CPU or one GPU
  PYTHONPATH=. python benchmarks/train_step.py --shape=1b --dtype=bfloat16
  PYTHONPATH=. python benchmarks/train_step.py --shape=7b --seq_len=2048  # H200
  PYTHONPATH=. python benchmarks/train_step.py --shape=7b --seq_len=4096
  PYTHONPATH=. python benchmarks/train_step.py --shape=7b --ladder
  PYTHONPATH=. python benchmarks/train_step.py --shape=8b_lora --ladder
  PYTHONPATH=. python benchmarks/train_step.py --shape=7b --rehearse  # on a CPU

Same shapes, same dtype, same batch, clipping and AdamW on both sides, timed in
turns: ours, theirs, ours, theirs. A ratio above 1 means that ours is faster.
The peer is SDPA attention and the fused AdamW, eager or with --compile under
torch.compile. Ours is --setting=fast (no remat; unrolled on a CPU), the same in
microbatches of one row, or lean (scanned, full remat). On a CPU each
measurement has a process of its own, and its peak memory is that process's over
what it has after its imports.

7b is LLaMA-7B, all of it learning: float32 parameters, products in bfloat16,
four documents packed into each row, ours with the settings of an H200 in
configs/hardware.py (the first moment is bfloat16), the peer with gradient
checkpointing under torch.compile. Only one side fits, so that each measurement
has a process of its own. MFU is hardware.flops_per_token (6 a weight of a
product, and 6 * L * N * H * T: causal attention, halved; recomputation does
not count) times tokens/s over the chip's peak in bfloat16. 8b_lora is
LLaMA-3.1-8B, frozen in bfloat16, with adapters on all its products; its weights
count 4.

--ladder measures ours with one choice changed at a time (or those of --rung):
tokens/s, MFU, the peak beside the compiler's, and the seconds from the
program's start to the first step. --rehearse does either with two narrow
layers, behind a trace of the full step of every rung where none is named.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
from absl import app
from absl import flags

from benchmarks import record
from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.configs import hardware as hardware_configs
from lbe.mesh import hardware
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.models import weights
from lbe.training import loss

_SHAPE = flags.DEFINE_enum(
  'shape', '58m', ['small', '58m', '1b', '7b', '8b_lora'], 'Of the model.'
)
_SETTING = flags.DEFINE_enum(
  'setting', 'fast', ['fast', 'microbatches', 'lean'], 'Of ours.'
)
_DTYPE = flags.DEFINE_enum(
  'dtype', None, ['float32', 'bfloat16'], 'Of products; bfloat16 for 7b only.'
)
_SEQ_LEN = flags.DEFINE_integer('seq_len', 0, 'Tokens of a row.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 0, 'Rows.')
_COMPILE = flags.DEFINE_bool('compile', None, 'torch.compile for the peer.')
_PEER_ATTENTION = flags.DEFINE_string(
  'peer_attention', 'sdpa', "transformers' name, as flash_attention_2."
)
_PAIRS = flags.DEFINE_integer('pairs', 0, 'Measurements of each; 9, 3 for 7b.')
_STEPS = flags.DEFINE_integer('steps', 3, 'Steps of each measurement.')
_LADDER = flags.DEFINE_bool('ladder', False, 'Ours alone, choice by choice.')
_REHEARSE = flags.DEFINE_bool('rehearse', False, 'With two narrow layers.')
_ONLY = flags.DEFINE_enum(
  'only', None, ['ours', 'theirs'], 'Prints seconds and peak of one side.'
)
_RUNG = flags.DEFINE_multi_string('rung', [], 'Of the ladder; [] is all.')

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
  # All of LLaMA-7B in the memory of one H200: 16 bytes a parameter.
  '7b': dict(
    model=dict(
      dim=4096, num_layers=32, num_heads=32, mlp_dim=11008, max_positions=4096
    ),
    vocab_size=32000,
    seq_len=2048,
    batch_size=8,
    packed=True,
    apart=True,
    chip='h200',
  ),
  '8b_lora': dict(
    model=dict(
      dim=4096,
      num_layers=32,
      num_heads=32,
      num_kv_heads=8,
      mlp_dim=14336,
      max_positions=4096,
    ),
    vocab_size=128256,
    seq_len=4096,
    batch_size=4,
    packed=True,
    apart=True,
    chip='h100',
    adapted=True,
  ),
}
_NARROW = dict(dim=64, num_layers=2, num_heads=4, mlp_dim=160)

_PREALLOCATE = 'XLA_PYTHON_CLIENT_PREALLOCATE'
_WHOLE = 'all logits at once'
# One choice after the other, against the base: fields of the config.
RUNGS = {
  'base': {},
  'attention: reference': {'execution.attention': 'xla'},
  'attention: blocks in plain XLA': {'execution.attention': 'blocks'},
  'attention: tokamax': {'execution.attention': 'tokamax'},
  'attention: tokamax, remat: dots and attention': {
    'execution.attention': 'tokamax',
    'execution.remat': 'dots_attention',
  },
  _WHOLE: {},
  'remat: full': {'execution.remat': 'full'},
  'remat: dots and attention': {'execution.remat': 'dots_attention'},
  'remat: none': {'execution.remat': 'none'},
  'layers scanned': {'execution.scan': True},
  'layers unrolled': {'execution.scan': False},
  'first moment in float32': {'optim.first_moment_dtype': 'float32'},
  'first moment in bfloat16': {'optim.first_moment_dtype': 'bfloat16'},
}


class _Pieces:
  def __init__(self, vocab_size):
    self.vocab_size = vocab_size


def _shape():
  """The chosen shape with what the flags change."""
  shape = dict(SHAPES[_SHAPE.value])
  if _REHEARSE.value:
    shape.update(model=_NARROW, vocab_size=512, seq_len=128, batch_size=2)
  shape['seq_len'] = _SEQ_LEN.value or shape['seq_len']
  shape['batch_size'] = _BATCH_SIZE.value or shape['batch_size']
  return shape


def _apart():
  return SHAPES[_SHAPE.value].get('apart', False)


def _dtype():
  return _DTYPE.value or ('bfloat16' if _apart() else 'float32')


def _compiled():
  on_gpu = jax.default_backend() == 'gpu'
  return _apart() and on_gpu if _COMPILE.value is None else _COMPILE.value


def _config(model):
  config = common.base()
  config.model.update(model)
  return config


def make_abstract(model, vocab_size, *, seq_len, batch_size, **how):
  """(architecture, mesh, assemble.step.Training) on the first device.

  `how` are the keywords of _settings, and the `rung` of the ladder.
  """
  config = _settings(model, **how)
  if how.get('rung') == _WHOLE:
    # No field of a config, since nobody would want it.
    loss.sums.__kwdefaults__['chunk'] = seq_len * batch_size
  config.data.update(seq_len=seq_len, batch_size=batch_size)
  config.mesh.update(data=1, fsdp=1)
  c = model_lib.make_config(config, _Pieces(vocab_size))
  c = model_lib.adapted_config(config, c)
  mesh = sharding.make_mesh(config.mesh.to_dict(), devices=jax.devices()[:1])
  partition = step_lib.make_partition(config, c)
  return c, mesh, step_lib.make_training(config, c, mesh, partition, 1000)


def _settings(
  model,
  *,
  dtype='float32',
  lean=False,
  num_microbatches=1,
  chip='',
  adapted=False,
  rung='base',
):
  """The config of one side of ours; on a CPU layers are unrolled."""
  config = hardware_configs.on(_config(model), chip)
  if adapted:
    common.adapt(config)
    config.optim.frozen_dtype = 'bfloat16'
  if lean:
    config.execution.remat = 'full'
  elif not chip:
    config.execution.scan = jax.default_backend() != 'cpu'
  config.execution.compute_dtype = dtype
  if num_microbatches > 1:
    config.num_microbatches = num_microbatches
  config.update_from_flattened_dict(RUNGS[rung])
  return config


def _rungs(shape):
  """Those that differ from the base."""
  how = _how(shape)
  base, *others = (
    (rung, _settings(shape['model'], **{**how, 'rung': rung})) for rung in RUNGS
  )
  chosen = [r for r, config in others if r == _WHOLE or config != base[1]]
  return _RUNG.value or [base[0], *chosen]


def make_training(model, vocab_size, **how):
  """(architecture, assemble.step.Training, state): random weights, one device.

  `how` are the keywords of make_abstract.
  """
  c, mesh, training = make_abstract(model, vocab_size, **how)
  params = model_lib.init_params(c, mesh, seed=0)
  params = jax.tree.map(
    lambda x, y: x.astype(y.dtype), params, training.abstract_state['params']
  )
  return c, training, step_lib.new_state(training, params)


def make_batch(shape):
  """Random ids; of packed rows four documents each, of random lengths."""
  B, T = shape['batch_size'], shape['seq_len']
  rng = np.random.default_rng(0)
  starts_BT = np.zeros((B, T), bool)
  starts_BT[:, 0] = True
  if shape.get('packed'):
    for row_T in starts_BT:
      row_T[rng.choice(np.arange(1, T), 3, replace=False)] = True
  ids_BT = rng.integers(shape['vocab_size'], size=(B, T), dtype=np.int32)
  at_T = np.arange(T, dtype=np.int32)
  start_BT = np.maximum.accumulate(np.where(starts_BT, at_T, 0), axis=1)
  return {
    'ids_BT': ids_BT,
    'targets_BT': np.roll(ids_BT, -1, axis=1),
    # Nothing is asked behind a document's last token.
    'weights_BT': 1 - np.roll(starts_BT, -1, axis=1).astype(np.float32),
    'positions_BT': at_T - start_BT,
    'segments_BT': np.cumsum(starts_BT, axis=1, dtype=np.int32),
    'num_bytes_B': np.ones(B, np.int32),
  }


def _how(shape):
  """The keywords of _settings that flags and shape decide."""
  return dict(
    dtype=_dtype(),
    lean=_SETTING.value == 'lean',
    num_microbatches=(
      shape['batch_size'] if _SETTING.value == 'microbatches' else 1
    ),
    chip=shape.get('chip', ''),
    adapted=shape.get('adapted', False),
    rung=(_RUNG.value or ['base'])[0],
  )


def make_ours(shape, batch):
  """(architecture, a function that runs n steps, memory by the compiler)."""
  c, training, state = make_training(
    shape['model'],
    shape['vocab_size'],
    seq_len=shape['seq_len'],
    batch_size=shape['batch_size'],
    **_how(shape),
  )
  options = None
  if jax.default_backend() == 'gpu':
    options = hardware_configs.CHIPS.get(shape.get('chip'), {}).get('options')
  step = training.step.lower(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  ).compile(compiler_options=options)
  batch = place.batch(
    training.abstract_batch, batch, slice(0, shape['batch_size'])
  )

  def run(num_steps):
    nonlocal state
    for _ in range(num_steps):
      state, metrics = step(state, batch, training.rates(state['step']))
    return float(metrics['loss_sum'] / metrics['weight_sum'])

  return c, run, step.memory_analysis()


def make_peer(c, attention='sdpa'):
  """A LlamaForCausalLM of the same shape."""
  import torch
  import transformers

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  with torch.device(device):
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
        attn_implementation=attention,
      )
    )


def make_theirs(c, shape, batch):
  """The same with transformers and torch: the function alone."""
  import torch

  torch.set_float32_matmul_precision('highest')
  model = make_peer(c, _PEER_ATTENTION.value)
  device = model.device.type
  if shape.get('chip'):  # as ours, not everything is kept
    model.gradient_checkpointing_enable({'use_reentrant': False})
    model.train()
  forward = torch.compile(model) if _compiled() else model
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
  )
  ids = torch.tensor(batch['ids_BT'], dtype=torch.long, device=device)
  given = {'input_ids': ids, 'labels': ids}
  if shape.get('packed'):
    # Documents are told apart by positions that begin anew.
    positions = torch.tensor(
      batch['positions_BT'], dtype=torch.long, device=device
    )
    given['position_ids'] = positions
    given['labels'] = ids.masked_fill(positions == 0, -100)

  def run(num_steps):
    for _ in range(num_steps):
      # float32 parameters, products in the compute dtype: as ours.
      with torch.autocast(
        device, torch.bfloat16, enabled=_dtype() == 'bfloat16'
      ):
        loss = forward(**given).loss
      loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
    return loss.item()

  return run


# ------------------------------------------------------------------ measuring


def _timed(run):
  start = time.perf_counter()
  assert np.isfinite(run(_STEPS.value))
  return time.perf_counter() - start


def _measure_alone(shape, batch):
  """Prints one side's seconds and the peak memory of this process."""
  hardware.take_pool()  # as the programs do
  jax.devices()  # the backend's own memory is not the step's
  before = psutil.Process(os.getpid()).memory_info().rss
  stated = None
  if _ONLY.value == 'ours':
    _, run, stated = make_ours(shape, batch)
  else:
    c = model_lib.make_config(
      _config(shape['model']), _Pieces(shape['vocab_size'])
    )
    run = make_theirs(c, shape, batch)
  run(1)
  process = psutil.Process(os.getpid())
  started = time.time() - process.create_time()
  run(1)  # warm
  seconds = [_timed(run) for _ in range(_PAIRS.value)]
  found = {'seconds': seconds, 'first_step_after': started}
  if stated is not None:
    found['planned'] = stated.peak_memory_in_bytes
  if jax.default_backend() == 'cpu':
    unit = 1 if sys.platform == 'darwin' else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
  elif _ONLY.value == 'ours':
    peak = jax.devices()[0].memory_stats()['peak_bytes_in_use']
  else:
    import torch

    peak = torch.cuda.max_memory_allocated()
  print(json.dumps({**found, 'peak': peak}))


def _alone(side, *, rung='base', measurements):
  """What `_measure_alone` prints, of a process of its own."""
  given = [
    f'--{f.name}={f.value}'
    for f in (
      _SHAPE,
      _SETTING,
      _SEQ_LEN,
      _BATCH_SIZE,
      _PEER_ATTENTION,
      _STEPS,
      _REHEARSE,
    )
  ]
  command = [
    sys.executable,
    *sys.argv[:1],
    *given,
    f'--dtype={_dtype()}',
    f'--compile={_compiled()}',
    f'--pairs={measurements}',
    f'--only={side}',
    f'--rung={rung}',
  ]
  told = subprocess.run(
    command,
    capture_output=True,
    text=True,
    env={**os.environ, _PREALLOCATE: 'true'},
  )
  if told.returncode:
    lines = told.stderr.strip().splitlines() or ['no word']
    errors = [x for x in lines if 'Error' in x or 'RESOURCE' in x] or lines
    return {'error': errors[-1][:200]}
  return json.loads(told.stdout.splitlines()[-1])


def _mfu(c, shape, tokens_per_second):
  """{'mfu': ...} where the chip's peak is known."""
  config = _settings(shape['model'], **_how(shape))
  adapted = model_lib.adapted_config(config, c)
  frozen = step_lib.make_partition(config, adapted).frozen_names()
  peak = hardware.peak_flops(jax.devices()[0].device_kind)
  flops = hardware.flops_per_token(c, shape['seq_len'], frozen)
  flops *= tokens_per_second
  return {'mfu': round(flops / peak, 3)} if peak else {}


def _climb(c, shape):
  """{rung: figures} of ours, and the table."""
  tokens = shape['batch_size'] * shape['seq_len'] * _STEPS.value
  result = {}
  for rung in _rungs(shape):
    found = _alone('ours', rung=rung, measurements=_PAIRS.value)
    if 'error' not in found:
      speed = tokens / statistics.median(found['seconds'])
      found = {
        'tokens_per_second': round(speed),
        'peak_mib': round(found['peak'] / 2**20),
        'planned_mib': round(found['planned'] / 2**20),
        'first_step_after_s': round(found['first_step_after'], 1),
        **_mfu(c, shape, speed),
      }
    result[rung] = found
    told = '  '.join(f'{k} {v}' for k, v in found.items())
    print(f'{rung:32}{told}', flush=True)
  return result


def _rehearse():
  """Traces the full step of every rung, which needs no memory."""
  shape = SHAPES[_SHAPE.value]
  for rung in _rungs(shape):
    c, _, training = make_abstract(
      shape['model'],
      shape['vocab_size'],
      seq_len=_SEQ_LEN.value or shape['seq_len'],
      batch_size=_BATCH_SIZE.value or shape['batch_size'],
      **{**_how(shape), 'rung': rung},
    )
    training.step.lower(
      training.abstract_state, training.abstract_batch, training.abstract_rates
    )
    print(f'{rung}: {weights.num_params(c):,} parameters, traced', flush=True)
    loss.sums.__kwdefaults__['chunk'] = loss.CHUNK


def main(argv):
  del argv
  if _apart() and not _ONLY.value:
    os.environ[_PREALLOCATE] = 'false'  # the GPU's memory is for the others
  if not _PAIRS.present:
    flags.FLAGS.pairs = 3 if _apart() else 9
  shape = _shape()
  B, T = shape['batch_size'], shape['seq_len']
  batch = make_batch(shape)
  if _ONLY.value:
    return _measure_alone(shape, batch)
  c = model_lib.make_config(
    _config(shape['model']), _Pieces(shape['vocab_size'])
  )
  row = {
    'shape': _SHAPE.value,
    'setting': _SETTING.value,
    'parameters': weights.num_params(c),
    'batch': [B, T],
    'dtype': _dtype(),
  }
  if _REHEARSE.value and not _RUNG.value:
    _rehearse()
  if _LADDER.value:
    row['ladder'] = _climb(c, shape)
    if not _REHEARSE.value:
      record.write('train_step', row, packages=('jax', 'optax'))
    sys.exit(any('error' in found for found in row['ladder'].values()))
  times = {'ours': [], 'theirs': []}
  peaks = {}
  # On a CPU one side's threads and memory would slow the other down.
  if _apart() or jax.default_backend() == 'cpu':
    for _ in range(_PAIRS.value):
      for name in times:
        found = _alone(name, measurements=1)
        if 'error' in found:
          raise RuntimeError(f'{name}: {found["error"]}')
        times[name] += found['seconds']
        peaks[name] = found['peak']
  else:
    _, ours, _ = make_ours(shape, batch)
    theirs = make_theirs(c, shape, batch)
    for run in (ours, theirs):
      run(2)  # compiles, and warms up
    for _ in range(_PAIRS.value):
      for name, run in (('ours', ours), ('theirs', theirs)):
        times[name].append(_timed(run))
  ratios = [b / a for a, b in zip(times['ours'], times['theirs'], strict=True)]
  row |= {
    'peer': f'transformers, {_PEER_ATTENTION.value}, fused AdamW'
    + ', torch.compile' * _compiled(),
    'pairs': _PAIRS.value,
    'ratio_median': round(statistics.median(ratios), 3),
    'ratio_range': [round(min(ratios), 3), round(max(ratios), 3)],
  }
  for name, t in times.items():
    speed = B * T * _STEPS.value / statistics.median(t)
    row[f'{name}_tokens_per_second'] = round(speed)
    for key, value in _mfu(c, shape, speed).items():
      row[f'{name}_{key}'] = value
  if peaks:
    row |= {f'{x}_peak_mib': round(b / 2**20) for x, b in peaks.items()}
    row['peak_ratio'] = round(peaks['ours'] / peaks['theirs'], 3)
  if _REHEARSE.value:
    return print(json.dumps(row, indent=2))
  record.write(
    'train_step', row, packages=('jax', 'optax', 'torch', 'transformers')
  )


if __name__ == '__main__':
  app.run(main)
