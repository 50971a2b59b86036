"""Are stored files found damaged? Random corruptions of all that lbe stores.

  PYTHONPATH=. python benchmarks/corruptions.py --trials=2000
  PYTHONPATH=. python benchmarks/corruptions.py --trials=0 --gigabytes=1

Each trial damages one file of a run's newest checkpoint, of tokenized data or
of an export, and lets the reader have it: `aside.choose` as train does,
`build.prepare`, `Opened.load_params`. Named is what the reader names with its
file; silent is damage that it takes. The same is done without checksums
(--unverified), to see what the libraries below find. With --gigabytes, what
checksums cost a restore and a save.
"""

import collections
import contextlib
import io
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from absl import app
from absl import flags
from absl import logging

from benchmarks import record
from lbe.convert import stored
from lbe.data import build
from lbe.data import shards
from lbe.data import sources
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import weights
from lbe.run import aside
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.vocab import tokenizers

_TRIALS = flags.DEFINE_integer('trials', 2000, 'Of each kind of folder.')
_UNVERIFIED = flags.DEFINE_integer(
  'unverified', 100, 'Of each kind of folder, without checksums.'
)
_GIGABYTES = flags.DEFINE_float('gigabytes', 0, 'Of the checkpoint timed.')
_PAIRS = flags.DEFINE_integer('pairs', 5, 'Alternating, when it is timed.')

_MODEL = architecture.Config(
  vocab_size=259,
  dim=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=64,
)


def _mesh():
  return sharding.make_mesh(
    dict(data=1, fsdp=1, context=1, tensor=1), devices=jax.devices()[:1]
  )


def _meta():
  return {
    'model': _MODEL.to_json(),
    'tokenizer': stored.tokenizer_meta(tokenizers.Bytes()),
    'config': None,
    'source': {'dtype': 'float32'},
  }


def _abstract(state):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


# ------------------------------------------------------------------- damage


def _flip(rng, data, others):
  at = rng.integers(len(data))
  data[at] ^= 1 << rng.integers(8)
  return data


def _zero(rng, data, others):
  size = min(len(data), int(rng.choice([512, 4096])))
  start = rng.integers(len(data) - size + 1)
  data[start : start + size] = bytes(size)
  return data


def _overwrite(rng, data, others):
  size = min(len(data), int(rng.choice([1, 16, 512])))
  start = rng.integers(len(data) - size + 1)
  data[start : start + size] = rng.bytes(size)
  return data


def _cut(rng, data, others):
  return data[: rng.integers(len(data))]


def _grow(rng, data, others):
  return data + rng.bytes(int(rng.integers(1, 512)))


def _swap(rng, data, others):
  return others[rng.integers(len(others))].read_bytes()


def _miss(rng, data, others):
  return None


_KINDS = {
  'bit flipped': _flip,
  'block zeroed': _zero,
  'bytes overwritten': _overwrite,
  'cut off': _cut,
  'grown': _grow,
  'another file': _swap,
  'missing': _miss,
}


@contextlib.contextmanager
def _damaged(rng, folder, elsewhere=()):
  """(kind, name) of the damage of one file; whole again afterwards.

  Files of other folders may take a file's place, as those of an older
  checkpoint.
  """
  # The card is its reader's to change.
  names = [
    name
    for name in checksums.files(folder)
    if (folder / name).stat().st_size and name != 'README.md'
  ]
  while True:
    kind = list(_KINDS)[rng.integers(len(_KINDS))]
    name = names[rng.integers(len(names))]
    path = folder / name
    whole = path.read_bytes()
    others = [folder / n for n in names if n != name]
    others += [p for x in elsewhere for p in x.rglob('*') if p.is_file()]
    data = _KINDS[kind](rng, bytearray(whole), others)
    if data != whole:
      break
  path.unlink()
  if data is not None:
    path.write_bytes(data)
  try:
    yield kind, name
  finally:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole)


# -------------------------------------------------------------- three readers


