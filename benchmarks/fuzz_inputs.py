"""What fuzz.py changes: whole inputs of each kind, and what reads them."""

import contextlib
import io
import json
import pathlib
from collections.abc import Callable

import numpy as np
import safetensors.numpy

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.chat import jinja
from lbe.chat import messages
from lbe.chat import prompts
from lbe.chat import templates
from lbe.configs import common
from lbe.convert import hf_config
from lbe.convert import peft_config
from lbe.convert import tensor_files
from lbe.data import dataset_info
from lbe.data import sources
from lbe.exams import own
from lbe.judging import questions
from lbe.judging import rubrics
from lbe.mesh import sharding
from lbe.run import fields
from lbe.vocab import tokenizers
from lbe.vocab import train


def make(folder: pathlib.Path) -> dict[str, tuple[Callable, list]]:
  """{kind: (what reads bytes of it, whole inputs)}; files go into the folder.

  Whole inputs are bytes, or values that are written as JSON.
  """
  texts = [f'so many words {i} as {i * i}' for i in range(300)]
  path = folder / 'trained.model'
  train.train_sentencepiece(texts, path, vocab_size=300)
  tokenizer = tokenizers.load(path)
  return {
    'records': (_in(folder, _read_records), _RECORDS),
    'tokenizers': (
      _in(folder, _read_tokenizer),
      _tokenizers(folder, tokenizer),
    ),
    'safetensors': (_in(folder, _read_tensors), _tensors()),
    'indexes': (_in(folder, _read_index), _INDEXES),
    'configs of models': (_in(folder, _read_hf), _HF),
    'configs of adapters': (_in(folder, _read_peft), _PEFT),
    'chat templates': (_template_reader(tokenizer), _TEMPLATES),
    'rubrics': (_in(folder, _read_rubric), _rubrics()),
    "judges' replies": (_read_reply, _REPLIES),
    'exams': (_in(folder, _read_exam), _EXAMS),
    'prompts': (_in(folder, _read_prompts), _RECORDS),
    'registries': (_in(folder, _read_registry), _REGISTRIES),
    'fields of configs': (_read_fields, _FIELDS),
  }


def _in(folder, read):
  return lambda data: read(folder, data)


_ENDINGS = ('.jsonl', '.json', '.csv', '.tsv', '.txt')
_RECORDS = [
  {'text': 'Some words.'},
  {'instruction': 'Say it.', 'input': 'x', 'output': 'It.'},
  {
    'conversations': [
      {'from': 'human', 'value': 'Why?'},
      {'from': 'gpt', 'value': 'So.'},
    ]
  },
  {
    'messages': [
      {'role': 'system', 'content': 'Be.'},
      {'role': 'user', 'content': [{'type': 'text', 'text': 'Why?'}]},
      {'role': 'assistant', 'content': 'So.'},
    ]
  },
  {'prompt': 'Once', 'id': 'a', 'reference': ['x', 'y']},
  {'instruction': 'a', 'output': 'b', 'history': [['c', 'd']]},
  b'text,other\n"a, b",c\nd,e\n',
  b'instruction\toutput\na\tb\n',
  b'[{"text": "a"}, {"text": "b"}]',
  b'one text\n\nanother text\n',
  '中文'.encode(),
]


def _ending(data):
  """A reader sees many endings; which one hangs on the input alone."""
  return _ENDINGS[sum(data[:64]) % len(_ENDINGS)]


def _read_records(folder, data):
  path = folder / f'records{_ending(data)}'
  path.write_bytes(data)
  source = sources.make('x', path=str(path), template='alpaca')
  with contextlib.suppress(ValueError):
    list(sources.documents(sources.make('x', path=str(path))))
  for text, where in sources.documents(source):
    sources.conversation(source, json.loads(text), where)
  with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
    value = json.loads(data)
    if isinstance(value, dict):
      messages.trimmed(value, where='x:1')


def _tokenizers(folder, tokenizer):
  from lbe.vocab import export

  made = folder / 'exported'
  made.mkdir()
  with contextlib.redirect_stdout(io.StringIO()):
    export.write(tokenizer, made, max_positions=128)
  whole = json.loads((made / 'tokenizer.json').read_text())
  return [(made / 'tokenizer.model').read_bytes(), whole, whole]


def _read_tokenizer(folder, data):
  where = folder / 'tokenizer'
  where.mkdir(exist_ok=True)
  path = where / f'tokenizer.{"json" if data[:1] in b"{[" else "model"}'
  path.write_bytes(data)
  try:
    ids = tokenizers.load(path).encode('so many words 中文 🙂')
    assert all(isinstance(x, int) for x in ids)
  finally:
    path.unlink()


