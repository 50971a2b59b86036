"""The weights of Hugging Face LLaMA folders, both ways, streamed."""

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
import re
from collections.abc import Callable

import jax
import ml_dtypes
import numpy as np

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

EMBEDDING, HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
# Tables of old conversions that are computed, not read.
_OLD_BUFFER = re.compile(r'rotary_emb\.(inv_freq|cos_cached|sin_cached)$')


class Weights:
  """The weights of a folder, found and checked by their headers; not read.

  `config` is the model that they are: `c`, untied where a head lies there that
  differs from the embedding (the one case in which values are read).
  `notices` are lines for people, `not_read` the tensors that are known to do
  nothing and the files that hold another copy. Raises ValueError where a file
  or tensor is missing, truncated, of another shape or dtype, or not read.
  """

  def __init__(self, folder: Folder, c: architecture.Config):
    self.folder = pathlib.Path(folder)
    self.notices, self.not_read = [], []
    read, paths = tensor_files.choose(folder)
    self._tensors = tensor_files.Tensors(paths)
    self._names = {}  # transformers' name → the one on disk
    self.config = self._tied(c, self._name(c))
    for name, names in tensor_names(self.config).items():
      for theirs in names:
        self._check(self.config, name, theirs)
    self._look_beside(read, paths)
    self.close()

  def _name(self, c):
    """Finds transformers' name of each tensor; it sets 'model.' as it does."""
    whole = dataclasses.replace(c, tied=False)
    known = {t for names in tensor_names(whole).values() for t in names}
    unread = []
    for stored in self._tensors.stored:
      tried = (stored, f'model.{stored}', stored.removeprefix('model.'))
      name = next((n for n in tried if n in known), None)
      if name is None and _OLD_BUFFER.search(stored):
        self.not_read.append(stored)
      elif name is None:
        unread.append(stored)
      elif name in self._names:
        raise ValueError(
          f'{self.folder} has {name!r} twice, as {self._names[name]!r} and '
          f'{stored!r}; save it again with transformers.'
        )
      else:
        self._names[name] = stored
    if unread:
      raise ValueError(
        f'{self.folder} has a tensor {min(unread)!r} (of {len(unread)}) that '
        f'is not read: {tensor_files.cause(min(unread), c.num_layers)}.'
      )
    return known

  def _tied(self, c, known):
    """The config, untied where transformers unties; the rest must be there."""
    if c.tied and HEAD not in self._names:
      known.discard(HEAD)
    elif c.tied and EMBEDDING not in self._names:
      # One of two shared tensors was stored, the head.
      self._names[EMBEDDING] = self._names.pop(HEAD)
      known.discard(HEAD)
    missing = sorted(known - self._names.keys())
    if missing:
      raise ValueError(
        f'{self.folder} has no tensor {missing[0]!r} (of {len(missing)} '
        'missing); the files are incomplete, or config.json describes '
        'another model'
        + (
          ': one that shares its embedding has "tie_word_embeddings": true.'
          if missing in ([HEAD], [EMBEDDING])
          else '.'
        )
      )
    if HEAD not in known or not c.tied:
      return c
    for theirs in (EMBEDDING, HEAD):
      self._check(c, 'embed_VD', theirs)
    embedding, head = (self._read(theirs) for theirs in (EMBEDDING, HEAD))
    if np.array_equal(embedding, head):
      self.not_read.append(f'{HEAD} (equals the embedding)')
      return c
    self.notices.append(
      f'{self.folder} has tie_word_embeddings=true beside a head that differs '
      'from its embedding; as in transformers they are two.'
    )
    return dataclasses.replace(c, tied=False)

  def _look_beside(self, read, paths):
    """Other files may hold copies; what is in them alone is not read."""
    folder, others = self.folder, []
    adapters = sorted(folder.glob('adapter_*'))
    if adapters:
      raise ValueError(
        f'{folder} holds a model and an adapter of it ({adapters[0].name}), '
        'which would not be read; move the adapter_* files into a folder of '
        'their own, and import both: python -m lbe.import_hf '
        f'--source={folder} --adapter=THAT_FOLDER --target=...'
      )
    known = self._tensors.stored.keys() | self._names.keys()
    for path, names in tensor_files.beside(folder, paths).items():
      unread = sorted(set(names) - known)
      if unread:
        raise ValueError(
          f'{path} holds a tensor {unread[0]!r} (of {len(unread)}) that is not '
          f'read: transformers takes {read}, which lacks it. Take the file '
          'out of the folder, or mend the index that should name it '
          f'({tensor_files.cause(unread[0], self.config.num_layers)}).'
        )
      others.append(path.name)
    others += [
      name
      for name in tensor_files.ORDER
      if name != read and name.endswith('.json') and (folder / name).is_file()
    ]
    if others:
      more = f' and {len(others) - 3} more' if len(others) > 3 else ''
      self.not_read += others
      self.notices.append(
        f'{folder}: {read} is read, as by transformers; what lies beside it, '
        f'older or another copy, is not: {", ".join(others[:3])}{more}.'
      )

  def _check(self, c, name, theirs):
    stored = self._tensors.stored[self._names[theirs]]
    expected = their_shape(c, name)
    if stored.shape != expected:
      raise ValueError(
        f'{stored.path}: tensor {self._names[theirs]!r} has shape '
        f'{stored.shape}, but config.json says {expected}; one of the two '
        'belongs to another model.'
      )
    self._tensors.check_dtype(self._names[theirs])

  def _read(self, theirs):
    return self._tensors.read(self._names[theirs])

  def close(self):
    self._tensors.close()

  def dtypes(self) -> dict[str, str]:
    """{our name: dtype}; where layers differ float32, which holds them all."""
    result = {}
    for name, names in tensor_names(self.config).items():
      found = {self._tensors.stored[self._names[t]].dtype for t in names}
      result[name] = found.pop() if len(found) == 1 else 'float32'
    return result

  def fingerprint(self) -> str:
    """A hash of three rows of every tensor, wherever the folder lies."""
    found = {}
    with contextlib.closing(self):
      # File by file, for each is opened once.
      for name, on_disk in sorted(
        self._names.items(), key=lambda x: str(self._tensors.stored[x[1]].path)
      ):
        stored = self._tensors.stored[on_disk]
        one = hashlib.sha256(f'{stored.dtype} {stored.shape}'.encode())
        for row in (0, stored.shape[0] // 2, stored.shape[0] - 1):
          one.update(_bytes(self._tensors.read(on_disk, row=row)))
        found[name] = one.hexdigest()
    total = hashlib.sha256(json.dumps(found, sort_keys=True).encode())
    return total.hexdigest()

  def load(
    self,
    *,
    dtype: str | dict[str, str] | None = None,
    shardings: dict | None = None,
  ) -> dict:
    """The parameter tree, read tensor by tensor; padding rows are zero.

    In numpy, or with `shardings` (a tree of NamedShardings) as jax arrays
    whose shards are read on their own hosts. `dtype` is that of
    weights.shapes; None keeps that on disk.
    """
    c, result = self.config, {}
    if dtype is None:
      dtype = self.dtypes()
    like = weights_lib.flatten(weights_lib.shapes(c, dtype=dtype))
    with contextlib.closing(self):
      for name in tensor_names(c):
        array = self._stacked(name, like[name])
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

  def _stacked(self, name, like):
    """One of our arrays."""
    array = np.zeros(like.shape, like.dtype)
    for i, theirs in enumerate(their_names(self.config, name)):
      one = to_ours(self.config, name, self._read(theirs))
      # The rest of the vocabulary's rows is padding.
      part = array[i] if weights_lib.is_stacked(name) else array
      part[tuple(slice(n) for n in one.shape)] = one
    return array

  def digests(self) -> dict[str, str]:
    """{their name: sha256 of the bytes in the dtype of `dtypes`}.

    One tensor in memory. Raises ValueError for one that is not finite.
    """
    dtypes, result = self.dtypes(), {}
    with contextlib.closing(self):
      for name, names in tensor_names(self.config).items():
        for theirs in names:
          tensor = self._read(theirs).astype(DTYPES[dtypes[name]], copy=False)
          bad = tensor_files.num_not_finite(tensor)
          if bad:
            raise ValueError(
              f'{self.folder}: tensor {theirs!r} has {bad:,} values of '
              f'{tensor.size:,} that are NaN or infinite; the training that '
              'wrote it diverged, or float16 overflowed: take an earlier one.'
            )
          result[theirs] = digest(tensor)
    return result


def load_params(
  folder: Folder,
  c: architecture.Config,
  *,
  dtype: str | dict[str, str] | None = None,
  shardings: dict | None = None,
) -> dict:
  """`Weights.load` of a folder that is what `c` says, tied or not."""
  found = Weights(folder, c)
  if found.config != c:
    raise ValueError(f'{found.notices[0]} Open it with stored.open_model.')
  return found.load(dtype=dtype, shardings=shardings)


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
  `shard_bytes`. Returns {their name: sha256 of the stored bytes}. Raises
  ValueError where weights of another export lie there.
  """
  folder = pathlib.Path(folder)
  dtype = DTYPES[dtype]
  plan, total = _plan_files(c, dtype, shard_bytes)
  digests, weight_map, n = {}, {}, len(plan)
  files = ['model.safetensors']
  if n > 1:
    files = [f'model-{i + 1:05}-of-{n:05}.safetensors' for i in range(n)]
  tensor_files.check_alone(folder, files)
  for file, part in zip(files, plan, strict=True):
    try:
      _write_file(folder / file, c, part, get_array, dtype, digests)
    except ValueError:
      for name in files:
        (folder / name).unlink(missing_ok=True)
      raise
    weight_map.update({theirs: file for _, _, theirs in part})
  if len(plan) > 1:
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    path = folder / 'model.safetensors.index.json'
    path.write_text(json.dumps(index, indent=2))
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


def _write_file(path, c, part, get_array, dtype, digests):
  """One safetensors file: a header, then each tensor's bytes in order.

  The library's own writer takes all tensors of a file at once; writing the
  format (8 bytes of length, JSON, bytes) keeps one stacked weight in memory.
  """
  names = {'float32': 'F32', 'bfloat16': 'BF16', 'float16': 'F16'}
  header, offset = {'__metadata__': {'format': 'pt'}}, 0
  for name, _, theirs in part:
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
    for name, layer, theirs in part:
      if name != held_name:
        held = None
        held, held_name = get_array(name), name
      one = held if layer is None else held[layer]
      data = tensor_files.cast(to_theirs(c, name, one), dtype, theirs)
      digests[theirs] = digest(data)
      f.write(_bytes(data))


def digest(array) -> str:
  """The sha256 of an array's bytes as they are stored."""
  return hashlib.sha256(_bytes(array)).hexdigest()


def _bytes(array):
  return memoryview(np.ascontiguousarray(array).view(np.uint8).reshape(-1))
