"""What makes a run this run: what may change when it resumes, what not."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable

from lbe.text import files

# Fields that may change when a run is resumed: where and how, not what.
FREE = (
  'forgetting',
  'mesh',
  'num_microbatches',
  'replay_every',
  'evals',
  'eval_batch_size',
  'log_every',
  'sinks',
  'checkpoint',
  'export_hf',
  'sample_prompts',
  'sample_max_new_tokens',
  'execution.scan',
  'execution.remat',
  'execution.attention',
  'compiler_options',
  'data.cache_dir',
  'data.num_workers',
)

# Fields that say how long a run is, and how its rates come to their end: these
# may change where the steps so far would have had the same rates.
PLAN = (
  'num_steps',
  'budget.steps',
  'budget.tokens',
  'budget.epochs',
  'budget.of',
  'optim.schedule',
  'optim.warmup_fraction',
  'optim.decay_fraction',
  'optim.final_fraction',
)


def _is_plan(name):
  of_group = name.startswith('optim.groups.') and name.endswith('.schedule')
  return name in PLAN or of_group


def commit() -> str | None:
  """The commit of this lbe, with + where files differ; None where installed."""
  home = str(pathlib.Path(__file__).resolve().parents[2])
  asked = ['git', '-C', home, 'describe', '--always', '--dirty=+']
  try:
    told = subprocess.run(
      [*asked, '--abbrev=40', '--exclude=*'],
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return told.stdout.strip()


def of_rows(workdir: str, config) -> dict:
  """What each row of scores says of the run that it is of."""
  return {
    'run': pathlib.PurePath(workdir).name,
    'seed': config.seed,
    'parent': config.init_from or config.branch_from or None,
    'commit': commit(),
  }


def flatten(config) -> dict:
  """Dotted names to values of a config or its dictionary."""
  result = {}
  fields = config if isinstance(config, dict) else config.to_dict()
  for name, value in fields.items():
    if isinstance(value, dict):
      result.update({f'{name}.{k}': v for k, v in flatten(value).items()})
    else:
      result[name] = list(value) if isinstance(value, tuple) else value
  return result


def differences(old: dict, new: dict) -> tuple[dict, dict]:
  """(decisive, free) fields that differ, each name: (old, new).

  A source's path may move: the fingerprint of its text decides instead.
  """
  old, new = flatten(old), flatten(new)
  decisive, free = {}, {}
  for name in sorted(old.keys() | new.keys()):
    # What a version before did not know is off where it is empty.
    unasked = name not in old and not new[name]
    if old.get(name) != new.get(name) and not unasked:
      parts = name.split('.')
      of_source = parts[:2] == ['data', 'sources']
      is_free = (of_source and parts[-1] in ('path', 'max_epochs')) or any(
        name == f or name.startswith(f + '.') for f in FREE
      )
      target = free if is_free else decisive
      target[name] = (old.get(name), new.get(name))
  return decisive, free


def describe(
  config,
  model,
  tokenizer,
  prepared: dict,
  num_steps: int,
  *,
  base: str | None = None,
  branch: dict | None = None,
) -> dict:
  """What makes this run this run, as JSON: kept in every checkpoint.

  `base` is the fingerprint of the weights that it began with, `branch` the
  mark of the checkpoint that it branched off from.
  """
  return {
    'config': json.loads(config.to_json_best_effort()),
    'base': base,
    'branch': branch,
    'model': model.to_json(),
    'tokenizer': tokenizer.fingerprint,
    'data': {name: p.fingerprint for name, p in prepared.items()},
    'num_steps': num_steps,
  }


def check_trains(workdir: str | pathlib.Path):
  """Raises ValueError for a workdir of `evaluate`: its scores would be cut."""
  scored = (recorded(workdir) or {}).get('scored')
  if scored:
    raise ValueError(
      f'{workdir} holds scores of {scored} (lbe.evaluate), and a run would '
      'write over them; take another --workdir.'
    )


def recorded(workdir: str | pathlib.Path) -> dict | None:
  """What `describe` gave when the run in a workdir last began, if one did."""
  path = pathlib.Path(workdir) / 'config.json'
  try:
    return files.read_json(path)
  except FileNotFoundError:
    return None
  except ValueError as error:  # a checkpoint has them, too
    from lbe.run import checkpoint  # takes a second, for this alone

    facts = None
    if checkpoint.is_checkpoint(workdir):
      facts = checkpoint.read_meta(workdir)['config']
    told = 'those of its newest checkpoint count' if facts else 'it begins anew'
    print(f"WARNING: the run's facts: {error} Here {told}.", file=sys.stderr)
    return facts


# What may be at another path: a fingerprint decides.
_MOVABLE = {
  'init_from': 'base',
  'branch_from': 'branch',
  'tokenizer': 'tokenizer',
}


def check_config(workdir: str | pathlib.Path, old: dict | None, config):
  """As `check_same_run`, by what the config alone tells: before any work."""
  if old is None:
    return
  new = json.loads(config.to_json_best_effort())
  decisive, _ = differences(old['config'], new)
  certain = {
    name: pair
    for name, pair in decisive.items()
    if name not in _MOVABLE and not _is_plan(name)
  }
  if certain:
    raise _another_run(workdir, decisive)


def check_same_run(
  workdir: str | pathlib.Path,
  old: dict | None,
  new: dict,
  say: Callable[[str], None],
  *,
  check_plan: Callable[[dict], None] | None = None,
):
  """Refuses facts of a run that differ from `old` in what decides numbers.

  Where only its plan does, `check_plan(old)` refuses. Other differences are
  said through `say`. Raises ValueError.
  """
  if old is None:
    return
  decisive, free = differences(old['config'], new['config'])
  # A base, a branch and a tokenizer may move: their fingerprints decide.
  for field, name in _MOVABLE.items():
    if field in decisive and old.get(name) and old[name] == new.get(name):
      free[field] = decisive.pop(field)
  for name in ('model', 'tokenizer', 'data', 'num_steps'):
    if old[name] != new[name]:
      decisive[name] = (old[name], new[name])
  if check_plan and decisive and all(map(_is_plan, decisive)):
    check_plan(old)
    free, decisive = decisive | free, {}
  if decisive:
    raise _another_run(workdir, decisive)
  for name, (a, b) in free.items():
    say(f'changed since the run began: {name}: {a!r} → {b!r}')


def _another_run(workdir, decisive):
  lines = '\n'.join(f'  {k}: {a!r} → {b!r}' for k, (a, b) in decisive.items())
  return ValueError(
    f'{workdir} belongs to another run; what decides its numbers differs:'
    f'\n{lines}\nUse another --workdir (with --config.init_from={workdir} '
    'to start from its weights), or set these back.'
  )
