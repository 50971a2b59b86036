"""What lies beside weights and must come out again: ids, templates, habits."""

import json
import shutil

import numpy as np
import pytest
import transformers

from lbe.chat import chat_template
from lbe.chat import jinja
from lbe.chat import messages
from lbe.chat import templates
from lbe.convert import settings
from lbe.convert import tensor_files
from lbe.vocab import export
from lbe.vocab import folder as folder_lib
from lbe.vocab import tokenizers
from lbe.vocab import train


def put(folder, **files):
  folder.mkdir(exist_ok=True)
  for name, record in files.items():
    text = record if isinstance(record, str) else json.dumps(record)
    ending = 'jinja' if isinstance(record, str) else 'json'
    (folder / f'{name}.{ending}').write_text(text)
  return folder


CONFIG = {
  'tokenizer_class': 'LlamaTokenizer',
  'name_or_path': 'somewhere',
  'bos_token': {'content': '<s>', 'lstrip': False, '__type': 'AddedToken'},
  'padding_side': 'left',
  'legacy': False,
  'add_eos_token': True,
  'model_max_length': 77,
  'chat_template': [
    {'name': 'default', 'template': 'a'},
    {'name': 'tools', 'template': 'b'},
  ],
}


def test_the_files_beside_a_tokenizer_come_out_again(tmp_path):
  """Template lists, templates as files, padding and habits were lost."""
  source = put(
    tmp_path / 'in', tokenizer_config=CONFIG, chat_template='{{ messages }}'
  )
  (source / 'additional_chat_templates').mkdir()
  (source / 'additional_chat_templates' / 'rag.jinja').write_text('{{ 1 }}')
  tokenizer = tokenizers.load('bytes')
  (tmp_path / 'out').mkdir()
  export.write(
    tokenizer,
    tmp_path / 'out',
    max_positions=512,
    kept=folder_lib.kept(source),
  )
  out = json.loads((tmp_path / 'out' / 'tokenizer_config.json').read_text())
  for name in ('padding_side', 'legacy', 'model_max_length', 'chat_template'):
    assert out[name] == CONFIG[name], name
  assert out['bos_token'] == '<s>' and out['add_eos_token'] is True
  assert out['tokenizer_class'] == 'PreTrainedTokenizerFast'
  assert 'name_or_path' not in out
  assert (tmp_path / 'out' / 'chat_template.jinja').read_text() == (
    '{{ messages }}'
  )
  extra = tmp_path / 'out' / 'additional_chat_templates' / 'rag.jinja'
  assert extra.read_text() == '{{ 1 }}'


def test_a_template_beside_the_new_tokenizer_is_a_choice(tmp_path):
  """All else is the weights': a tokenizer's folder has defaults of ours."""
  info = {
    'tokenizer_files': folder_lib.kept(
      put(
        tmp_path / 'base', tokenizer_config={**CONFIG, 'padding_side': 'left'}
      )
    )
  }
  plain = put(
    tmp_path / 'plain', tokenizer_config={'padding_side': 'right', 'new': 1}
  )
  found = settings.tokenizer_files(info, str(plain))['tokenizer_config']
  assert found['padding_side'] == 'left' and found['new'] == 1
  assert found['chat_template'] == CONFIG['chat_template']
  other = put(tmp_path / 'other', tokenizer_config={'chat_template': 'mine'})
  found = settings.tokenizer_files(info, str(other / 'tokenizer.json'))
  assert found['tokenizer_config']['chat_template'] == 'mine'


def run_of(*names):
  return {'data': {'sources': {x: {'template': x} for x in names}}}


def test_ids_that_end_a_text_stay_and_grow(tmp_path):
  """A list of them became one; what a run teaches must end it, too."""
  tokenizer = tokenizers.load('bytes')
  info = {
    'bos_id': 1,
    'eos_id': 7,
    'pad_id': -1,
    'generation_config': {'eos_token_id': [7, 9], 'temperature': 0.6},
  }
  came = settings.Settings(info, tokenizer, None, 259)
  assert (came.bos_id, came.eos_id, came.pad_id) == (1, 7, None)
  assert came.generation == {
    'bos_token_id': 1,
    'eos_token_id': [7, 9],
    'temperature': 0.6,
  }
  assert came.notices == []
  learnt = settings.Settings(info, tokenizer, run_of('belle'), 259)
  assert learnt.eos_id == [7, 2]
  assert learnt.generation['eos_token_id'] == [7, 9, 2]
  assert 'also ends at [2]' in learnt.notices[0]
  scratch = settings.Settings({}, tokenizer, run_of(), 259)
  assert scratch.eos_id == 2 and scratch.notices == []
  assert scratch.generation == {'bos_token_id': 1, 'eos_token_id': 2}


