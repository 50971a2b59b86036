"""How step time and memory grow: measured, fitted and plotted.

  PYTHONPATH=. python benchmarks/growth.py       # a row, and runs/growth.png

One size of a small model is doubled at a time, all others stay. Time is that
of a step: the least of a few, in processor seconds on a CPU (other processes
do not count) and by the clock elsewhere. Memory is the compiler's: temporaries
and arguments. The exponent is the slope of log cost over log size between the
last three sizes; 1 is linear. For sources, a step is a batch made by the
loader, and the start is opening the tokenized data and building the loader.
"""

import functools
import pathlib
import tempfile
import time

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging

from benchmarks import record
from lbe.assemble import data
from lbe.assemble import model
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.data import report
from lbe.mesh import sharding
from lbe.vocab import tokenizers

_STEPS = flags.DEFINE_integer('steps', 4, 'Timed for each size.')
_PLOT = flags.DEFINE_string('plot', 'runs/growth.png', 'Where the plot goes.')

_BASE = dict(seq_len=128, layers=2, width=128, vocabulary=2048)
SIZES = {
  'sources': (1, 4, 16, 64, 256),
  'seq_len': (128, 256, 512, 1024),
  'layers': (2, 4, 8, 16),
  'width': (128, 256, 512),
  'vocabulary': (2048, 8192, 32768),
}


class _Pieces:
  def __init__(self, vocab_size):
    self.vocab_size = vocab_size


def _clock():
  on_cpu = jax.default_backend() == 'cpu'
  return time.process_time() if on_cpu else time.perf_counter()


@functools.cache
def _step(seq_len, layers, width, vocabulary):
  """Cost of a train step: seconds and MiB, and seconds of its compilation."""
  config = common.base()
  config.model.update(
    dim=width,
    num_layers=layers,
    num_heads=width // 32,
    mlp_dim=width * 8 // 3,
    max_positions=seq_len,
  )
  config.execution.compute_dtype = 'float32'
  config.data.update(seq_len=seq_len, batch_size=2)
  config.mesh.update(data=1, fsdp=1)
  c = model.make_config(config, _Pieces(vocabulary))
  mesh = sharding.make_mesh(config.mesh.to_dict(), devices=jax.devices()[:1])
  training = step_lib.make_training(
    config, c, mesh, step_lib.make_partition(config, c), 100
  )
  start = _clock()
  step = training.step.lower(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  ).compile()
  compiling = _clock() - start
  memory = step.memory_analysis()
  state = step_lib.new_state(training, model.init_params(c, mesh, seed=0))
  batch = {
    name: jax.device_put(np.ones(x.shape, x.dtype), x.sharding)
    for name, x in training.abstract_batch.items()
  }
  times = []
  for _ in range(1 + _STEPS.value):
    start = _clock()
    state, metrics = step(state, batch, training.rates(state['step']))
    jax.block_until_ready((state, metrics))
    times.append(_clock() - start)
  return {
    'seconds': min(times[1:]),
    'temporaries_mib': memory.temp_size_in_bytes / 2**20,
    'arguments_mib': memory.argument_size_in_bytes / 2**20,
    'compile_seconds': compiling,
  }


def _sources(folder, number):
  """Cost of a batch of 64 rows from so many sources, and of the start."""
  config = common.base()
  config.data.update(
    seq_len=128, batch_size=64, cache_dir=str(folder), num_workers=1
  )
  for i in range(number):
    path = folder / f'{i}.txt'
    path.write_text('\n\n'.join(f'{i} {j} ' * 50 for j in range(20)))
    config.data.sources[f's{i}'] = common.source(
      path=str(path), proportion=1 / number
    )
  tokenizer = tokenizers.load('bytes')
  data.prepare(config, tokenizer, folder)
  start = _clock()
  prepared = data.prepare(config, tokenizer, folder)
  loader = data.make_loader(config, prepared, tokenizer)
  report.table(loader, 1000)
  opening = _clock() - start
  times = []
  for step in range(1 + 4 * _STEPS.value):
    start = _clock()
    loader.rows(step)
    times.append(_clock() - start)
  return {'seconds': min(times[1:]), 'start_seconds': opening}


def _exponent(sizes, costs):
  """The slope of log cost over log size between the last three."""
  last = slice(-3, None)
  return float(np.polyfit(np.log(sizes[last]), np.log(costs[last]), 1)[0])


def _plot(found, exponents, path):
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  figure, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 4))
  for axis, (name, costs) in zip(axes, found.items(), strict=True):
    for cost, values in costs.items():
      sizes = SIZES[name]
      told = f'{cost} ({exponents[name][cost]:.2f})'
      axis.loglog(sizes, np.array(values) / values[0], 'o-', label=told)
    axis.loglog(sizes, np.array(sizes) / sizes[0], 'k:', label='linear')
    axis.set_xlabel(name)
    axis.legend(fontsize=7)
  axes[0].set_ylabel('cost, over that of the smallest size')
  figure.tight_layout()
  figure.savefig(path, dpi=100)
  print(f'plotted: {path}')


def main(argv):
  del argv
  logging.set_verbosity(logging.WARNING)
  found = {}
  for name, sizes in SIZES.items():
    rows = []
    for size in sizes:
      if name == 'sources':
        with tempfile.TemporaryDirectory() as folder:
          rows.append(_sources(pathlib.Path(folder), size))
      else:
        rows.append(_step(**{**_BASE, name: size}))
      told = '  '.join(f'{k} {v:.4g}' for k, v in rows[-1].items())
      print(f'{name} {size}: {told}', flush=True)
    found[name] = {cost: [row[cost] for row in rows] for cost in rows[0]}
  exponents = {
    name: {
      cost: round(_exponent(SIZES[name], values), 2)
      for cost, values in costs.items()
    }
    for name, costs in found.items()
  }
  _plot(found, exponents, _PLOT.value)
  record.write(
    'growth',
    {
      'base': _BASE,
      'sizes': {name: list(sizes) for name, sizes in SIZES.items()},
      'costs': {
        name: {
          cost: [float(f'{v:.4g}') for v in values]
          for cost, values in costs.items()
        }
        for name, costs in found.items()
      },
      'exponents': exponents,
    },
    packages=('jax', 'numpy'),
  )


if __name__ == '__main__':
  app.run(main)
