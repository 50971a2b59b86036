"""Numbers of a config: of the right type, finite, and in their range."""

import math

# Counts that are 1 at least, by the names of their fields; others may be 0.
_FROM_ONE = (
  'seq_len',
  'batch_size',
  'log_every',
  'checkpoint.every',
  'keep',
  'eval_batch_size',
  'num_microbatches',
  'vocab_multiple',
  'sample_max_new_tokens',
  'rank',
  'num_permutations',
  'shingle',
  'max_new_tokens',
  'concurrency',
  'max_tries',
  'max_asks',
)
# Shares, from 0 to 1.
_SHARES = (
  'holdout',
  'warmup_fraction',
  'decay_fraction',
  'min_script_share',
  'max_repetition',
  'near_duplicates',
  'b1',
  'b2',
)
# What is divided by, so that 0 makes NaN.
_ABOVE_ZERO = ('eps', 'norm_eps')
# Blocks in which None is no value.
_GIVEN = (
  *('model.', 'budget.', 'checkpoint.', 'execution.', 'lora.', 'optim.'),
  *('mesh.', 'data.seq_len', 'data.batch_size'),
)
# One that may be -1, and those that say in their own words what they take.
_OWN = ('mesh', 'proportion', 'from_step', 'temperature', 'dropout')


def check(config, before: str = ''):
  """Raises ValueError for a number that no run can have, with its name."""
  for field, value in config.items():
    name = f'{before}{field}'
    if value is None and name.startswith(_GIVEN):
      if '.groups.' not in name:  # there None is what `optim` says
        raise ValueError(f'{name}=None: a run has to know it; give one.')
    if field in _OWN:
      continue
    if hasattr(value, 'items'):
      check(value, f'{name}.')
    elif isinstance(value, float) and not math.isfinite(value):
      raise ValueError(f'{name}={value} is no number; give one.')
    elif isinstance(value, int | float) and not isinstance(value, bool):
      _check_range(name, field, value)


def told(config, before: str = '') -> str:
  """A line for each field, as 'optim.peak_lr = 0.0002'."""
  lines = []
  for field, value in config.items():
    if hasattr(value, 'items') and len(value):
      lines.append(told(value, f'{before}{field}.'))
    else:
      shown = {} if hasattr(value, 'items') else value
      lines.append(f'{before}{field} = {shown!r}')
  return '\n'.join(lines)


def _check_range(name, field, value):
  least = int(any(f'.{name}'.endswith(f'.{x}') for x in _FROM_ONE))
  if value < least:
    raise ValueError(f'{name}={value} is below {least}, the least it can be.')
  if field in _ABOVE_ZERO and not value:
    raise ValueError(f'{name}={value} is divided by; take more than 0.')
  if field in _SHARES and value > 1:
    raise ValueError(f'{name}={value} is above 1; it is a share, from 0 to 1.')
