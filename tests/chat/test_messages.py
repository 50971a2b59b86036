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


@pytest.mark.parametrize(
  'record',
  [
    {'prompt': '你好', 'completion': 'Hello'},
    {'prompt': '你好', 'response': 'Hello', 'history': []},
    {
      'prompt': [{'role': 'user', 'content': '你好'}],
      'completion': [{'role': 'assistant', 'content': 'Hello'}],
    },
    {'conversation': [{'human': '你好', 'assistant': 'Hello'}]},
    {'messages': [{'user': '你好', 'assistant': 'Hello'}]},
    {
      'conversations': [
        {'role': 'USER', 'content': '你好'},
        {'role': 'ChatGPT', 'content': 'Hello', 'tool_calls': []},
      ]
    },
    {
      'messages': '[{"from": "human", "value": "你好"}, '
      '{"from": "bard", "value": "Hello"}]'
    },
    {
      'messages': [
        {'role': 'user', 'content': [{'type': 'text', 'text': '你好'}]},
        {
          'role': 'model',
          'content': [
            {'type': 'text', 'text': 'Hel'},
            {'type': 'output_text', 'text': 'lo'},
          ],
        },
      ],
      'tools': None,
    },
    # A table has the columns of all forms.
    {
      'messages': None,
      'instruction': '你好',
      'output': 'Hello',
      'images': [],
    },
  ],
)
def test_other_spellings_are_the_same_conversation(record):
  """A role of another name, parts, pairs, turns as JSON; also as a prompt."""
  assert told(record) == TURNS
  asked = messages.question(record, where='a.json:7')
  assert [(m.role, m.content) for m in asked] == TURNS[:1]


@pytest.mark.parametrize('field', ['system', 'system_prompt', 'system_message'])
def test_a_system_message_beside_the_turns_is_read(field):
  """It was left out of ShareGPT's and OpenAI's form in silence."""
  wanted = [('system', 'Be kind.'), *TURNS]
  beside = {field: 'Be kind.'}
  share = [
    {'from': 'human', 'value': '你好'},
    {'from': 'gpt', 'value': 'Hello'},
  ]
  alpaca = {'instruction': '你好', 'output': 'Hello'}
  for record in ({'conversations': share}, {'messages': share}, alpaca):
    assert told({**record, **beside}) == wanted
    assert told({**record, field: ''}) == TURNS
    asked = messages.question({**record, **beside}, where='here')
    assert [(m.role, m.content) for m in asked] == wanted[:2]
  own = [{'from': 'system', 'value': 'Be kind.'}, *share]
  assert told({'conversations': own, **beside}) == wanted
  with pytest.raises(ValueError, match='there are 2 system messages, .Be br'):
    read({'conversations': own, field: 'Be brief.'})


def test_a_history_is_of_pairs_or_turns():
  last = {'instruction': 'c', 'output': 'd'}
  wanted = [
    ('user', 'a'),
    ('assistant', 'b'),
    ('user', 'c'),
    ('assistant', 'd'),
  ]
  for history in (
    [['a', 'b']],
    '[["a", "b"]]',
    [{'user': 'a', 'assistant': 'b'}],
    [{'role': 'user', 'content': 'a'}, {'from': 'gpt', 'value': 'b'}],
  ):
    assert told({**last, 'history': history}) == wanted
  with pytest.raises(ValueError, match=r"'history\[0\].assistant' is NoneType"):
    read({**last, 'history': [['a', None]]})


@pytest.mark.parametrize('mark', [{'weight': 0}, {'loss': False}, {'train': 0}])
def test_every_mark_of_what_is_not_learnt_is_seen(mark):
  """Two of three were passed over, and the response was learnt."""
  turns = [{'role': 'user', 'content': 'a'}]
  turns.append({'role': 'assistant', 'content': 'b', **mark})
  assert not read({'messages': turns})[1].trained
  turns[1] = {**turns[1], next(iter(mark)): True}
  assert read({'messages': turns})[1].trained


