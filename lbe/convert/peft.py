"""Adapters as PEFT stores them: adapter_config.json and one file of tensors.

Of our stacked A [L, in.., R] and B [L, R, out..], PEFT has [R, in] and
[out, R] a layer. Embedding and head that were trained as well stand beside
them whole, as its `modules_to_save`.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import safetensors.numpy

from lbe.convert import hf
from lbe.convert import peft_config
from lbe.convert import tensor_files
from lbe.models import architecture
from lbe.models import weights
from lbe.text import hub

_PREFIX = 'base_model.model.'
# Other names of what PEFT runs: a saved module's copy, and what lies below
# adapters or rows that are trained alone.
_COPY = re.compile(
  r'\.(modules_to_save(\.[^.]+)?|(token_adapter\.)?base_layer)\.weight$'
)
_MODULES = {
  name: weights.TABLE[f'layers/{name}'].theirs.split('.')[-1]
  for name in weights.ADAPTABLE
}
_SAVED = {
  name: f'{weights.TABLE[name].theirs}.weight'
  for name in ('embed_VD', 'head_DV')
}


# ------------------------------------------------------------------ writing


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
  name, commit = hub.split(base)
  record = {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': name,
    'revision': commit,
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
  # save_file lets its user alone read what it writes.
  shutil.copymode(
    folder / 'adapter_config.json', folder / 'adapter_model.safetensors'
  )


# ------------------------------------------------------------------ reading


class _Tensors:
  """The tensors of a folder without PEFT's prefix, each taken once."""

  def __init__(self, path):
    self.path = path
    self._left, copies = {}, {}
    for key, array in tensor_files.load_file(path).items():
      name = key.removeprefix(_PREFIX)
      # Old PyTorch files hold what is computed, and PEFT 0.21 what a saved
      # module was before; neither is what PEFT runs.
      if name.endswith('rotary_emb.inv_freq') or '.original_module.' in name:
        continue
      short = _COPY.sub('.weight', name)
      (self._left if short == name else copies)[short] = array
    for name, array in copies.items():
      if not np.array_equal(self._left.setdefault(name, array), array):
        raise ValueError(
          f'{path} has {name!r} under two names, and they differ; save the '
          'adapter again with PEFT.'
        )

  def __contains__(self, name):
    return name in self._left

  def take(self, name, shape):
    """A tensor as float32, of that shape; None in it is any size."""
    if name not in self._left:
      near = max(
        self._left,
        key=lambda other: len(os.path.commonprefix([other, name])),
        default=None,
      )
      raise ValueError(
        f'{self.path} has no tensor {_PREFIX + name!r}, which '
        f'adapter_config.json asks for; of its {len(self._left)} others '
        f'{near!r} is nearest. Save the adapter with save_pretrained of PEFT.'
      )
    array = self._left.pop(name)
    where = f'{self.path}: tensor {_PREFIX + name!r}'
    if not array.size:
      raise ValueError(
        f'{where} is empty: it was saved while its parts lay on several '
        'devices (DeepSpeed ZeRO-3, FSDP); gather them before save_pretrained.'
      )
    if array.ndim != len(shape) or any(
      wanted not in (None, size)
      for wanted, size in zip(shape, array.shape, strict=True)
    ):
      raise ValueError(
        f'{where} has shape {array.shape}, the model under '
        f'adapter_config.json (r, rank_pattern) says {shape}; the adapter '
        'belongs to another model.'
      )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
      raise ValueError(f'{where} has values that are not finite.')
    return array

  def finish(self):
    """Raises ValueError for tensors that were not taken."""
    if self._left:
      raise ValueError(
        f'{self.path} has {len(self._left)} tensors that are not read, the '
        f'first: {_PREFIX + min(self._left)!r}; adapter_config.json does not '
        'say what for, or LLaMA has no such module.'
      )


def _files(folder):
  """Where the tensors are, first the file that PEFT reads."""
  names = ('adapter_model.safetensors', 'adapter_model.bin')
  paths = [pathlib.Path(folder) / name for name in names]
  found = [p for p in paths if p.is_file() or p.is_symlink()]
  if not found:
    raise ValueError(
      f'{folder} has neither {" nor ".join(names)}; copy the weights beside '
      'adapter_config.json.'
    )
  return found


