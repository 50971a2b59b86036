"""The weights of Hugging Face LLaMA folders, both ways, streamed."""

import contextlib
import hashlib
import json
import math
import pathlib
from collections.abc import Callable

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from lbe.convert import tensor_files
from lbe.models import architecture
from lbe.models import weights as weights_lib

Folder = str | pathlib.Path
DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
}

# ------------------------------------------------------------------- names


def their_names(c: architecture.Config, name: str) -> list[str]:
  """Hugging Face's names of one of our weights: one a layer where stacked."""
  module = weights_lib.of(c)[name].theirs
  if not weights_lib.is_stacked(name):
    return [f'{module}.weight']
  return [f'model.layers.{i}.{module}.weight' for i in range(c.num_layers)]


def tensor_names(c: architecture.Config) -> dict[str, list[str]]:
  """Our name → Hugging Face names, of all weights but adapters.

  Order is that of the forward pass, which is the order on disk.
  """
  return {
    name: their_names(c, name)
    for name in weights_lib.of(c)
    if not name.startswith('lora/')
  }


def _one_shape(c, name):
  """Our shape of one layer's weight, without padding rows."""
  size = weights_lib.sizes(c) | {'V': c.vocab_size}
  return tuple(size[x] for x in weights_lib.letters(name).removeprefix('L'))


def their_shape(c: architecture.Config, name: str) -> tuple[int, ...]:
  """The shape that Hugging Face stores for one tensor: [out, in] of products.

  Our letters come in the order in, out.
  """
  shape = _one_shape(c, name)
  num_in = len(weights_lib.of(c)[name].takes)
  if not num_in:
    return shape
  return math.prod(shape[num_in:]), math.prod(shape[:num_in])


def to_ours(c, name: str, tensor: np.ndarray) -> np.ndarray:
  """One stored tensor as our array of one layer, a view without padding."""
  if not weights_lib.of(c)[name].takes:
    return tensor
  return tensor.T.reshape(_one_shape(c, name))


def to_theirs(c, name: str, array: np.ndarray) -> np.ndarray:
  """The inverse of `to_ours` for one layer's array; padding rows are cut."""
  array = array[tuple(slice(n) for n in _one_shape(c, name))]
  if not weights_lib.of(c)[name].takes:
    return array
  return array.reshape(their_shape(c, name)[::-1]).T


# ------------------------------------------------------------------ loading


