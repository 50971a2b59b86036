"""How step time and memory grow: measured, fitted and plotted.

  PYTHONPATH=. python benchmarks/growth.py   # a row, and docs/images/growth.png

One size of a small model is doubled at a time, all others stay. Time is that
of a step: the least of a few, in processor seconds on a CPU (other processes
do not count) and by the clock elsewhere. Memory is the compiler's: temporaries
and arguments. The exponent is the slope of log cost over log size between the
last three sizes; 1 is linear. Beside it stands what theory says: the slope of
the model's FLOPs, of its parameters and moments, or what ought not to grow.

For sources, a step is a batch made by the loader, and the start is opening the
tokenized data and building the loader. Hosts are processes of this machine that
share the rows of one batch: processor seconds of a step are those of all, so
that what grows is what hosts cost beside their work; memory is that of one. For
checkpoints kept, it is a save, a restore, and the bytes on disk.
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging

from benchmarks import forks
from benchmarks import record
from lbe.assemble import data
from lbe.assemble import model
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.data import report
from lbe.mesh import hardware
from lbe.mesh import sharding
from lbe.models import weights
from lbe.run import checkpoint
from lbe.vocab import tokenizers

_STEPS = flags.DEFINE_integer('steps', 4, 'Timed for each size.')
_PLOT = flags.DEFINE_string(
  'plot', 'docs/images/growth.png', 'Where the plot goes.'
)

_BASE = dict(seq_len=128, layers=2, width=128, vocabulary=2048)
SIZES = {
  # First: of a process that is started Linux counts what its parent had, too.
  'hosts': (1, 2, 4),
  'sources': (1, 4, 16, 64, 256),
  'seq_len': (128, 256, 512, 1024),
  'layers': (2, 4, 8, 16),
  'width': (128, 256, 512),
  'vocabulary': (2048, 8192, 32768),
  'checkpoints': (1, 2, 4, 8, 16),
}
# What ought not to grow, and what is linear; of the model's sizes, see _theory.
_FLAT, _LINEAR = 0.0, 1.0
_THEORY = {
  'sources': {'seconds': _FLAT, 'start_seconds': _LINEAR},
  'hosts': {'seconds': _FLAT, 'mib_of_one': _FLAT},
  'checkpoints': {
    'save_seconds': _FLAT,
    'restore_seconds': _FLAT,
    'disk_mib': _LINEAR,
  },
}


class _Pieces:
  def __init__(self, vocab_size):
    self.vocab_size = vocab_size


def _clock():
  on_cpu = jax.default_backend() == 'cpu'
  return time.process_time() if on_cpu else time.perf_counter()


def _model(seq_len, layers, width, vocabulary):
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
  return config, model.make_config(config, _Pieces(vocabulary))


def _training(config, c):
  mesh = sharding.make_mesh(config.mesh.to_dict(), devices=jax.devices()[:1])
  partition = step_lib.make_partition(config, c)
  return mesh, step_lib.make_training(config, c, mesh, partition, 100)


@functools.cache
def _step(seq_len, layers, width, vocabulary):
  """Cost of a train step: seconds and MiB, and seconds of its compilation."""
  config, c = _model(seq_len, layers, width, vocabulary)
  mesh, training = _training(config, c)
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


def _train(folder, hosts, steps):
  """(processor seconds of all, MiB of the largest) of so many processes."""
  command = [
    *(sys.executable, '-m', 'lbe.train', '--config=configs/quickstart.py'),
    f'--workdir={folder}/{hosts}_{steps}',
    f'--config.data.cache_dir={folder}/data',
    *(f'--config.budget.steps={steps}', f'--config.mesh.fsdp={hosts}'),
    *('--config.evals.en.every=1000', '--config.evals.en.limit=2'),
    *('--config.evals.zh.every=1000', '--config.evals.zh.limit=2'),
    *('--config.export_hf=False', '--config.checkpoint.every=1000'),
  ]
  if hosts > 1:
    command += [f'--coordinator_address=localhost:{forks.free_port()}']
    command += [f'--num_processes={hosts}']
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
  }
  running = [
    subprocess.Popen(
      command + [f'--process_id={i}'] * (hosts > 1),
      env=environment,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    for i in range(hosts)
  ]
  used = []
  for process in running:
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f'{command} ended with {status}'
    used.append(usage)
  seconds = sum(u.ru_utime + u.ru_stime for u in used)
  return seconds, max(u.ru_maxrss for u in used) / 2**10


def _hosts(folder, hosts):
  """Cost of a step of so many processes: without what a start takes."""
  few, many = 10, 10 + 20 * _STEPS.value
  first, _ = _train(folder, hosts, few)
  last, mib = _train(folder, hosts, many)
  return {'seconds': (last - first) / (many - few), 'mib_of_one': mib}


def _checkpoints(folder, kept):
  """Cost of saving and restoring where so many checkpoints are kept."""
  config, c = _model(**_BASE)
  mesh, training = _training(config, c)
  state = step_lib.new_state(training, model.init_params(c, mesh, seed=0))
  abstract = training.abstract_state
  saver = checkpoint.Checkpointer(folder, abstract, every=1, keep=kept)

  def cost(function):
    start = _clock()
    function()
    return _clock() - start

  def save(step):
    saver.save(step, state, data={}, meta={})
    saver.wait()

  for step in range(kept):
    save(step)
  saving = min(cost(lambda i=i: save(kept + i)) for i in range(_STEPS.value))
  saver.close()
  restoring = min(
    cost(lambda: checkpoint.load_state(folder, abstract))
    for _ in range(_STEPS.value)
  )
  sizes = [p.stat().st_size for p in folder.rglob('*') if p.is_file()]
  return {
    'save_seconds': saving,
    'restore_seconds': restoring,
    'disk_mib': sum(sizes) / 2**20,
  }


def _cost(name, size):
  """{what: figure} of one size."""
  made = {'sources': _sources, 'hosts': _hosts, 'checkpoints': _checkpoints}
  if name not in made:
    return _step(**{**_BASE, name: size})
  with tempfile.TemporaryDirectory() as folder:
    return made[name](pathlib.Path(folder), size)


def _theory(name):
  """{cost: exponent} that theory gives, for the costs of which it says one."""
  if name in _THEORY:
    return _THEORY[name]
  flops, parameters = [], []
  for size in SIZES[name]:
    sizes = {**_BASE, name: size}
    _, c = _model(**sizes)
    flops.append(
      sizes['seq_len'] * hardware.flops_per_token(c, sizes['seq_len'])
    )
    parameters.append(weights.num_params(c))
  return {
    'seconds': _exponent(SIZES[name], flops),
    'arguments_mib': _exponent(SIZES[name], parameters),
    'compile_seconds': _FLAT,
  }


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
  figure, axes = pyplot.subplots(2, -(-len(found) // 2), figsize=(15, 7))
  for axis in axes.flat[len(found) :]:
    axis.set_visible(False)
  for axis, (name, costs) in zip(axes.flat, found.items(), strict=False):
    for cost, values in costs.items():
      sizes = SIZES[name]
      told = f'{cost} ({exponents[name][cost]:.2f})'
      axis.loglog(sizes, np.array(values) / values[0], 'o-', label=told)
    axis.loglog(sizes, np.array(sizes) / sizes[0], 'k:', label='linear')
    axis.set_xticks(sizes, [f'{size:,}' for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel(name.replace('_', ' '))
    axis.legend(fontsize=7)
  for row in axes:
    row[0].set_ylabel('cost, over that of the smallest size')
  figure.tight_layout()
  figure.savefig(path, dpi=80)
  print(f'plotted: {path}')


def main(argv):
  del argv
  logging.set_verbosity(logging.WARNING)
  found = {}
  for name, sizes in SIZES.items():
    rows = []
    for size in sizes:
      rows.append(_cost(name, size))
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
      'theory': {
        # Without the sign of a zero.
        name: {cost: round(x, 2) + 0.0 for cost, x in _theory(name).items()}
        for name in found
      },
    },
    packages=('jax', 'numpy'),
  )


if __name__ == '__main__':
  app.run(main)