class _Run:
  """A run with checkpoints of steps 1 and 2; the newest is damaged."""

  name = 'checkpoint'

  def __init__(self, root):
    self._root = root / 'run'
    shardings = sharding.shardings(_mesh(), weights.dims(_MODEL))
    params = jax.device_put(weights.init(_MODEL, jax.random.key(0)), shardings)
    moments = jax.tree.map(lambda x: x + 1, params)
    state = {'params': params, 'opt_state': moments, 'step': jax.numpy.ones(())}
    self._abstract = _abstract(state)
    saver = checkpoint.Checkpointer(self._root, self._abstract, every=1, keep=2)
    for step in (1, 2):
      saver.save(step, state, data={'step': step}, meta=_meta())
    saver.close()
    self._state = jax.tree.map(np.asarray, state)
    self.folder = self._root / 'checkpoints' / '2'
    self.elsewhere = [self._root / 'checkpoints' / '1']

  def read(self, name):
    """What the reader says; '' where it takes the folder as whole."""
    said = []
    aside.choose(str(self._root), said.append)
    moved = self._root / aside.FOLDER / '2'
    if not moved.exists():
      return self._loaded()
    os.rename(moved, self.folder)
    return '\n'.join(x for x in said if 'WARNING' in x)

  def _loaded(self):
    state, _, _ = checkpoint.load_state(self._root, self._abstract)
    same = jax.tree.map(
      lambda a, b: np.array_equal(np.asarray(a), b), state, self._state
    )
    return 'the same numbers' if all(jax.tree.leaves(same)) else ''


class _Data:
  """Tokenized data of several shards."""

  name = 'tokenized data'
  elsewhere = ()

  def __init__(self, root):
    path, self._cache = root / 'texts.txt', root / 'cache'
    path.write_text(
      '\n\n'.join(f'{i} and {"so on " * (7 * i % 50)}' for i in range(400))
    )
    self._source = sources.Source(name='en', path=str(path), holdout=0.05)
    self._rows = self._stream()
    self.folder = next(self._cache.glob('en-*/1.0.0'))

  def _stream(self):
    with contextlib.redirect_stderr(io.StringIO()):
      prepared = build.prepare(
        self._source,
        tokenizers.Bytes(),
        cache_dir=self._cache,
        num_workers=1,
        progress=False,
      )
    train = prepared.train
    ids, documents = train.tokens(0, train.num_tokens)
    return ids.tobytes(), documents.tobytes(), prepared.heldout.texts()

  def read(self, name):
    same = self._stream() == self._rows
    made = name == 'report.json' and (self.folder / name).exists()
    if made:  # what is written last was gone: all was made anew
      return f'{name} made anew'
    return 'the same numbers' if same else ''


class _Export:
  """A Hugging Face folder that export_hf wrote."""

  name = 'export'
  elsewhere = ()

  def __init__(self, root):
    source, self.folder = root / 'model', root / 'export'
    self._params = weights.init(_MODEL, jax.random.key(0))
    checkpoint.save_model(source, self._params, meta=_meta())
    subprocess.run(
      [sys.executable, '-m', 'lbe.export_hf', f'--source={source}']
      + [f'--target={self.folder}', '--verify=digests', '--shard_bytes=40000'],
      check=True,
      stdout=subprocess.DEVNULL,
    )

  def read(self, name):
    opened = stored.open_model(self.folder)
    params = opened.load_params(_mesh())
    same = jax.tree.map(
      lambda a, b: np.array_equal(np.asarray(a), b), params, self._params
    )
    whole = all(jax.tree.leaves(same)) and opened.tokenizer is not None
    return 'the same numbers' if whole else ''


def _outcome(reader, name):
  """How a reader took the damage of a file."""
  try:
    told = reader.read(name)
  except Exception as error:  # whatever a reader raises is an outcome
    plain = isinstance(error, ValueError) and '\n' not in str(error).strip()
    if name in str(error) or f'{name.split("/")[-1]} ' in str(error):
      return 'named'
    return 'refused' if plain else 'traceback'
  if not told:
    return 'silent'
  if told == 'the same numbers':
    return told
  return 'named' if name in told else 'refused'