class Weights:
  """The tensors of a folder by their Hugging Face names, read on demand.

  Safetensors are memory-mapped; `.bin` files go through torch's weights-only
  loading, one file at a time. Raises ValueError where a file or a tensor is
  missing, truncated, or has another shape than the config says.
  """

  def __init__(self, folder, c):
    self.folder = pathlib.Path(folder)
    self._where = self._find_files()
    self._open_file = None
    self._open_name = None
    self._stack = contextlib.ExitStack()
    expected = {
      theirs for names in tensor_names(c).values() for theirs in names
    }
    missing = sorted(expected - self._where.keys())
    if missing:
      raise ValueError(
        f'{self.folder} has no tensor {missing[0]!r} (of {len(missing)} '
        'missing); the files are incomplete, or config.json describes '
        'another model.'
      )
    # Rotary tables of old conversions are computed, not read.
    known = expected | {'lm_head.weight'}
    extra = sorted(
      name
      for name in self._where.keys() - known
      if not name.endswith('rotary_emb.inv_freq')
    )
    if extra:
      raise ValueError(
        f'{self.folder} has a tensor {extra[0]!r} (of {len(extra)}) that '
        'LLaMA does not have; config.json describes another model.'
      )

  def _find_files(self):
    folder = self.folder
    for stem, suffix in (
      ('model', 'safetensors'),
      ('pytorch_model', 'bin'),
    ):
      index = folder / f'{stem}.{suffix}.index.json'
      single = folder / f'{stem}.{suffix}'
      if index.is_file():
        files = json.loads(index.read_text())['weight_map']
        absent = sorted(
          {f for f in files.values() if not (folder / f).is_file()}
        )
        if absent:
          raise ValueError(
            f'{index} names {absent[0]}, which is not there; copy all '
            f'{len(set(files.values()))} files.'
          )
        return {name: folder / f for name, f in files.items()}
      if single.is_file():
        with tensor_files.opened(single) as tensors:
          return {name: single for name in tensors.keys()}
    raise ValueError(
      f'{folder} has neither model*.safetensors nor pytorch_model*.bin (and '
      'no index of them); copy the weights beside config.json.'
    )

  def _file(self, path):
    if self._open_name != path:
      self.close()
      self._open_file = self._stack.enter_context(tensor_files.opened(path))
      self._open_name = path
    return self._open_file

  def close(self):
    self._stack.close()
    self._open_file = self._open_name = None

  def read(self, c, name, theirs):
    """One stored tensor of our weight `name`, its shape checked."""
    path = self._where[theirs]
    tensor = tensor_files.read(self._file(path), path, theirs)
    self._check_shape(c, name, theirs, tensor.shape)
    return tensor

  def check(self, c):
    """Raises as `read` would, from the files' headers where they have some."""
    named = [(name, t) for name, ts in tensor_names(c).items() for t in ts]
    for name, theirs in sorted(named, key=lambda n: str(self._where[n[1]])):
      path = self._where[theirs]
      if path.suffix != '.safetensors':
        self.read(c, name, theirs)
        continue
      try:
        shape = self._file(path).get_slice(theirs).get_shape()
      except (safetensors.SafetensorError, KeyError) as error:
        raise tensor_files.unreadable(path, theirs, error) from error
      self._check_shape(c, name, theirs, tuple(shape))

  def _check_shape(self, c, name, theirs, shape):
    expected = their_shape(c, name)
    if shape != expected:
      raise ValueError(
        f'{self._where[theirs]}: tensor {theirs!r} has shape {shape}, but '
        f'config.json says {expected}; one of the two belongs to another '
        'model.'
      )

  def dtype(self, c):
    """The dtype on disk, as numpy's name: that of the first projection."""
    name = 'layers/q_LDNH'
    return str(self.read(c, name, their_names(c, name)[0]).dtype)


def check_weights(folder: Folder, c: architecture.Config):
  """Raises ValueError where `load_params` would; reads next to nothing."""
  with contextlib.closing(Weights(folder, c)) as weights:
    weights.check(c)


def stored_dtype(folder: Folder, c: architecture.Config) -> str:
  """The dtype of the weights on disk, whatever config.json says of it."""
  with contextlib.closing(Weights(folder, c)) as weights:
    return weights.dtype(c)


def load_params(
  folder: Folder,
  c: architecture.Config,
  *,
  dtype: str | dict[str, str] | None = None,
  shardings: dict | None = None,
) -> dict:
  """The parameter tree, read tensor by tensor; padding rows are zero.

  In numpy, or with `shardings` (a tree of NamedShardings) as jax arrays whose
  shards are read on their own hosts. `dtype` is that of weights.shapes; None
  keeps that on disk.
  """
  keep = dtype is None
  result = {}
  with contextlib.closing(Weights(folder, c)) as weights:
    like = weights_lib.flatten(
      weights_lib.shapes(c, dtype=weights.dtype(c) if keep else dtype)
    )
    for name, theirs in tensor_names(c).items():
      array = _stacked(weights, c, name, theirs, like[name], keep)
      if shardings is not None:
        array = jax.make_array_from_callback(
          array.shape,
          weights_lib.flatten(shardings)[name],
          lambda i, a=array: a[i],
        )
        # The host copy goes before the next one is made.
        array = jax.block_until_ready(array)
      result[name] = array
  return weights_lib.unflatten(result)


