"""The chunked loss beside whole logits, and beside torch's cross entropy.

  PYTHONPATH=. python benchmarks/loss.py         # CPU, one GPU or one TPU
  PYTHONPATH=. python benchmarks/loss.py --vocab_size=128256 --dtype=bfloat16

Loss and gradients of the states and of the head, of the same arrays; all are
compared first, then timed in turns. Peak memory is that of a process of its
own: on a CPU over what it has with the arrays, elsewhere all that lies on the
chip.
"""

import os
import resource
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import torch
from absl import app
from absl import flags

from benchmarks import record
from lbe.training import loss

_TOKENS = flags.DEFINE_integer('tokens', 2048, 'Targets.')
_DIM = flags.DEFINE_integer('dim', 512, 'Width of the states.')
_VOCAB_SIZE = flags.DEFINE_integer('vocab_size', 32000, 'Columns of the head.')
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], '')
_TURNS = flags.DEFINE_integer('turns', 9, 'Measurements of each.')
_PEAK_OF = flags.DEFINE_string('peak_of', '', 'Only prints the peak of this.')


def _inputs():
  """States [1, T, D], head [D, V] and targets [1, T]."""
  rng = np.random.default_rng(0)
  T, D, V = _TOKENS.value, _DIM.value, _VOCAB_SIZE.value
  x = rng.standard_normal((1, T, D), np.float32)
  head = rng.standard_normal((D, V), np.float32) * D**-0.5
  return x, head, rng.integers(V, size=(1, T), dtype=np.int32)


def _chunked(x_BTD, head_DV, targets_BT):
  return loss.sums(
    x_BTD,
    head_DV,
    targets_BT,
    jnp.ones(targets_BT.shape),
    vocab_size=head_DV.shape[1],
  )['objective']


def _whole(x_BTD, head_DV, targets_BT):
  logits_BTV = jnp.einsum(
    'BTD,DV->BTV',
    x_BTD,
    head_DV.astype(x_BTD.dtype),
    precision='highest' if x_BTD.dtype == jnp.float32 else None,
    preferred_element_type=jnp.float32,
  )
  own_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)
  return jnp.sum(jax.nn.logsumexp(logits_BTV, axis=-1) - own_BT[..., 0])


def _of_jax(total, inputs):
  x, head, targets = (jnp.asarray(a) for a in inputs)
  x = x.astype(_DTYPE.value)
  run = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
  return lambda: jax.block_until_ready(run(x, head, targets))


def _of_torch(inputs):
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  x, head, targets = (torch.tensor(a, device=device) for a in inputs)
  x = x.to(getattr(torch, _DTYPE.value))

  def run():
    leaves = [a.detach().requires_grad_() for a in (x, head)]
    logits = leaves[0][0] @ leaves[1].to(x.dtype)
    total = torch.nn.functional.cross_entropy(
      logits.float(), targets[0].long(), reduction='sum'
    )
    total.backward()
    found = total.item(), [leaf.grad for leaf in leaves]
    if device == 'cuda':
      torch.cuda.synchronize()
    return found

  return run


RUNS = {
  'chunked': lambda inputs: _of_jax(_chunked, inputs),
  'whole logits': lambda inputs: _of_jax(_whole, inputs),
  'torch': _of_torch,
}


def _print_peak(name):
  run = RUNS[name](_inputs())
  before = psutil.Process(os.getpid()).memory_info().rss
  for _ in range(2):
    run()
  if jax.default_backend() == 'cpu':
    unit = 1 if sys.platform == 'darwin' else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
  elif name == 'torch':
    peak = torch.cuda.max_memory_allocated()
  else:
    peak = jax.local_devices()[0].memory_stats()['peak_bytes_in_use']
  print(peak)


def _peak(name):
  same = [f'--{f.name}={f.value}' for f in (_TOKENS, _DIM, _VOCAB_SIZE, _DTYPE)]
  told = subprocess.run(
    [sys.executable, *sys.argv[:1], *same, f'--peak_of={name}'],
    capture_output=True,
    text=True,
    check=True,
  )
  return int(told.stdout.split()[-1])


def _check(found, expected):
  """Raises AssertionError where loss or gradients are not the same."""
  tolerance = 1e-4 if _DTYPE.value == 'float32' else 0.03
  for a, b in zip(
    (found[0], *found[1]), (expected[0], *expected[1]), strict=True
  ):
    a = a.float().cpu() if isinstance(a, torch.Tensor) else a
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def main(argv):
  del argv
  torch.set_float32_matmul_precision('highest')
  if _PEAK_OF.value:
    return _print_peak(_PEAK_OF.value)
  peaks = {name: _peak(name) for name in RUNS}  # while the chip is free
  inputs = _inputs()
  runs = {name: make(inputs) for name, make in RUNS.items()}
  expected = runs['whole logits']()
  for run in runs.values():
    _check(run(), expected)
  times = {name: [] for name in runs}
  for _ in range(_TURNS.value):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      times[name].append(1e3 * (time.perf_counter() - start))
  ratios = [
    b / a for a, b in zip(times['chunked'], times['torch'], strict=True)
  ]
  record.write(
    'loss',
    {
      'shape': (
        f'{_TOKENS.value} targets, {_DIM.value} wide, {_VOCAB_SIZE.value} '
        'pieces'
      ),
      'dtype': _DTYPE.value,
      'peer': 'torch, cross_entropy of whole logits',
      'ratio_median': round(statistics.median(ratios), 3),
      'ratio_range': [round(min(ratios), 3), round(max(ratios), 3)],
      'peak_ratio': round(peaks['chunked'] / peaks['torch'], 3),
      'turns': _TURNS.value,
      'forward_and_backward': {
        name: {
          'ms_median': round(statistics.median(taken), 1),
          'ms_range': [round(min(taken), 1), round(max(taken), 1)],
          'peak_mib': round(peaks[name] / 2**20),
        }
        for name, taken in times.items()
      },
    },
    packages=('jax', 'torch'),
  )


if __name__ == '__main__':
  app.run(main)