def notices(folder: hf.Folder) -> list[str]:
  """A line on each file of tensors that lies in the folder and is not read."""
  first, *others = _files(folder)
  return [f'notice: {first} is read, as PEFT does, not {x}.' for x in others]


def read(
  folder: hf.Folder,
  c: architecture.Config,
  get_array: Callable[[str], np.ndarray],
) -> tuple[architecture.Config, dict[str, np.ndarray], list[str]]:
  """(c, arrays, frozen) of a base under the adapter of a folder.

  `c` and `get_array` are of the base. The first result has the adapter's Lora
  and rows, and is untied where PEFT unties it; `arrays` are, by our flat
  names, what the base has not or otherwise; `frozen` names the weights that
  stay the base's. Raises ValueError for what is not computed here, and for a
  tensor that is missing, of another model, or not read.
  """
  record = peft_config.read(folder)
  tensors = _Tensors(_files(folder)[0])
  modules = [
    theirs.removesuffix('.weight')
    for names in hf.tensor_names(c).values()
    for theirs in names
  ]
  peft_config.check_modules(record, {*modules, 'lm_head'}, folder)
  c, arrays, frozen = _read_vocabulary(tensors, record, c, get_array)
  for name in hf.tensor_names(c):
    if name in ('embed_VD', 'head_DV'):
      continue
    array = _read_saved(tensors, record, c, name, get_array)
    if array is None:
      frozen.append(name)
    else:
      arrays[name] = array
  c, adapters = _read_adapters(tensors, record, c)
  tensors.finish()
  return c, {**arrays, **adapters}, frozen


def _read_vocabulary(tensors, record, c, get_array):
  """(c, arrays, frozen) of embedding and head, as `read` gives them."""
  embed, head = (weights.TABLE[n].theirs for n in ('embed_VD', 'head_DV'))
  base, new, frozen = {}, {}, []
  base[embed] = base[head] = get_array('embed_VD')[: c.vocab_size]
  if not c.tied:
    base[head] = get_array('head_DV').T[: c.vocab_size]
  asked = {m for m in (embed, head) if peft_config.is_saved(record, m)}
  if c.tied and asked and record['ensure_weight_tying']:
    asked = {embed, head}  # PEFT writes what it keeps equal twice
  for module in (embed, head):
    if module in asked or f'{module}.weight' in tensors:
      new[module] = tensors.take(f'{module}.weight', (None, c.dim))
  # A saved module is a copy that PEFT trains: it is tied no longer.
  one = c.tied and not asked
  if one and new:
    new = dict.fromkeys((embed, head), new.get(embed, new.get(head))) | new
  x_VD = {**base, **new}
  if len(x_VD[embed]) != len(x_VD[head]):
    raise ValueError(
      f'{tensors.path}: under this adapter the embedding has '
      f'{len(x_VD[embed])} rows and the head {len(x_VD[head])}; save both with '
      'it (modules_to_save, or save_embedding_layers=True).'
    )
  _read_tokens(tensors, record, x_VD, one)
  if one and not np.array_equal(x_VD[embed], x_VD[head]):
    raise ValueError(
      f'{tensors.path} has an embedding and a head that differ, for a base '
      'whose head is its embedding; name both in modules_to_save, or merge '
      'the adapter with PEFT.'
    )
  _add_adapters(tensors, record, x_VD, c.tied)
  tied = c.tied and np.array_equal(x_VD[embed], x_VD[head])
  untied = c.tied and not tied
  c = dataclasses.replace(c, vocab_size=len(x_VD[embed]), tied=tied)
  arrays = {}
  for name, module in (('embed_VD', embed), ('head_DV', head))[: 2 - tied]:
    same = x_VD[module] is base[module]
    if same:
      frozen.append(name)
    if same and not (untied and name == 'head_DV'):
      continue
    array = np.zeros((c.padded_vocab_size, c.dim), x_VD[module].dtype)
    array[: c.vocab_size] = x_VD[module]
    arrays[name] = array if name == 'embed_VD' else array.T
  return c, arrays, frozen


