"""From an instruct model as LLaMA-3's to a longer vocabulary and out again.

What people do with such a folder: its EOS list, chat template, padding and
scaled RoPE go in, pieces and training are added, and transformers' pipeline
must answer as our own program does.
"""

import json

import pytest
import tokenizers as tokenizers_lib
import torch
import transformers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import processors
from tokenizers import trainers

import runs

SPECIALS = (
  *('<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>'),
  *('<|end_header_id|>', '<|eot_id|>', '<|finetune_right_pad_id|>'),
)
TEMPLATE = (
  '{{ bos_token }}{% for m in messages %}'
  "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
  "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
  '{% if add_generation_prompt %}'
  '<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}'
)
CHINESE = '清晨的集市已经热闹起来 卖豆腐的老人和熟客聊天 集市热闹 豆腐老人 '


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A random instruct model, its files as Meta's are."""
  folder = tmp_path_factory.mktemp('llama3') / 'instruct'
  tokenizer = tokenizers_lib.Tokenizer(models.BPE(ignore_merges=True))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    ['the river runs to the sea and the letters tell of it'] * 9,
    trainers.BpeTrainer(
      vocab_size=300,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  tokenizer.add_special_tokens(list(SPECIALS))
  bos = SPECIALS[0]
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f'{bos} $A',
    pair=f'{bos} $A {bos}:1 $B:1',
    special_tokens=[(bos, tokenizer.token_to_id(bos))],
  )
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    bos_token=bos,
    eos_token='<|eot_id|>',
    pad_token='<|finetune_right_pad_id|>',
    chat_template=TEMPLATE,
    padding_side='left',
    model_max_length=96,
  )
  fast.save_pretrained(folder)
  ids = {name: tokenizer.token_to_id(name) for name in SPECIALS}
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=len(fast),
      hidden_size=32,
      intermediate_size=64,
      num_hidden_layers=2,
      num_attention_heads=4,
      num_key_value_heads=2,
      max_position_embeddings=128,
      initializer_range=0.3,
      rope_parameters={
        'rope_type': 'llama3',
        'rope_theta': 500000.0,
        'factor': 8.0,
        'low_freq_factor': 1.0,
        'high_freq_factor': 4.0,
        'original_max_position_embeddings': 32,
      },
      bos_token_id=ids[bos],
      eos_token_id=[ids['<|end_of_text|>'], ids['<|eot_id|>']],
    )
  )
  model.generation_config = transformers.GenerationConfig(
    bos_token_id=ids[bos],
    eos_token_id=[ids['<|end_of_text|>'], ids['<|eot_id|>']],
    pad_token_id=ids['<|finetune_right_pad_id|>'],
    do_sample=True,
    temperature=0.6,
    top_p=0.9,
  )
  model.save_pretrained(folder)
  return folder


@pytest.fixture(scope='module')
def extended(folder):
  """Its tokenizer with pieces for Chinese behind all present ids."""
  corpus = folder.parent / 'zh.txt'
  corpus.write_text((CHINESE + '\n') * 20)
  target = folder.parent / 'extended'
  runs.run(
    'tokenizer',
    'extend',
    f'--base={folder}',
    f'--corpus={corpus}',
    '--num_pieces=12',
    f'--output={target}',
  )
  return target


def assert_answers_alike(exported, asked, output, num_tokens=12):
  """transformers' pipeline of messages against the text that we wrote."""
  model = transformers.AutoModelForCausalLM.from_pretrained(
    exported, dtype=torch.float32
  )
  tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
  pipe = transformers.pipeline(
    'text-generation', model=model, tokenizer=tokenizer
  )
  for message, written in zip(asked, output, strict=True):
    (said,) = pipe(
      [{'role': 'user', 'content': message}],
      max_new_tokens=num_tokens,
      do_sample=False,
    )
    answer = said['generated_text'][-1]['content']
    assert answer == written['response']
  return tokenizer, model