def _tensors():
  arrays = {
    'a': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b.weight': np.ones(4, np.float16),
  }
  return [safetensors.numpy.save(arrays, metadata={'format': 'pt'})]


def _read_tensors(folder, data):
  path = folder / 'model.safetensors'
  path.write_bytes(data)
  tensors = tensor_files.Tensors([path])
  try:
    for name in tensors.stored:
      tensors.read(name)
  finally:
    tensors.close()


_INDEXES = [
  {
    'metadata': {'total_size': 40},
    'weight_map': {'a': 'model-1.safetensors', 'b': 'model-2.safetensors'},
  }
]


def _read_index(folder, data):
  where = folder / 'indexed'
  where.mkdir(exist_ok=True)
  (where / 'model.safetensors.index.json').write_bytes(data)
  (where / 'model-1.safetensors').write_bytes(_tensors()[0])
  tensor_files.choose(where)


_HF = [
  {
    'architectures': ['LlamaForCausalLM'],
    'model_type': 'llama',
    'hidden_size': 64,
    'intermediate_size': 96,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'vocab_size': 320,
    'rms_norm_eps': 1e-5,
    'max_position_embeddings': 128,
    'hidden_act': 'silu',
    'tie_word_embeddings': False,
    'rope_theta': 10000.0,
    'rope_scaling': {
      'rope_type': 'llama3',
      'factor': 8.0,
      'low_freq_factor': 1.0,
      'high_freq_factor': 4.0,
      'original_max_position_embeddings': 64,
    },
    'bos_token_id': 1,
    'eos_token_id': [2, 3],
    'torch_dtype': 'bfloat16',
  },
  {
    'model_type': 'llama',
    'hidden_size': 8,
    'intermediate_size': 8,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
    'vocab_size': 16,
    'rope_parameters': {'rope_type': 'default', 'rope_theta': 500000.0},
    'dtype': 'float32',
  },
]


def _read_hf(folder, data):
  where = folder / 'hf'
  where.mkdir(exist_ok=True)
  (where / 'config.json').write_bytes(data)
  hf_config.read_config(where)


_PEFT = [
  {
    'peft_type': 'LORA',
    'base_model_name_or_path': 'base',
    'r': 8,
    'lora_alpha': 16,
    'lora_dropout': 0.1,
    'target_modules': ['q_proj', 'v_proj'],
    'modules_to_save': ['embed_tokens'],
    'rank_pattern': {'q_proj': 4},
    'alpha_pattern': {},
    'bias': 'none',
    'use_rslora': False,
    'layers_to_transform': [0, 1],
    'layers_pattern': 'layers',
  }
]
_MODULES = ('model.layers.0.self_attn.q_proj', 'model.layers.1.mlp.up_proj')


def _read_peft(folder, data):
  where = folder / 'peft'
  where.mkdir(exist_ok=True)
  (where / 'adapter_config.json').write_bytes(data)
  found = peft_config.read(where)
  peft_config.ranks(found, _MODULES)
  for module in _MODULES:
    peft_config.is_saved(found, module)


_TEMPLATES = [
  b"{% for m in messages %}{{ bos_token if loop.first }}[{{ m['role'] }}] "
  b"{{ m['content'] | trim }}{{ eos_token }}{% endfor %}",
  b"{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
  b'{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}'
  b'{% endif %}{% endfor %}{% if add_generation_prompt %}>{% endif %}',
  b'{%- set x = namespace(n=0) %}{% macro f(a) %}{{ a ~ a }}{% endmacro %}'
  b"{% for i in range(9) %}{% set x.n = x.n + i %}{{ f('ab' * 3) }}{% endfor %}"
  b"{{ messages | tojson }}{{ raise_exception('no') if x.n > 99 }}",
]
_TALK = [
  messages.Message('user', 'Why {{ x }}?'),
  messages.Message('assistant', 'So.'),
]


def _template_reader(tokenizer):
  def read(data):
    template = jinja.ChatTemplate(data.decode('utf-8', 'replace'), tokenizer)
    template.spans(_TALK)

  return read


def _rubrics():
  folder = rubrics.FOLDER
  own = [path.read_bytes() for path in sorted(folder.glob('*.toml'))]
  return [*own, {'class': 'qa', 'prompt': 'Mark it.'}]


