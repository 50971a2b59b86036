"""Chats of folders with added tokens have the ids of transformers."""

import json

import pytest
from transformers import AutoTokenizer

from lbe.chat import jinja
from lbe.chat import messages
from lbe.chat import prompts
from lbe.chat import templates
from lbe.vocab import tokenizers
from lbe.vocab import train

CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + "
  "m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
  "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp('model') / 'tokenizer.model'
  text = ['the river runs to the sea', 'user assistant system\n']
  train.train_sentencepiece(text * 9, path, vocab_size=310)
  return path.read_bytes()


@pytest.mark.parametrize('legacy', [True, False])
@pytest.mark.parametrize('flag', ['', 'rstrip', 'lstrip'])
@pytest.mark.parametrize('special', [True, False])
def test_a_chatml_fine_tune_of_transformers_4(
  tmp_path, model, legacy, flag, special
):
  """46 ids for 19: its control strings were spelt out, EOS was </s>.

  Phi's tokens take the line ends behind them. `<|im_start|>` is often no
  special token of its folder.
  """
  (tmp_path / 'tokenizer.model').write_bytes(model)
  flags = {'lstrip': False, 'rstrip': False, 'single_word': False}
  flags |= {'normalized': False} | ({flag: True} if flag else {})
  config = {
    'tokenizer_class': 'LlamaTokenizer',
    'legacy': legacy,
    'eos_token': '<|im_end|>',
    'chat_template': CHATML,
    'added_tokens_decoder': {
      '310': {'content': '<|im_end|>', 'special': special, **flags},
      '311': {'content': '<|im_start|>', 'special': special, **flags},
    },
  }
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  (tmp_path / 'config.json').write_text('{"model_type": "llama"}')
  theirs = AutoTokenizer.from_pretrained(tmp_path)
  ours = tokenizers.load(tmp_path)
  talk = [
    ('system', 'the river'),
    ('user', ' runs to\nthe sea '),
    ('assistant', 'river 中'),
    ('user', 'the sea'),
  ]
  turns = [messages.Message(*turn) for turn in talk]
  records = [{'role': role, 'content': text} for role, text in talk]
  for first in (0, 1):
    wanted = theirs.apply_chat_template(
      records[first:], add_generation_prompt=True, return_dict=False
    )
    for template in ('chatml', jinja.ChatTemplate(CHATML, ours)):
      encode = templates.Encoder(template, ours, loss='all')
      assert encode(turns[first:])[0] == wanted, template
  assert prompts.Encoder('chatml', ours).eos_ids == (310,)
