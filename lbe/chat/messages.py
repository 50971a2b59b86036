"""Records of instruction data as conversations.

The form is told by the fields, the first of these that is there:

  messages, conversations, conversation            OpenAI, ShareGPT, Firefly
  instruction, output [, input]                    Alpaca, Bactrian-X, BELLE
  prompt, completion or response                   OpenAI, TRL, ChatGLM
  input, target                                    BELLE's 0.5M file

A turn is {role or from, content or value}, or {user or human, assistant or
gpt}, which is two. Its content is a text or OpenAI's list of parts, of which
texts are read. `weight`, `loss` or `train` 0 or false marks a response that is
not learnt. Turns may be one text in JSON, as tables have them.

`system`, `system_prompt` or `system_message` beside any form is the system
message; `history` stands before an instruction or prompt: turns, or
[[question, answer], …]. BELLE's multi-turn file (0.8M) writes them as text into
`instruction`: one that begins with `Human:` and ends with `Assistant:` is taken
apart at the lines that begin so.
"""

import json
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


class Empty(ValueError):
  """Of a record with a field or a turn in which nothing stands."""


class _Unusable(NamedTuple):
  """In the place of a turn that cannot be read, and why."""

  role: str  # '' where it is not known
  error: ValueError


_SPEAKERS = {
  'system': ('system', 'developer'),
  'user': ('user', 'human', 'prompter'),
  'assistant': ('assistant', 'gpt', 'chatgpt', 'bing', 'bard', 'bot', 'model'),
}
ROLES = {name: role for role, names in _SPEAKERS.items() for name in names}
# Who speaks for a tool; no template has a place for it.
_TOOLS = ('tool', 'function', 'observation', 'ipython')
# Fields beside the turns, of tools and of what is no text.
_NO_PLACE = ('tools', 'functions', 'image', 'images', 'videos', 'audios')
TURNS = ('messages', 'conversations', 'conversation')
_ANSWERS = {
  'instruction': ('output',),
  'prompt': ('completion', 'response'),
  'input': ('target',),
}
# All fields that tell a form.
FIELDS = {*TURNS, *_ANSWERS, *(x for names in _ANSWERS.values() for x in names)}
_SYSTEM = ('system', 'system_prompt', 'system_message')
_DIALOGUE = r'Human:.*\nAssistant:\s*\Z'
_WEIGHTS = ('weight', 'loss', 'train')
_PAIR = {'user': ('user', 'human'), 'assistant': ('assistant', 'gpt')}


def conversation(record: dict, *, where: str) -> list[Message]:
  """The Messages of a record: [system], user, assistant, user, … assistant.

  Raises ValueError with `where` (as 'FILE:LINE') for a missing or empty
  field, one of the wrong type, turns of tools, and roles out of that order.
  """
  try:
    turns = _read(record)
    _check(turns, ends_with='assistant')
  except ValueError as error:
    raise type(error)(f'{where}: {error}') from error
  return turns


def trimmed(record: dict, *, where: str) -> tuple[list[Message], int]:
  """The longest `conversation` in a record, and how many turns it lacks.

  Its turns stand one behind the other in the record, whose first system
  message stays before them; of several that are as long it is the first.
  Raises ValueError where no question is answered.
  """
  try:
    turns = _read(record)
    found = _longest(turns)
    _check(found or turns, ends_with='assistant')
  except ValueError as error:
    raise type(error)(f'{where}: {error}') from error
  return found, len(turns) - len(found)


def question(record: dict, *, where: str) -> list[Message]:
  """The Messages of a record up to the last user's, which is to be answered.

  A response that is there already is not looked at. Raises ValueError as
  `conversation` does.
  """
  try:
    turns = _read(record, answered=False)
    if turns[-1].role == 'assistant':
      turns = turns[:-1]
    _check(turns, ends_with='user')
  except ValueError as error:
    raise type(error)(f'{where}: {error}') from error
  return turns


def before(record: dict, *, where: str) -> list[Message]:
  """The system message and the history that stand beside a text."""
  try:
    return _with_system(record, _history(record))
  except ValueError as error:
    raise type(error)(f'{where}: {error}') from error


# ---------------------------------------------------------------------- forms


