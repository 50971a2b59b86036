"""Adapters as PEFT stores them: adapter_config.json and one safetensors file.

Of our stacked A [L, in.., R] and B [L, R, out..], PEFT has [R, in] and
[out, R] a layer. Embedding and head that were trained as well stand beside
them whole, as its `modules_to_save`.
"""

import json
import pathlib
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import safetensors.numpy

from lbe.convert import hf
from lbe.models import architecture
from lbe.models import weights

_PREFIX = 'base_model.model.'
_MODULES = {
  name: weights.TABLE[f'layers/{name}'].theirs.split('.')[-1]
  for name in weights.ADAPTABLE
}
_SAVED = {
  name: f'{weights.TABLE[name].theirs}.weight'
  for name in ('embed_VD', 'head_DV')
}


def write(
  folder: hf.Folder,
  c: architecture.Config,
  get_array: Callable[[str], np.ndarray],
  *,
  dtype: str,
  base: str,
  saved: Sequence[str] = (),
):
  """Writes the adapters of a model as PEFT's library loads them.

  `get_array` is that of hf.write_safetensors, `base` the path or name of the
  model that they belong to, `saved` those of 'embed_VD' and 'head_DV' that
  were trained whole.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  dtype = hf.DTYPES[dtype]
  tensors = {}
  for name in c.lora.weights:
    for part in (f'lora/{x}' for x in weights.adapters(name)):
      array = get_array(part)
      for theirs, one in zip(hf.their_names(c, part), array, strict=True):
        tensors[_PREFIX + theirs] = hf.to_theirs(c, part, one).astype(dtype)
  for name in saved:
    array = hf.to_theirs(c, name, get_array(name)).astype(dtype)
    tensors[_PREFIX + _SAVED[name]] = array
  modules = [_SAVED[name] for name in saved]
  if c.tied and saved:  # PEFT unties what it saves: the head is a copy
    modules.append('lm_head.weight')
    tensors[_PREFIX + modules[-1]] = array.copy()
  safetensors.numpy.save_file(
    {key: np.ascontiguousarray(x) for key, x in tensors.items()},
    folder / 'adapter_model.safetensors',
    metadata={'format': 'pt'},
  )
  record = {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': str(base),
    'r': c.lora.rank,
    'lora_alpha': c.lora.alpha,
    'lora_dropout': 0.0,
    'use_rslora': c.lora.rslora,
    'target_modules': [_MODULES[name] for name in c.lora.weights],
    'modules_to_save': [m.split('.')[-2] for m in modules] or None,
    'bias': 'none',
    'fan_in_fan_out': False,
    'inference_mode': True,
  }
  (folder / 'adapter_config.json').write_text(json.dumps(record, indent=2))


# What changes the computation in a way that ours does not have.
_REFUSED = {
  'bias': 'none',
  'use_dora': False,
  'fan_in_fan_out': False,
  'rank_pattern': {},
  'alpha_pattern': {},
  'layers_to_transform': None,
  'layer_replication': None,
  'exclude_modules': None,
  'target_parameters': None,
  'lora_bias': False,
  'use_qalora': False,
  'trainable_token_indices': None,
  'megatron_config': None,
}


def read_config(folder: hf.Folder) -> architecture.Lora:
  """The Lora of a PEFT folder; ValueError for what we cannot compute."""
  path = pathlib.Path(folder) / 'adapter_config.json'
  record = json.loads(path.read_text(encoding='utf-8'))
  if record.get('peft_type') != 'LORA':
    raise ValueError(
      f'{path}: peft_type={record.get("peft_type")!r}; only LORA is read.'
    )
  for field, plain in _REFUSED.items():
    if record.get(field, plain) not in (plain, None):
      raise ValueError(
        f'{path}: {field}={record[field]!r} is not supported; merge the '
        'adapter with PEFT (merge_and_unload) and import the merged model.'
      )
  wanted = record['target_modules']
  if wanted == 'all-linear':
    wanted = list(_MODULES.values())
  if isinstance(wanted, str) or set(wanted) - set(_MODULES.values()):
    raise ValueError(
      f'{path}: target_modules={wanted!r}; a list of those of a layer is '
      f'read: {", ".join(_MODULES.values())}.'
    )
  saved = {m.split('.')[-1] for m in record.get('modules_to_save') or ()}
  others = saved - {'embed_tokens', 'lm_head'}
  if others:
    raise ValueError(
      f'{path}: modules_to_save={sorted(others)}; only embed_tokens and '
      'lm_head are read.'
    )
  return architecture.Lora(
    weights=tuple(n for n, module in _MODULES.items() if module in wanted),
    rank=record['r'],
    alpha=record['lora_alpha'],
    rslora=record.get('use_rslora', False),
  )


def read(folder: hf.Folder, c: architecture.Config) -> dict[str, np.ndarray]:
  """{our flat name: array} of the adapters, and of what was saved whole.

  `c` is the model with the folder's Lora. Raises ValueError for a tensor that
  is missing or belongs to another model.
  """
  path = pathlib.Path(folder) / 'adapter_model.safetensors'
  if not path.is_file():
    raise ValueError(
      f'{folder} has no adapter_model.safetensors; save the adapter with '
      'safetensors (PEFT does by default).'
    )
  tensors = safetensors.numpy.load_file(path)
  result = {}

  def take(key, shape):
    if key not in tensors:
      raise ValueError(f'{path} has no tensor {key!r}; is it of this model?')
    if tensors[key].shape != shape:
      raise ValueError(
        f'{path}: tensor {key!r} has shape {tensors[key].shape}, the model '
        f'says {shape}; the adapter belongs to another model.'
      )
    return tensors.pop(key)

  for name in c.lora.weights:
    for part in (f'lora/{x}' for x in weights.adapters(name)):
      shape = hf.their_shape(c, part)
      result[part] = np.stack(
        [
          hf.to_ours(c, part, take(_PREFIX + theirs, shape))
          for theirs in hf.their_names(c, part)
        ]
      ).astype(np.float32)
  for name, theirs in _SAVED.items():
    if _PREFIX + theirs in tensors:
      array = np.zeros((c.padded_vocab_size, c.dim), np.float32)
      array[: c.vocab_size] = take(_PREFIX + theirs, (c.vocab_size, c.dim))
      result[name] = array if name == 'embed_VD' else array.T
  if c.tied and 'head_DV' in result:
    if not np.array_equal(result.pop('head_DV').T, result.get('embed_VD')):
      raise ValueError(
        f'{path} has a head of its own for a model whose head is its '
        'embedding; untie the base, or merge the adapter with PEFT.'
      )
  if tensors:
    raise ValueError(
      f'{path} has a tensor that is not read: {next(iter(tensors))!r} '
      f'({len(tensors)} in all).'
    )
  return result
