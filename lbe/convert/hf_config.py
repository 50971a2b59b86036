"""config.json of Hugging Face LLaMA folders, both ways."""

import pathlib
import sys

from lbe.convert import tensor_files
from lbe.models import architecture
from lbe.text import files

# A file in a folder that export_hf has not finished, or is just writing.
UNFINISHED = files.UNFINISHED


def is_hf_dir(path: str | pathlib.Path) -> bool:
  """Whether `path` is a folder with a config.json of Hugging Face.

  One that cannot be read counts: read_config says what is wrong with it.
  """
  config = pathlib.Path(path) / 'config.json'
  if not files.is_there(config):
    return False
  try:
    record = files.read_json(config)
  except ValueError:
    return True
  return bool(record.keys() & {'model_type', 'architectures', 'hidden_size'})


_META = (
  "it holds Meta's own files; convert them first: python -m "
  f'{tensor_files.META} --input_dir={{path}} --output_dir=...'
)
# What lies in a folder that is no model for us, and the way out.
_INSTEAD = {
  'consolidated.*': _META,
  'params.json': _META,
  'adapter_config.json': (
    'it holds an adapter of PEFT; import it with its model: python -m '
    'lbe.import_hf --source=MODEL --adapter={path} --target=...'
  ),
  '*.gguf': (
    'it holds GGUF, which is not read; take the folder that it was made from '
    '(transformers: from_pretrained(..., gguf_file=...).save_pretrained(...))'
  ),
  '*.safetensors*': 'its weights lack a config.json; copy it from their source',
  '*.bin': 'its weights lack a config.json; copy it from their source',
  '*/config.json': 'it has no config.json, but {found} has; name that folder',
  'snapshots/*/config.json': 'it is a cache of the hub; name {found}',
  'config.json': (
    'its config.json has no model_type, and there is no finished step in '
    'checkpoints/'
  ),
}


def lacks(path: str | pathlib.Path) -> str:
  """Why `path` is no Hugging Face folder, and the way out."""
  folder = pathlib.Path(path)
  if folder.is_file():
    return f'it is a file; give the folder that it lies in, {folder.parent}'
  if not folder.is_dir():
    return (
      'there is no such folder (nothing is fetched here; a model of the hub: '
      'hf download NAME --local-dir=FOLDER)'
    )
  for pattern, words in _INSTEAD.items():
    found = sorted(folder.glob(pattern))
    if found:
      return words.format(path=path, found=found[0].parent)
  return (
    'it has no finished step in checkpoints/ (and is none), and no config.json '
    'with a model_type'
  )


def _refuse(path, field, value, rule):
  raise ValueError(f'{path}: {field}={value!r}: {rule}')


