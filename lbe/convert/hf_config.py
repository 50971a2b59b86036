"""config.json of Hugging Face LLaMA folders, both ways."""

import json
import pathlib

from lbe.models import architecture


def is_hf_dir(path: str | pathlib.Path) -> bool:
  """Whether `path` is a folder with a config.json of Hugging Face."""
  config = pathlib.Path(path) / 'config.json'
  if not config.is_file():
    return False
  try:
    record = json.loads(config.read_text(encoding='utf-8'))
  except ValueError:
    return False
  return 'model_type' in record or 'architectures' in record


def read_config(
  folder: str | pathlib.Path,
) -> tuple[architecture.Config, dict]:
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
