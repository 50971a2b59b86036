"""Hugging Face folders as people have them: read as transformers, or refused.

Every accepted folder is compared with the logits of transformers.
"""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import transformers

from lbe.convert import hf_config
from lbe.convert import stored
from lbe.mesh import sharding
from lbe.models import forward

import tiny

LLAMA3 = dict(
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=16,
)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Small models as transformers writes them: 'a', another 'b', 'tied'."""
  root = tmp_path_factory.mktemp('made')
  for seed, name in enumerate(('a', 'b', 'tied')):
    model = tiny.save_llama(
      root / name,
      seed=seed,
      initializer_range=0.5,
      tie_word_embeddings=name == 'tied',
    )
    model.save_pretrained(root / f'{name}_shards', max_shard_size='5KB')
  return root


@pytest.fixture
def folder(made, tmp_path):
  shutil.copytree(made / 'a', tmp_path / 'a')
  return tmp_path / 'a'


def edit(folder, **changes):
  path = folder / 'config.json'
  record = json.loads(path.read_text()) | changes
  record = {k: x for k, x in record.items() if x != 'absent'}
  path.write_text(json.dumps(record))


def tensors(folder):
  return safetensors.numpy.load_file(folder / 'model.safetensors')


def save(folder, weights, name='model.safetensors', **metadata):
  safetensors.numpy.save_file(
    weights, folder / name, metadata={'format': 'pt', **metadata}
  )


def ours(folder):
  opened = stored.open_model(folder)
  c = opened.config
  mesh = sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])
  ids_BT = np.arange(c.vocab_size)[None]
  x_BTD = forward.hidden(
    opened.load_params(mesh),
    c,
    jax.numpy.asarray(ids_BT),
    positions_BT=jax.numpy.asarray(ids_BT),
    segments_BT=jax.numpy.ones_like(ids_BT),
    execution=forward.Execution(compute_dtype='float32', scan=False),
  )
  logits_BTV = forward.logits(opened.load_params(mesh), c, x_BTD)
  return np.asarray(logits_BTV)[0, :, : c.vocab_size]


def theirs(folder):
  model = transformers.LlamaForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  ).eval()
  with torch.no_grad():
    return model(torch.arange(model.config.vocab_size)[None]).logits[0].numpy()


def assert_read_as_transformers_does(folder):
  want = theirs(folder)
  np.testing.assert_allclose(
    ours(folder), want, atol=1e-4 * max(1, np.abs(want).max())
  )


def refused(folder, words):
  with pytest.raises(ValueError, match=words):
    stored.open_model(folder)


# ------------------------------------------------------------- which files


@pytest.mark.parametrize('also', ['whole', 'the index alone'])
def test_a_single_file_goes_before_an_index(made, tmp_path, capsys, also):
  """Old shards beside a newer file were read: another model's logits."""
  folder = tmp_path / 'x'
  shutil.copytree(made / 'a_shards', folder)
  shutil.copy(made / 'b' / 'model.safetensors', folder)
  if also == 'the index alone':
    for path in folder.glob('model-*'):
      path.unlink()
  assert_read_as_transformers_does(folder)
  assert np.array_equal(ours(folder), ours(made / 'b'))
  told = capsys.readouterr().err
  assert 'model.safetensors is read' in told
  assert 'not: model' in told


def test_safetensors_go_before_bin_and_a_single_bin_before_its_index(
  made, tmp_path
):
  """The order of transformers, whatever else lies there."""
  folder = tmp_path / 'x'
  shutil.copytree(made / 'a_shards', folder)
  other = {k: torch.tensor(x) for k, x in tensors(made / 'b').items()}
  torch.save(other, folder / 'pytorch_model.bin')
  assert_read_as_transformers_does(folder)
  for path in folder.glob('model*'):
    path.unlink()
  names = dict.fromkeys(other, 'pytorch_model-1.bin')
  index = {'metadata': {}, 'weight_map': names}
  (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(index))
  assert_read_as_transformers_does(folder)
  (folder / 'pytorch_model.bin').rename(folder / 'pytorch_model-1.bin')
  assert_read_as_transformers_does(folder)


def test_an_index_may_name_another_file_than_holds_the_tensor(made, tmp_path):
  """transformers reads all tensors of all files that it names; as we do."""
  folder = tmp_path / 'x'
  shutil.copytree(made / 'a_shards', folder)
  path = folder / 'model.safetensors.index.json'
  index = json.loads(path.read_text())
  names = list(index['weight_map'].values())
  turned = dict(zip(index['weight_map'], names[1:] + names[:1], strict=True))
  path.write_text(json.dumps(index | {'weight_map': turned}))
  assert_read_as_transformers_does(folder)