def _stacked(weights, c, name, theirs, like, keep):
  """One of our arrays; with `keep`, all tensors must have its dtype."""
  array = np.zeros(like.shape, like.dtype)
  for i, their_name in enumerate(theirs):
    tensor = weights.read(c, name, their_name)
    if keep and tensor.dtype != like.dtype:
      raise ValueError(
        f'{weights.folder}: tensor {their_name!r} is {tensor.dtype}, others '
        f'are {like.dtype}; store all in one dtype (transformers: '
        f'from_pretrained(..., dtype=...).save_pretrained(...)).'
      )
    one = to_ours(c, name, tensor)
    # The rest of the vocabulary's rows is padding.
    part = array[i] if weights_lib.is_stacked(name) else array
    part[tuple(slice(n) for n in one.shape)] = one
  return array


# ------------------------------------------------------------------ writing


def write_safetensors(
  folder: Folder,
  c: architecture.Config,
  get_array: Callable[[str], np.ndarray],
  *,
  dtype: str,
  shard_bytes: int = 5_000_000_000,
) -> dict[str, str]:
  """Writes model*.safetensors, and their index where there are several.

  `get_array(name)` gives one stacked numpy array at a time, of our names as
  'layers/q_LDNH'. A file ends where the next tensor would pass
  `shard_bytes`. Returns {their name: sha256 of the stored bytes}.
  """
  folder = pathlib.Path(folder)
  dtype = DTYPES[dtype]
  plan, total = _plan_files(c, dtype, shard_bytes)
  digests, weight_map = {}, {}
  for i, tensors in enumerate(plan):
    file = (
      'model.safetensors'
      if len(plan) == 1
      else f'model-{i + 1:05}-of-{len(plan):05}.safetensors'
    )
    _write_file(folder / file, c, tensors, get_array, dtype, digests)
    weight_map.update({theirs: file for _, _, theirs in tensors})
  if len(plan) > 1:
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    (folder / 'model.safetensors.index.json').write_text(
      json.dumps(index, indent=2)
    )
  return digests


def _plan_files(c, dtype, shard_bytes):
  """Files as lists of (our name, layer or None, their name); total bytes."""
  files, size, total = [[]], 0, 0
  for name, theirs in tensor_names(c).items():
    for i, their_name in enumerate(theirs):
      n = math.prod(their_shape(c, name)) * dtype.itemsize
      if files[-1] and size + n > shard_bytes:
        files.append([])
        size = 0
      layer = i if weights_lib.is_stacked(name) else None
      files[-1].append((name, layer, their_name))
      size += n
      total += n
  return files, total


def _write_file(path, c, tensors, get_array, dtype, digests):
  """One safetensors file: a header, then each tensor's bytes in order.

  The library's own writer takes all tensors of a file at once; writing the
  format (8 bytes of length, JSON, bytes) keeps one stacked weight in memory.
  """
  names = {'float32': 'F32', 'bfloat16': 'BF16', 'float16': 'F16'}
  header, offset = {'__metadata__': {'format': 'pt'}}, 0
  for name, _, theirs in tensors:
    shape = their_shape(c, name)
    end = offset + math.prod(shape) * dtype.itemsize
    header[theirs] = {
      'dtype': names[str(dtype)],
      'shape': list(shape),
      'data_offsets': [offset, end],
    }
    offset = end
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  held_name, held = None, None
  with open(path, 'wb') as f:
    f.write(len(text).to_bytes(8, 'little'))
    f.write(text)
    for name, layer, theirs in tensors:
      if name != held_name:
        held = None
        held, held_name = get_array(name), name
      one = held if layer is None else held[layer]
      data = np.ascontiguousarray(to_theirs(c, name, one).astype(dtype))
      digests[theirs] = digest(data)
      f.write(_bytes(data))


def digest(array) -> str:
  """The sha256 of an array's bytes as they are stored."""
  return hashlib.sha256(_bytes(array)).hexdigest()


def _bytes(array):
  return memoryview(np.ascontiguousarray(array).view(np.uint8).reshape(-1))


def tensor_digests(folder: Folder, c: architecture.Config) -> dict[str, str]:
  """{their name: sha256 of the stored bytes}, one tensor in memory."""
  with contextlib.closing(Weights(folder, c)) as weights:
    return {
      theirs: digest(weights.read(c, name, theirs))
      for name, names in tensor_names(c).items()
      for theirs in names
    }
