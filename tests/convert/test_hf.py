"""Hugging Face folders: both spellings, and what is refused."""

import functools
import json
import shutil
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from lbe.convert import hf
from lbe.convert import hf_config
from lbe.convert import tensor_files
from lbe.models import architecture
from lbe.models import weights

import tiny


@pytest.fixture
def folder(tmp_path):
  """A small model as transformers writes it, with its tensors."""
  tiny.save_llama(tmp_path / 'model')
  return tmp_path / 'model'


def edit(folder, **changes):
  path = folder / 'config.json'
  record = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(record))


def tensors(folder):
  return safetensors.numpy.load_file(folder / 'model.safetensors')


def save(folder, weights):
  safetensors.numpy.save_file(weights, folder / 'model.safetensors')


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (dict(attention_bias=True), 'attention_bias=True: biases are not'),
    (dict(mlp_bias=True), 'mlp_bias=True: biases are not'),
    (dict(hidden_act='gelu'), "hidden_act='gelu': only 'silu'"),
    (
      dict(rope_parameters=dict(rope_type='yarn', rope_theta=1e4)),
      "rope_type='yarn': only 'default' and 'llama3'",
    ),
    (
      dict(rope_parameters=None, rope_scaling=dict(type='linear', factor=2)),
      "rope_type='linear'",
    ),
    (
      dict(rope_parameters=dict(rope_type='llama3', rope_theta=1e4)),
      'factor=None: RoPE scaling of type llama3 needs it',
    ),
    (dict(partial_rotary_factor=0.5), 'partial_rotary_factor=0.5'),
    (
      dict(quantization_config=dict(quant_method='gptq')),
      "quantization_config='gptq': quantized weights are not",
    ),
    (
      dict(model_type='mistral', architectures=['MistralForCausalLM']),
      'mistral .MistralForCausalLM.*only llama',
    ),
    (
      dict(architectures=['LlamaForSequenceClassification']),
      'LlamaForSequenceClassification.*only llama',
    ),
    (dict(hidden_size=None), 'hidden_size=None: it must be a whole number'),
  ],
)
def test_what_is_not_computed_is_refused_by_name(folder, changes, words):
  """A model that is read as what it is not gives fluent nonsense."""
  edit(folder, **changes)
  with pytest.raises(ValueError, match=words):
    hf_config.read_config(folder)


def test_old_and_new_spellings_of_rope_are_one_config(folder):
  """A theta that is declared and never read breaks every LLaMA 3."""
  scaling = dict(
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
  )
  edit(
    folder,
    rope_parameters=dict(rope_type='llama3', rope_theta=5e5, **scaling),
  )
  new, _ = hf_config.read_config(folder)
  edit(
    folder,
    rope_parameters=None,
    rope_theta=5e5,
    rope_scaling=dict(rope_type='llama3', **scaling),
  )
  old, _ = hf_config.read_config(folder)
  assert new == old
  assert new.rope_theta == 5e5
  assert new.rope_scaling == architecture.RopeScaling(8.0, 1.0, 4.0, 8192)


def test_what_we_write_is_read_back_as_the_same_config(folder):
  """By us and by transformers."""
  for name in ('llama_7b', 'llama31_8b', 'llama32_1b'):
    c = architecture.PRESETS[name]
    record = hf_config.config_json(
      c, dtype='bfloat16', bos_id=1, eos_id=2, pad_id=None
    )
    (folder / 'config.json').write_text(json.dumps(record))
    assert hf_config.read_config(folder)[0] == c
    theirs = transformers.AutoConfig.from_pretrained(folder)
    assert theirs.rope_parameters['rope_theta'] == c.rope_theta
    assert theirs.head_dim == c.head_dim
    if c.rope_scaling:
      assert theirs.rope_parameters['factor'] == c.rope_scaling.factor


def load(folder):
  c, _ = hf_config.read_config(folder)
  return hf.load_params(folder, c)


def test_a_missing_tensor_is_named(folder):
  """Else it would stay zero, or random."""
  weights = tensors(folder)
  del weights['model.layers.1.mlp.up_proj.weight']
  save(folder, weights)
  with pytest.raises(ValueError, match='no tensor .model.layers.1.mlp.up_pro'):
    load(folder)


def test_an_unknown_tensor_is_named(folder):
  """Biases under a config that does not speak of them."""
  weights = tensors(folder)
  weights['model.layers.0.self_attn.q_proj.bias'] = np.zeros(16, np.float32)
  save(folder, weights)
  with pytest.raises(ValueError, match=r"tensor 'model.layers.0.*q_proj.bias'"):
    load(folder)


def test_a_mismatched_shape_is_shown(folder):
  """A transposed or cut matrix."""
  weights = tensors(folder)
  name = 'model.layers.0.self_attn.k_proj.weight'
  weights[name] = np.ascontiguousarray(weights[name].T)
  save(folder, weights)
  with pytest.raises(
    ValueError, match=rf"'{name}' has shape \(16, 8\), but .* says \(8, 16\)"
  ):
    load(folder)


def test_a_truncated_file_is_said(folder):
  """An interrupted download."""
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ValueError, match='model.safetensors cannot be read'):
    load(folder)


def test_an_index_that_names_an_absent_file_is_said(folder):
  """A download that lacks one of many files."""
  model = transformers.LlamaForCausalLM.from_pretrained(folder)
  shutil.rmtree(folder)
  model.save_pretrained(folder, max_shard_size='5KB')
  files = sorted(folder.glob('*.safetensors'))
  assert len(files) > 2
  load(folder)
  files[1].unlink()
  with pytest.raises(ValueError, match=f'names {files[1].name}, which is not'):
    load(folder)