def test_a_tensor_of_a_file_beside_is_an_error(made, folder):
  """A head or a shard that the index forgets would be lost without a word."""
  weights = tensors(folder)
  save(
    folder,
    {'v_head.summary.weight': np.ones((1, 16), np.float32)},
    'v.safetensors',
  )
  refused(folder, "v.safetensors holds a tensor 'v_head.summary.weight'")
  (folder / 'v.safetensors').unlink()
  torch.save(
    {'v_head.summary.weight': torch.ones(1, 16)}, folder / 'value_head.bin'
  )
  refused(folder, "value_head.bin holds a tensor 'v_head.summary.weight'")
  (folder / 'value_head.bin').unlink()
  # States of a training are no weights.
  optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
  optimizer.param_groups[0]['params'][0].grad = torch.ones(2)
  optimizer.step()
  torch.save(optimizer.state_dict(), folder / 'optimizer.pt')
  torch.save({'cpu': torch.random.get_rng_state()}, folder / 'rng_state.pth')
  torch.save({'lr': 1.0}, folder / 'training_args.bin')
  (folder / 'tokenizer.bin').write_bytes(b'\0' * 30)
  assert_read_as_transformers_does(folder)
  # A tied model whose shards hold another head that no index names.
  edit(folder, tie_word_embeddings=True)
  head = weights.pop('lm_head.weight')
  save(folder, weights)
  assert_read_as_transformers_does(folder)
  save(folder, {'lm_head.weight': head}, 'model-00003-of-00003.safetensors')
  refused(
    folder, "model-00003.*holds a tensor 'lm_head.weight'.*mend the index"
  )


@pytest.mark.parametrize(
  'file', ['../other.safetensors', '/etc/passwd', 'a/../../b.bin', 7]
)
def test_an_index_stays_within_its_folder(made, tmp_path, file):
  """Catches a download that reads what lies elsewhere."""
  folder = tmp_path / 'x'
  shutil.copytree(made / 'a_shards', folder)
  index = folder / 'model.safetensors.index.json'
  told = json.loads(index.read_text())
  told['weight_map']['lm_head.weight'] = file
  index.write_text(json.dumps(told))
  refused(folder, 'which is no file of its folder')


def test_shards_without_an_index_are_told(made, tmp_path):
  folder = tmp_path / 'x'
  shutil.copytree(made / 'a_shards', folder)
  (folder / 'model.safetensors.index.json').unlink()
  refused(folder, 'has the shards but not their index')


@pytest.mark.parametrize(
  ('broken', 'words'),
  [
    (b'', 'is empty'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    (b'\xef\xbb\xbf{}', 'byte order mark'),
    (b'{"weight_map": {"a":', 'truncated'),
    (b'[]', 'JSON list'),
    ('{}'.encode('utf-16'), 'UTF-16'),
  ],
)
def test_broken_files_are_told_as_what_they_are(made, tmp_path, broken, words):
  """Of weights, index and config alike."""
  folder = tmp_path / 'x'
  shutil.copytree(made / 'a_shards', folder)
  for name in (
    'config.json',
    'generation_config.json',
    'model.safetensors.index.json',
    'model-00002-of-00007.safetensors',
  ):
    if name.endswith('.safetensors'):
      name = sorted(folder.glob('model-*'))[1].name
      words = words if 'empty' in words or 'lfs' in words else 'cannot be read'
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(broken)
    refused(folder, f'{name}.*{words}')
    (folder / name).write_bytes(data)
  assert_read_as_transformers_does(folder)


@pytest.mark.parametrize(
  'name',
  [
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'tokenizer.model',
    'tokenizer.json',
  ],
)
def test_dead_links_are_told(folder, name):
  """A copied cache of the hub: a model without its tokenizer was opened."""
  (folder / name).unlink(missing_ok=True)
  (folder / name).symlink_to('../../blobs/abc')
  refused(folder, f'{name} is a link to ../../blobs/abc, which is not there')


def test_what_is_no_folder_of_hugging_face_is_told_as_what_it_is(tmp_path):
  """Meta's files, GGUF, an adapter, a folder above."""
  for name, words in (
    ('consolidated.00.pth', 'convert_llama_weights_to_hf'),
    ('adapter_config.json', '--adapter='),
    ('x.gguf', 'GGUF'),
    ('model.safetensors', 'lack a config.json'),
    ('sub/config.json', 'name that folder'),
  ):
    folder = tmp_path / name.replace('/', '_')
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text('{}')
    refused(folder, words)
  refused(tmp_path / 'x.gguf' / 'x.gguf', 'is a file; give the folder')
  refused(tmp_path / 'none', 'there is no such folder')


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('consolidated.00.pth', 'convert_llama_weights_to_hf'),
    ('model-00001-of-00001.safetensors', 'the shards but not their index'),
    ('model.fp16.safetensors', 'under another name .model.fp16.safetensors'),
    ('llama.Q4_K.gguf', 'GGUF'),
    ('tf_model.h5', 'other frameworks .tf_model.h5'),
    ('adapter_model.safetensors', 'an adapter alone'),
  ],
)
def test_what_lies_in_place_of_weights_is_told(folder, name, words):
  """Beside a config.json that is read."""
  (folder / 'model.safetensors').rename(folder / name)
  refused(folder, f'neither model.*{words}')


