"""Checkpoints on disk, through Orbax: weights, optimizer, data, and facts.

ROOT/checkpoints/STEP/ holds the checkpointables `params`, `opt` (not of an
imported model), `data` and `meta` (JSON). `meta` has `version`, `step`,
`model`, `tokenizer`, `config` (the run's, or None) and `source` (facts of the
weights' origin), so that a checkpoint alone is enough to go on, evaluate,
generate or export. Arrays are stacked `[L, ...]` whatever the mesh was.
"""

import pathlib

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

VERSION = 1
# While saving, Orbax holds copies of the arrays in flight: at most so many
# bytes of them on a host, beside the weights themselves.
IN_FLIGHT_BYTES = 1 << 30


def _context(in_flight_bytes=IN_FLIGHT_BYTES):
  context = ocp.Context()
  registry = ocp.handlers.local_registry()
  for name in ('data', 'meta'):
    registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
  context.checkpointables.registry = registry
  context.memory.write_concurrent_bytes = in_flight_bytes
  context.memory.read_concurrent_bytes = in_flight_bytes
  return context


# ------------------------------------------------------------------ looking


def _steps(folder):
  """Finished steps of a folder of checkpoints, rising."""
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name)
    for path in folder.iterdir()
    if path.name.isdigit() and (path / 'meta').is_dir()
  )


def _find(path):
  path = pathlib.Path(path)
  if (path / 'meta').is_dir() and (path / 'params').is_dir():
    return path
  for folder in (path / 'checkpoints', path):
    steps = _steps(folder)
    if steps:
      return folder / str(steps[-1])
  return None


def is_checkpoint(path):
  """Whether `path` is a workdir, a folder of checkpoints, or one of them."""
  return _find(path) is not None


def find(path):
  """The newest finished checkpoint of a workdir, a folder, or itself.

  Raises ValueError where there is none.
  """
  found = _find(path)
  if found is None:
    raise ValueError(
      f'{path} holds no finished checkpoint; give a workdir, its '
      'checkpoints/ folder, or one step in it.'
    )
  return found


def read_meta(path):
  """The `meta` of the newest checkpoint under `path`, a dictionary."""
  with _context():
    meta = ocp.load_checkpointables(find(path), {'meta': None})['meta']
  if meta['version'] != VERSION:
    raise ValueError(
      f'{find(path)} has format version {meta["version"]}, this lbe reads '
      f'{VERSION}; use the lbe that wrote it to export it.'
    )
  return meta


# ------------------------------------------------------------------ loading


def load_params(path, abstract):
  """The parameters in the dtypes and shards of `abstract`, on any mesh."""
  with _context():
    return ocp.load_checkpointables(find(path), {'params': abstract})['params']


def params_metadata(path):
  """The parameter tree of the checkpoint, as shapes and dtypes on disk."""
  with _context():
    found = ocp.checkpointables_metadata(find(path))
  return found.metadata['params']


def load_array(path, name):
  """One stacked array, as 'layers/q_LDNH', in numpy and the dtype on disk."""
  keys = name.split('/')

  def one(tree_path, leaf):
    if [k.key for k in tree_path] == keys:
      return np.empty(0, leaf.dtype)
    return ocp.PLACEHOLDER

  with _context():
    step = find(path)
    tree = ocp.checkpointables_metadata(step).metadata['params']
    abstract = jax.tree_util.tree_map_with_path(one, tree)
    loaded = ocp.load_checkpointables(step, {'params': abstract})['params']
  for key in keys:
    loaded = loaded[key]
  return np.asarray(loaded)


# ------------------------------------------------------------------- saving


def _meta(step, meta):
  return {'version': VERSION, 'step': step, **meta}


def save_model(root, params, *, meta):
  """Saves weights alone, as step 0 of `root`; returns when they are written.

  Beside `params` it holds no more than about the largest array in memory.
  """
  largest = max(x.nbytes for x in jax.tree.leaves(params))
  context = _context(largest)
  context.memory.transfer_concurrent_bytes = largest
  with context, _clear_errors(root):
    ocp.save_checkpointables(
      pathlib.Path(root).absolute() / 'checkpoints' / '0',
      {'params': params, 'data': {}, 'meta': _meta(0, meta)},
      overwrite=True,
    )