def test_no_weights_at_all(folder):
  (folder / 'model.safetensors').unlink()
  with pytest.raises(ValueError, match='neither model.*nor pytorch_model'):
    load(folder)


def test_of_mixed_dtypes_every_value_is_kept(folder):
  """Norms in float32 beside bfloat16 are common; rounding them is not ours."""
  before = tensors(folder)
  names = ('model.layers.1.input_layernorm.weight', 'model.embed_tokens.weight')
  stored = {
    k: x if k in names else x.astype(ml_dtypes.bfloat16)
    for k, x in before.items()
  }
  save(folder, stored)
  params = load(folder)
  assert params['layers']['q_LDNH'].dtype == ml_dtypes.bfloat16
  assert params['layers']['attn_norm_LD'].dtype == np.float32
  np.testing.assert_array_equal(params['embed_VD'][:40], stored[names[1]])
  np.testing.assert_array_equal(
    params['layers']['attn_norm_LD'],
    [stored[f'model.layers.{i}.input_layernorm.weight'] for i in range(2)],
  )


def _as_bin(folder):
  weights = {k: torch.tensor(v) for k, v in tensors(folder).items()}
  weights['model.layers.0.self_attn.rotary_emb.inv_freq'] = torch.ones(2)
  (folder / 'model.safetensors').unlink()
  torch.save(weights, folder / 'pytorch_model.bin')


def test_bin_files_hold_the_same_weights_and_old_buffers_are_ignored(folder):
  """Rotary buffers of old conversions must not be an unknown tensor."""
  before = load(folder)
  _as_bin(folder)
  after = weights.flatten(load(folder))
  for name, x in weights.flatten(before).items():
    np.testing.assert_array_equal(x, after[name])


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_bin_files_of_named_parameters_are_read(folder, dtype):
  """They ask for gradients, and numpy takes no such tensor."""
  before = weights.flatten(load(folder))
  stored = {
    k: torch.nn.Parameter(torch.tensor(v).to(dtype))
    for k, v in tensors(folder).items()
  }
  (folder / 'model.safetensors').unlink()
  torch.save(stored, folder / 'pytorch_model.bin')
  for name, x in weights.flatten(load(folder)).items():
    wanted = torch.tensor(before[name]).to(dtype).float().numpy()
    np.testing.assert_array_equal(x.astype(np.float32), wanted, err_msg=name)


def test_bin_files_without_torch_name_the_way_out(folder, monkeypatch):
  """torch is an extra."""
  _as_bin(folder)
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(ValueError, match=r"pip install 'lbe\[hf\]'"):
    load(folder)


def test_bin_files_that_hold_code_are_not_run(folder):
  """A pickle may do anything; torch's weights-only loading refuses it."""
  (folder / 'model.safetensors').unlink()
  ran = folder / 'ran'

  class Evil:
    def __reduce__(self):
      return (open, (str(ran), 'w'))

  torch.save({'x': Evil()}, folder / 'pytorch_model.bin')
  with pytest.raises(ValueError, match='cannot be read by torch'):
    load(folder)
  assert not ran.exists()


def test_padding_rows_are_zero_and_cut_again(folder):
  """40 pieces in 128 rows; what is written has 40."""
  c, _ = hf_config.read_config(folder)
  params = hf.load_params(folder, c)
  assert params['embed_VD'].shape == (128, 16)
  assert not params['embed_VD'][40:].any()
  assert not params['head_DV'][:, 40:].any()
  flat = weights.flatten(params)
  target = folder / 'again'
  target.mkdir()
  hf.write_safetensors(
    target, c, flat.__getitem__, dtype='float32', shard_bytes=4000
  )
  assert len(list(target.glob('model-*-of-*.safetensors'))) > 2
  written = {}
  for path in target.glob('*.safetensors'):
    written |= safetensors.numpy.load_file(path)
  source = tensors(folder)
  assert written.keys() == source.keys()
  for name, x in source.items():
    np.testing.assert_array_equal(written[name], x)


@pytest.mark.parametrize('dtype', ['float32', 'float16', ml_dtypes.bfloat16])
def test_values_that_are_not_finite_are_counted(dtype):
  """Of either sign, beside the largest that are."""
  x = np.asarray([[0.0, -1.0], [1.0, -0.0]], dtype)
  x[0, 0], x[0, 1] = ml_dtypes.finfo(dtype).max, ml_dtypes.finfo(dtype).min
  assert tensor_files.num_not_finite(x) == 0
  for value in (np.nan, -np.nan, np.inf, -np.inf):
    y = x.copy()
    y[1, 1] = value
    assert tensor_files.num_not_finite(y) == 1
    assert tensor_files.num_not_finite(y.T) == 1
  assert tensor_files.num_not_finite(np.full((2, 3), -np.inf, dtype)) == 6


def test_weights_of_another_export_are_not_written_beside(folder):
  """A single file left there would be read in place of the new shards."""
  c, _ = hf_config.read_config(folder)
  get_array = weights.flatten(hf.load_params(folder, c)).__getitem__
  write = functools.partial(
    hf.write_safetensors, folder, c, get_array, dtype='float32'
  )
  write()
  with pytest.raises(ValueError, match='model.safetensors lies where a model'):
    write(shard_bytes=4000)
  (folder / 'model.safetensors').unlink()
  write(shard_bytes=4000)
  write(shard_bytes=4000)
  with pytest.raises(ValueError, match='model-00001-of-.* lies where a model'):
    write()
