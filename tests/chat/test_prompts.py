"""Prompts of evaluators: what a model is asked is what it has learnt."""

import json

import pytest

from lbe.chat import messages
from lbe.chat import prompts
from lbe.chat import templates
from lbe.vocab import huggingface
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
  (ids,) = prompts.Encoder(template, tokenizer).of_prompts(found)
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
  assert prompts.Encoder('', tokenizer).of_prompts(found) == [
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
      {'messages': TALK[1:]},
      'chatml',
      'turn 1 is of the assistant, and should',
    ),
    ({'messages': []}, 'chatml', "the field 'messages' is empty"),
    ({'conversations': [1]}, 'chatml', r"field 'conversations\[0\]' is int"),
    (
      {'text': 'Hi', 'output': 'Hello!'},
      'alpaca',
      'p.jsonl:1: there is none of the fields prompt, question, messages, '
      r'conversations, conversation, instruction, input \(fields: text, output',
    ),
    ({'prompt': ' '}, 'alpaca', "p.jsonl:1: the field 'prompt' is empty"),
    ({'question': None}, '', "p.jsonl:1: the field 'question' is NoneType"),
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


@pytest.mark.parametrize(
  'template, stop',
  [
    ('belle', ()),
    ('alpaca', ()),
    ('llama2_chat', ()),
    ('plain', ()),
    ('chatml', ('<|im_end|>',)),
    ('llama3_chat', ('<|eot_id|>',)),
  ],
)
def test_a_response_ends_where_its_template_says(tokenizer, template, stop):
  """LLaMA's tokenizer has no such tokens, so they end it as texts."""
  found = prompts.Encoder(template, tokenizer)
  assert (found.eos_ids, found.stop) == ((2,), stop)


def test_an_end_of_turn_token_ends_a_response(tmp_path):
  """A special token of the tokenizer, by name and in a chat_template."""
  from tokenizers import models
  from tokenizers import Tokenizer

  pieces = ['<unk>', '<s>', '</s>', 'a', 'b', '<|im_start|>', '<|im_end|>']
  made = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}))
  made.add_special_tokens(['<s>', '</s>', '<|im_start|>', '<|im_end|>'])
  tokenizer = huggingface.HuggingFace(made.to_str())
  path = tmp_path / 'chat_template.jinja'
  path.write_text(
    '{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}'
  )
  for template in ('chatml', str(path)):
    found = prompts.Encoder(template, tokenizer)
    assert (found.eos_ids, found.stop) == ((2, 6), ())


USER = {'role': 'user', 'content': 'Why?'}


@pytest.mark.parametrize(
  'record',
  [
    {'prompt': 'Why?'},
    {'question': 'Why?'},
    {'instruction': 'Why?'},
    {'instruction': 'Why?', 'output': 'So.'},
    {'input': 'Why?'},
    {'input': 'Why?', 'target': ''},
    {'messages': [USER]},
    {'messages': [USER, {'role': 'assistant', 'content': 'So.'}]},
    {'conversations': [{'from': 'human', 'value': 'Why?'}]},
    {
      'conversations': [
        {'from': 'human', 'value': 'Why?'},
        {'from': 'gpt', 'value': 'So.'},
      ]
    },
  ],
)
def test_records_of_all_forms_are_the_same_question(
  tokenizer, tmp_path, record
):
  """With a response or without one; a form that one reader took and no other"""
  found = prompts.Encoder('llama2_chat', tokenizer, system='Be kind.')
  wanted = found.of_text('Why?')
  assert wanted == found.of_turns([messages.Message('user', 'Why?')])
  asked = read(tmp_path, record, template='llama2_chat')
  assert found.of_prompts(asked) == [wanted]
  plain = prompts.Encoder('', tokenizer)
  assert plain.of_prompts(read(tmp_path, record)) == [plain.of_text('Why?')]


