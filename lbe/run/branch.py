"""A run that goes on from a checkpoint of another one as if from its own."""

import dataclasses
import pathlib

from etils import epath

from lbe.run import checkpoint
from lbe.run import verified

# What the run has told so far, up to the step where it branches off.
_FILES = ('metrics.jsonl', 'results.jsonl', 'predictions.jsonl')


@dataclasses.dataclass(frozen=True)
class Branch:
  """Where it begins; `facts` are those of the run that it comes from."""

  path: epath.Path  # .../checkpoints/STEP
  step: int
  facts: dict


def find(path: str) -> Branch:
  """The checkpoint, or the newest one of a workdir.

  Raises ValueError for weights without the moments and facts of a run.
  """
  found = verified.checked(checkpoint.find(path))
  facts = checkpoint.read_meta(found)['config']
  if facts is None or not (found / 'opt').exists():
    raise ValueError(
      f'branch_from={path!r} holds weights alone, no run with moments and a '
      'place in its data; start from them with --config.init_from.'
    )
  config = facts['config'] | {'branch_from': path}
  return Branch(found, int(found.name), facts | {'config': config})


def not_taken(path: str | pathlib.Path) -> str:
  """Of a run whose weights alone are taken, what begins anew; else ''."""
  if not checkpoint.is_checkpoint(path):
    return ''
  meta = checkpoint.read_meta(path)
  if meta['config'] is None:
    return ''
  return (
    f' after {meta["step"]:,} steps of another run, whose data and moments '
    'begin anew here. To go on with them raise the budget in its own workdir, '
    'or set branch_from.'
  )


def mark(branch_from: str, begun: Branch | None, recorded: dict | None):
  """What tells the checkpoint from others wherever it lies; None without.

  `recorded` are the facts of this run, if it began before: the path that they
  name is not looked at again.
  """
  if not branch_from:
    return None
  if begun is None and recorded is not None:
    if recorded['config'].get('branch_from') == branch_from:
      return recorded.get('branch')
  begun = begun or find(branch_from)
  return {'step': begun.step, 'weights': checkpoint.fingerprint(begun.path)}


def bring(branch: Branch, workdir: pathlib.Path):
  """Copies what the run that it comes from has told; the caller cuts it."""
  for name in _FILES:
    file = epath.Path(branch.path).parent.parent / name
    if file.exists():
      (workdir / name).write_bytes(file.read_bytes())
