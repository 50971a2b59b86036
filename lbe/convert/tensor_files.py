"""The files of tensors in a Hugging Face folder: which are read, and how."""

import contextlib
import dataclasses
import pathlib
import pickletools
import re
import zipfile
from collections.abc import Iterable

import ml_dtypes
import numpy as np
import safetensors

from lbe.text import files

# In the order in which transformers takes them: the first that is there.
ORDER = (
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
)
META = 'transformers.models.llama.convert_llama_weights_to_hf'
_TORCH = ('.bin', '.pt', '.pth')
# safetensors' names of dtypes as numpy's, where numpy and we have them.
_DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}


@dataclasses.dataclass(frozen=True)
class Stored:
  """What a file's header says of one tensor; `dtype` is the file's own name."""

  path: pathlib.Path
  dtype: str
  shape: tuple[int, ...]


class Tensors:
  """The tensors of safetensors and PyTorch files, read on demand.

  `stored` is {name: Stored}, from the headers. Safetensors are memory-mapped;
  the others go through torch's weights-only loading, one file at a time.
  Raises ValueError where a file is missing, truncated or a pointer, holds
  more than tensors, or one that another file holds too.
  """

  def __init__(self, paths: Iterable[pathlib.Path]):
    self.stored = {}
    self._stack = contextlib.ExitStack()
    self._open_name = self._open_file = None
    for path in paths:
      for name, stored in self._headers(pathlib.Path(path)):
        if name in self.stored:
          raise ValueError(
            f'{self.stored[name].path} and {path} both hold the tensor '
            f'{name!r}; take the file away that does not belong to this model.'
          )
        self.stored[name] = stored

  def _headers(self, path):
    f = self._file(path)
    for name in f.keys():
      if path.suffix == '.safetensors':
        part = f.get_slice(name)
        dtype, shape = part.get_dtype(), tuple(part.get_shape())
        dtype = _DTYPES.get(dtype, dtype)
      elif hasattr(f[name], 'shape'):
        dtype = str(f[name].dtype).removeprefix('torch.')
        shape = tuple(f[name].shape)
      else:
        raise ValueError(
          f'{path}: {name!r} is no tensor but a {type(f[name]).__name__}; the '
          'file is the state of a training or another program, not the weights '
          'by name: save them with save_pretrained.'
        )
      yield name, Stored(path, dtype, shape)

  def _file(self, path):
    if self._open_name != path:
      self.close()
      files.check(path)
      if path.suffix == '.safetensors':
        with _told(path):
          self._open_file = self._stack.enter_context(
            safetensors.safe_open(path, framework='numpy')
          )
      else:
        self._open_file = _load_torch(path)
      self._open_name = path
    return self._open_file

  def close(self):
    self._stack.close()
    self._open_file = self._open_name = None

  def check_dtype(self, name: str):
    """Raises ValueError where a tensor's dtype is none of ours."""
    stored = self.stored[name]
    if stored.dtype not in _DTYPES.values():
      raise ValueError(
        f'{stored.path}: tensor {name!r} is {_spelt(stored.dtype)}; '
        'float32, bfloat16 and float16 are read. Give the model as it was '
        'before it was quantized, or store it in one of these (transformers: '
        'from_pretrained(..., dtype=torch.float32).save_pretrained(...)).'
      )

  def read(self, name: str, *, row: int | None = None) -> np.ndarray:
    """One tensor in the dtype on disk, which `check_dtype` takes; or a row."""
    self.check_dtype(name)
    path = self.stored[name].path
    part = slice(row, row if row is None else row + 1)
    f = self._file(path)
    if path.suffix == '.safetensors':
      with _told(path):
        return f.get_tensor(name) if row is None else f.get_slice(name)[part]
    return _torch_to_numpy(f[name][part])