def read_config(
  folder: str | pathlib.Path,
) -> tuple[architecture.Config, dict]:
  """(architecture.Config, info) of a folder's config.json.

  `info` has `bos_id`, `eos_id`, `pad_id`, and `generation_config` where the
  folder has one. Raises ValueError for what this model does not compute, by
  name.
  """
  path = pathlib.Path(folder) / 'config.json'
  r = files.read_json(path)
  _check_family(path, r)

  def whole(field, default=None):
    value = r.get(field, default)
    if type(value) is not int or value < 1:
      _refuse(path, field, value, 'it must be a whole number, at least 1.')
    return value

  heads, dim = whole('num_attention_heads'), whole('hidden_size')
  if dim % heads:
    _refuse(
      path, 'num_attention_heads', heads, f'it must divide hidden_size={dim}.'
    )
  optional = {
    field: default if r.get(field) is None else whole(field)
    for field, default in (
      ('num_key_value_heads', heads),
      ('head_dim', dim // heads),
    )
  }
  if heads % optional['num_key_value_heads']:
    _refuse(
      path,
      'num_key_value_heads',
      optional['num_key_value_heads'],
      f'it must divide num_attention_heads={heads}.',
    )
  if optional['head_dim'] % 2:
    _refuse(
      path, 'head_dim', optional['head_dim'], 'RoPE turns pairs; it is even.'
    )
  tied = r.get('tie_word_embeddings', False)
  if type(tied) is not bool:
    _refuse(path, 'tie_word_embeddings', tied, 'it is true or false.')
  theta, scaling = _rope(path, r)
  config = architecture.Config(
    vocab_size=whole('vocab_size'),
    dim=dim,
    num_layers=whole('num_hidden_layers'),
    num_heads=heads,
    num_kv_heads=optional['num_key_value_heads'],
    head_dim=optional['head_dim'],
    mlp_dim=whole('intermediate_size'),
    max_positions=whole('max_position_embeddings', 2048),
    rope_theta=theta,
    rope_scaling=scaling,
    norm_eps=_number(path, 'rms_norm_eps', r.get('rms_norm_eps', 1e-6)),
    tied=tied,
    init_std=r.get('initializer_range', 0.02),
  )
  info = {f'{role}_id': r.get(f'{role}_token_id') for role in _ROLES}
  for role, i in info.items():
    if i == -1:  # the first conversions' word for none
      info[role] = None
  generation = pathlib.Path(folder) / 'generation_config.json'
  if files.is_there(generation):
    info['generation_config'] = files.read_json(generation)
  return config, info


_ROLES = ('bos', 'eos', 'pad')
_NAMES = ('LlamaForCausalLM', 'LLaMAForCausalLM')  # the latter until 2023-03


def _check_family(path, r):
  """Raises ValueError for what is no LLaMA, or one that is not computed."""
  names = r.get('architectures') or [_NAMES[0]]
  names = names if isinstance(names, list) else [names]
  kind = r.get('model_type', 'llama' if 'architectures' in r else None)
  if kind != 'llama' or not all(x in _NAMES for x in names):
    _refuse(
      path,
      'model_type',
      f'{kind} ({", ".join(map(str, names))})',
      'only llama (LlamaForCausalLM) is supported; convert such a model '
      'elsewhere.',
    )
  for field in ('attention_bias', 'mlp_bias'):
    if r.get(field):
      _refuse(path, field, True, 'biases are not supported; LLaMA has none.')
  if r.get('hidden_act', 'silu') not in ('silu', 'swish'):  # one function
    _refuse(path, 'hidden_act', r['hidden_act'], "only 'silu' is supported.")
  for field in ('quantization_config', 'compression_config', 'quantization'):
    how = r.get(field)
    if how:
      _refuse(
        path,
        field,
        how.get('quant_method', '?') if isinstance(how, dict) else how,
        'quantized weights are not supported; give the unquantized model.',
      )


def _number(path, field, value):
  if isinstance(value, bool) or not isinstance(value, int | float):
    _refuse(path, field, value, 'it must be a number.')
  if not 0 < value <= sys.float_info.max:
    _refuse(path, field, value, 'it must be above 0, and finite.')
  return float(value)


def _rope(path, r):
  """(theta, RopeScaling or None), as transformers 5 resolves its spellings.

  The older record `rope_scaling`, where it is there, replaces
  `rope_parameters` whole; theta is that of the record, else that beside it.
  """
  rope = r.get('rope_scaling') or r.get('rope_parameters') or {}
  if not isinstance(rope, dict) or any(
    isinstance(x, dict) for x in rope.values()
  ):
    _refuse(path, 'rope_parameters', rope, 'one record for all layers is read.')
  theta = rope.get('rope_theta', r.get('rope_theta', 10000.0))
  theta = _number(path, 'rope_theta', theta)
  other = r.get('rope_parameters')
  other = other if isinstance(other, dict) else {}
  lost = [
    k for k, x in other.items() if {**rope, 'rope_theta': theta}.get(k) != x
  ]
  if lost:
    print(
      f'notice: {path} has rope_scaling beside rope_parameters; as in '
      f'transformers the former counts, and {lost[0]}={other[lost[0]]!r} of '
      'the latter does not.',
      file=sys.stderr,
    )
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind not in ('default', 'llama3'):
    _refuse(
      path,
      'rope_type',
      kind,
      "only 'default' and 'llama3' are supported; in another way the model "
      'would compute something else.',
    )
  partial = rope.get('partial_rotary_factor', r.get('partial_rotary_factor'))
  if partial not in (None, 1, 1.0):
    _refuse(
      path, 'partial_rotary_factor', partial, 'RoPE turns whole heads here.'
    )
  if kind == 'default':
    if 'factor' in rope:
      print(
        f'notice: {path} has a factor={rope["factor"]!r} of RoPE without a '
        'rope_type; as in transformers it counts for nothing.',
        file=sys.stderr,
      )
    return theta, None
  # Positions before scaling: beside the record first, as transformers does.
  positions = r.get(
    'original_max_position_embeddings',
    rope.get(
      'original_max_position_embeddings', r.get('max_position_embeddings', 2048)
    ),
  )
  numbers = []
  for field in ('factor', 'low_freq_factor', 'high_freq_factor'):
    if rope.get(field) is None:
      _refuse(path, field, None, 'RoPE scaling of type llama3 needs it.')
    numbers.append(_number(path, field, rope[field]))
  field = 'original_max_position_embeddings'
  return theta, architecture.RopeScaling(
    *numbers, original_max_positions=int(_number(path, field, positions))
  )


def config_json(
  c: architecture.Config,
  *,
  dtype: str,
  bos_id: int | None,
  eos_id: int | None,
  pad_id: int | None,
) -> dict:
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