def responses(folder, exported, template, asked):
  """What our own program answers."""
  questions = folder / 'asked.jsonl'
  questions.write_text(
    ''.join(json.dumps({'prompt': text}) + '\n' for text in asked)
  )
  runs.run(
    'generate',
    f'--model={exported}',
    f'--template={template}',
    f'--input={questions}',
    f'--output={folder}/responses.jsonl',
    '--max_new_tokens=12',
  )
  lines = (folder / 'responses.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


ASKED = ['the river', '热闹的集市 <x>', 'letters  of 集市?']


def test_an_extended_instruct_model_keeps_what_came_in(
  folder, extended, tmp_path
):
  """One EOS id and no template: chats never ended, or could not begin."""
  ours, exported = tmp_path / 'ours', tmp_path / 'hf'
  runs.run(
    'extend_model',
    f'--source={folder}',
    f'--tokenizer={extended}',
    f'--target={ours}',
  )
  command = ('export_hf', f'--source={ours}', f'--target={exported}')
  output = runs.run(*command, runs.QUICK)
  assert 'tokenizer.json: 0 of ' in output and 'notice' not in output
  (tmp_path / 'chat.jinja').write_text(TEMPLATE)
  written = responses(tmp_path, exported, tmp_path / 'chat.jinja', ASKED)
  tokenizer, model = assert_answers_alike(exported, ASKED, written)
  before = transformers.AutoTokenizer.from_pretrained(folder)
  for name in ('chat_template', 'pad_token_id', 'eos_token_id', 'bos_token_id'):
    assert getattr(tokenizer, name) == getattr(before, name) is not None, name
  assert tokenizer.padding_side == 'left'
  assert tokenizer.model_max_length == 96
  assert tokenizer.added_tokens_decoder == before.added_tokens_decoder
  assert len(tokenizer) == len(before) + 12 == model.config.vocab_size
  known = model.generation_config
  eos = [before.convert_tokens_to_ids(SPECIALS[i]) for i in (1, 4)]
  assert known.eos_token_id == model.config.eos_token_id == eos
  assert (known.temperature, known.top_p, known.do_sample) == (0.6, 0.9, True)
  assert model.config.rope_parameters['factor'] == 8.0
  text = 'to 热闹的 sea'
  assert tokenizer(text)['input_ids'][0] == before.bos_token_id
  assert tokenizer.decode(tokenizer.encode(text)[1:]) == text


def test_the_template_of_a_run_is_that_of_its_export(
  folder, extended, tmp_path
):
  """A model that learnt ChatML must not be asked in another format."""
  (tmp_path / 'talk.jsonl').write_text(
    ''.join(
      json.dumps({'instruction': f'{i} river', 'output': f'集市 {i}'}) + '\n'
      for i in range(40)
    )
  )
  (tmp_path / 'run.py').write_text(f"""
from lbe.configs import common

def get_config():
  config = common.base()
  config.init_from = {str(folder)!r}
  config.tokenizer = {str(extended)!r}
  config.data.sources.talk = common.source(
    path={str(tmp_path / 'talk.jsonl')!r}, template='chatml', proportion=1.0
  )
  config.data.seq_len = 128
  config.data.batch_size = 4
  config.data.num_workers = 1
  config.budget.steps = 3
  config.log_every = 1
  config.execution.update(compute_dtype='float32', scan=False)
  return config
""")
  run, exported = tmp_path / 'run', tmp_path / 'hf'
  runs.run('train', f'--config={tmp_path}/run.py', f'--workdir={run}')
  command = ('export_hf', f'--source={run}', f'--target={exported}')
  output = runs.run(*command, runs.QUICK)
  assert 'notice: the chat_template is that of the run (chatml)' in output
  written = responses(tmp_path, exported, 'chatml', ASKED)
  tokenizer, model = assert_answers_alike(exported, ASKED, written)
  assert '<|im_start|>' in tokenizer.chat_template
  assert tokenizer.padding_side == 'left'
  assert len(model.generation_config.eos_token_id) == 2
