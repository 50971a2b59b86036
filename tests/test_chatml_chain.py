"""A ChatML fine-tune of transformers 4 goes through lbe and back."""

import json

import pytest

from lbe.vocab import tokenizers
from lbe.vocab import train

import runs

CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + "
  "m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
  "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ADDED = {'<|im_end|>': 310, '<|im_start|>': 311, '[PAD]': 312}
CONFIG = """
from lbe.configs import common
from lbe.configs import instruct


def get_config():
  config = common.base()
  config.init_from = {model!r}
  config.data.sources.talk = instruct.source('chatml', path={path!r})
  config.data.seq_len, config.data.batch_size = 64, 4
  config.budget.steps, config.log_every = 4, 2
  config.execution.compute_dtype = 'float32'
  config.optim.peak_lr = 0.1
  common.adapt(config, also='nothing')
  config.lora.update(rank=2, alpha=8.0)
  return config
"""


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """The folder as transformers 4 saved it, with random weights."""
  import torch
  import transformers

  folder = tmp_path_factory.mktemp('chatml') / 'source'
  folder.mkdir()
  text = ['the river runs to the sea', 'user assistant system\n']
  model = folder / 'tokenizer.model'
  train.train_sentencepiece(text * 9, model, vocab_size=310)
  roles = {
    'bos_token': '<s>',
    'eos_token': '<|im_end|>',
    'unk_token': '<unk>',
    'pad_token': '[PAD]',
  }
  for name, record in (
    ('added_tokens', ADDED),
    ('special_tokens_map', roles),
    (
      'tokenizer_config',
      {
        'tokenizer_class': 'LlamaTokenizer',
        'legacy': False,
        'add_bos_token': True,
        'chat_template': CHATML,
        **roles,
      },
    ),
  ):
    (folder / f'{name}.json').write_text(json.dumps(record))
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=313,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.3,
    bos_token_id=1,
    eos_token_id=310,
    pad_token_id=312,
  )
  transformers.LlamaForCausalLM(config).save_pretrained(folder)
  return folder


def test_import_tuning_and_export_keep_the_added_tokens(source, tmp_path):
  """Ids, EOS, template and logits: in transformers, and as PEFT's adapter."""
  import peft
  import torch
  import transformers

  path = tmp_path / 'talk.jsonl'
  turns = [
    {'role': 'user', 'content': 'the river'},
    {'role': 'assistant', 'content': 'runs to the sea'},
  ]
  lines = [
    {'messages': [{**turns[0], 'content': f'the river {i}'}, turns[1]]}
    for i in range(40)
  ]
  path.write_text('\n'.join(map(json.dumps, lines)))
  model, work = tmp_path / 'model', tmp_path / 'work'
  config = tmp_path / 'talk.py'
  config.write_text(CONFIG.format(model=str(model), path=str(path)))
  runs.run('import_hf', f'--source={source}', f'--target={model}', runs.QUICK)
  output = runs.run('train', f'--config={config}', f'--workdir={work}')
  assert '<|im_start|>assistant' in output
  whole, adapter = tmp_path / 'whole', tmp_path / 'adapter'
  runs.run('export_hf', f'--source={work}', f'--target={whole}', runs.QUICK)
  runs.run(
    'export_hf',
    f'--source={work}',
    f'--target={adapter}',
    f'--base={source}',
    '--adapter_only',
    runs.QUICK,
  )

  before = transformers.AutoTokenizer.from_pretrained(source)
  after = transformers.AutoTokenizer.from_pretrained(whole)
  text = ' the<|im_end|>river\n<|im_start|>[PAD] 中'
  chat = dict(add_generation_prompt=True, return_dict=False)
  for role in ('bos', 'eos', 'pad', 'unk'):
    name = f'{role}_token_id'
    assert getattr(after, name) == getattr(before, name), role
  assert after.encode(text.strip()) == before.encode(text.strip())
  ids = after.apply_chat_template(turns[:1], **chat)
  assert ids == before.apply_chat_template(turns[:1], **chat)

  load = transformers.AutoModelForCausalLM.from_pretrained
  merged = load(whole, dtype=torch.float32).eval()
  assert merged.generation_config.eos_token_id in (310, [310])
  tuned = peft.PeftModel.from_pretrained(
    load(source, dtype=torch.float32), adapter
  ).eval()
  asked = torch.tensor([ids])
  with torch.no_grad():
    wanted = merged(asked).logits
    assert torch.allclose(tuned(asked).logits, wanted, atol=1e-3)
    untuned = load(source, dtype=torch.float32)(asked).logits
    assert not torch.allclose(untuned, wanted, atol=1e-1)
    theirs = merged.generate(asked, max_new_tokens=20, do_sample=False)
  answers = tmp_path / 'answers.jsonl'
  (tmp_path / 'ask.jsonl').write_text(json.dumps({'prompt': 'the river'}))
  new = theirs[0, len(ids) :].tolist()
  # Bytes that are no character are written otherwise by transformers.
  text = tokenizers.load(source).decode(new)
  for one in (whole, work):
    runs.run(
      'generate',
      f'--model={one}',
      '--template=chatml',
      f'--input={tmp_path / "ask.jsonl"}',
      f'--output={answers}',
      '--max_new_tokens=20',
    )
    said = json.loads(answers.read_text())
    assert said['response'] == text
    assert said['num_tokens'] == len(new) - (new[-1] == ADDED['<|im_end|>'])
    answers.unlink()