def cut(turns, **beside):
  """Texts of the longest conversation; a turn is 'u:text', by its role."""
  roles = {'s': 'system', 'u': 'user', 'a': 'assistant', 't': 'tool', 'x': 'x'}
  turns = [
    {'role': roles[turn[0]], 'content': turn[2:] or None}
    for turn in turns.split()
  ]
  found, left_out = messages.trimmed(
    {'messages': turns, **beside}, where='a.json:7'
  )
  assert [m.role for m in found if m.role != 'system'] == (
    ['user', 'assistant'] * (len(found) // 2)
  )
  return ' '.join(m.content for m in found), left_out


@pytest.mark.parametrize(
  ('turns', 'wanted', 'left_out'),
  [
    ('u:1 a:2', '1 2', 0),
    ('a:1 u:2 a:3', '2 3', 1),
    ('s:0 a:1 u:2 a:3', '0 2 3', 1),
    ('u:1 a:2 u:3', '1 2', 1),
    ('u:1 u:2 a:3', '2 3', 1),
    ('u:1 a:2 a:3 u:4 a:5', '1 2', 3),
    ('u:1 a:2 u:3 u:4 a:5 u:6 a:7', '4 5 6 7', 3),
    ('s:0 u:1 a:2 u: a:4', '0 1 2', 2),
    ('u:1 a:2 u:3 a: t:5 a:6', '1 2', 4),
    ('u:1 x:2 u:3 a:4', '3 4', 2),
    ('s: u:1 a:2', '1 2', 1),
    ('s:0 u:1 a:2 s:3 u:4 a:5 u:6 a:7', '3 4 5 6 7', 3),
  ],
)
def test_the_longest_conversation_is_kept_whole(turns, wanted, left_out):
  """Turns that stand together, behind the system message; counted."""
  assert cut(turns) == (wanted, left_out)


def test_where_nothing_is_answered_nothing_is_kept():
  for turns in ('u:1', 'a:1 u:2', 's:0 t:1 a:2', 'u:1 a:'):
    with pytest.raises(ValueError, match='^a.json:7: '):
      cut(turns)
  # Tools that are offered change what is asked, whatever turns are left.
  with pytest.raises(ValueError, match="'tools' is not empty, and no"):
    cut('u:1 a:2', tools=[{'name': 'add'}])


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
      r"'history\[0\]' has 1 entries",
    ),
    ({'instruction': 'a', 'output': 'b', 'history': 'c'}, "'history' is str"),
    ({'input': '', 'target': 'b'}, "'input' is empty"),
    ({'target': 'b'}, "'input' is missing"),
    ({'conversations': []}, "'conversations' is empty"),
    ({'conversations': 'x'}, "'conversations' is str, not list"),
    ({'conversations': ['x']}, r"'conversations\[0\]' is str, not dict"),
    ({'conversations': [{'value': 'x'}]}, r"'conversations\[0\].from' is miss"),
    ({'conversations': [{'from': 'human'}]}, r"\[0\].value' is missing"),
    (chat('user', 'tool'), r"messages\[1\] is a turn of tools \(role 'tool'\)"),
    (chat('user', 'assistant', content=[]), r"messages\[1\].content' is empty"),
    (chat('user', 'assistant', content=''), r"messages\[1\].content' is empty"),
    (
      chat('user', 'assistant', content=None, tool_calls=[{'id': '1'}]),
      r"messages\[1\] is a turn of tools \(role 'assistant'\)",
    ),
    (
      chat('user', 'assistant', content=[{'type': 'image_url'}]),
      r"the part messages\[1\].content\[0\] is 'image_url', and only",
    ),
    (chat('user', 'narrator'), r"\[1\].role is 'narrator'; known roles are"),
    (chat('user', 'assistant', content=None), r"content' is NoneType, not str"),
    ({'messages': [['a']]}, r"'messages\[0\]' is list, not dict"),
    ({'prompt': 'a', 'text': 'b'}, 'fields prompt, text are of no known form'),
    (chat('user', 'assistant') | {'images': ['x']}, "'images' is not empty"),
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
