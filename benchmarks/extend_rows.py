"""What memory does an extension of LLaMA-7B's vocabulary take?

  PYTHONPATH=. python benchmarks/extend_rows.py --base=llama/tokenizer.model \
    --extended=chinese_llama/tokenizer.model

Weights of LLaMA-7B's width and two of its layers, sharded over 8 fake devices
of one CPU, get rows for the new pieces by each method; old rows are compared
bit for bit. Anonymous pages (RssAnon) are sampled; the bound is the extended
model in float32, its two old matrices, and two of the new ones.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from absl import app
from absl import flags

_BASE = flags.DEFINE_string('base', None, "LLaMA's tokenizer.model.")
_EXTENDED = flags.DEFINE_string('extended', None, 'The same with new pieces.')
METHODS = ('pieces_mean', 'mean', 'gaussian', 'normal')


def child(folder, extended, method):
  """Extends in this process and prints its figures as JSON."""
  import jax
  import numpy as np

  from benchmarks import convert
  from lbe.assemble import extension
  from lbe.assemble import model as model_lib
  from lbe.convert import stored
  from lbe.mesh import sharding
  from lbe.vocab import tokenizers

  opened = stored.open_model(folder)
  tokenizer = tokenizers.load(extended)
  model = model_lib.extended_config(opened, tokenizer)
  mesh = sharding.make_mesh(dict(fsdp=8))
  assert jax.device_count() == 8
  level = peak = convert.anonymous_bytes()
  done = threading.Event()

  def sample():
    nonlocal peak
    while not done.wait(0.005):
      peak = max(peak, convert.anonymous_bytes())

  thread = threading.Thread(target=sample)
  thread.start()
  start = time.perf_counter()
  old = opened.load_params(mesh)
  jax.block_until_ready(old)
  loaded = peak - level
  params = extension.extend_params(
    opened,
    tokenizer,
    model,
    mesh,
    dict(old),
    method=method,
    match_norms=False,
    dictionary='',
    seed=0,
  )
  jax.block_until_ready(params)
  seconds = time.perf_counter() - start
  done.set()
  thread.join()
  num_old = opened.tokenizer.vocab_size
  for name, axis in (('embed_VD', 0), ('head_DV', 1)):
    a = np.asarray(old[name]).take(range(num_old), axis)
    b = np.asarray(params[name]).take(range(num_old), axis)
    assert np.array_equal(a.view(np.uint32), b.view(np.uint32)), name
    assert params[name].addressable_shards[0].data.size * 8 == params[name].size
  sizes = [x.size * 4 for x in jax.tree.leaves(params)]
  matrix = params['embed_VD'].size * 4
  bound = sum(sizes) + 2 * old['embed_VD'].size * 4 + 2 * matrix
  print(
    json.dumps(
      {
        'peak_bytes': peak - level,
        'peak_bytes_of_loading': loaded,
        'of_bound': round((peak - level) / bound, 3),
        'seconds_with_loading': round(seconds, 1),
      }
    )
  )


def main(argv):
  del argv
  from benchmarks import convert
  from benchmarks import record
  from lbe.models import architecture
  from lbe.models import weights
  from lbe.vocab import tokenizers

  base, extended = (
    tokenizers.load(_BASE.value),
    tokenizers.load(_EXTENDED.value),
  )
  c = dataclasses.replace(
    architecture.PRESETS['llama_7b'], num_layers=2, vocab_size=base.vocab_size
  )
  figures = {
    'parameters': weights.num_params(c),
    'pieces': [base.vocab_size, extended.vocab_size],
    'devices': 8,
  }
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
  }
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder) / 'hf'
    convert.make_model(folder, c)
    (folder / 'tokenizer.model').write_bytes(base.to_bytes())
    for method in METHODS:
      printed = subprocess.run(
        [sys.executable, __file__, '--child', folder, _EXTENDED.value, method],
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
      ).stdout
      figures[method] = json.loads(printed.splitlines()[-1])
  record.write('extend_rows', figures, packages=('jax',))


if __name__ == '__main__':
  if sys.argv[1:2] == ['--child']:
    child(*sys.argv[2:])
  else:
    flags.mark_flags_as_required(['base', 'extended'])
    app.run(main)
