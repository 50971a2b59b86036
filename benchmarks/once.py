"""Runs that a benchmark is made of: what is done is not done again."""

import json
import os
import pathlib
import subprocess
import sys


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