def test_a_model_with_an_adapter_beside_it_is_refused(folder):
  """transformers would apply it; without a word it was left out."""
  (folder / 'adapter_config.json').write_text('{"peft_type": "LORA"}')
  refused(folder, 'holds a model and an adapter.*--adapter=')


# ----------------------------------------------------------- which tensors


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('model.layers.2.mlp.up_proj.weight', 'num_hidden_layers=2.*more layers'),
    ('model.layers.0.self_attn.q_proj.bias', 'LLaMA has no biases'),
    ('model.layers.0.self_attn.q_norm.weight', 'Qwen3'),
    ('model.layers.0.self_attn.q_proj.qweight', 'GPTQ'),
    ('model.layers.0.mlp.up_proj.weight.absmax', 'bitsandbytes'),
    ('model.layers.0.mlp.up_proj.SCB', 'bitsandbytes'),
    ('model.layers.0.mlp.up_proj.weight_scale', 'FP8'),
    ('model.layers.0.self_attn.q_proj.lora_A.weight', 'merge_and_unload'),
    ('score.weight', 'reward model'),
    ('v_head.summary.bias', 'reward model'),
    ('lm_head.bias', 'LLaMA has no biases'),
    ('model.layers.0.block_sparse_moe.gate.weight', 'mixture of experts'),
    ('something', 'config.json describes another model'),
  ],
)
def test_a_tensor_that_is_not_read_is_named_with_its_likely_cause(
  folder, name, words
):
  """It was part of the model; without it the logits are others."""
  save(folder, tensors(folder) | {name: np.ones(4, np.float32)})
  refused(folder, f"tensor '{name}' .*is not read.*{words}")


@pytest.mark.parametrize(
  ('prefix', 'words'),
  [
    ('_orig_mod.', 'torch.compile'),
    ('module.', 'DataParallel'),
    ('base_model.model.', 'merge_and_unload'),
  ],
)
def test_names_of_a_wrapped_model_are_refused_with_the_way_out(
  folder, prefix, words
):
  """transformers finds none of them and computes with random weights."""
  save(folder, {f'{prefix}{k}': x for k, x in tensors(folder).items()})
  refused(folder, f"'{prefix}.*{words}")


def test_names_without_model_in_front_are_read_as_by_transformers(folder):
  """As a base model's own save has them."""
  weights = tensors(folder)
  save(folder, {k.removeprefix('model.'): x for k, x in weights.items()})
  assert_read_as_transformers_does(folder)
  save(folder, weights | {'norm.weight': np.ones(16, np.float32)})
  refused(folder, 'twice')


def test_old_buffers_are_known_and_named_as_not_read(folder):
  name = 'model.layers.0.self_attn.rotary_emb.inv_freq'
  save(folder, tensors(folder) | {name: np.ones(2, np.float32)})
  assert_read_as_transformers_does(folder)
  assert stored.open_model(folder).hf_weights.not_read == [name]


@pytest.mark.parametrize('flag', [True, False, 'absent'])
@pytest.mark.parametrize('head', ['none', 'equal', 'other'])
def test_a_model_is_tied_where_transformers_ties_it(made, folder, flag, head):
  """A head beside a tie flag was thrown away."""
  weights = tensors(folder)
  embedding = weights['model.embed_tokens.weight']
  if head == 'equal':
    weights['lm_head.weight'] = embedding.copy()
  if head == 'none':
    del weights['lm_head.weight']
  save(folder, weights)
  edit(folder, tie_word_embeddings=flag)
  if head == 'none' and flag is not True:
    refused(folder, "no tensor 'lm_head.weight'.*tie_word_embeddings")
    return
  assert_read_as_transformers_does(folder)
  assert stored.open_model(folder).config.tied == (
    flag is True and head != 'other'
  )


