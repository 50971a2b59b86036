"""What share of the time does a run train that fails every 15 seconds?

  PYTHONPATH=. python benchmarks/goodput.py --failures=8

A small model is trained by `python -m lbe.train` and killed (SIGKILL) each time
it has written as many rows of metrics as take --seconds of undisturbed steps;
the same command is given again at once, with data and compiled programs kept.
Productive are the steps that count, at the seconds that they take undisturbed,
over all seconds from the first command to the end. The run's own table is
beside it.
"""

import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app
from absl import flags

from benchmarks import record
from lbe.run import checkpoint

_FAILURES = flags.DEFINE_integer('failures', 8, 'So often it is killed.')
_SECONDS = flags.DEFINE_float('seconds', 15.0, 'Of steps from one to the next.')

_LOG_EVERY, _SAVE_EVERY = 5, 5
_COMMAND = (
  *(sys.executable, '-m', 'lbe.train', '--config=configs/quickstart.py'),
  '--config.tokenizer=bytes',
  '--config.model.dim=192',
  '--config.model.num_layers=4',
  '--config.model.num_heads=4',
  '--config.model.num_kv_heads=4',
  '--config.model.mlp_dim=512',
  '--config.data.seq_len=128',
  '--config.data.batch_size=16',
  '--config.data.num_workers=1',
  f'--config.log_every={_LOG_EVERY}',
  f'--config.checkpoint.every={_SAVE_EVERY}',
  *(f'--config.evals.{name}.at_start=False' for name in ('en', 'zh')),
  *(f'--config.evals.{name}.at_end=False' for name in ('en', 'zh')),
  *(f'--config.evals.{name}.every=0' for name in ('en', 'zh')),
  '--config.export_hf=False',
  '--config.sample_prompts=()',
)


def _start(workdir, num_steps, log):
  data = workdir.parent / 'data'
  return subprocess.Popen(
    [
      *_COMMAND,
      f'--config.budget.steps={num_steps}',
      f'--config.data.cache_dir={data}',
      f'--workdir={workdir}',
    ],
    stdout=log,
    stderr=subprocess.STDOUT,
  )


def _rows(workdir):
  """Whole rows of metrics."""
  path = workdir / 'metrics.jsonl'
  text = path.read_text() if path.exists() else ''
  whole = text[: text.rfind('\n') + 1]
  return [json.loads(line) for line in whole.splitlines()]


def _kill_at(process, workdir, step):
  """Kills it once it has written that step's row."""
  while process.poll() is None:
    rows = _rows(workdir)
    if rows and rows[-1]['step'] >= step:
      process.send_signal(signal.SIGKILL)
      process.wait()
      return
    time.sleep(0.05)
  raise RuntimeError(f'it ended by itself, with status {process.returncode}')


def main(argv):
  del argv
  os.environ |= {'JAX_PLATFORMS': 'cpu'}
  with tempfile.TemporaryDirectory(prefix='lbe-goodput-') as folder:
    root = pathlib.Path(folder)
    os.environ['XDG_CACHE_HOME'] = str(root / 'cache')
    with open(root / 'log', 'w') as log:
      assert _start(root / 'warm', 12 * _LOG_EVERY, log).wait() == 0
      # The first rows have what is done once.
      per_step = statistics.median(
        row['speed/seconds_per_step'] for row in _rows(root / 'warm')[2:]
      )
      between = round(_SECONDS.value / per_step / _LOG_EVERY) * _LOG_EVERY
      num_steps = (_FAILURES.value + 1) * between
      run, start, failed = root / 'run', time.monotonic(), []
      for _ in range(_FAILURES.value):
        process = _start(run, num_steps, log)
        begun = (checkpoint.steps(run) or [0])[-1]
        _kill_at(process, run, begun + between)
        failed.append(time.monotonic())
      assert _start(run, num_steps, log).wait() == 0
      wall = time.monotonic() - start
    told = (root / 'log').read_text()
    last = _rows(run)[-1]
    assert last['step'] == num_steps, last
    apart = [b - a for a, b in zip([start, *failed], failed, strict=False)]
    record.write(
      'goodput',
      {
        'setting': f'a failure each {_SECONDS.value:g} s of steps',
        'failures': _FAILURES.value,
        'seconds_between_failures': round(statistics.mean(apart), 1),
        'steps': num_steps,
        'seconds_per_step': round(per_step, 4),
        'save_every_steps': _SAVE_EVERY,
        'seconds': round(wall, 1),
        'goodput': round(num_steps * per_step / wall, 3),
        'own_goodput': re.findall(r'goodput: ([\d.]+%)', told)[-1],
        'own_seconds': {
          name.split('/')[1]: round(x, 1)
          for name, x in last.items()
          if name.startswith('seconds/')
        },
      },
    )


if __name__ == '__main__':
  app.run(main)
