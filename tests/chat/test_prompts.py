"""Prompts of evaluators: what a model is asked is what it has learnt."""

import json

import pytest

from lbe.chat import messages
from lbe.chat import prompts
from lbe.chat import templates
from lbe.vocab import tokenizers

TALK = [
  {'role': 'user', 'content': 'Hi'},
  {'role': 'assistant', 'content': 'Hello!'},
  {'role': 'user', 'content': '你好吗？'},
]


@pytest.fixture(scope='module')
def tokenizer(test_data):
  return tokenizers.load(test_data / 'tok_llama_32000' / 'tokenizer.model')


def read(tmp_path, *records, **settings):
  path = tmp_path / 'p.jsonl'
  path.write_text('\n'.join(map(json.dumps, records)), encoding='utf-8')
  return prompts.read(path, **{'template': '', **settings})


@pytest.mark.parametrize(
  ('template', 'record'),
  [
    ('alpaca', {'instruction': 'Add.', 'input': '1, 2'}),
    ('alpaca', {'instruction': 'Say yes.', 'input': ''}),
    ('belle', {'instruction': '翻译：', 'input': 'cat'}),
    ('bactrian_x', {'instruction': 'Add.', 'input': '1, 2'}),
    ('llama2_chat', {'instruction': 'Go on.', 'history': [['Hi', 'Hello!']]}),
    ('chinese_alpaca_2', {'instruction': 'Hi', 'system': 'Be kind.'}),
    ('chatml', {'messages': TALK}),
  ],
)
def test_a_model_is_asked_as_it_was_trained(
  tokenizer, tmp_path, template, record
):
  """An input that is put elsewhere, a lost system text, other ids."""
  found = read(tmp_path, record, template=template)
  (ids,) = prompts.encode(found, tokenizer, template=template)
  if 'messages' in record:
    answer = {'role': 'assistant', 'content': 'Fine.'}
    learnt = {'messages': [*TALK, answer]}
  else:
    learnt = {**record, 'output': 'Fine.'}
  encode = templates.Encoder(template, tokenizer, loss='last_response')
  whole, weights = encode(messages.conversation(learnt, where='here'))
  assert ids == whole[: weights.index(1)]


def test_without_a_template_the_text_stands_alone(tokenizer, tmp_path):
  found = read(
    tmp_path, {'instruction': 'Add.', 'input': '1, 2'}, {'question': 'Why?'}
  )
  assert [p.text for p in found] == ['Add.\n1, 2', 'Why?']
  assert prompts.encode(found, tokenizer, template='') == [
    tokenizers.prompt_ids(tokenizer, 'Add.\n1, 2'),
    tokenizers.prompt_ids(tokenizer, 'Why?'),
  ]
  (found,) = read(tmp_path, {'messages': TALK}, template='chatml')
  assert found.text == 'Hi\nHello!\n你好吗？'


@pytest.mark.parametrize(
  ('record', 'template', 'words'),
  [
    ({'messages': TALK}, '', 'p.jsonl:1: a conversation of 3 messages needs a'),
    ({'messages': TALK}, 'alpaca', "p.jsonl:1: template 'alpaca' is for one"),
    (
      {'messages': TALK[:2]},
      'chatml',
      'turn 3 is of the assistant, and should',
    ),
    ({'messages': 'Hi'}, 'chatml', "the field 'messages' is str, not list"),
    (
      {'instruction': ''},
      'alpaca',
      "p.jsonl:1: the field 'instruction' is emp",
    ),
    (
      {'instruction': 'Hi', 'system': 'Be kind.'},
      'alpaca',
      "p.jsonl:1: template 'alpaca' has no place for a system message",
    ),
  ],
)
def test_what_cannot_be_asked_is_named_by_file_and_line(
  tmp_path, record, template, words
):
  with pytest.raises(ValueError, match=words):
    read(tmp_path, record, template=template)