def _read(record, *, answered=True):
  """The turns of a record as they stand, Messages or _Unusable.

  Of a question that is still to be answered the answer need not be there.
  """
  if not isinstance(record, dict):
    raise ValueError(
      'a record is a JSON object with named fields, not '
      f'{type(record).__name__}.'
    )
  name = _form(record, answered)
  if name is None:
    raise ValueError(
      f'the fields {", ".join(map(str, record)) or "(none)"} are of no known '
      'form; a record has instruction and output, prompt and completion, input '
      'and target, conversations, or messages. Others are named by columns='
      "{'instruction': THEIRS, 'output': THEIRS}."
    )
  if name in TURNS:
    return _with_system(record, _turns(record, name))
  if name == 'prompt' and isinstance(record[name], list):
    turns = _turns(record, name)
    if answered:
      turns += _turns(record, _answer(record, name))
    return _with_system(record, turns)
  asked = _field(record, name)
  more = _field(record, 'input', optional=True) if name != 'input' else ''
  turns = _history(record)
  if name == 'instruction' and re.match(_DIALOGUE, asked, re.DOTALL):
    turns += _dialogue(asked)
  else:
    turns.append(Message('user', asked, more if more.strip() else ''))
  if answered:
    response = _field(record, _answer(record, name))
    turns.append(Message('assistant', response))
  return _with_system(record, turns)


def _form(record, answered):
  """The field that tells the form; null where others are there tells none."""
  for name in (*TURNS, *_ANSWERS):
    if record.get(name) is None:
      continue
    if not answered or name in (*TURNS, 'instruction'):
      return name
    if any(answer in record for answer in _ANSWERS[name]):
      return name
  if 'target' in record:
    return 'input'
  return next((n for n in (*TURNS, 'instruction') if n in record), None)


def _answer(record, name):
  names = _ANSWERS[name]
  return next((n for n in names if n in record), names[0])


def _field(record, name, *, kind=str, label=None, optional=False):
  """The field `name`, not empty; '' for an optional one that is or is null."""
  label = label or name
  value = record.get(name)
  if value is None and optional:
    return ''
  if name not in record:
    raise ValueError(
      f'the field {label!r} is missing (fields: {", ".join(map(str, record))}).'
    )
  if not isinstance(value, kind):
    raise ValueError(
      f'the field {label!r} is {type(value).__name__}, not {kind.__name__}.'
    )
  if optional:
    return value
  if not (value.strip() if kind is str else value):
    raise Empty(f'the field {label!r} is empty; leave such records out.')
  return value


def _with_system(record, turns):
  """The turns, behind the system message that stands beside them."""
  for name in _NO_PLACE:
    if record.get(name) not in (None, '', '[]', 'null', [], {}):
      raise ValueError(
        f'the field {name!r} is not empty, and no template has a place for it; '
        'take it out where the conversation stands without it, or leave such '
        'records out.'
      )
  found = [_field(record, name, optional=True) for name in _SYSTEM]
  if turns and isinstance(turns[0], Message) and turns[0].role == 'system':
    found.append(turns[0].content)
    turns = turns[1:]
  found = list(dict.fromkeys(text for text in found if text.strip()))
  if len(found) > 1:
    raise ValueError(
      f'there are {len(found)} system messages, {found[0]!r:.60} and '
      f'{found[1]!r:.60}; leave one.'
    )
  return [*(Message('system', text) for text in found), *turns]


def _history(record):
  turns = []
  for i, turn in enumerate(listed(record, 'history')):
    label = f'history[{i}]'
    if isinstance(turn, list | tuple):
      if len(turn) != 2:
        raise ValueError(
          f'the field {label!r} has {len(turn)} entries; it is [question, '
          'answer].'
        )
      turn = dict(zip(('user', 'assistant'), turn, strict=True))
    turns += _turn(turn, label)
  return turns


def _dialogue(text):
  """The turns of `Human:…\\nAssistant:…\\nHuman:…\\nAssistant:`."""
  # An empty text, a role, its text, a role, its text, … the last one empty.
  parts = re.split(r'^(Human|Assistant):', text, flags=re.MULTILINE)[1:-2]
  return [
    Message(ROLES.get(role.lower()), said.removesuffix('\n'))
    for role, said in zip(parts[::2], parts[1::2], strict=True)
  ]


# ---------------------------------------------------------------------- turns


def listed(record: dict, name: str) -> list:
  """The field as a list, also where it is one as JSON; of null []."""
  value = record.get(name)
  if isinstance(value, str) and value.strip():
    try:
      value = json.loads(value)
    except (ValueError, RecursionError):
      pass
  if value is None or value == '':
    return []
  if not isinstance(value, list):
    raise ValueError(f'the field {name!r} is {type(value).__name__}, not list.')
  return value


def _turns(record, name):
  turns = []
  for i, turn in enumerate(listed(record, name)):
    turns += _turn(turn, f'{name}[{i}]')
  if not turns:
    raise ValueError(f'the field {name!r} is empty; leave such records out.')
  return turns