@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_a_tied_model_may_store_the_head_alone(made, folder, kind):
  """safetensors keeps one of two shared tensors, and it may be the head."""
  shutil.rmtree(folder)
  shutil.copytree(made / 'tied', folder)
  weights = tensors(folder)
  weights['lm_head.weight'] = weights.pop('model.embed_tokens.weight')
  if kind == 'bin':
    (folder / 'model.safetensors').unlink()
    torch.save(
      {k: torch.tensor(x) for k, x in weights.items()},
      folder / 'pytorch_model.bin',
    )
  else:
    note = {'model.embed_tokens.weight': 'lm_head.weight'}
    save(folder, weights, **note)
  assert_read_as_transformers_does(folder)
  edit(folder, tie_word_embeddings=False)
  refused(folder, "no tensor 'model.embed_tokens.weight'")


@pytest.mark.parametrize('rows', [39, 41])
@pytest.mark.parametrize('tied', [True, False])
def test_a_head_of_other_rows_is_refused(folder, rows, tied):
  """Half-resized vocabularies."""
  weights = tensors(folder)
  weights['lm_head.weight'] = np.ones((rows, 16), np.float32)
  save(folder, weights)
  edit(folder, tie_word_embeddings=tied)
  refused(folder, rf"'lm_head.weight' has shape \({rows}, 16\)")


@pytest.mark.parametrize('dtype', [ml_dtypes.bfloat16, np.float16])
def test_mixed_dtypes_are_read(folder, dtype):
  weights = tensors(folder)
  save(
    folder,
    {k: x.astype(dtype) if 'proj' in k else x for k, x in weights.items()},
  )
  assert_read_as_transformers_does(folder)
  assert stored.open_model(folder).info['dtype'] == 'float32'


@pytest.mark.parametrize(
  'dtype', ['float64', 'float8_e4m3fn', 'float8_e5m2', 'int8', 'uint8', 'bool']
)
@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_dtypes_that_are_not_read_are_named(folder, dtype, kind):
  """float8 ended in an AttributeError; int8 would be read as numbers."""
  name = 'model.layers.1.mlp.up_proj.weight'
  weights = {k: torch.tensor(x) for k, x in tensors(folder).items()}
  weights[name] = weights[name].to(getattr(torch, dtype))
  if kind == 'bin':
    (folder / 'model.safetensors').unlink()
    torch.save(weights, folder / 'pytorch_model.bin')
  else:
    safetensors.torch.save_file(weights, folder / 'model.safetensors')
  word = dtype.split('_')[0] if kind == 'safetensors' else dtype
  word = {'int8': 'I8', 'uint8': 'U8', 'bool': 'BOOL'}.get(word, word)
  word = dtype if kind == 'bin' else word
  refused(folder, f"tensor '{name}' is .*{word}.*float32, bfloat16 and float16")


# ------------------------------------------------------------------ config


@pytest.mark.parametrize(
  'changes',
  [
    dict(architectures=['LLaMAForCausalLM']),
    dict(architectures='absent'),
    dict(architectures=None),
    dict(hidden_act='swish'),
    dict(num_key_value_heads=2, head_dim=None),
    dict(sliding_window=8),
    dict(pretraining_tp=2),
    dict(rope_parameters='absent'),
    dict(rope_parameters='absent', rope_theta=50.0),
    dict(rope_parameters=dict(rope_theta=50.0)),
    dict(rope_parameters=dict(rope_type='default'), rope_theta=50.0),
    dict(rope_parameters=dict(type='llama3', rope_theta=50.0, **LLAMA3)),
    dict(
      rope_parameters='absent',
      rope_scaling=dict(type='llama3', **LLAMA3),
      rope_theta=50.0,
    ),
    dict(rope_scaling=dict(rope_type='llama3', **LLAMA3)),
    dict(
      rope_scaling=dict(rope_type='llama3', **LLAMA3),
      rope_parameters=dict(rope_type='default', rope_theta=50.0),
    ),
    dict(
      rope_scaling=dict(rope_type='default'),
      rope_parameters=dict(rope_type='llama3', rope_theta=50.0, **LLAMA3),
    ),
    dict(
      rope_scaling=None,
      rope_parameters=dict(rope_type='llama3', rope_theta=50.0, **LLAMA3),
      rope_theta=70.0,
    ),
    dict(
      rope_scaling={},
      rope_parameters=dict(rope_type='llama3', rope_theta=50.0, **LLAMA3),
    ),
    dict(
      rope_parameters=dict(rope_type='llama3', rope_theta=50.0, **LLAMA3),
      original_max_position_embeddings=32,
    ),
    dict(
      rope_parameters={
        'rope_type': 'llama3',
        'rope_theta': 50.0,
        **{k: x for k, x in LLAMA3.items() if k[0] != 'o'},
      },
    ),
  ],
  ids=str,
)
def test_a_config_is_read_as_transformers_reads_it(folder, changes):
  """RoPE in old and new spellings, both at once, names of before."""
  edit(folder, **changes)
  assert_read_as_transformers_does(folder)


