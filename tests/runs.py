"""Small real runs for the tests: the programs, started as a person would."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jax
import psutil

from lbe.convert import stored
from lbe.models import architecture
from lbe.models import weights
from lbe.run import checkpoint

import conftest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# quickstart's model and texts, shrunk; bytes need no tokenizer training.
TINY = (
  '--config=configs/quickstart.py',
  '--config.tokenizer=bytes',
  '--config.model.dim=32',
  '--config.model.num_layers=2',
  '--config.model.mlp_dim=64',
  '--config.data.seq_len=64',
  '--config.data.batch_size=8',
  '--config.data.num_workers=1',
  '--config.evals.en.limit=4',
  '--config.evals.en.every=0',
  '--config.evals.en.at_start=False',
  '--config.evals.zh.limit=4',
  '--config.evals.zh.every=0',
  '--config.evals.zh.at_start=False',
  '--config.log_every=1',
  '--config.export_hf=False',
  '--config.sample_prompts=()',
)

# A run whose scores do so, and of which the best is kept beside the last.
UP_AND_DOWN = (
  *TINY,
  '--config.budget.steps=6',
  '--config.optim.peak_lr=3',
  '--config.optim.schedule=constant',
  '--config.optim.warmup_fraction=0',
  '--config.evals.zh.every=1',
  '--config.checkpoint.every=100',
  '--config.checkpoint.keep=1',
  '--config.checkpoint.keep_best=eval/zh/bits_per_byte',
)

# Where a certificate's logits are not the matter: importing transformers to
# make them takes longer than all else.
QUICK = '--verify=digests'


def save_random(root, c, tokenizer, **source):
  """A checkpoint of random weights alone, as import_hf makes them."""
  meta = {
    'model': c.to_json(),
    'tokenizer': stored.tokenizer_meta(tokenizer),
    'config': None,
    'source': {'dtype': 'float32', **source},
  }
  checkpoint.save_model(root, weights.init(c, jax.random.key(0)), meta=meta)


def environment(num_devices=1):
  return {
    **os.environ,
    # Another platform is benchmarks/gpu_session.sh's.
    'JAX_PLATFORMS': os.environ.get('LBE_TEST_PLATFORM', 'cpu'),
    'XLA_FLAGS': os.environ.get('LBE_TEST_XLA_FLAGS')
    or conftest.XLA_FLAGS.format(num_devices),
    'PYTHONUNBUFFERED': '1',
  }


def start(program, *arguments, num_devices=1, cwd=ROOT, **variables):
  return subprocess.Popen(
    [sys.executable, '-m', f'lbe.{program}', *arguments],
    cwd=cwd,
    env=environment(num_devices) | variables,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    # What starts the tests may ignore them, and its children with it.
    preexec_fn=lambda: [
      signal.signal(x, signal.SIG_DFL) for x in (signal.SIGINT, signal.SIGHUP)
    ],
  )


class _Forked:
  """tests/forked.py, which runs programs for this process as long as it lives.

  For those that get the environment which it has imported in.
  """

  def __init__(self):
    self.environment = _settled(environment())
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'tests.forked'],
      cwd=ROOT,
      env=environment(),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def run(self, command, variables):
    """(status, what it printed)."""
    with tempfile.NamedTemporaryFile() as output:
      asked = {
        'command': command,
        'environment': variables,
        'output': output.name,
      }
      try:
        self._process.stdin.write(json.dumps(asked) + '\n')
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
      except BaseException:  # of a test that is cut off, its program, too
        self.end()
        raise
      return status, pathlib.Path(output.name).read_text()

  def end(self):
    global _forked
    _forked = None
    for child in psutil.Process(self._process.pid).children(recursive=True):
      child.kill()
    self._process.kill()
    self._process.communicate()


_forked = None


def _settled(variables):
  """What programs may have read of it when they were imported."""
  later = ('XLA_FLAGS', 'PYTEST_CURRENT_TEST')
  return {k: v for k, v in variables.items() if k not in later}


def run(program, *arguments, num_devices=1, status=0):
  """What the program printed; fails where it ends otherwise than asked."""
  global _forked
  variables = environment(num_devices)
  if _forked and _forked.environment != _settled(variables):
    _forked.end()
  if _forked is None:
    _forked = _Forked()
  ended, output = _forked.run([f'lbe.{program}', *arguments], variables)
  assert ended == status, output
  return output


def lines(workdir):
  """metrics.jsonl as a list of dicts; a torn last line is left out."""
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  if not path.exists():
    return []
  text = path.read_text()
  whole = text[: text.rfind('\n') + 1]
  return [json.loads(line) for line in whole.splitlines()]


def losses(workdir):
  return {
    row['step']: row['train/loss']
    for row in lines(workdir)
    if 'train/loss' in row
  }


def wait_for_step(process, workdir, step):
  """Returns when metrics.jsonl shows `step` while the process is alive."""
  while not any(row['step'] >= step for row in lines(workdir)):
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.01)


def free_port():
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def digests(output):
  """{(step, row): digest} of the lines that --log_batches prints."""
  return {
    tuple(map(int, line.split()[1:3])): line.split()[3]
    for line in output.splitlines()
    if line.startswith('batch ')
  }


def load(workdir):
  meta = checkpoint.read_meta(workdir)
  shapes = weights.shapes(architecture.Config.from_json(meta['model']))
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return checkpoint.load_params(
    workdir,
    jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
      shapes,
    ),
  )
