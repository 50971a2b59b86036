"""What makes a run this run: what may change when it resumes, what not."""

import json
import pathlib
from collections.abc import Callable

# Fields that may change when a run is resumed: where and how, not what.
FREE = (
  'forgetting',
  'mesh',
  'num_microbatches',
  'evals',
  'eval_batch_size',
  'log_every',
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
  config, model, tokenizer, prepared: dict, num_steps: int, *, base=None
) -> dict:
  """What makes this run this run, as JSON: kept in every checkpoint.

  `base` is the fingerprint of the weights that it began with.
  """
  return {
    'config': json.loads(config.to_json_best_effort()),
    'base': base,
    'model': model.to_json(),
    'tokenizer': tokenizer.fingerprint,
    'data': {name: p.fingerprint for name, p in prepared.items()},
    'num_steps': num_steps,
  }


def recorded(workdir: str | pathlib.Path) -> dict | None:
  """What `describe` gave when the run in a workdir last began, if one did."""
  path = pathlib.Path(workdir) / 'config.json'
  return json.loads(path.read_text()) if path.exists() else None


def check_same_run(
  workdir: pathlib.Path, new: dict, say: Callable[[str], None]
):
  """Refuses a workdir whose run differs in what decides numbers.

  Other differences are said through `say`. Raises ValueError.
  """
  old = recorded(workdir)
  if old is None:
    return
  decisive, free = differences(old['config'], new['config'])
  # A base and a tokenizer may move: their fingerprints decide.
  for field, name in (('init_from', 'base'), ('tokenizer', 'tokenizer')):
    if field in decisive and old.get(name) and old[name] == new.get(name):
      free[field] = decisive.pop(field)
  for name in ('model', 'tokenizer', 'data', 'num_steps'):
    if old[name] != new[name]:
      decisive[name] = (old[name], new[name])
  if decisive:
    lines = '\n'.join(f'  {k}: {a!r} → {b!r}' for k, (a, b) in decisive.items())
    raise ValueError(
      f'{workdir} belongs to another run; what decides its numbers differs:'
      f'\n{lines}\nUse another --workdir (with --config.init_from={workdir} '
      'to start from its weights), or set these back.'
    )
  for name, (a, b) in free.items():
    say(f'changed since the run began: {name}: {a!r} → {b!r}')
