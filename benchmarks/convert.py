"""How much memory do import_hf and export_hf take beside the weights?

  PYTHONPATH=. python benchmarks/convert.py

Makes a random model of about a billion parameters in bfloat16, converts it
both ways with --verify=digests, and samples the anonymous pages of each
process (RssAnon) above their level after the imports. The rule: at most the
model's size in the written dtype and twice its largest stored tensor.
"""

import importlib
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from absl import app
from absl import flags

from lbe.convert import hf
from lbe.convert import hf_config
from lbe.models import architecture
from lbe.models import weights

# TinyLlama's shape: 1,100,048,384 parameters.
MODEL = architecture.Config(
  vocab_size=32000,
  dim=2048,
  num_layers=22,
  num_heads=32,
  num_kv_heads=4,
  head_dim=64,
  mlp_dim=5632,
)


def anonymous_bytes():
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith('RssAnon'):
      return int(line.split()[1]) * 1024
  raise OSError('the system does not state RssAnon')


def make_model(folder, c):
  """Writes the random model as a Hugging Face folder without a tokenizer."""
  shapes = {k: v.shape for k, v in weights.flatten(weights.shapes(c)).items()}
  rng = np.random.default_rng(0)

  def random(name):
    x = rng.standard_normal(shapes[name], np.float32)
    return (x * 0.02).astype(hf.DTYPES['bfloat16'])

  folder.mkdir()
  hf.write_safetensors(folder, c, random, dtype='bfloat16')
  record = hf_config.config_json(
    c, dtype='bfloat16', bos_id=1, eos_id=2, pad_id=None
  )
  (folder / 'config.json').write_text(json.dumps(record))


def child(report, program, arguments):
  """Runs a program here, its memory sampled; the figures go to `report`."""
  module = importlib.import_module(f'lbe.{program}')
  level = peak = anonymous_bytes()
  done = threading.Event()

  def sample():
    nonlocal peak
    while not done.wait(0.005):
      peak = max(peak, anonymous_bytes())

  thread = threading.Thread(target=sample)
  thread.start()
  start = time.perf_counter()
  flags.FLAGS([program, *arguments])
  module.main([program])
  seconds = time.perf_counter() - start
  done.set()
  thread.join()
  pathlib.Path(report).write_text(
    json.dumps({'peak_bytes': peak - level, 'seconds': round(seconds, 1)})
  )


def main(argv):
  del argv
  from benchmarks import record

  shapes = weights.flatten(weights.shapes(MODEL, dtype='bfloat16'))
  model_bytes = 2 * weights.num_params(MODEL)
  largest = max(x.size * 2 for x in shapes.values())
  figures = {
    'parameters': weights.num_params(MODEL),
    'dtype': 'bfloat16',
    'model_bytes': model_bytes,
    'largest_stored_tensor_bytes': largest,
    'allowed_bytes': model_bytes + 2 * largest,
  }
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    make_model(folder / 'hf', MODEL)
    for program, source, target in (
      ('import_hf', 'hf', 'ours'),
      ('export_hf', 'ours', 'again'),
    ):
      subprocess.run(
        [
          sys.executable,
          __file__,
          '--child',
          folder / 'report.json',
          program,
          f'--source={folder / source}',
          f'--target={folder / target}',
          '--verify=digests',
        ],
        check=True,
        stdout=subprocess.DEVNULL,
      )
      figures[program] = json.loads((folder / 'report.json').read_text())
      figures[program]['of_allowed'] = round(
        figures[program]['peak_bytes'] / figures['allowed_bytes'], 3
      )
  record.write(
    'convert', figures, packages=('jax', 'orbax-checkpoint', 'safetensors')
  )


if __name__ == '__main__':
  if sys.argv[1:2] == ['--child']:
    child(sys.argv[2], sys.argv[3], sys.argv[4:])
  else:
    app.run(main)
