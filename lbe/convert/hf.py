"""Hugging Face LLaMA folders: configs and weights, both ways, streamed."""

import contextlib
import hashlib
import json
import math
import pathlib

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from lbe.models import architecture
from lbe.models import weights as weights_lib

DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
}

# ----------------------------------------------------------------- configs


def is_hf_dir(path):
  """Whether `path` is a folder with a config.json of Hugging Face."""
  config = pathlib.Path(path) / 'config.json'
  if not config.is_file():
    return False
  try:
    record = json.loads(config.read_text(encoding='utf-8'))
  except ValueError:
    return False
  return 'model_type' in record or 'architectures' in record


def read_config(folder):
  """(architecture.Config, info) of a folder's config.json.

  `info` has `bos_id`, `eos_id`, `pad_id`, and `generation_config` where the
  folder has one. Raises ValueError for what this model does not compute, by
  name.
  """
  path = pathlib.Path(folder) / 'config.json'
  r = json.loads(path.read_text(encoding='utf-8'))

  def refuse(field, value, rule):
    raise ValueError(f'{path}: {field}={value!r}: {rule}')

  kind = r.get('model_type')
  architectures = r.get('architectures') or ['LlamaForCausalLM']
  if kind != 'llama' or architectures != ['LlamaForCausalLM']:
    refuse(
      'model_type',
      f'{kind} ({", ".join(architectures)})',
      'only llama (LlamaForCausalLM) is supported; convert such a model '
      'elsewhere.',
    )
  for field in (
    'vocab_size',
    'hidden_size',
    'intermediate_size',
    'num_hidden_layers',
    'num_attention_heads',
  ):
    if not isinstance(r.get(field), int):
      refuse(field, r.get(field), 'it must be a whole number.')
  for field in ('attention_bias', 'mlp_bias'):
    if r.get(field):
      refuse(field, True, 'biases are not supported; LLaMA has none.')
  if r.get('hidden_act', 'silu') != 'silu':
    refuse('hidden_act', r['hidden_act'], "only 'silu' is supported.")
  if r.get('quantization_config'):
    refuse(
      'quantization_config',
      r['quantization_config'].get('quant_method', '?'),
      'quantized weights are not supported; give the unquantized model.',
    )
  # transformers 5 holds theta and scaling in one record, older ones in two.
  rope = {
    'rope_theta': r.get('rope_theta', 10000.0),
    **(r.get('rope_scaling') or {}),
    **(r.get('rope_parameters') or {}),
  }
  rope_type = rope.get('rope_type', rope.get('type', 'default'))
  if rope_type not in ('default', 'llama3'):
    refuse('rope_type', rope_type, "only 'default' and 'llama3' are supported.")
  partial = rope.get('partial_rotary_factor', r.get('partial_rotary_factor'))
  if partial not in (None, 1, 1.0):
    refuse('partial_rotary_factor', partial, 'RoPE turns whole heads here.')
  scaling = None
  if rope_type == 'llama3':
    missing = [
      name
      for name in (
        'factor',
        'low_freq_factor',
        'high_freq_factor',
        'original_max_position_embeddings',
      )
      if name not in rope
    ]
    if missing:
      refuse(missing[0], None, 'RoPE scaling of type llama3 needs it.')
    scaling = architecture.RopeScaling(
      factor=float(rope['factor']),
      low_freq_factor=float(rope['low_freq_factor']),
      high_freq_factor=float(rope['high_freq_factor']),
      original_max_positions=int(rope['original_max_position_embeddings']),
    )
  heads = r['num_attention_heads']
  config = architecture.Config(
    vocab_size=r['vocab_size'],
    dim=r['hidden_size'],
    num_layers=r['num_hidden_layers'],
    num_heads=heads,
    num_kv_heads=r.get('num_key_value_heads') or heads,
    head_dim=r.get('head_dim') or r['hidden_size'] // heads,
    mlp_dim=r['intermediate_size'],
    max_positions=r.get('max_position_embeddings', 2048),
    rope_theta=float(rope['rope_theta']),
    rope_scaling=scaling,
    norm_eps=r.get('rms_norm_eps', 1e-6),
    tied=bool(r.get('tie_word_embeddings', False)),
    init_std=r.get('initializer_range', 0.02),
  )
  info = {
    'bos_id': r.get('bos_token_id'),
    'eos_id': r.get('eos_token_id'),
    'pad_id': r.get('pad_token_id'),
  }
  generation = pathlib.Path(folder) / 'generation_config.json'
  if generation.is_file():
    info['generation_config'] = json.loads(
      generation.read_text(encoding='utf-8')
    )
  return config, info


