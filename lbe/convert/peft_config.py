"""adapter_config.json of PEFT: which modules it means, and what is refused.

Modules are chosen by PEFT's own rules (0.21: check_target_module_exists,
get_pattern_key, _set_trainable), over the names that transformers gives them,
as 'model.layers.0.self_attn.q_proj'.
"""

import pathlib
import re
from collections.abc import Collection
from collections.abc import Sequence

from lbe.text import files

# Fields that change nothing that is computed: LLaMA has no biases, and PEFT
# itself ignores fan_in_fan_out where it adapts a linear layer.
_NEUTRAL = (
  'auto_mapping',
  'base_model_name_or_path',
  'bias',
  'fan_in_fan_out',
  'inference_mode',
  'lora_dropout',
  'megatron_core',
  'merge_weights',
  'peft_version',
  'qalora_group_size',
  'revision',
  'runtime_config',
  # Of ways to initialise, which init_lora_weights names.
  'corda_config',
  'eva_config',
  'loftq_config',
  'lora_ga_config',
)
# Fields that are read here, with PEFT's defaults.
_DEFAULTS = {
  'peft_type': None,
  'task_type': None,
  'r': 8,
  'lora_alpha': 8,
  'use_rslora': False,
  'init_lora_weights': True,
  'target_modules': None,
  'exclude_modules': None,
  'layers_to_transform': None,
  'layers_pattern': None,
  'rank_pattern': None,
  'alpha_pattern': None,
  'modules_to_save': None,
  'ensure_weight_tying': False,
  'trainable_token_indices': None,
}
# Ways to initialise that leave the base as it is.
_BASE_KEPT = ('gaussian', 'eva', 'orthogonal', 'mica')
_MERGE = (
  'merge the adapter with PEFT (PeftModel.from_pretrained(base, adapter)'
  '.merge_and_unload().save_pretrained(...)) and import the merged model.'
)


# What a field may be, and what stands in it where it is a list.
_KINDS = {
  'target_modules': ((str, list), str),
  'exclude_modules': ((str, list), str),
  'modules_to_save': ((list,), str),
  'layers_to_transform': ((int, list), int),
  'layers_pattern': ((str, list), str),
  'rank_pattern': ((dict,), None),
  'alpha_pattern': ((dict,), None),
  'trainable_token_indices': ((list, dict), int),
}


def path(folder: str | pathlib.Path) -> pathlib.Path:
  """adapter_config.json of a folder of PEFT; ValueError where there is none."""
  folder = pathlib.Path(folder)
  found = folder / 'adapter_config.json'
  if found.is_file():
    return found
  inner = sorted(p.parent for p in folder.glob('*/adapter_config.json'))
  raise ValueError(
    f'{folder} has no adapter_config.json'
    + (
      f', but {", ".join(p.name for p in inner)} inside it does; give that '
      f'folder: {inner[0]}.'
      if inner
      else '; give the folder that PEFT saved the adapter in.'
    )
  )


def read(folder: str | pathlib.Path) -> dict:
  """The record of a folder, with PEFT's defaults.

  ValueError for a field that changes what is computed in a way that ours does
  not have.
  """
  where = path(folder)
  record = files.read_json(where)

  def refuse(field, rule):
    raise ValueError(f'{where}: {field}={record.get(field)!r}{rule}')

  if record.get('peft_type') != 'LORA':
    refuse('peft_type', f'; only LORA is read: {_MERGE}')
  if record.get('task_type') not in (None, 'CAUSAL_LM'):
    refuse('task_type', '; only adapters of a CAUSAL_LM are read.')
  for field, value in record.items():
    known = field in _NEUTRAL or field in _DEFAULTS
    if not known and value not in (None, False, '', [], {}):
      refuse(field, f' is not supported; {_MERGE}')
  init = record.get('init_lora_weights', True)
  if init not in (None, True, False) and str(init).lower() not in _BASE_KEPT:
    refuse(
      'init_lora_weights',
      ' changed the base before training began: the adapter belongs to that '
      'base, not to the one that was published. Save it with PEFT as plain '
      'LoRA (save_pretrained(..., path_initial_model_for_weight_conversion='
      f'the adapter before training)), or {_MERGE} Where --source is the '
      'changed base, write init_lora_weights true.',
    )
  record = {**_DEFAULTS, **record}
  for field, (kinds, of_list) in _KINDS.items():
    value = record[field]
    listed = value if isinstance(value, list) else ()
    if value is not None and type(value) not in kinds:
      refuse(field, f'; it is {" or ".join(k.__name__ for k in kinds)}.')
    if not all(type(x) is of_list for x in listed):
      refuse(field, f'; its entries are {of_list.__name__}.')
  for field in ('r', 'lora_alpha', 'rank_pattern', 'alpha_pattern'):
    found = record[field] or {} if 'pattern' in field else {'': record[field]}
    for number in found.values():
      if type(number) not in (int, float) or not 0 < number < 2**31:
        refuse(field, '; it must be above 0, and no more than 2**31.')
      if field in ('r', 'rank_pattern') and number != int(number):
        refuse(field, '; it must be a whole number.')
  for pattern in _patterns(record):
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(
        f'{where}: {pattern!r} is no regular expression ({error}).'
      ) from error
  return record