def test_one_template_is_written_and_several_are_told():
  """A template that a model has not learnt is worse than none."""
  tokenizer = tokenizers.load('bytes')
  info = {'tokenizer_files': {'files': {'chat_template.jinja': 'old'}}}
  one = settings.Settings(info, tokenizer, run_of('belle'), 259)
  assert 'Human: ' in one.kept['tokenizer_config']['chat_template']
  assert 'files' not in one.kept and 'in the place' in one.notices[-1]
  two = settings.Settings(info, tokenizer, run_of('belle', 'plain'), 259)
  assert two.kept['files'] == {'chat_template.jinja': 'old'}
  assert 'belle, plain; no one of them' in two.notices[0]
  assert "the source's stays" in two.notices[0]


@pytest.mark.parametrize('name', templates.TEMPLATES)
def test_a_named_template_is_written_as_jinja(name):
  """The exported chat_template must give the text that the run learnt."""
  template = templates.TEMPLATES[name]
  tokenizer = tokenizers.load('bytes')
  talk = [
    messages.Message('user', ' hello "you"\n{{ x }} '),
    messages.Message('assistant', "it's {m} \\n"),
    messages.Message('user', 'more'),
  ]
  talks = [talk[:1], talk[:2], talk]
  if template.one_turn:
    talks = talks[:2]
  if template.system or template.first_user:
    talks += [[messages.Message('system', 'be kind '), *t] for t in talks]
  theirs = jinja.ChatTemplate(chat_template.written(template), tokenizer)
  roles = {'<s>': tokenizer.bos_id, '</s>': tokenizer.eos_id}
  for one in talks:
    ours = ''.join(span.text for span in templates.spans(name, one))
    got = ''.join(span.text for span in theirs.spans(one))
    assert got == ours, roles
  if not (template.system or template.first_user):
    with pytest.raises(ValueError, match='no place for a system'):
      theirs.spans([messages.Message('system', 'x'), *talk[:1]])


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp('model') / 'tokenizer.model'
  text = ['Human: the river runs to the sea', 'Assistant: it reads [INST]']
  train.train_sentencepiece(text * 9, path, vocab_size=310)
  return path


@pytest.mark.parametrize('legacy', [None, True, False])
@pytest.mark.parametrize('added', [False, True])
def test_an_exported_template_gives_the_ids_that_were_learnt(
  model, tmp_path, legacy, added
):
  """The space behind BOS was there in training and gone in the pipeline."""
  source = put(
    tmp_path / 'in',
    tokenizer_config={
      'tokenizer_class': 'LlamaTokenizer',
      'bos_token': '<s>',
      'eos_token': '</s>',
      'unk_token': '<unk>',
      'legacy': legacy,
    },
    **({'added_tokens': {'<|im_start|>': 310}} if added else {}),
  )
  shutil.copy(model, source)
  tokenizer = tokenizers.load(source)
  info = {'tokenizer_files': folder_lib.kept(source)}
  for name in templates.TEMPLATES:
    talk = [messages.Message('user', 'the sea: it  reads')]
    if not templates.TEMPLATES[name].one_turn:
      talk += [messages.Message('assistant', 'runs'), *talk]
    kept = settings.Settings(info, tokenizer, run_of(name), 311).kept
    out = tmp_path / name
    out.mkdir()
    export.write(tokenizer, out, max_positions=512, kept=kept)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    got = theirs.apply_chat_template(
      [{'role': m.role, 'content': m.content} for m in talk],
      add_generation_prompt=True,
    )['input_ids']
    ours = templates.Encoder(name, tokenizer, loss='all')(talk)[0]
    assert theirs.decode(got) == theirs.decode(ours), name
    # A join over the border of a response is made in one of them alone.
    assert got == ours or len(talk) > 1, name


def test_float16_that_overflows_is_refused():
  """70000 became infinite in the export without a word."""
  with pytest.raises(ValueError, match='x holds 70000, and float16 ends'):
    tensor_files.cast(np.float32([1, -70000]), np.dtype('float16'), 'x')
  fine = np.float32([65504, np.inf])
  assert tensor_files.cast(fine, np.dtype('float16'), 'x')[1] == np.inf