def test_a_system_message_of_its_own_comes_first(tokenizer, tmp_path):
  own = {'role': 'system', 'content': 'Be short.'}
  asked = read(tmp_path, {'messages': [own, USER]}, template='llama2_chat')
  found = prompts.Encoder('llama2_chat', tokenizer, system='Be kind.')
  (ids,) = found.of_prompts(asked)
  assert 'Be short.' in tokenizer.decode(ids)
  assert 'Be kind.' not in tokenizer.decode(ids)


def test_what_stands_beside_a_text_is_asked_as_well(tokenizer, tmp_path):
  """A system message and a history beside `prompt` were left out in silence."""
  beside = {'system_prompt': 'Be short.', 'history': [['Hi', 'Hello!']]}
  found = prompts.Encoder('llama2_chat', tokenizer)
  ids = [
    found.of_prompts(
      read(tmp_path, {**beside, name: 'Why?'}, template='llama2_chat')
    )
    for name in ('prompt', 'question', 'instruction')
  ]
  assert ids[0] == ids[1] == ids[2]
  assert 'Be short.' in tokenizer.decode(ids[0][0])
  with pytest.raises(ValueError, match='p.jsonl:1: a conversation of 4 mess'):
    read(tmp_path, {**beside, 'prompt': 'Why?'})


@pytest.mark.parametrize('answer', ['So.', '', None, [], 3])
def test_a_response_that_is_there_is_not_looked_at(tmp_path, answer):
  """An empty one, still to be written, was refused in two forms of turns."""
  for record in (
    {'messages': [USER, {'role': 'Assistant', 'content': answer}]},
    {'conversation': [{'human': 'Why?', 'gpt': answer}]},
    {'id': None, 'prompt': None, 'instruction': 'Why?', 'output': answer},
    {'prompt': [USER], 'completion': answer},
  ):
    (asked,) = read(tmp_path, record, template='chatml')
    assert asked.talk == (messages.Message('user', 'Why?'),)
    assert asked.id == '1'


def test_without_a_template_nothing_is_gone_on_with(tokenizer, tmp_path):
  """An empty text: what a model writes behind BOS."""
  found = prompts.Encoder('', tokenizer).of_prompts(
    read(tmp_path, {'prompt': ''})
  )
  assert found == [[tokenizer.bos_id]]


def test_prompts_are_named_by_their_lines(tmp_path):
  """A line without anything in it counts, as it does in an editor."""
  path = tmp_path / 'p.jsonl'
  path.write_text('\n{"prompt": "a"}\n\n{"prompt": "b", "id": 7}\n')
  found = prompts.read(path, template='')
  assert [(p.id, p.number) for p in found] == [('2', 2), ('7', 4)]
  assert [p.where for p in found] == [f'{path}:2', f'{path}:4']


def test_responses_belong_to_prompts(tmp_path):
  """A stray id was dropped in silence; null is a model that said nothing."""
  path = tmp_path / 'r.jsonl'
  wheres = {'a': 'p.jsonl:1', 'b': 'p.jsonl:3'}

  def given(*pairs, **settings):
    records = ({'id': own, 'response': text} for own, text in pairs)
    path.write_text('\n'.join(map(json.dumps, records)), encoding='utf-8')
    return prompts.read_responses(path, wheres, **settings)

  assert given(('b', 'B'), ('a', None)) == ['', 'B']
  assert given(('a', 'A'), limit=1) == ['A']
  assert given(('b', 'B'), ('a', 'A'), limit=1) == ['A']
  for pairs, words in (
    (
      [('a', 'A'), ('c', 'C')],
      "r.jsonl:2: the id 'c' is none of the 2 in p.jsonl; leave the line out",
    ),
    (
      [('a', 'A')],
      r"r.jsonl has no response to 1 of 2 prompts, .* 'b' \(p.jsonl:3\)",
    ),
    ([('a', 'A'), ('a', 'B')], "r.jsonl:2: the id 'a' stands in .*:1 already"),
    ([('a', 3)], "r.jsonl:1: the field 'response' is int, not str"),
  ):
    with pytest.raises(ValueError, match=words):
      given(*pairs)