def check_modules(
  record: dict, modules: Collection[str], folder: str | pathlib.Path
):
  """ValueError where fields name none of `modules`, or what is not adapted."""
  for name in record['modules_to_save'] or ():
    if not any(is_saved({'modules_to_save': [name]}, m) for m in modules):
      raise ValueError(
        f'{path(folder)}: modules_to_save has {name!r}, which LLaMA does not '
        f'have; {_MERGE}'
      )
  for name in token_indices(record):
    if name not in ('model.embed_tokens', 'lm_head'):
      raise ValueError(
        f'{path(folder)}: trainable_token_indices of {name!r}; those of '
        'embed_tokens and lm_head are read.'
      )
  found = ranks(record, sorted(modules))
  outside = [m for m in found if m.endswith('norm')]
  if outside or not found:
    raise ValueError(
      f'{path(folder)}: target_modules={record["target_modules"]!r} '
      + (
        f'adapt {outside[0]}, which is not supported; {_MERGE}'
        if outside
        else 'match no module of LLaMA (q_proj, k_proj, v_proj, o_proj, '
        'gate_proj, up_proj, down_proj).'
      )
    )


def _patterns(record):
  for field in ('target_modules', 'exclude_modules'):
    if isinstance(record[field], str):
      yield record[field]
  for field in ('rank_pattern', 'alpha_pattern'):
    yield from record[field] or ()


def ranks(record: dict, modules: Sequence[str]) -> dict[str, tuple[int, float]]:
  """{module: (rank, alpha)} of those of `modules` that are adapted."""
  return {
    module: (
      int(_of_pattern(record['rank_pattern'], module, record['r'])),
      _of_pattern(record['alpha_pattern'], module, record['lora_alpha']),
    )
    for module in modules
    if _is_target(record, module)
  }


def _of_pattern(patterns, module, default):
  for pattern, value in (patterns or {}).items():
    if re.match(rf'(.*\.)?({pattern})$', module):
      return value
  return default


def _is_target(record, module):
  excluded = record['exclude_modules'] or ()
  if isinstance(excluded, str):
    if re.fullmatch(excluded, module):
      return False
  elif _ends_with_one(module, excluded):
    return False
  for saved in record['modules_to_save'] or ():
    if re.match(rf'(^|.*\.){saved}($|\..*)', module):
      return False
  targets = record['target_modules']
  if targets is None:
    targets = ('q_proj', 'v_proj')  # PEFT's for LLaMA
  if targets == 'all-linear':
    return module.endswith('_proj')
  if isinstance(targets, str):
    return re.fullmatch(targets, module) is not None
  if module in targets:
    return True
  return _ends_with_one(module, targets) and _in_layers(record, module)


def _ends_with_one(module, names):
  return any(module == x or module.endswith(f'.{x}') for x in names)


def _in_layers(record, module):
  layers = record['layers_to_transform']
  if layers is None or layers == []:
    return True
  patterns = record['layers_pattern'] or [r'[^.]*']
  if isinstance(patterns, str):
    patterns = [patterns]
  for pattern in patterns:
    found = re.match(rf'(?:^|.*?\.){pattern}\.(?P<layer>\d+)\.', module)
    if found:
      layer = int(found['layer'])
      return layer == layers if isinstance(layers, int) else layer in layers
  return False


def is_saved(record: dict, module: str) -> bool:
  """Whether a module is trained and stored whole, alone or with its parent."""
  parts = module.split('.')
  parents = ['.'.join(parts[: i + 1]) for i in range(len(parts))]
  return any(
    parent.endswith(name)
    for name in record['modules_to_save'] or ()
    for parent in parents
  )


def token_indices(record: dict) -> dict[str, list[int]]:
  """{module: rows that are trained and stored alone}."""
  found = record['trainable_token_indices'] or {}
  if isinstance(found, list):
    found = {'embed_tokens': found}
  return {
    'model.embed_tokens' if name.endswith('embed_tokens') else name: rows
    for name, rows in found.items()
  }
