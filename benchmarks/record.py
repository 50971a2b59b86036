"""A row of benchmarks/results.jsonl: figures with what they were made on.

The table of them in docs/speed.md is made anew. LBE_RESULTS names another file,
and LBE_COMMIT the commit where the tree has no repository.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time

import jax
import psutil

from benchmarks import tables

_HERE = pathlib.Path(__file__).resolve().parent


def _commit():
  """The commit, with a '+' where the tree has changes beside it."""

  def git(*arguments):
    return subprocess.run(
      ['git', *arguments], cwd=_HERE, capture_output=True, text=True, check=True
    ).stdout.strip()

  if os.environ.get('LBE_COMMIT'):
    return os.environ['LBE_COMMIT']
  ours = (':!results.jsonl', ':!../docs/speed.md')
  changed = git('status', '--porcelain', '--', *ours)
  return git('rev-parse', '--short', 'HEAD') + '+' * bool(changed)


def _cpu():
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  names = [x.split(':')[1].strip() for x in lines if x.startswith('model name')]
  return f'{len(names)} x {names[0]}' if names else platform.machine()


def write(name, figures, *, packages=('jax', 'flax', 'orbax-checkpoint')):
  """Appends the row and prints it."""
  device = jax.devices()[0]
  row = {
    'benchmark': name,
    'date': time.strftime('%Y-%m-%d', time.gmtime()),
    'commit': _commit(),
    'machine': {
      'cpu': _cpu(),
      'memory_gib': round(psutil.virtual_memory().total / 2**30),
      'device': device.device_kind,
      'python': platform.python_version(),
    },
    'versions': {p: importlib.metadata.version(p) for p in packages},
    **figures,
  }
  elsewhere = os.environ.get('LBE_RESULTS')
  with open(elsewhere or _HERE / 'results.jsonl', 'a', encoding='utf-8') as f:
    f.write(json.dumps(row) + '\n')
  if not elsewhere:
    tables.write()
  print(json.dumps(row, indent=2))