def _read_rubric(folder, data):
  path = folder / f'rubric{".jsonl" if data[:1] == b"{" else ".toml"}'
  path.write_bytes(data)
  rubric = rubrics.load(path)
  rubric.ask(questions.Question('1', 'Code', 'What?', 'A.'), 'B {x}.')
  rubric.told_form()


_FIVE = ('accuracy', 'fluency', 'informativeness', 'logicality', 'harmlessness')
_REPLIES = [
  dict.fromkeys(_FIVE, 2),
  b'I think: {"accuracy": 2, "fluency": 3, "informativeness": 1, '
  b'"logicality": 0, "harmlessness": 3} is right.',
  b'<think>hm</think> Stars: 3, 4 2 1',
  b'Stars: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24',
  '得分: 0.8分。'.encode(),
]
_JUDGES = [rubrics.load(name) for name in rubrics.NAMES]


def _read_reply(data):
  reply = data.decode('utf-8', 'surrogateescape')
  refused, num_read = None, 0
  for rubric in _JUDGES:
    try:
      scores = rubric.read(reply)
      assert set(scores) == set(rubric.criteria), scores
      num_read += 1
    except ValueError as error:
      refused = error
  if not num_read:
    raise refused


_EXAMS = [
  {'question': 'Q?', 'choices': ['a', 'b', 'c'], 'answer': 'B', 'id': 1},
  {'question': 'Q?', 'options': {'A': 'x', 'B': 'y'}, 'answerKey': 'A'},
  {
    'question': 'Q?',
    'choices': [{'label': '1', 'text': 'x'}, {'label': '2', 'text': 'y'}],
    'answer': ['x', 1],
  },
  b'question,A,B,C,D,answer\nQ?,1,2,3,4,C\n',
  b'question;A;B;answer\n"Q; r";x;y;A\n',
  b'[{"question": "Q?", "choices": "[\'a\', \'b\']", "answer": 0}]',
]


def _read_exam(folder, data):
  path = folder / f'exam{_ending(data)}'
  path.write_bytes(data)
  own.read(path)


def _read_prompts(folder, data):
  path = folder / 'prompts.jsonl'
  path.write_bytes(data)
  templates.find('alpaca')
  prompts.read(path, template='alpaca')
  prompts.read_scored(path, template='')


_REGISTRIES = [
  {
    'mine': {
      'file_name': 'a.json',
      'formatting': 'sharegpt',
      'columns': {'messages': 'conversations', 'system': 'system'},
      'tags': {
        'role_tag': 'from',
        'content_tag': 'value',
        'user_tag': 'human',
        'assistant_tag': 'gpt',
      },
    }
  },
  {
    'mine': {'file_name': 'a.json', 'columns': {'prompt': 'q', 'response': 'a'}}
  },
]


def _read_registry(folder, data):
  path = folder / 'dataset_info.json'
  path.write_bytes(data)
  entry = dataset_info.read(f'dataset_info:{path}@mine')
  for told in _RECORDS[:6]:
    with contextlib.suppress(ValueError):
      dataset_info.record(entry, told)


_FIELDS = [
  {'optim.peak_lr': 1e-3, 'optim.eps': 1e-8, 'optim.b2': 0.95},
  {'model.dim': 64, 'model.num_heads': 4, 'model.num_kv_heads': 2},
  {'data.seq_len': 64, 'data.batch_size': 8, 'num_microbatches': 2},
  {'model.preset': 'llama2_7b', 'budget.steps': 100, 'checkpoint.every': 5},
  {'optim.schedule': 'cosine', 'optim.warmup_fraction': 0.1, 'seed': 3},
  {'lora.rank': 8, 'lora.params': 'q_proj', 'execution.attention': 'blocks'},
  {'model.rope_theta': 1e4, 'model.norm_eps': 1e-5, 'model.mlp_dim': 128},
  {'compiler_options': ['a=b'], 'mesh.data': 1, 'vocab_multiple': 8},
]


def _read_fields(data):
  """What --dry_run looks at before it reads data."""
  try:
    changes = json.loads(data)
  except (ValueError, RecursionError):
    return
  if not isinstance(changes, dict):
    return
  config = common.base()
  try:
    config.update_from_flattened_dict(changes)
  except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
    return  # ml_collections refuses, and program.run tells it
  fields.check(config)
  model = model_lib.make_config(config, tokenizers.Bytes())
  mesh = sharding.make_mesh(config.mesh.to_dict())
  step_lib.check_base(config)
  step_lib.check_fit(config, model, mesh)
  step_lib.make_partition(config, model)
  step_lib.make_schedules(config, 100)
