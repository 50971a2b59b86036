"""Runs that a benchmark is made of: what is done is not done again.

Nor is it recorded again.
"""

import json
import os
import pathlib
import subprocess
import sys

from benchmarks import record


def run(program: str, config, workdir: pathlib.Path):
  """`python -m lbe.PROGRAM` with a config, unless it has ended well before."""
  path = workdir.with_suffix('.json')
  path.write_text(json.dumps({'config': json.loads(config.to_json())}))
  if (workdir / 'done').exists():
    return
  subprocess.run(
    [
      *(sys.executable, '-m', f'lbe.{program}'),
      f'--config=lbe:stored:{path}',
      f'--workdir={workdir}',
    ],
    check=True,
    env=os.environ,
  )
  (workdir / 'done').touch()


def write(name: str, figures: dict, workdir: pathlib.Path):
  """The row of a run, as record.write does, unless an earlier call wrote it."""
  mark = workdir / 'recorded'
  if not mark.exists():
    record.write(name, figures)
    mark.touch()