def load_file(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """All tensors of one file by their names on disk."""
  with contextlib.closing(Tensors([path])) as tensors:
    return {name: tensors.read(name) for name in tensors.stored}


def _spelt(dtype):
  """'F8_E4M3 (float8)' of a header's name."""
  kinds = {'F8': 'float8', 'F4': 'float4', 'F6': 'float6', 'F64': 'float64'}
  kind = kinds.get(dtype.split('_')[0])
  return f'{dtype} ({kind})' if kind else dtype


def num_not_finite(array: np.ndarray) -> int:
  """How many values are NaN or infinite; where none is, quicker than a hash.

  As whole numbers they are the largest: of one sign signed, of both unsigned.
  """
  size = array.dtype.itemsize
  infinity = int(np.asarray(np.inf, array.dtype).view(f'u{size}'))
  sign = 1 << (8 * size - 1)
  if (
    array.view(f'i{size}').max() < infinity
    and array.view(f'u{size}').max() < infinity | sign
  ):
    return 0
  return array.size - int(np.count_nonzero(np.isfinite(array)))


@contextlib.contextmanager
def _told(path):
  try:
    yield
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(
      f'{path} cannot be read ({error}); the file is truncated or no '
      'safetensors file: copy it again.'
    ) from error


def _load_torch(path):
  try:
    import torch  # an extra: only .bin files need it
  except ImportError as error:
    raise ValueError(
      f'{path} is a PyTorch file, and torch is not installed: '
      "pip install 'lbe[hf]' (or: pip install torch)."
    ) from error
  try:
    read = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
  except Exception as first:
    try:  # the format of before 2020 cannot be memory-mapped
      read = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
      raise ValueError(
        f'{path} cannot be read by torch ({first}); the file is truncated, '
        'or holds more than tensors.'
      ) from error
  if not hasattr(read, 'keys'):
    raise ValueError(
      f'{path} holds a {type(read).__name__}, not tensors by name; save them '
      'with save_pretrained.'
    )
  return read


def _torch_to_numpy(tensor):
  import torch

  tensor = tensor.detach()  # of named_parameters, it asks for gradients
  if tensor.dtype == torch.bfloat16:
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()


# ------------------------------------------------------------ which are read


def choose(folder: str | pathlib.Path) -> tuple[str, list[pathlib.Path]]:
  """(name of ORDER, the files): those that transformers reads.

  Raises ValueError where there is none, or one that an index names is not
  there.
  """
  folder = pathlib.Path(folder)
  name = next((n for n in ORDER if files.is_there(folder / n)), None)
  if name is None:
    raise ValueError(
      f'{folder} has neither model*.safetensors nor pytorch_model*.bin (and '
      f'no index of them){_instead(folder)}; copy the weights beside '
      'config.json.'
    )
  if not name.endswith('.json'):
    return name, [folder / name]
  index = folder / name
  names = files.read_json(index).get('weight_map')
  if not isinstance(names, dict) or not names:
    raise ValueError(f'{index} has no weight_map; copy it again.')
  for file in names.values():
    if not isinstance(file, str) or pathlib.PurePath(file).name != file:
      raise ValueError(
        f'{index} names {file!r}, which is no file of its folder; the weights '
        'of a model lie beside their index.'
      )
  chosen = sorted(set(names.values()))
  for file in chosen:
    if not files.is_there(folder / file):
      raise ValueError(
        f'{index} names {file}, which is not there; copy all '
        f'{len(chosen)} files.'
      )
  return name, [folder / file for file in chosen]


def _instead(folder):
  """What lies there in their place, in words."""
  found = sorted(path.name for path in folder.iterdir())
  for words, kept in (
    ('; it has the shards but not their index', ('-of-0',)),
    ('; it has GGUF, which is read elsewhere only', ('.gguf',)),
    (f"; it has Meta's own files, for {META}", ('consolidated.',)),
    ('; it has weights of other frameworks', ('.h5', '.msgpack', '.onnx')),
    (
      '; it has an adapter alone, which --adapter of import_hf takes',
      ('adapter_model.',),
    ),
    ('; it has a file under another name', ('.safetensors', 'model.bin')),
  ):
    names = [n for n in found if any(k in n for k in kept)]
    if names:
      return f'{words} ({names[0]})'
  return ''


def check_alone(folder: pathlib.Path, names: list[str]):
  """Raises ValueError where a folder holds weights under other names.

  They would be read in place of these, or be taken for a part of the model.
  """
  for path in sorted(folder.iterdir()):
    if path.name not in names and (
      path.suffix == '.safetensors' or path.name in ORDER[2:]
    ):
      raise ValueError(
        f'{path} lies where a model is to be written; give an empty folder, or '
        'delete what an earlier export left.'
      )


def beside(
  folder: str | pathlib.Path, chosen: list[pathlib.Path]
) -> dict[pathlib.Path, list[str]]:
  """{file: names of its tensors} of the files that are not chosen.

  States of a training are left out, and copies in Meta's own layout.
  """
  found = {}
  for path in sorted(pathlib.Path(folder).iterdir()):
    if path in chosen or path.name.startswith('consolidated.'):
      continue
    if path.suffix == '.safetensors':
      found[path] = list(Tensors([path]).stored)
    elif path.suffix in _TORCH and path.is_file():
      names = _torch_names(path)
      if names:
        found[path] = names
  return found


def _torch_names(path):
  """The names of tensors in a PyTorch file, from its pickle; nothing is run.

  [] for other files, and for the state of an optimizer or of random numbers.
  """
  if not zipfile.is_zipfile(path):
    return []
  with zipfile.ZipFile(path) as archive:
    pickles = [n for n in archive.namelist() if n.endswith('/data.pkl')]
    if not pickles:
      return []
    operations = list(pickletools.genops(archive.read(pickles[0])))
  words = [x for op, x, _ in operations if op.name.endswith('UNICODE')]
  loaded = [x for op, x, _ in operations if op.name == 'GLOBAL']
  if 'param_groups' in words or not any('_rebuild_' in x for x in loaded):
    return []
  return [w for w in words if w.endswith(('weight', 'bias')) and ' ' not in w]


# ----------------------------------------------------------- why it is there

# What a tensor that LLaMA does not have tells of its folder.
_CAUSES = {
  r'v_head|value_head|score\.|classifier|reward': (
    'it is the head of a reward model or a classifier; save the language '
    'model alone'
  ),
  r'lora_|modules_to_save|original_module': (
    'an adapter of PEFT lies among the weights; save them merged '
    '(merge_and_unload)'
  ),
  r'^base_model\.': (
    'they were saved from inside a model of PEFT; save what its '
    'merge_and_unload gives'
  ),
  r'^_orig_mod\.': (
    'they were saved from inside torch.compile; save model._orig_mod'
  ),
  r'^module\.': ('they were saved from inside DataParallel; save model.module'),
  r'qweight|qzeros|g_idx|\.scales$': (
    'the weights are quantized (GPTQ, AWQ); give the unquantized model'
  ),
  r'absmax|quant_map|quant_state|\.SCB$|weight_format': (
    'the weights are quantized (bitsandbytes); give the unquantized model'
  ),
  r'_scale$|scale_inv|weight_packed|weight_shape|zero_point': (
    'the weights are quantized (FP8, compressed-tensors); give the '
    'unquantized model'
  ),
  r'\.[qk]_norm\.': 'queries and keys are normed, as in Qwen3: no LLaMA',
  r'\.bias$': 'LLaMA has no biases, and they are not computed',
  r'experts|block_sparse_moe|\.gate\.weight': 'it is a mixture of experts',
  r'vision|mm_projector|multi_modal|language_model': 'it sees pictures, too',
}


def cause(name: str, num_layers: int) -> str:
  """Why a folder may hold a tensor that a LLaMA of so many layers lacks."""
  layer = re.search(r'layers\.(\d+)\.', name)
  if layer and int(layer[1]) >= num_layers:
    return (
      f'config.json says num_hidden_layers={num_layers}, and there are more '
      'layers; config.json or the weights belong to another model'
    )
  for pattern, words in _CAUSES.items():
    if re.search(pattern, name):
      return words
  return 'config.json describes another model'


def cast(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  """The array as it is stored; ValueError for a value beyond the dtype."""
  with np.errstate(over='ignore'):
    stored = np.ascontiguousarray(array.astype(dtype))
  if stored.dtype.itemsize < 4 and stored.dtype != array.dtype:
    lost = np.isfinite(array) & ~np.isfinite(stored)
    if lost.any():
      value = float(np.abs(array[lost].astype(np.float32)).max())
      raise ValueError(
        f'{name} holds {value:.6g}, and {dtype} ends at '
        f'{float(ml_dtypes.finfo(dtype).max):.6g}: it would be stored as '
        'infinite; take --dtype=bfloat16 or float32.'
      )
  return stored
