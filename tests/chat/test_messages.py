"""Records of every published form, and every way to be wrong."""

import json

import pytest

from lbe.chat import messages

TURNS = [('user', '你好'), ('assistant', 'Hello')]


def read(record):
  return messages.conversation(record, where='a.json:7')


def told(record):
  return [(m.role, m.content) for m in read(record)]


@pytest.mark.parametrize(
  'record',
  [
    {'instruction': '你好', 'input': '', 'output': 'Hello'},
    {'instruction': '你好', 'output': 'Hello', 'id': 'alpaca-107'},
    {'instruction': '你好', 'input': None, 'output': 'Hello', 'history': ''},
    {'input': '你好', 'target': 'Hello'},
    {
      'id': '1',
      'conversations': [
        {'from': 'human', 'value': '你好'},
        {'from': 'assistant', 'value': 'Hello'},
      ],
    },
    {
      'conversations': [
        {'from': 'Human', 'value': '你好'},
        {'from': 'gpt', 'value': 'Hello'},
      ],
    },
    {
      'messages': [
        {'role': 'user', 'content': '你好'},
        {'role': 'assistant', 'content': 'Hello'},
      ]
    },
  ],
)
def test_every_published_form_is_the_same_conversation(record):
  """Alpaca, Bactrian-X, BELLE in its three single-turn forms, OpenAI."""
  assert told(record) == TURNS


def test_an_input_is_kept_apart():
  """Alpaca's template has a place for it, BELLE's has none."""
  first, _ = read({'instruction': 'Sort', 'input': 'b a', 'output': 'a b'})
  assert (first.content, first.input) == ('Sort', 'b a')


def test_several_turns_are_read_from_every_form_that_has_them():
  """BELLE's multi-turn file writes them into the instruction."""
  turns = [
    ('user', '写诗\n要短'),
    ('assistant', '好。\n春眠'),
    ('user', '再来'),
    ('assistant', '\n不觉晓'),
  ]
  dialogue = 'Human:写诗\n要短\nAssistant:好。\n春眠\nHuman:再来\nAssistant:'
  assert told({'instruction': dialogue, 'output': '\n不觉晓'}) == turns
  assert told(
    {
      'instruction': '再来',
      'output': '\n不觉晓',
      'history': [['写诗\n要短', '好。\n春眠']],
      'system': 'S',
    }
  ) == [('system', 'S'), *turns]
  assert (
    told({'messages': [{'role': r, 'content': c} for r, c in turns]}) == turns
  )
  # An instruction that only talks of roles is no dialogue.
  assert len(read({'instruction': 'Human: who?', 'output': 'x'})) == 2


def test_a_response_of_weight_0_is_not_trained():
  found = read(
    {
      'messages': [
        {'role': 'system', 'content': 'Be brief.'},
        {'role': 'user', 'content': 'a'},
        {'role': 'assistant', 'content': 'b', 'weight': 0},
        {'role': 'user', 'content': 'c'},
        {'role': 'assistant', 'content': 'd', 'weight': 1},
      ]
    }
  )
  assert [m.trained for m in found] == [True, True, False, True, True]


def chat(*roles, **last):
  turns = [{'role': role, 'content': 'x'} for role in roles]
  turns[-1].update(last)
  return {'messages': turns}


@pytest.mark.parametrize(
  ('record', 'rule'),
  [
    (['x'], 'not list'),
    ({}, r'fields \(none\) are of no known form'),
    ({'text': 'x'}, 'fields text are of no known form.*instruction and output'),
    ({'instruction': 'a'}, "'output' is missing"),
    ({'instruction': 'a', 'output': ''}, "'output' is empty"),
    ({'instruction': 'a', 'output': ' \n'}, "'output' is empty"),
    ({'instruction': ' ', 'output': 'b'}, "'instruction' is empty"),
    ({'instruction': 'a', 'output': 3}, "'output' is int, not str"),
    ({'instruction': 'a', 'output': None}, "'output' is NoneType"),
    ({'instruction': 'a', 'input': ['b'], 'output': 'c'}, "'input' is list"),
    (
      {'instruction': 'a', 'output': 'b', 'history': [['c']]},
      "'history' is no list of",
    ),
    ({'instruction': 'a', 'output': 'b', 'history': 'c'}, "'history' is no"),
    ({'input': '', 'target': 'b'}, "'input' is empty"),
    ({'target': 'b'}, "'input' is missing"),
    ({'conversations': []}, "'conversations' is empty"),
    ({'conversations': 'x'}, "'conversations' is str, not list"),
    ({'conversations': ['x']}, r"'conversations\[0\]' is str, not dict"),
    ({'conversations': [{'value': 'x'}]}, r"'conversations\[0\].from' is miss"),
    ({'conversations': [{'from': 'human'}]}, r"\[0\].value' is missing"),
    (chat('user', 'tool'), r"messages\[1\].role is 'tool'; known roles"),
    (chat('user', 'assistant', content=[]), r"messages\[1\].content' is list"),
    (chat('user', 'assistant', content=''), r"messages\[1\].content' is empty"),
    (chat('user', 'assistant', weight=0.5), 'weight is 0.5, not 0 or 1'),
    (chat('assistant', 'user'), 'turn 1 is of the assistant, and should be'),
    (chat('user', 'user'), 'turn 2 is of the user, and should be'),
    (chat('user', 'system'), 'turn 2 is of the system'),
    (chat('system', 'user'), 'last turn is not of the assistant'),
    (chat('system'), 'last turn is not of the assistant'),
    (
      {'instruction': 'Human:a\nHuman:b\nAssistant:', 'output': 'c'},
      'turn 2 is of the user',
    ),
    (
      {'instruction': 'Human:\nAssistant:', 'output': 'c'},
      r'turn 1 \(user\) is empty',
    ),
  ],
)
def test_bad_records_name_the_place_and_the_rule(record, rule):
  """A record that is guessed at trains on the wrong text in silence."""
  with pytest.raises(ValueError, match=rule) as raised:
    read(record)
  assert str(raised.value).startswith('a.json:7: ')


def test_real_files_are_read_but_for_their_empty_responses(test_data):
  """Every Alpaca file at hand; what is refused has an empty field."""
  count, refused = 0, []
  for path in sorted((test_data / 'sft_alpaca_en_zh').glob('*/*.json')):
    if path.name == 'alpaca_data-9407-12345-中文-未完成.json':
      continue  # no valid JSON
    for record in json.loads(path.read_text(encoding='utf-8-sig')):
      count += 1
      try:
        read(record)
      except ValueError as error:
        refused.append(str(error))
  assert count == 52_002 + 17_476 + 10_282
  assert len(refused) == 39
  assert all('is empty' in line for line in refused)
