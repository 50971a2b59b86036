"""Checkpoints on disk, through Orbax: weights, optimizer, data, and facts.

ROOT/checkpoints/STEP/ holds the checkpointables `params`, `opt` (not of an
imported model), `data` and `meta` (JSON). `meta` has `version`, `step`,
`model`, `tokenizer`, `config` (the run's, or None) and `source` (facts of the
weights' origin), so that a checkpoint alone is enough to go on, evaluate,
generate or export. Arrays are stacked `[L, ...]` whatever the mesh was.
Beside them lie the checksums of all files (lbe/run/verified.py).
"""

import concurrent.futures
import contextlib
import hashlib
import math
import pathlib

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from lbe.run import checksums
from lbe.run import output
from lbe.run import verified

VERSION = 1
# While saving, Orbax holds copies of the arrays in flight: at most so many
# bytes of them on a host, beside the weights themselves (or the largest one).
IN_FLIGHT_BYTES = 1 << 30


def _context(tree=None, *, in_flight_bytes=None):
  """Orbax's settings for arrays like those of `tree`.

  One request has to be smaller than the limit, so that grows with the largest
  array: of a read the whole array counts, of a write the part on a device.
  """
  if in_flight_bytes is None:
    in_flight_bytes = IN_FLIGHT_BYTES
  leaves = jax.tree.leaves(tree)
  whole = max((x.size for x in leaves), default=0) * 4
  part = max((_bytes_on_a_device(x) for x in leaves), default=0)
  context = ocp.Context()
  registry = ocp.handlers.local_registry()
  for name in ('data', 'meta'):
    registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
  context.checkpointables.registry = registry
  # Weights hardly shrink, and the compressed copies would fill the memory.
  context.array.saving.use_compression = False
  context.memory.write_concurrent_bytes = max(in_flight_bytes, part + 1)
  context.memory.read_concurrent_bytes = max(in_flight_bytes, whole + 1)
  return context


def _bytes_on_a_device(x):
  sharding = getattr(x, 'sharding', None)
  shape = x.shape if sharding is None else sharding.shard_shape(x.shape)
  return math.prod(shape) * np.dtype(x.dtype).itemsize


# ------------------------------------------------------------------ looking


def _absolute(path):
  """A path as Orbax takes it: absolute, or in a bucket."""
  if '://' in str(path):
    return epath.Path(path)
  return pathlib.Path(path).absolute()


def _is_finished(path):
  """Whether all of a checkpoint is there; buckets cannot rename, but mark."""
  if isinstance(path, pathlib.Path):
    return (path / 'meta').is_dir() or checksums.is_there(path)
  return (path / 'commit_success.txt').exists()


def steps(workdir: str | pathlib.Path) -> list[int]:
  """Finished steps of a run, rising."""
  return _steps(_absolute(workdir) / 'checkpoints')


def _steps(folder):
  """Finished steps of a folder of checkpoints, rising."""
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name)
    for path in folder.iterdir()
    if path.name.isdigit() and _is_finished(path)
  )


def _find(path):
  path = _absolute(path)
  if _is_finished(path) and (path / 'params').is_dir():
    return path
  for folder in (path / 'checkpoints', path):
    steps = _steps(folder)
    if steps:
      return folder / str(steps[-1])
  return None


def is_checkpoint(path: str | pathlib.Path) -> bool:
  """Whether `path` is a workdir, a folder of checkpoints, or one of them."""
  return _find(path) is not None


def check_free(target: str | pathlib.Path):
  """Raises ValueError where a model or a run is in the folder already."""
  if is_checkpoint(target) or (epath.Path(target) / 'config.json').exists():
    raise ValueError(
      f'--target={target} already holds a model or a run; give an empty '
      'folder, or delete it.'
    )


def find(path: str | pathlib.Path) -> epath.Path:
  """The newest finished checkpoint of a workdir, a folder, or itself.

  Raises ValueError where there is none.
  """
  newest = _find(path)
  if newest is None:
    raise ValueError(
      f'{path} holds no finished checkpoint; give a workdir, its '
      'checkpoints/ folder, or one step in it (a Hugging Face folder becomes '
      'one by python -m lbe.import_hf).'
    )
  return newest


