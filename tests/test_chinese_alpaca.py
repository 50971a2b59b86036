"""From end to end: an adapter as Chinese-Alpaca published it, used and merged.

A PyTorch file in float16, the old adapter_config.json, embedding and head saved
whole, and a tokenizer with one token more than Chinese-LLaMA's 49,953.
"""

import json

import numpy as np
import peft as theirs_lib
import pytest
import torch
import transformers

from lbe.vocab import extend
from lbe.vocab import tokenizers

import runs

ROWS = 49_954
WEIGHTS = ('q', 'v', 'k', 'o', 'gate', 'down', 'up')
PROMPT = '请介绍一下北京。[PAD] Tell me more.'


@pytest.fixture(scope='module')
def published(test_data, tmp_path_factory):
  """(folder of the base, folder of the adapter) in random weights."""
  root = tmp_path_factory.mktemp('published')
  base, adapter = root / 'llama', root / 'chinese-alpaca-lora'
  torch.manual_seed(0)
  transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=32_000,
      hidden_size=16,
      intermediate_size=24,
      num_hidden_layers=2,
      num_attention_heads=2,
      max_position_embeddings=128,
      rms_norm_eps=1e-6,
      initializer_range=0.3,
    )
  ).to(torch.float16).save_pretrained(base)
  llama = tokenizers.load(test_data / 'tok_llama_32000' / 'tokenizer.model')
  chinese = tokenizers.load(
    test_data / 'tok_chinese_sp_20000' / 'chinese_sp.model'
  )
  merged = extend.extend(llama, chinese, score_mode='zero').tokenizer
  assert merged.vocab_size == ROWS - 1
  (base / 'tokenizer.model').write_bytes(llama.to_bytes())
  adapter.mkdir()
  (adapter / 'tokenizer.model').write_bytes(merged.to_bytes())
  for name, record in (
    ('added_tokens.json', {'[PAD]': ROWS - 1}),
    (
      'special_tokens_map.json',
      dict(bos_token='<s>', eos_token='</s>', pad_token='[PAD]'),
    ),
    (
      'tokenizer_config.json',
      dict(
        add_bos_token=True,
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
        pad_token=None,
        sp_model_kwargs={},
        tokenizer_class='LlamaTokenizer',
      ),
    ),
    (
      'adapter_config.json',
      dict(
        base_model_name_or_path='decapoda-research/llama-7b-hf',
        bias='none',
        enable_lora=None,
        fan_in_fan_out=False,
        inference_mode=True,
        lora_alpha=32,
        lora_dropout=0.05,
        merge_weights=False,
        modules_to_save=['embed_tokens', 'lm_head'],
        peft_type='LORA',
        r=8,
        target_modules=[f'{w}_proj' for w in WEIGHTS],
        task_type='CAUSAL_LM',
      ),
    ),
  ):
    (adapter / name).write_text(json.dumps(record))
  model = theirs_lib.get_peft_model(
    grown(base), theirs_lib.LoraConfig.from_pretrained(adapter)
  )
  tensors = {
    name: (0.2 * torch.randn_like(x)).to(torch.float16)
    for name, x in theirs_lib.get_peft_model_state_dict(
      model, save_embedding_layers=False
    ).items()
  }
  assert len(tensors) == 2 * len(WEIGHTS) * 2 + 2
  torch.save(tensors, adapter / 'adapter_model.bin')
  return base, adapter


def grown(base):
  model = transformers.LlamaForCausalLM.from_pretrained(
    base, dtype=torch.float32
  )
  model.resize_token_embeddings(ROWS, mean_resizing=False)
  return model


def logits(model, ids):
  with torch.no_grad():
    return model.eval()(torch.from_numpy(ids)).logits.numpy()


@pytest.fixture(scope='module')
def ours(published, tmp_path_factory):
  """The two as a checkpoint of ours."""
  base, adapter = published
  target = tmp_path_factory.mktemp('ours') / 'alpaca'
  runs.run(
    'import_hf',
    f'--source={base}',
    f'--adapter={adapter}',
    f'--target={target}',
  )
  record = json.loads((target / 'certificate.json').read_text())
  assert record['logits']['max_abs_difference'] < 1e-3
  return target


@pytest.fixture(scope='module')
def ids(published):
  tokenizer = transformers.LlamaTokenizer.from_pretrained(published[1])
  found = np.asarray([tokenizer(PROMPT)['input_ids']])
  assert found[0, 0] == 1 and ROWS - 1 in found
  return found


def test_a_merged_export_is_what_peft_merges(published, ours, ids, tmp_path):
  base, adapter = published
  command = ('export_hf', f'--source={ours}', f'--target={tmp_path}')
  runs.run(*command, '--dtype=float32', runs.QUICK)
  found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
  assert found.config.vocab_size == ROWS
  theirs = theirs_lib.PeftModel.from_pretrained(grown(base), adapter)
  np.testing.assert_allclose(
    logits(found, ids), logits(theirs.merge_and_unload(), ids), atol=1e-3
  )
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert tokenizer(PROMPT)['input_ids'] == ids[0].tolist()
  assert tokenizer.pad_token_id == ROWS - 1


def test_adapters_exported_alone_are_what_came_in(
  published, ours, ids, tmp_path
):
  base, adapter = published
  command = ('export_hf', f'--source={ours}', f'--target={tmp_path}')
  runs.run(*command, '--adapter_only', runs.QUICK)
  expected, found = (
    logits(theirs_lib.PeftModel.from_pretrained(grown(base), folder), ids)
    for folder in (adapter, tmp_path)
  )
  np.testing.assert_allclose(found, expected, atol=1e-3)


def test_every_program_goes_on_from_it(published, ours, tmp_path):
  """generate, evaluate and train; embedding and head learn, layers do not."""
  base, adapter = published
  theirs = theirs_lib.PeftModel.from_pretrained(grown(base), adapter)
  tokenizer = transformers.LlamaTokenizer.from_pretrained(adapter)
  plain = PROMPT.replace('[PAD]', '')
  greedy = logits(theirs, np.asarray([tokenizer(plain)['input_ids']]))[0, -1]
  output = runs.run(
    'generate', f'--model={ours}', f'--prompt={plain}', '--max_new_tokens=1'
  )
  assert plain + tokenizer.decode([greedy.argmax()]) in output
  start = (
    *runs.TINY,
    '--config.tokenizer=',
    f'--config.init_from={ours}',
    '--config.optim.groups.body.frozen=True',
    '--config.budget.steps=2',
    '--config.data.batch_size=1',
  )
  runs.run('train', *start, f'--workdir={tmp_path / "run"}')
  assert len(runs.losses(tmp_path / 'run')) == 2
  runs.run('evaluate', *start, f'--workdir={tmp_path / "scores"}')
  assert (tmp_path / 'scores' / 'results.json').exists()