def config_json(c, *, dtype, bos_id, eos_id, pad_id):
  """config.json as a dictionary that old and new transformers read alike."""
  rope = {'rope_theta': c.rope_theta, 'rope_type': 'default'}
  old_scaling = None
  if c.rope_scaling is not None:
    s = c.rope_scaling
    old_scaling = {
      'rope_type': 'llama3',
      'factor': s.factor,
      'low_freq_factor': s.low_freq_factor,
      'high_freq_factor': s.high_freq_factor,
      'original_max_position_embeddings': s.original_max_positions,
    }
    rope |= old_scaling
  return {
    'architectures': ['LlamaForCausalLM'],
    'model_type': 'llama',
    'vocab_size': c.vocab_size,
    'hidden_size': c.dim,
    'intermediate_size': c.mlp_dim,
    'num_hidden_layers': c.num_layers,
    'num_attention_heads': c.num_heads,
    'num_key_value_heads': c.num_kv_heads,
    'head_dim': c.head_dim,
    'max_position_embeddings': c.max_positions,
    'rms_norm_eps': c.norm_eps,
    'rope_theta': c.rope_theta,
    'rope_scaling': old_scaling,
    'rope_parameters': rope,
    'tie_word_embeddings': c.tied,
    'hidden_act': 'silu',
    'attention_bias': False,
    'mlp_bias': False,
    'initializer_range': c.init_std,
    'pretraining_tp': 1,
    'use_cache': True,
    'bos_token_id': bos_id,
    'eos_token_id': eos_id,
    'pad_token_id': pad_id,
    'dtype': dtype,
    'torch_dtype': dtype,
  }


# ------------------------------------------------------------------- names


def tensor_names(c):
  """Our name → (Hugging Face names, one a layer where stacked).

  Order is that of the forward pass, which is the order on disk.
  """
  layer = {
    'attn_norm_LD': 'input_layernorm',
    'q_LDNH': 'self_attn.q_proj',
    'k_LDKH': 'self_attn.k_proj',
    'v_LDKH': 'self_attn.v_proj',
    'o_LNHD': 'self_attn.o_proj',
    'mlp_norm_LD': 'post_attention_layernorm',
    'gate_LDF': 'mlp.gate_proj',
    'up_LDF': 'mlp.up_proj',
    'down_LFD': 'mlp.down_proj',
  }
  names = {'embed_VD': ['model.embed_tokens.weight']}
  for ours, theirs in layer.items():
    names[f'layers/{ours}'] = [
      f'model.layers.{i}.{theirs}.weight' for i in range(c.num_layers)
    ]
  names['final_norm_D'] = ['model.norm.weight']
  if not c.tied:
    names['head_DV'] = ['lm_head.weight']
  return names


def _their_shape(c, name):
  """The shape that Hugging Face stores for one tensor of `name`."""
  D, F, H = c.dim, c.mlp_dim, c.head_dim
  return {
    'embed_VD': (c.vocab_size, D),
    'layers/attn_norm_LD': (D,),
    'layers/q_LDNH': (c.num_heads * H, D),
    'layers/k_LDKH': (c.num_kv_heads * H, D),
    'layers/v_LDKH': (c.num_kv_heads * H, D),
    'layers/o_LNHD': (D, c.num_heads * H),
    'layers/mlp_norm_LD': (D,),
    'layers/gate_LDF': (F, D),
    'layers/up_LDF': (F, D),
    'layers/down_LFD': (D, F),
    'final_norm_D': (D,),
    'head_DV': (c.vocab_size, D),
  }[name]


def to_ours(name, tensor):
  """One stored [out, in] tensor as our array (of one layer), a view."""
  D_first = {
    'layers/q_LDNH',
    'layers/k_LDKH',
    'layers/v_LDKH',
    'layers/o_LNHD',
    'layers/gate_LDF',
    'layers/up_LDF',
    'layers/down_LFD',
    'head_DV',
  }
  return tensor.T if name in D_first else tensor


