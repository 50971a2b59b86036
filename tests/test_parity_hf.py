"""Our LLaMA is transformers' LLaMA: blocks, logits, tokens."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from lbe.convert import certificate
from lbe.convert import hf
from lbe.convert import hf_config
from lbe.inference import decode
from lbe.models import forward
from lbe.vocab import tokenizers

# Unrolled and not compiled as a whole: many shapes, each run once.
FP32 = forward.Execution(compute_dtype='float32', scan=False)
BF16 = forward.Execution(compute_dtype='bfloat16', scan=False)
# Frequencies on both sides of the scaled band, and some within it.
LLAMA3 = dict(
  rope_type='llama3',
  rope_theta=500.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=64,
)
CONFIGS = {
  'mha': {},
  'gqa': dict(num_key_value_heads=2),
  'mqa': dict(num_key_value_heads=1),
  'wide heads': dict(head_dim=24, num_key_value_heads=2),
  'narrow heads': dict(head_dim=4),
  'tied': dict(tie_word_embeddings=True),
  'odd vocabulary': dict(vocab_size=131),
  'odd vocabulary, tied, gqa': dict(
    vocab_size=131, tie_word_embeddings=True, num_key_value_heads=2
  ),
  'llama3': dict(rope_parameters=LLAMA3, num_key_value_heads=2),
  'llama3, wide heads, tied': dict(
    rope_parameters=LLAMA3, head_dim=32, tie_word_embeddings=True
  ),
  'theta': dict(rope_parameters=dict(rope_type='default', rope_theta=5e5)),
  'eps': dict(rms_norm_eps=1e-3),
  'odd heads': dict(
    hidden_size=40, num_attention_heads=5, num_key_value_heads=1
  ),
  'one layer': dict(num_hidden_layers=1, intermediate_size=200),
}


def random_model(folder, std, **changes):
  """A transformers model with random weights, saved into `folder`."""
  fields = dict(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=256,
    initializer_range=std,
  )
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(**{**fields, **changes})
  ).eval()
  for name, p in model.named_parameters():
    if 'norm' in name:  # ones would hide a norm that is not applied
      torch.nn.init.normal_(p, 1.0, 0.3)
  model.save_pretrained(folder)
  return model


def ours(params, c, ids_BT, execution=FP32):
  """(states behind the final norm, logits without padding)."""
  B, T = ids_BT.shape
  x_BTD = forward.hidden(
    params,
    c,
    jnp.asarray(ids_BT),
    positions_BT=jnp.tile(jnp.arange(T), (B, 1)),
    segments_BT=jnp.ones((B, T), jnp.int32),
    execution=execution,
  )
  logits_BTV = forward.logits(params, c, x_BTD)
  return np.asarray(x_BTD), np.asarray(logits_BTV)[..., : c.vocab_size]


def theirs(model, ids_BT):
  with torch.no_grad():
    x_BTD = model.model(torch.tensor(ids_BT)).last_hidden_state
    return x_BTD.float().numpy(), model.lm_head(x_BTD).float().numpy()


@pytest.mark.parametrize('std', [0.02, 0.1])
@pytest.mark.parametrize('name', CONFIGS)
def test_states_after_each_block_and_logits_are_theirs(tmp_path, name, std):
  """RoPE layout and scaling, GQA order, eps, tying, padding of the head.

  At a spread of 0.02 attention is nearly uniform and hides errors.
  """
  model = random_model(tmp_path, std, **CONFIGS[name])
  c, _ = hf_config.read_config(tmp_path)
  params = hf.load_params(tmp_path, c)
  ids_BT = np.random.default_rng(0).integers(0, c.vocab_size, (2, 150))
  logits = ours(params, c, ids_BT)[1]
  np.testing.assert_allclose(logits, theirs(model, ids_BT)[1], atol=1e-4)
  blocks = model.model.layers
  for num_layers in range(1, c.num_layers):
    model.model.layers = blocks[:num_layers]
    model.config.num_hidden_layers = num_layers
    part = {
      **params,
      'layers': {k: w_L[:num_layers] for k, w_L in params['layers'].items()},
    }
    part_c = dataclasses.replace(c, num_layers=num_layers)
    np.testing.assert_allclose(
      ours(part, part_c, ids_BT)[0], theirs(model, ids_BT)[0], atol=1e-4
    )


@pytest.fixture(scope='module')
def stories(test_data):
  """(folder, config, parameters, tokenizer) of the trained small LLaMA."""
  folder = test_data / 'ckpt_stories260K' / 'hf'
  c, _ = hf_config.read_config(folder)
  params = hf.load_params(folder, c, dtype='float32')
  return folder, c, params, tokenizers.load(folder)


def text_ids(test_data, tokenizer, length):
  text = (test_data / 'text_en_tinyshakespeare' / 'input.txt').read_text()
  ids = [tokenizer.bos_id, *tokenizer.encode(text[: 20 * length])]
  return np.array(ids[: 4 * length]).reshape(4, length)


def test_a_trained_model_has_their_logits(test_data, stories):
  """Random weights forgive what trained ones do not."""
  folder, c, params, tokenizer = stories
  model = transformers.LlamaForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  )
  ids_BT = text_ids(test_data, tokenizer, 256)
  logits_BTV = theirs(model, ids_BT)[1]
  np.testing.assert_allclose(ours(params, c, ids_BT)[1], logits_BTV, atol=1e-4)


def test_bfloat16_is_as_near_to_float32_as_theirs(test_data, stories):
  """A norm, softmax or RoPE table in bfloat16 shows as a larger KL."""
  folder, c, params, tokenizer = stories
  ids_BT = text_ids(test_data, tokenizer, 256)
  model = transformers.LlamaForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  )
  exact = theirs(model, ids_BT)[1]
  rounded = theirs(model.to(torch.bfloat16), ids_BT)[1]
  mine = ours(params, c, ids_BT, BF16)[1]
  kl = {
    name: certificate.logits_record(x, exact)['mean_kl']
    for name, x in (('ours', mine), ('theirs', rounded))
  }
  assert kl['ours'] > 1e-7, 'this was not bfloat16'
  assert kl['ours'] <= 1.2 * kl['theirs'], kl


def test_greedy_decoding_gives_the_published_ids(test_data, stories):
  """Cached decoding over 200 tokens, against ids made by another program."""
  _, c, params, _ = stories
  record = json.loads(
    (test_data / 'ckpt_stories260K' / 'greedy_200.json').read_text()
  )
  ids = record['greedy_ids']
  new = decode.generate(
    jax.tree.map(jnp.asarray, params),
    c,
    [ids[:1]],
    max_new_tokens=len(ids) - 1,
    execution=FP32,
  )
  assert new[0] == ids[1:]


def test_the_old_format_imports(test_data):
  """`.bin`, `rope_theta` absent, rotary buffers among the tensors."""
  folder = test_data / 'ckpt_hf_tiny_random_llama'
  c, _ = hf_config.read_config(folder)
  params = hf.load_params(folder, c, dtype='float32')
  model = transformers.LlamaForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  )
  ids_BT = np.random.default_rng(0).integers(0, c.vocab_size, (2, 64))
  np.testing.assert_allclose(
    ours(params, c, ids_BT)[1], theirs(model, ids_BT)[1], atol=1e-4
  )
