"""Records of instruction data as conversations.

The form is told by the fields:

  instruction, output [, input, system, history]   Alpaca, Bactrian-X, BELLE
  input, target                                    BELLE's 0.5M file
  conversations: [{from, value}, …]                ShareGPT, BELLE's 3.5M file
  messages: [{role, content}, …]                   OpenAI

`history` is [[question, answer], …], the turns before. BELLE's multi-turn
file (0.8M) writes them as text into `instruction`: one that begins with
`Human:` and ends with `Assistant:` is taken apart at the lines that begin so.
"""

import re
from typing import NamedTuple


class Message(NamedTuple):
  """One turn; `input` is what Alpaca's form keeps apart from the instruction.

  `trained` is False for a response that its record gives the weight 0.
  """

  role: str  # 'system', 'user' or 'assistant'
  content: str
  input: str = ''
  trained: bool = True


ROLES = {
  'system': 'system',
  'developer': 'system',
  'user': 'user',
  'human': 'user',
  'assistant': 'assistant',
  'gpt': 'assistant',
}


def conversation(record: dict, *, where: str) -> list[Message]:
  """The Messages of a record: [system], user, assistant, user, … assistant.

  Raises ValueError with `where` (as 'FILE:LINE') for a missing or empty
  field, one of the wrong type, and roles out of that order.
  """
  forms = {
    'messages': _messages,
    'conversations': _share_gpt,
    'instruction': _alpaca,
    'target': _belle_half_million,
  }
  if not isinstance(record, dict):
    raise ValueError(
      f'{where}: a record is a JSON object with named fields, not '
      f'{type(record).__name__}.'
    )
  for field, read in forms.items():
    if field in record:
      turns = read(record, where)
      _check_roles(turns, where)
      return turns
  raise ValueError(
    f'{where}: the fields {", ".join(map(str, record)) or "(none)"} are of no '
    'known form; a record has instruction and output, input and target, '
    'conversations, or messages.'
  )


def _field(record, name, where, *, kind=str, label=None, optional=False):
  """The field `name`, not empty; '' for an optional one that is or is null."""
  label = label or name
  value = record.get(name)
  if value is None and optional:
    return ''
  if name not in record:
    raise ValueError(
      f'{where}: the field {label!r} is missing (fields: '
      f'{", ".join(map(str, record))}).'
    )
  if not isinstance(value, kind):
    raise ValueError(
      f'{where}: the field {label!r} is {type(value).__name__}, not '
      f'{kind.__name__}.'
    )
  if optional:
    return value
  if not (value.strip() if kind is str else value):
    raise ValueError(
      f'{where}: the field {label!r} is empty; leave such records out.'
    )
  return value


def _alpaca(record, where):
  instruction = _field(record, 'instruction', where)
  output = _field(record, 'output', where)
  more = _field(record, 'input', where, optional=True)
  turns = _history(record, where)
  if re.match(r'Human:.*\nAssistant:\s*\Z', instruction, re.DOTALL):
    turns += _dialogue(instruction)
  else:
    turns.append(Message('user', instruction, more if more.strip() else ''))
  system = _field(record, 'system', where, optional=True)
  head = [Message('system', system)] if system.strip() else []
  return [*head, *turns, Message('assistant', output)]


def _history(record, where):
  turns = record.get('history') or []
  if not isinstance(turns, list) or not all(
    isinstance(turn, list | tuple)
    and len(turn) == 2
    and all(isinstance(text, str) and text.strip() for text in turn)
    for turn in turns
  ):
    raise ValueError(
      f"{where}: the field 'history' is no list of [question, answer] texts."
    )
  roles = ('user', 'assistant')
  return [
    Message(role, text)
    for turn in turns
    for role, text in zip(roles, turn, strict=True)
  ]


def _dialogue(text):
  """The turns of `Human:…\\nAssistant:…\\nHuman:…\\nAssistant:`."""
  # An empty text, a role, its text, a role, its text, … the last one empty.
  parts = re.split(r'^(Human|Assistant):', text, flags=re.MULTILINE)[1:-2]
  return [
    Message(ROLES.get(role.lower()), said.removesuffix('\n'))
    for role, said in zip(parts[::2], parts[1::2], strict=True)
  ]


def _belle_half_million(record, where):
  return [
    Message('user', _field(record, 'input', where)),
    Message('assistant', _field(record, 'target', where)),
  ]


def _share_gpt(record, where):
  return _turns(record, 'conversations', 'from', 'value', where)


def _messages(record, where):
  return _turns(record, 'messages', 'role', 'content', where)


def _turns(record, field, role_field, text_field, where):
  read = []
  for i, turn in enumerate(_field(record, field, where, kind=list)):
    label = f'{field}[{i}]'
    if not isinstance(turn, dict):
      raise ValueError(
        f'{where}: the field {label!r} is {type(turn).__name__}, not dict.'
      )
    role = _field(turn, role_field, where, label=f'{label}.{role_field}')
    if role.lower() not in ROLES:
      raise ValueError(
        f'{where}: {label}.{role_field} is {role!r}; known roles are '
        f'{", ".join(ROLES)}.'
      )
    text = _field(turn, text_field, where, label=f'{label}.{text_field}')
    weight = turn.get('weight', 1)
    if weight not in (0, 1):
      raise ValueError(f'{where}: {label}.weight is {weight!r}, not 0 or 1.')
    read.append(Message(ROLES[role.lower()], text, trained=bool(weight)))
  return read


def _check_roles(whole, where):
  turns = whole[1:] if whole[0].role == 'system' else whole
  for i, message in enumerate(turns):
    asked = ('user', 'assistant')[i % 2]
    if message.role != asked:
      raise ValueError(
        f'{where}: turn {i + 1} is of the {message.role}, and should be of '
        f'the {asked}: after an optional system message, user and assistant '
        'take turns, the user first.'
      )
    if not message.content.strip():
      raise ValueError(f'{where}: turn {i + 1} ({message.role}) is empty.')
  if len(turns) % 2 or not turns:
    raise ValueError(
      f'{where}: the last turn is not of the assistant, so there is no '
      'response to learn.'
    )