def to_theirs(c, name, array):
  """The inverse of `to_ours` for one layer's array; padding rows are cut."""
  if name == 'embed_VD':
    return array[: c.vocab_size]
  if name == 'head_DV':
    return array[:, : c.vocab_size].T
  if array.ndim == 1:
    return array
  if name == 'layers/o_LNHD':
    return array.reshape(-1, c.dim).T
  return array.reshape(array.shape[0], -1).T


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
        with self._opened(single) as tensors:
          return {name: single for name in tensors.keys()}
    raise ValueError(
      f'{folder} has neither model*.safetensors nor pytorch_model*.bin (and '
      'no index of them); copy the weights beside config.json.'
    )

  @contextlib.contextmanager
  def _opened(self, path):
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

  def _file(self, path):
    if self._open_name != path:
      self.close()
      self._open_file = self._stack.enter_context(self._opened(path))
      self._open_name = path
    return self._open_file

  def close(self):
    self._stack.close()
    self._open_file = self._open_name = None

  def read(self, c, name, theirs):
    """One stored tensor of our weight `name`, its shape checked."""
    path = self._where[theirs]
    f = self._file(path)
    if path.suffix == '.safetensors':
      try:
        tensor = f.get_tensor(theirs)
      except (safetensors.SafetensorError, KeyError) as error:
        raise _unreadable(path, theirs, error) from error
    else:
      if theirs not in f:
        raise ValueError(f'{path} has no tensor {theirs!r}; copy it again.')
      tensor = _torch_to_numpy(f[theirs])
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
        raise _unreadable(path, theirs, error) from error
      self._check_shape(c, name, theirs, tuple(shape))

  def _check_shape(self, c, name, theirs, shape):
    expected = _their_shape(c, name)
    if shape != expected:
      raise ValueError(
        f'{self._where[theirs]}: tensor {theirs!r} has shape {shape}, but '
        f'config.json says {expected}; one of the two belongs to another '
        'model.'
      )

  def dtype(self, c):
    """The dtype on disk, as numpy's name: that of the first projection."""
    theirs = 'model.layers.0.self_attn.q_proj.weight'
    return str(self.read(c, 'layers/q_LDNH', theirs).dtype)


def _unreadable(path, theirs, error):
  return ValueError(
    f'{path}: tensor {theirs!r} cannot be read ({error}); the file is '
    'truncated or not the one that the index was made for.'
  )


def check_weights(folder, c):
  """Raises ValueError where `load_params` would; reads next to nothing."""
  weights = Weights(folder, c)
  try:
    weights.check(c)
  finally:
    weights.close()


def stored_dtype(folder, c):
  """The dtype of the weights on disk, whatever config.json says of it."""
  weights = Weights(folder, c)
  try:
    return weights.dtype(c)
  finally:
    weights.close()


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


def flatten(params):
  """{'layers/q_LDNH': ...} of the parameter tree."""
  return traverse_util.flatten_dict(params, sep='/')


def unflatten(flat):
  """The parameter tree of what `flatten` gives."""
  return traverse_util.unflatten_dict(flat, sep='/')


def load_params(folder, c, *, dtype=None, shardings=None):
  """The parameter tree, read tensor by tensor; padding rows are zero.

  In numpy, or with `shardings` (a tree of NamedShardings) as jax arrays whose
  shards are read on their own hosts. `dtype` is that of weights.shapes; None
  keeps that on disk.
  """
  weights = Weights(folder, c)
  keep = dtype is None
  shapes = flatten(
    weights_lib.shapes(c, dtype=weights.dtype(c) if keep else dtype)
  )
  flat_shardings = flatten(shardings) if shardings is not None else None
  result = {}
  try:
    for name, theirs in tensor_names(c).items():
      array = _stacked(weights, c, name, theirs, shapes[name], keep)
      if flat_shardings is not None:
        array = jax.make_array_from_callback(
          array.shape, flat_shardings[name], lambda i, a=array: a[i]
        )
        # The host copy goes before the next one is made.
        array = jax.block_until_ready(array)
      result[name] = array
  finally:
    weights.close()
  return unflatten(result)


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
    tensor = to_ours(name, tensor)
    if name.startswith('layers/'):
      array[i] = tensor.reshape(array.shape[1:])
    else:  # the rest of the vocabulary's rows is padding
      array[tuple(slice(n) for n in tensor.shape)] = tensor
  return array


# ------------------------------------------------------------------ writing


def write_safetensors(
  folder, c, get_array, *, dtype, shard_bytes=5_000_000_000
):
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
      n = math.prod(_their_shape(c, name)) * dtype.itemsize
      if files[-1] and size + n > shard_bytes:
        files.append([])
        size = 0
      layer = i if name.startswith('layers/') else None
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
    shape = _their_shape(c, name)
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
      view = memoryview(data.view(np.uint8).reshape(-1))
      digests[theirs] = hashlib.sha256(view).hexdigest()
      f.write(view)


def tensor_digests(folder, c):
  """{their name: sha256 of the stored bytes}, one tensor in memory."""
  weights = Weights(folder, c)
  try:
    return {
      theirs: hashlib.sha256(
        memoryview(
          np.ascontiguousarray(weights.read(c, name, theirs))
          .view(np.uint8)
          .reshape(-1)
        )
      ).hexdigest()
      for name, names in tensor_names(c).items()
      for theirs in names
    }
  finally:
    weights.close()
