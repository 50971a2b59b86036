"""import_hf and export_hf: what went in comes out, bit for bit."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import sentencepiece
import torch
import transformers

from lbe import export_hf
from lbe.convert import certificate
from lbe.convert import stored as stored_lib
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.vocab import tokenizers

import runs
import tiny


def stored(folder):
  """{name: array} over all safetensors files of a folder."""
  return {
    name: x
    for path in folder.glob('*.safetensors')
    for name, x in safetensors.numpy.load_file(path).items()
  }


def assert_same_tensors(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(
      a[name].view(np.uint8), b[name].view(np.uint8), err_msg=name
    )


def certificate_of(folder):
  return json.loads((folder / 'certificate.json').read_text())


def test_a_trained_model_goes_in_and_out_bit_for_bit(test_data, tmp_path):
  """Weights, config, tokenizer; and both certificates compare logits."""
  source = test_data / 'ckpt_stories260K' / 'hf'
  ours, target = tmp_path / 'ours', tmp_path / 'hf'
  output = runs.run('import_hf', f'--source={source}', f'--target={ours}')
  assert 'certificate' in output
  runs.run('export_hf', f'--source={ours}', f'--target={target}')
  assert_same_tensors(stored(target), stored(source))
  for folder in (ours, target):
    record = certificate_of(folder)
    assert record['digests']['equal'] == len(stored(source))
    assert record['logits']['max_abs_difference'] < 1e-4
    assert record['logits']['argmax_agreement'] == 1.0
  assert (target / 'tokenizer.model').read_bytes() == (
    source / 'tokenizer.model'
  ).read_bytes()
  model = transformers.AutoModelForCausalLM.from_pretrained(target)
  assert model.dtype == torch.float32
  tokenizer = transformers.AutoTokenizer.from_pretrained(target)
  theirs = sentencepiece.SentencePieceProcessor(
    model_file=str(source / 'tokenizer.model')
  )
  text = '  Once upon a time\n\tthere was 一只猫'
  assert tokenizer(text)['input_ids'] == [1, *theirs.encode(text)]
  # Neither folder is overwritten.
  for program, arguments in (
    ('import_hf', (f'--source={source}', f'--target={ours}')),
    ('export_hf', (f'--source={ours}', f'--target={target}')),
  ):
    output = runs.run(program, *arguments, status=1)
    assert 'already holds' in output
    assert 'Traceback' not in output
  # A bit that flips behind the certificate got a new green one.
  weights = target / 'model.safetensors'
  data = bytearray(weights.read_bytes())
  data[-9] ^= 1
  weights.write_bytes(data)
  again = (f'--source={target}', f'--target={tmp_path}/again')
  output = runs.run('import_hf', *again, status=1)
  assert f'{target} is damaged: model.safetensors differs' in output


def test_an_export_that_was_killed_is_gone_on_with_and_not_read(tmp_path):
  """A kill before the certificate left a folder that nothing would take."""
  (tmp_path / 'config.json').write_text('{"model_type": "llama"}')
  with pytest.raises(ValueError, match='already holds a model'):
    export_hf._check_free(tmp_path, 'config.json', 'a model')
  with pytest.raises(KeyboardInterrupt), export_hf._writing(tmp_path):
    raise KeyboardInterrupt
  export_hf._check_free(tmp_path, 'config.json', 'a model')
  with pytest.raises(ValueError, match='not written to its end'):
    stored_lib.open_model(tmp_path)
  with export_hf._writing(tmp_path):
    (tmp_path / 'README.md').write_text('the card')
  (tmp_path / 'README.md').write_text('my card')
  assert list(checksums.compare(tmp_path).damage) == []
  assert not certificate.is_of(tmp_path, 'run')
  (tmp_path / 'certificate.json').write_text('{"fingerprint": "run"')
  assert not certificate.is_of(tmp_path, 'run')
  (tmp_path / 'certificate.json').write_text('{"fingerprint": "run"}')
  assert certificate.is_of(tmp_path, 'run')
  (tmp_path / 'unfinished').touch()
  assert not certificate.is_of(tmp_path, 'run')


def test_bfloat16_in_several_files_without_a_tokenizer(tmp_path):
  """The dtype on disk is kept both ways; nothing is rounded by a detour."""
  source, ours, target = (tmp_path / name for name in ('hf', 'ours', 'out'))
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=131,
      hidden_size=32,
      intermediate_size=48,
      num_hidden_layers=3,
      num_attention_heads=4,
      num_key_value_heads=2,
      head_dim=16,
      rope_parameters=dict(
        rope_type='llama3',
        rope_theta=5e5,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
      ),
    )
  ).to(torch.bfloat16)
  model.save_pretrained(source, max_shard_size='20KB')
  assert len(list(source.glob('*.safetensors'))) > 3
  output = runs.run(
    'import_hf', f'--source={source}', f'--target={ours}', runs.QUICK
  )
  assert f'{source} has no tokenizer; the checkpoint has none' in output
  output = runs.run(
    'export_hf',
    f'--source={ours}',
    f'--target={target}',
    runs.QUICK,
    '--shard_bytes=20000',
  )
  assert 'has no tokenizer; none was written' in output
  assert_same_tensors(stored(target), stored(source))
  assert certificate_of(target)['logits'] == {'skipped': '--verify=digests'}
  again = transformers.LlamaForCausalLM.from_pretrained(target)
  assert again.dtype == torch.bfloat16
  model = transformers.LlamaForCausalLM.from_pretrained(source)
  assert again.config.rope_parameters == model.config.rope_parameters
  ids = torch.arange(100)[None]
  with torch.no_grad():
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_rows_beyond_the_pieces_are_noticed_and_too_few_refused(
  test_data, tmp_path
):
  """Padded vocabularies are common; ids without a row crash or lie."""
  tokenizer = test_data / 'ckpt_stories260K' / 'hf' / 'tokenizer.model'
  for vocab_size, status, words in (
    (520, 0, 'the model has 520 rows for 512 pieces; the last 8 are kept'),
    (500, 1, 'the tokenizer has 512 pieces but the model only 500 rows'),
  ):
    source = tmp_path / str(vocab_size)
    transformers.LlamaForCausalLM(
      transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
      )
    ).save_pretrained(source)
    shutil.copy(tokenizer, source)
    output = runs.run(
      'import_hf',
      f'--source={source}',
      f'--target={tmp_path}/{vocab_size}-ours',
      runs.QUICK,
      status=status,
    )
    assert words in output


def small(folder):
  """A model of random weights without a tokenizer."""
  tiny.save_llama(folder, num_attention_heads=2, num_key_value_heads=None)
  return folder / 'config.json', folder / 'model.safetensors'


def test_a_failed_import_leaves_nothing_that_is_taken_for_a_model(tmp_path):
  """The checkpoint stood there, and train began from it."""
  source, target = tmp_path / 'hf', tmp_path / 'ours'
  config, file = small(source)
  command = ('import_hf', f'--source={source}', f'--target={target}')
  whole = safetensors.numpy.load_file(file)
  broken = {name: x.copy() for name, x in whole.items()}
  broken['model.layers.1.mlp.up_proj.weight'][3, 4:6] = np.nan, np.inf
  safetensors.numpy.save_file(broken, file, metadata={'format': 'pt'})
  output = runs.run(*command, status=1)
  assert "up_proj.weight' has 2 values of 384 that are NaN" in output
  safetensors.numpy.save_file(whole, file, metadata={'format': 'pt'})
  # transformers refuses what changes nothing for us.
  record = json.loads(config.read_text())
  config.write_text(json.dumps(record | {'initializer_range': 3.0}))
  output = runs.run(*command, status=1)
  assert 'error: transformers could not compute the logits' in output
  assert 'lbe/import_hf.py' not in output
  assert not list(tmp_path.glob('ours/*'))
  config.write_text(json.dumps(record))
  runs.run(*command)
  assert [p.name for p in sorted(target.iterdir())] == [
    'certificate.json',
    'checkpoints',
  ]


def test_a_certificate_names_what_of_the_source_was_not_read(tmp_path):
  """20 of 20 was said of a folder with 21 tensors."""
  source, target = tmp_path / 'hf', tmp_path / 'ours'
  config, file = small(source)
  tensors = safetensors.numpy.load_file(file)
  tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()
  buffer = 'model.layers.0.self_attn.rotary_emb.inv_freq'
  tensors[buffer] = np.ones(4, np.float32)
  safetensors.numpy.save_file(tensors, file, metadata={'format': 'pt'})
  shutil.copy(file, source / 'old.safetensors')
  record = json.loads(config.read_text()) | {'tie_word_embeddings': True}
  config.write_text(json.dumps(record))
  command = ('import_hf', f'--source={source}', f'--target={target}')
  output = runs.run(*command, runs.QUICK)
  assert 'not: old.safetensors' in output
  assert certificate_of(target)['digests'] == {
    'tensors': 20,
    'equal': 20,
    'not_read': [
      buffer,
      'lm_head.weight (equals the embedding)',
      'old.safetensors',
    ],
  }


def test_of_mixed_dtypes_extend_and_export_keep_every_value(
  test_data, tmp_path
):
  """float32 beside bfloat16 was rounded, also within the layers of one."""
  source = tmp_path / 'hf'
  shutil.copytree(test_data / 'ckpt_stories260K' / 'hf', source)
  before = stored(source)
  for name, x in before.items():
    if 'proj' in name and name != 'model.layers.3.mlp.up_proj.weight':
      before[name] = x.astype(ml_dtypes.bfloat16)
  safetensors.numpy.save_file(
    before, source / 'model.safetensors', metadata={'format': 'pt'}
  )
  tokenizer = tokenizers.load(source)
  piece = tokenizer.proto.pieces.add()
  piece.piece, piece.score = '清晨', -1000.0
  (tmp_path / 'more.model').write_bytes(tokenizer.proto.SerializeToString())
  ours, target = tmp_path / 'ours', tmp_path / 'out'
  runs.run(
    'extend_model',
    f'--source={source}',
    f'--tokenizer={tmp_path}/more.model',
    f'--target={ours}',
  )
  dtypes = checkpoint.params_metadata(ours)
  assert dtypes['layers']['q_LDNH'].dtype == ml_dtypes.bfloat16
  assert dtypes['layers']['up_LDF'].dtype == np.float32
  assert dtypes['embed_VD'].dtype == np.float32
  runs.run('export_hf', f'--source={ours}', f'--target={target}')
  after = stored(target)
  for name, x in before.items():
    np.testing.assert_array_equal(
      after[name][: len(x)], x.astype(np.float32), err_msg=name
    )
  assert certificate_of(target)['logits']['argmax_agreement'] == 1.0


def test_a_wrong_conversion_gets_no_certificate():
  """Digests and logits are checks that can fail."""
  with pytest.raises(ValueError, match='1 of 2 tensors differ .* first: b'):
    certificate.compare_digests({'a': 1, 'b': 2}, {'a': 1, 'b': 3})
  with pytest.raises(ValueError, match='1 of 2 tensors differ .* first: b'):
    certificate.compare_digests({'a': 1, 'b': 2}, {'a': 1})
  logits = np.random.default_rng(0).normal(size=(1, 8, 20)) * 5
  certificate.check_logits(certificate.logits_record(logits, logits))
  record = certificate.logits_record(logits + 0.1, logits)
  with pytest.raises(ValueError, match='differ from those of transformers'):
    certificate.check_logits(record)
  wrong = logits.copy()
  wrong[0, 0, 0] = np.nan
  with pytest.raises(ValueError, match='differ from those of transformers'):
    certificate.check_logits(certificate.logits_record(wrong, logits))


def test_a_folder_that_is_no_model_is_said(tmp_path):
  output = runs.run(
    'import_hf', f'--source={tmp_path}', f'--target={tmp_path}/x', status=1
  )
  assert 'is no Hugging Face folder' in output