def _campaign(rng, reader, trials, *, verified):
  counts, kinds, missed = collections.Counter(), collections.Counter(), []
  checksums.asked = verified
  start = time.perf_counter()
  for _ in range(trials):
    with _damaged(rng, reader.folder, reader.elsewhere) as (kind, name):
      if kind == 'missing' and name == 'report.json':
        shutil.rmtree(reader.folder / 'work', ignore_errors=True)
      outcome = _outcome(reader, name)
    counts[outcome] += 1
    kinds[kind] += 1
    if outcome not in ('named', 'refused'):
      missed.append(f'{kind}: {name}')
  checksums.asked = True
  return {
    'folder': reader.name,
    'checksums': verified,
    'trials': trials,
    'outcomes': dict(counts),
    'kinds': dict(kinds),
    'not_refused': sorted(set(missed))[:20],
    'seconds': round(time.perf_counter() - start),
  }


# --------------------------------------------------------------------- cost


@contextlib.contextmanager
def _timed(seconds):
  """Adds (by the clock, of the processor, all threads) to the list."""
  start = time.perf_counter(), time.process_time()
  yield
  seconds.append(
    (time.perf_counter() - start[0], time.process_time() - start[1])
  )


def _cost(root):
  """Restore and save of one checkpoint with checksums and without."""
  rng = np.random.default_rng(0)
  size = round(_GIGABYTES.value * 1e9 / 4 / 8)
  params = {
    f'x{i}': jax.device_put(rng.standard_normal(size, np.float32))
    for i in range(8)
  }
  state = {'params': params, 'opt_state': {}, 'step': jax.numpy.ones(())}
  abstract = _abstract(state)
  restore, blocked, whole = ({True: [], False: []} for _ in range(3))
  keep = checkpoint.verified.keep_checksums
  for pair in range(2 * _PAIRS.value):
    asked = pair % 2 == 0
    target = root / f'big{pair}'
    saver = checkpoint.Checkpointer(target, abstract, every=1, keep=1)
    if not asked:
      checkpoint.verified.keep_checksums = lambda step: None
    with _timed(whole[asked]):
      with _timed(blocked[asked]):
        saver.save(1, state, data={}, meta=_meta())
      saver.close()
    checkpoint.verified.keep_checksums = keep
    keep(target / 'checkpoints' / '1')
    for order in ((True, False), (False, True))[pair % 2]:
      checksums.asked = order
      with _timed(restore[order]):
        jax.block_until_ready(
          checkpoint.load_params(target, abstract['params'])
        )
    checksums.asked = True
    shutil.rmtree(target)
  figures = {}
  for name, seconds in (
    ('restore', restore),
    ('save_blocked', blocked),
    ('save_whole', whole),
  ):
    for i, clock in enumerate(('clock', 'processor')):
      ours, theirs = ([x[i] for x in seconds[how]] for how in (True, False))
      ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
      figures[f'{name}, {clock}'] = {
        'seconds': round(statistics.median(ours), 3),
        'seconds_without': round(statistics.median(theirs), 3),
        'median': round(statistics.median(ratios), 3),
        'range': [round(min(ratios), 3), round(max(ratios), 3)],
      }
  return figures


def main(_):
  logging.set_verbosity(logging.WARNING)
  shards.SHARD_BYTES = 20_000
  rng = np.random.default_rng(0)
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    if _TRIALS.value:
      for make in (_Run, _Data, _Export):
        reader = make(root)
        for verified, trials in ((True, _TRIALS), (False, _UNVERIFIED)):
          figures = _campaign(rng, reader, trials.value, verified=verified)
          how = 'verified' if verified else 'not verified'
          record.write(
            'corruptions', {'setting': f'{reader.name}, {how}', **figures}
          )
    if _GIGABYTES.value:
      figures = {'setting': f'{_GIGABYTES.value:g} GB', **_cost(root)}
      record.write(
        'corruptions', figures, packages=('orbax-checkpoint', 'xxhash')
      )


if __name__ == '__main__':
  app.run(main)
