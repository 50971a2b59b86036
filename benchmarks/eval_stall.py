"""What do evaluations inside a run cost it beside their own time?

  PYTHONPATH=. python benchmarks/eval_stall.py

The quickstart's model is trained, and every ten steps scored: perplexity,
questions with choices, and samples. Counted from the first round, which
compiles them, to the last: the time that is neither a step's nor an
evaluation's, steps right behind an evaluation beside others, and what JAX says
that it compiles.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app
from absl import flags

from benchmarks import record

_STEPS = flags.DEFINE_integer('steps', 60, 'Of each run.')
_EVERY = 10
CONFIG = """
from lbe.configs import common
from lbe.configs import quickstart


def get_config():
  config = quickstart.get_config()
  config.budget.steps = {steps}
  config.checkpoint.every = 1000000
  config.log_every = 1
  config.export_hf = False
  config.sample_prompts = ()
  for name in ('en', 'zh'):
    config.evals[name].update(every={every}, at_start=False)
  config.evals.exam = common.multiple_choice(
    protocol='choices@letters', path={exam!r}, every={every}
  )
  config.evals.samples = common.generation(
    path={prompts!r}, max_new_tokens=32, every={every}
  )
  return config
"""


def main(argv):
  del argv
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    _write(folder / 'exam.jsonl', [_question(i) for i in range(100)])
    _write(folder / 'prompts.jsonl', [{'prompt': f'{i}'} for i in range(16)])
    seconds, rows, compiled = _run(folder)
  rounds = [
    r['speed/evaluation_seconds']
    for r in rows
    if 'speed/evaluation_seconds' in r
  ]
  steps = {
    r['step']: r['speed/seconds_per_step'] for r in rows if r['step'] > _EVERY
  }
  behind = [x for step, x in steps.items() if step % _EVERY == 1]
  others = [x for step, x in steps.items() if step % _EVERY != 1]
  record.write(
    'eval_stall',
    {
      'steps': _STEPS.value,
      'every': _EVERY,
      'seconds_of_rounds': [round(x, 2) for x in rounds],
      'seconds': round(seconds, 2),
      'seconds_of_neither': round(
        seconds - sum(steps.values()) - sum(rounds[1:]), 3
      ),
      'seconds_of_a_step': round(statistics.median(others), 3),
      'seconds_of_a_step_behind': round(statistics.median(behind), 3),
      'compiled_after_the_first_round': compiled,
    },
  )


def _question(i):
  choices = [f'{i} and {j}' for j in range(4)]
  return {'question': f'What is {i}?', 'choices': choices, 'answer': i % 4}


def _write(path, records):
  path.write_text('\n'.join(map(json.dumps, records)), encoding='utf-8')


def _run(folder):
  """(seconds from behind the first round to the end, rows, compilations)."""
  config, workdir = folder / 'config.py', folder / 'run'
  paths = {x: str(folder / f'{x}.jsonl') for x in ('exam', 'prompts')}
  config.write_text(CONFIG.format(steps=_STEPS.value, every=_EVERY, **paths))
  process = subprocess.Popen(
    [
      *(sys.executable, '-m', 'lbe.train'),
      f'--config={config}',
      f'--workdir={workdir}',
    ],
    env={**os.environ, 'JAX_LOG_COMPILES': '1', 'PYTHONUNBUFFERED': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  start, stop, compiled = None, None, 0
  for line in process.stdout:
    if line.startswith(f'step {_EVERY}: '):
      start = time.perf_counter()
    if line.startswith(f'step {_STEPS.value}: '):
      stop = time.perf_counter()
    compiled += start is not None and stop is None and 'Compiling' in line
  if process.wait() or None in (start, stop):
    raise RuntimeError('the run ended with an error.')
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return stop - start, [json.loads(line) for line in lines], compiled


if __name__ == '__main__':
  app.run(main)