def _read_tokens(tensors, record, x_VD, tied):
  """Writes the rows that were trained alone into copies of `x_VD`."""
  rows = peft_config.token_indices(record)
  embed, head = x_VD
  if tied and rows.get(head, rows.get(embed)) != rows.get(embed):
    raise ValueError(
      f'{tensors.path}: trainable_token_indices={rows} are not those of one '
      'matrix, and the head of the base is its embedding; merge the adapter '
      'with PEFT.'
    )
  for module in (embed, head):
    name = f'{module}.token_adapter.trainable_tokens_delta'
    if tied and module == head and name not in tensors:
      if rows:
        x_VD[head] = x_VD[embed]
      continue
    wanted = rows.get(embed if tied else module)
    if wanted is None:
      continue
    if not all(0 <= row < len(x_VD[module]) for row in wanted):
      raise ValueError(
        f'{tensors.path}: trainable_token_indices={wanted} are not below '
        f'the {len(x_VD[module])} rows of {module}.'
      )
    new = tensors.take(name, (len(wanted), x_VD[module].shape[1]))
    x_VD[module] = x_VD[module].astype(np.float32)
    x_VD[module][wanted] = new  # the values, whatever PEFT calls them


def _add_adapters(tensors, record, x_VD, tied):
  """Adds adapters of embedding and head to them: ours are trained whole."""
  embed, _ = x_VD
  found = peft_config.ranks(record, list(x_VD))
  if found and tied and record['ensure_weight_tying']:
    raise ValueError(
      f'{tensors.path}: ensure_weight_tying with adapters of '
      f'{", ".join(found)} is not supported; merge the adapter with PEFT.'
    )
  for module, (rank, alpha) in found.items():
    x = x_VD[module].astype(np.float32)
    V, D = x.shape
    if module == embed:
      a = tensors.take(f'{module}.lora_embedding_A', (rank, V)).T
      b = tensors.take(f'{module}.lora_embedding_B', (D, rank)).T
    else:
      a = tensors.take(f'{module}.lora_B.weight', (V, rank))
      b = tensors.take(f'{module}.lora_A.weight', (rank, D))
    scale = _lora(record, (), rank, alpha).scale
    x_VD[module] = x + np.float32(scale) * (a @ b)


def _lora(record, names, rank, alpha):
  return architecture.Lora(names, rank, alpha, bool(record['use_rslora']))


def _read_saved(tensors, record, c, name, get_array):
  """A weight of which the adapter holds all or some layers whole, or None."""
  found = {
    i: tensors.take(theirs, hf.their_shape(c, name))
    for i, theirs in enumerate(hf.their_names(c, name))
    if peft_config.is_saved(record, theirs.removesuffix('.weight'))
  }
  if not found:
    return None
  array = np.array(get_array(name), np.float32)
  for i, tensor in found.items():
    part = array[i] if weights.is_stacked(name) else array
    part[...] = hf.to_ours(c, name, tensor)
  return array


def _read_adapters(tensors, record, c):
  """(c with the Lora of the folder, {flat name: array} of A and B).

  A layer without an adapter, or with a lower rank than others, has zeros: they
  compute nothing and never learn. Another scale than the first's goes into B.
  """
  modules = {
    name: [
      theirs.removesuffix('.weight')
      for theirs in hf.their_names(c, f'layers/{name}')
    ]
    for name in weights.ADAPTABLE
  }
  found = peft_config.ranks(record, [m for ms in modules.values() for m in ms])
  if not found:
    return c, {}
  first = max(found, key=lambda module: found[module][0])
  names = tuple(n for n, ms in modules.items() if found.keys() & set(ms))
  c = dataclasses.replace(c, lora=_lora(record, names, *found[first]))
  result = {}
  for name in c.lora.weights:
    for part in (f'lora/{x}' for x in weights.adapters(name)):
      names = zip(modules[name], hf.their_names(c, part), strict=True)
      layers = [
        hf.to_ours(c, part, _read_one(tensors, c, part, theirs, found.get(m)))
        for m, theirs in names
      ]
      result[part] = np.stack(layers)
  return c, result


def _read_one(tensors, c, part, theirs, numbers):
  """A or B of one module at the rank and scale of `c`; zeros without one."""
  array = np.zeros(hf.their_shape(c, part), np.float32)
  if numbers is None:
    return array
  rank, alpha = numbers
  if '.lora_A.' in theirs:
    array[:rank] = tensors.take(theirs, (rank, array.shape[1]))
    return array
  own = dataclasses.replace(c.lora, rank=rank, alpha=alpha)
  array[:, :rank] = tensors.take(theirs, (array.shape[0], rank))
  return array * np.float32(own.scale / c.lora.scale)