def read_meta(path: str | pathlib.Path) -> dict:
  """The `meta` of the newest checkpoint under `path`, a dictionary."""
  step = verified.checked(find(path), ('meta',), alone=True)
  with _context(), verified.told_plainly(step):
    meta = ocp.load_checkpointables(step, {'meta': None})['meta']
  if meta['version'] != VERSION:
    raise ValueError(
      f'{step} has format version {meta["version"]}, this lbe reads '
      f'{VERSION}; use the lbe that wrote it to export it.'
    )
  return meta


def fingerprint(path: str | pathlib.Path) -> str:
  """A hash of what names the newest weights under `path`, copied or moved."""
  manifest = find(path) / 'params' / 'manifest.ocdbt'
  return hashlib.sha256(manifest.read_bytes()).hexdigest()


# ------------------------------------------------------------------ loading


def load_params(path: str | pathlib.Path, abstract: dict) -> dict:
  """The parameters in the dtypes and shards of `abstract`, on any mesh.

  All hosts call it. Raises ValueError where they are not as they were written.
  """
  step = verified.checked(find(path), ('params',))
  with _context(abstract), verified.told_plainly(step):
    return ocp.load_checkpointables(step, {'params': abstract})['params']


def load_state(
  path: str | pathlib.Path, abstract_state: dict
) -> tuple[dict, dict, dict]:
  """(state, data, meta) of the newest, which aside.choose has looked at.

  The state is in the shards of the abstract one.
  """
  abstract = {
    'params': abstract_state['params'],
    'opt': _beside_params(abstract_state),
    'data': None,
    'meta': None,
  }
  step = find(path)
  with _context(abstract_state), verified.told_plainly(step):
    loaded = ocp.load_checkpointables(step, abstract)
  state = {'params': loaded['params'], **loaded['opt']}
  return state, loaded['data'], loaded['meta']


def _beside_params(state):
  return {name: x for name, x in state.items() if name != 'params'}


def params_metadata(path: str | pathlib.Path) -> dict:
  """The parameter tree of the checkpoint, as shapes and dtypes on disk."""
  step = find(path)
  with _context(), verified.told_plainly(step):
    stored = ocp.checkpointables_metadata(step).metadata['params']
    if stored is None:  # Orbax does not raise
      raise ValueError('no metadata of params')
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), stored)


def load_array(path: str | pathlib.Path, name: str) -> np.ndarray:
  """One stacked array, as 'layers/q_LDNH', in numpy and the dtype on disk."""
  keys = name.split('/')

  def one(tree_path, leaf):
    if [k.key for k in tree_path] == keys:
      return np.empty(0, leaf.dtype)  # asks for numpy
    return ocp.PLACEHOLDER

  step = find(path)
  tree = params_metadata(step)
  with _context(tree):
    abstract = jax.tree_util.tree_map_with_path(one, tree)
    loaded = ocp.load_checkpointables(step, {'params': abstract})['params']
  for key in keys:
    loaded = loaded[key]
  return np.asarray(loaded)


# ------------------------------------------------------------------- saving


def _meta(step, meta):
  return {'version': VERSION, 'step': step, **meta}


def save_model(root: str | pathlib.Path, params: dict, *, meta: dict):
  """Saves weights alone, as step 0 of `root`; returns when they are written.

  Beside `params` it holds no more than about the largest array in memory.
  """
  context = _context(params, in_flight_bytes=0)
  limit = context.memory.write_concurrent_bytes
  context.memory.transfer_concurrent_bytes = limit
  context.memory.deepcopy_host_arrays = False
  step = _absolute(root) / 'checkpoints' / '0'
  with context, _clear_errors(root):
    ocp.save_checkpointables(
      step,
      {'params': params, 'data': {}, 'meta': _meta(0, meta)},
      overwrite=True,
    )
    verified.keep_checksums(step)