def test_scaling_beside_parameters_is_told(folder, capsys):
  """Written by hand into a newer config.json."""
  edit(folder, rope_scaling=dict(rope_type='llama3', **LLAMA3))
  stored.open_model(folder)
  told = capsys.readouterr().err
  assert 'rope_scaling beside rope_parameters' in told
  assert "rope_type='default'" in told


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (dict(model_type='absent', architectures='absent'), 'model_type'),
    (dict(model_type='qwen2', architectures=['Qwen2ForCausalLM']), 'qwen2'),
    (dict(architectures=['LlamaModel']), 'LlamaModel'),
    (dict(num_key_value_heads=3), 'num_key_value_heads=3: it must divide'),
    (dict(num_key_value_heads=0), 'num_key_value_heads=0'),
    (dict(num_attention_heads=3), 'num_attention_heads=3: it must divide'),
    (dict(head_dim=3), 'head_dim=3'),
    (dict(num_hidden_layers=3), "no tensor 'model.layers.2."),
    (dict(num_hidden_layers=1), 'num_hidden_layers=1.*more layers'),
    (dict(num_hidden_layers=2.0), 'num_hidden_layers=2.0.*whole number'),
    (dict(vocab_size=41), r'has shape \(40, 16\), but config.json says'),
    (dict(tie_word_embeddings=None), 'tie_word_embeddings=None'),
    (dict(rms_norm_eps='1e-6'), "rms_norm_eps='1e-6'"),
    (dict(rope_theta=None, rope_parameters=None), 'rope_theta=None'),
    *(
      (dict(rope_scaling={key: kind, 'factor': 2.0}), f"rope_type='{kind}'")
      for key in ('type', 'rope_type')
      for kind in ('linear', 'dynamic', 'yarn', 'longrope', 'su')
    ),
    (
      dict(rope_scaling=dict(rope_type='llama3', **LLAMA3 | dict(factor=None))),
      'factor=None',
    ),
    (
      dict(rope_parameters=dict(full_attention=dict(rope_theta=5.0))),
      'one record for all layers',
    ),
    (dict(quantization_config=dict(load_in_4bit=True)), 'quantized weights'),
    (dict(quantization_config=dict(quant_method='fp8')), "'fp8'"),
    (dict(compression_config=dict(format='pack')), 'compression_config'),
    (dict(quantization=dict(bits=4)), 'quantization='),
    (dict(quantization_config='4bit'), "quantization_config='4bit'"),
    (dict(architectures='MistralForCausalLM'), 'MistralForCausalLM'),
    (dict(rope_scaling='linear'), "rope_parameters='linear'"),
  ],
  ids=str,
)
def test_a_config_that_is_not_computed_is_refused_by_name(
  folder, changes, words
):
  edit(folder, **changes)
  with pytest.raises(ValueError, match=words):
    stored.open_model(folder)


def test_heads_of_another_size_than_width_by_heads(folder):
  """head_dim is its own number; null kv heads are as many as heads."""
  shutil.rmtree(folder)
  tiny.save_llama(
    folder,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=None,
    head_dim=12,
    initializer_range=0.5,
  )
  edit(folder, num_key_value_heads=None)
  assert_read_as_transformers_does(folder)
  assert hf_config.read_config(folder)[0].head_dim == 12


def test_a_fingerprint_is_that_of_the_values_wherever_they_lie(
  made, folder, tmp_path
):
  """In one file or several, as safetensors or .bin; one row changes it."""

  def at(path):
    return stored.open_model(path).fingerprint()

  before = at(folder)
  assert at(made / 'a') == at(made / 'a_shards') == before != at(made / 'b')
  weights = tensors(folder)
  (folder / 'model.safetensors').unlink()
  torch.save(
    {k: torch.tensor(x) for k, x in weights.items()},
    folder / 'pytorch_model.bin',
  )
  assert at(folder) == before
  (folder / 'pytorch_model.bin').unlink()
  weights['model.layers.1.mlp.up_proj.weight'][-1] += 1
  save(folder, weights)
  assert at(folder) != before