def _turn(turn, label):
  """One turn, or the two of a pair: Messages or _Unusable."""
  if not isinstance(turn, dict):
    why = f'the field {label!r} is {type(turn).__name__}, not dict.'
    return [_Unusable('', ValueError(why))]
  pair = [
    (role, [n for n in names if n in turn]) for role, names in _PAIR.items()
  ]
  if not {'role', 'from'} & turn.keys() and all(
    len(names) == 1 for _, names in pair
  ):
    return [_said(turn, role, names[0], label) for role, names in pair]
  shares = label.startswith('conversation')  # as ShareGPT names them
  role_field = _named(turn, ('from', 'role') if shares else ('role', 'from'))
  text_field = _named(
    turn, ('value', 'content') if role_field == 'from' else ('content', 'value')
  )
  try:
    role = _field(turn, role_field, label=f'{label}.{role_field}')
  except ValueError as error:
    return [_Unusable('', error)]
  known = ROLES.get(role.strip().lower(), '')
  calls = turn.get('tool_calls') or turn.get('function_call')
  if role.strip().lower().startswith(_TOOLS) or calls:
    why = (
      f'{label} is a turn of tools ({role_field} {role!r}), for which no '
      'template has a place; leave such records out.'
    )
    return [_Unusable(known, ValueError(why))]
  if not known:
    why = (
      f'{label}.{role_field} is {role!r}; known roles are {", ".join(ROLES)}.'
    )
    return [_Unusable('', ValueError(why))]
  return [_said(turn, known, text_field, label)]


def _named(turn, names):
  """The first of the names that has a value, else the first of all."""
  return next((n for n in names if turn.get(n) is not None), names[0])


def _said(turn, role, name, label):
  try:
    text = _text(turn, name, f'{label}.{name}')
    return Message(role, text, trained=_is_trained(turn, label))
  except ValueError as error:
    return _Unusable(role, error)


def _text(turn, name, label):
  """What is said: a text, or the texts of OpenAI's parts, joined."""
  if not isinstance(turn.get(name), list):
    return _field(turn, name, label=label)
  texts = []
  for i, part in enumerate(turn[name]):
    kind = part.get('type', 'text') if isinstance(part, dict) else part
    if kind not in ('text', 'input_text', 'output_text'):
      raise ValueError(
        f'the part {label}[{i}] is {kind!r:.60}, and only parts of the type '
        "'text' are read; leave such records out."
      )
    texts.append(_field(part, 'text', label=f'{label}[{i}].text'))
  return _field({name: ''.join(texts)}, name, label=label)


def _is_trained(turn, label):
  trained = True
  for name in _WEIGHTS:
    value = turn.get(name)
    if value is None:
      continue
    if value not in (0, 1):
      raise ValueError(f'{label}.{name} is {value!r}, not 0 or 1.')
    trained = trained and bool(value)
  return trained


# ---------------------------------------------------------------------- order


def _longest(turns):
  """The longest conversation in turns; [] where there is none."""
  head = turns[:1] if _is_of(turns[0], 'system') else []
  best, run = [], []
  for turn in turns:
    if isinstance(turn, _Unusable) or not turn.content.strip():
      run = []
    elif turn.role == 'system':
      run = [turn]
    elif turn.role == 'user':
      if run and run[-1].role == 'user':
        run = run[:1] if run[0].role == 'system' else []
      run = [*run, turn]
    elif run and run[-1].role == 'user':
      run = [*run, turn]
      best = max(best, run, key=_num_said)
    else:
      run = []
  if best and best[0].role != 'system':
    best = [*head, *best]
  return best


def _is_of(turn, role):
  return isinstance(turn, Message) and turn.role == role


def _num_said(run):
  return sum(message.role != 'system' for message in run)


def _check(whole, *, ends_with):
  for turn in whole:
    if isinstance(turn, _Unusable):
      raise turn.error
  turns = whole[1:] if whole and whole[0].role == 'system' else whole
  for i, message in enumerate(turns):
    asked = ('user', 'assistant')[i % 2]
    if message.role != asked:
      raise ValueError(
        f'turn {i + 1} is of the {message.role}, and should be of the {asked}: '
        'after an optional system message, user and assistant take turns, the '
        'user first.'
      )
    if not message.content.strip():
      raise Empty(f'turn {i + 1} ({message.role}) is empty.')
  if not turns or turns[-1].role != ends_with:
    raise ValueError(
      f'the last turn is not of the {ends_with}, so there is '
      + (
        'no response to learn.' if ends_with == 'assistant' else 'no question.'
      )
    )