class Checkpointer:
  """The checkpoints of one run: saved in the background, the latest kept.

  `abstract_state` is the state in shapes, dtypes and shards. `keep_best` names
  a metric; the checkpoint with its best value, the 'lower' or 'higher' one, is
  kept beside the `keep` latest ones.
  """

  def __init__(
    self,
    root: str | pathlib.Path,
    abstract_state: dict,
    *,
    every: int,
    keep: int,
    keep_best: str | None = None,
    best_is: str | None = None,
  ):
    if every < 1 or keep < 1:
      raise ValueError(
        f'checkpoint.every={every} and checkpoint.keep={keep}: both are at '
        'least 1.'
      )
    self._root = _absolute(root)
    self._abstract_state = abstract_state
    self._every = every
    self._keep_best = keep_best
    self._sign = {'lower': -1.0, 'higher': 1.0, None: 0.0}[best_is]
    self._late = {}
    policies = [ocp.training.preservation_policies.LatestN(keep)]
    if keep_best:
      policies.append(_Best(self._rank))
    self._checkpointer = ocp.training.Checkpointer(
      self._root / 'checkpoints',
      context=_context(abstract_state),
      # When to save the train loop decides.
      save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(
        1
      ),
      preservation_policy=(
        ocp.training.preservation_policies.AnyPreservationPolicy(policies)
      ),
      cleanup_tmp_directories=True,
    )
    self._pending = None
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    self._find_best()

  def _find_best(self):
    self._best = max(
      (self._rank(c.metrics, c.step) for c in self._checkpointer.checkpoints),
      default=-math.inf,
    )

  def _rank(self, metrics, step=None):
    """Higher for a better one; -inf for one that was not scored."""
    value = (metrics or {}).get(self._keep_best, self._late.get(step))
    if value is None or math.isnan(value):
      return -math.inf
    return self._sign * value

  def scored_late(self, values: dict[int, float]):
    """Takes {step: value of `keep_best`} of what was saved before its score."""
    self._late |= values
    self._find_best()

  def chooses(self) -> bool:
    """Whether a score decides what is kept, so that it comes before."""
    return bool(self._keep_best)

  def lacks_best(self) -> bool:
    """Whether a best was to be kept and nothing had that score."""
    return bool(self._keep_best) and self._best == -math.inf

  def is_best(self, metrics: dict) -> bool:
    """Whether these scores are better than those of all that was saved."""
    return self._rank(metrics) > self._best

  def due(self, step: int) -> bool:
    return step % self._every == 0

  def latest(self) -> int | None:
    """The newest finished step, or None."""
    newest = self._checkpointer.latest
    return None if newest is None else newest.step

  def save(
    self,
    step: int,
    state: dict,
    *,
    data: dict,
    meta: dict,
    metrics: dict | None = None,
  ):
    """Starts to save; returns when the arrays may be overwritten.

    Waits for the save before. Raises OSError where that one failed: what was
    saved earlier stays whole.
    """
    self.wait()
    kept = None
    rank = self._rank(metrics)
    if rank > -math.inf:
      kept = {self._keep_best: float(metrics[self._keep_best])}
      self._best = max(self._best, rank)
    with _clear_errors(self._root):
      saving = self._checkpointer.save_checkpointables_async(
        step,
        {
          'params': state['params'],
          'opt': _beside_params(state),
          'data': data,
          'meta': _meta(step, meta),
        },
        metrics=kept,
        overwrite=True,
      )
      self._pending = self._pool.submit(self._finish, step, saving)

  def _finish(self, step, saving):
    saving.result()
    verified.keep_checksums(self._root / 'checkpoints' / str(step))

  @contextlib.contextmanager
  def finishing(self):
    """Within, an error waits until what was started is on disk.

    Orbax would break it off. Not where other processes have a part in it: they
    may be gone.
    """
    try:
      yield
    except BaseException:
      if jax.process_count() == 1:
        self.wait()
      raise

  def wait(self):
    """Returns when what was started is on disk."""
    if self._pending is not None:
      pending, self._pending = self._pending, None
      with _clear_errors(self._root):
        pending.result()

  def close(self):
    self.wait()
    self._checkpointer.close()


class _Best(ocp.training.preservation_policies.PreservationPolicy):
  """Keeps the newest of those with the highest rank, (metrics, step) → rank.

  As Orbax's BestN, which does not tell the step.
  """

  def __init__(self, rank):
    self._rank = rank

  def should_preserve(self, checkpoints, *, context):
    del context
    ranks = [self._rank(c.metrics, c.step) for c in checkpoints]
    best = max(ranks, default=-math.inf)
    last = max((i for i, r in enumerate(ranks) if r == best), default=None)
    return [i == last and best > -math.inf for i in range(len(ranks))]


@contextlib.contextmanager
def _clear_errors(root):
  """Says of a failed save what still stands and what to do."""
  try:
    yield
  except Exception as error:
    reason = output.disk_reason(error)
    if not reason and not isinstance(error, OSError):
      raise
    newest = _find(root)
    last = newest.name if newest else 'none'
    raise OSError(
      f'saving into {root} failed ({reason or error}); the last whole '
      f'checkpoint is {last}. Make room (or mend the folder) and start the '
      'same command again: it resumes from there.'
    ) from error