class Checkpointer:
  """The checkpoints of one run: saved in the background, the latest kept.

  `keep_best` names a metric; the checkpoint with its lowest value is kept
  beside the `keep` latest ones.
  """

  def __init__(self, root, *, every, keep, keep_best=None):
    if every < 1 or keep < 1:
      raise ValueError(
        f'checkpoint.every={every} and checkpoint.keep={keep}: both are at '
        'least 1.'
      )
    self._root = pathlib.Path(root).absolute()
    self._every = every
    policies = [ocp.training.preservation_policies.LatestN(keep)]
    if keep_best:
      policies.append(
        ocp.training.preservation_policies.BestN(
          get_metric_fn=lambda m: m[keep_best],
          reverse=True,  # the lowest ranks last, which is best
          n=1,
          keep_checkpoints_without_metrics=False,
        )
      )
    self._keep_best = keep_best
    self._checkpointer = ocp.training.Checkpointer(
      self._root / 'checkpoints',
      context=_context(),
      save_decision_policy=_Always(),
      preservation_policy=(
        ocp.training.preservation_policies.AnyPreservationPolicy(policies)
      ),
      cleanup_tmp_directories=True,
    )
    self._pending = None

  def due(self, step):
    return step % self._every == 0

  def latest(self):
    """The newest finished step, or None."""
    newest = self._checkpointer.latest
    return None if newest is None else newest.step

  def save(self, step, state, *, data, meta, metrics=None):
    """Starts to save; returns when the arrays may be overwritten.

    Waits for the save before. Raises OSError where that one failed: what was
    saved earlier stays whole.
    """
    self.wait()
    kept = None
    if self._keep_best and metrics and self._keep_best in metrics:
      kept = {self._keep_best: float(metrics[self._keep_best])}
    with _clear_errors(self._root):
      self._pending = self._checkpointer.save_checkpointables_async(
        step,
        {
          'params': state['params'],
          'opt': {'opt_state': state['opt_state'], 'step': state['step']},
          'data': data,
          'meta': _meta(step, meta),
        },
        metrics=kept,
        overwrite=True,
      )

  def wait(self):
    """Returns when what was started is on disk."""
    if self._pending is not None:
      pending, self._pending = self._pending, None
      with _clear_errors(self._root):
        pending.result()

  def restore(self, step, abstract_state):
    """(state, data, meta) of `step`, in the shards of `abstract_state`."""
    loaded = self._checkpointer.load_checkpointables(
      step,
      {
        'params': abstract_state['params'],
        'opt': {
          'opt_state': abstract_state['opt_state'],
          'step': abstract_state['step'],
        },
        'data': None,
        'meta': None,
      },
    )
    state = {'params': loaded['params'], **loaded['opt']}
    return state, loaded['data'], loaded['meta']

  def close(self):
    self.wait()
    self._checkpointer.close()


class _Always:
  """Saves when asked: the train loop decides."""

  def should_save(self, step, previous_steps, *, context):
    del step, previous_steps, context
    return True


class _clear_errors:
  """Says of a failed save what still stands and what to do."""

  def __init__(self, root):
    self._root = root

  def __enter__(self):
    return self

  def __exit__(self, kind, error, traceback):
    del kind, traceback
    if not isinstance(error, Exception) or isinstance(error, ValueError):
      text = str(error) if error is not None else ''
      if not any(w in text for w in _DISK_WORDS):
        return False
    found = _find(self._root)
    last = found.name if found else 'none'
    raise OSError(
      f'saving into {self._root} failed ({error}); the last whole checkpoint '
      f'is {last}. Make room (or fix the folder) and start the same command '
      'again: it resumes from there.'
    ) from error


# What the file system's refusals look like inside a TensorStore error.
_DISK_WORDS = ('No space left', 'File too large', 'quota', 'ENOSPC', 'EFBIG')
