"""Files of tensors, .safetensors and PyTorch's .bin, by the names on disk."""

import contextlib
import pathlib

import ml_dtypes
import numpy as np
import safetensors


@contextlib.contextmanager
def opened(path: pathlib.Path):
  """The tensors of a file as a mapping; ValueError where it is none."""
  try:
    if path.suffix == '.safetensors':
      with safetensors.safe_open(path, framework='numpy') as f:
        yield f
      return
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} cannot be read ({error}); the file is truncated or no '
      'safetensors file: copy it again.'
    ) from error
  yield _load_bin(path)


def read(f, path: pathlib.Path, name: str) -> np.ndarray:
  """One tensor of what `opened` gave."""
  try:
    if path.suffix == '.safetensors':
      return f.get_tensor(name)
  except (safetensors.SafetensorError, KeyError) as error:
    raise unreadable(path, name, error) from error
  if name not in f:
    raise ValueError(f'{path} has no tensor {name!r}; copy it again.')
  return _torch_to_numpy(f[name])


def load_file(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All tensors of one .safetensors or .bin file by their names on disk."""
  with opened(path) as f:
    return {name: read(f, path, name) for name in f.keys()}


def unreadable(path, theirs, error) -> ValueError:
  """What to raise where a tensor cannot be read from its file."""
  return ValueError(
    f'{path}: tensor {theirs!r} cannot be read ({error}); the file is '
    'truncated or not the one that the index was made for.'
  )


def _load_bin(path):
  try:
    import torch  # an extra: only .bin files need it
  except ImportError as error:
    raise ValueError(
      f'{path} is a PyTorch file, and torch is not installed: '
      "pip install 'lbe[hf]' (or: pip install torch)."
    ) from error
  try:
    return torch.load(path, map_location='cpu', weights_only=True, mmap=True)
  except Exception as first:
    try:  # the format of before 2020 cannot be memory-mapped
      return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
      raise ValueError(
        f'{path} cannot be read by torch ({first}); the file is truncated, '
        'or holds more than tensors.'
      ) from error


def _torch_to_numpy(tensor):
  import torch

  if tensor.dtype == torch.bfloat16:
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()
