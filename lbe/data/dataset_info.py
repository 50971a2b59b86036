"""LLaMA-Factory's registry of instruction data, `dataset_info.json`.

  {"belle": {"file_name": "belle.json",
             "columns": {"prompt": "q", "response": "a"}},
   "chat": {"file_name": "chat.jsonl", "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {"role_tag": "role", "content_tag": "content",
                     "user_tag": "user", "assistant_tag": "assistant"}}}

`dataset_info:FOLDER/dataset_info.json@belle` names an entry. Its records come
out in the forms that lbe/chat/messages.py reads: the record {"q": "Hi", "a":
"Yo"} of `belle` as {"instruction": "Hi", "output": "Yo"}, a turn {"role":
"user", "content": "Hi"} of `chat` as {"from": "human", "value": "Hi"}. As in
LLaMA-Factory, `columns` where given names all that is read.
"""

import dataclasses
import json
import pathlib

from lbe.chat import messages
from lbe.text import files
from lbe.text import lines

PREFIX = 'dataset_info:'
_FIELDS = (
  'file_name',
  'cloud_file_name',
  'formatting',
  'columns',
  'tags',
  'split',
  'num_samples',
)
# Our field of LLaMA-Factory's column, and the column where none is named.
_ALPACA = {
  'prompt': ('instruction', 'instruction'),
  'query': ('input', 'input'),
  'response': ('output', 'output'),
  'system': ('system', None),
  'history': ('history', None),
}
_SHARE_GPT = {
  'messages': ('conversations', 'conversations'),
  'system': ('system', None),
}
_REQUIRED = ('instruction', 'output', 'conversations')
_TAGS = {
  'role_tag': 'from',
  'content_tag': 'value',
  'user_tag': 'human',
  'assistant_tag': 'gpt',
  'system_tag': 'system',
  # Turns of these roles are refused where they occur.
  'observation_tag': 'observation',
  'function_tag': 'function_call',
  'tool_calls_tag': 'tool_calls',
}
_ROLES = {'user_tag': 'human', 'assistant_tag': 'gpt', 'system_tag': 'system'}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One data set of a registry: its file, and how its records are read."""

  path: str
  columns: dict  # our field → its field
  tags: dict  # empty for the format alpaca
  num_samples: int | None


def read(name):
  """The Entry of 'dataset_info:REGISTRY@NAME'.

  Raises ValueError for an entry that is not there, or asks for what we do
  not read (preference data, images, tools, data on a hub), by its name.
  """
  path, _, entry = name.removeprefix(PREFIX).rpartition('@')
  if not path:
    raise ValueError(
      f'{name!r} names no data set; write {PREFIX}REGISTRY.json@NAME.'
    )
  path = pathlib.Path(path)
  try:
    known = lines.loads(files.text(path))
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path}, line {error.lineno}: invalid JSON ({error.msg}, column '
      f'{error.colno}); mend the registry.'
    ) from error
  if not isinstance(known, dict):
    raise ValueError(f'{path} is no registry, an object of entries by name.')
  if entry not in known:
    raise ValueError(
      f'{path} has no entry {entry!r}; take one of {", ".join(known)}.'
    )
  found = known[entry]
  where = f'{path}: the entry {entry!r}'
  _check_types(found, where)
  form = found.get('formatting', 'alpaca')
  if form not in ('alpaca', 'sharegpt'):
    raise ValueError(
      f'{where} has formatting={form!r}; alpaca and sharegpt are read.'
    )
  columns = _ALPACA if form == 'alpaca' else _SHARE_GPT
  tags = {} if form == 'alpaca' else _TAGS
  given = {k: v for k, v in found.get('columns', {}).items() if v}
  for label, asked, allowed in (
    ('', {k: v for k, v in found.items() if v}, _FIELDS),
    ('columns.', given, columns),
    ('tags.', found.get('tags', {}), tags),
  ):
    for field in asked:
      if field not in allowed:
        raise ValueError(
          f'{where} has {label}{field}={asked[field]!r}, which is not read '
          f'here (of {form} {", ".join(allowed)} are); take the field out, '
          'or name the files by path=.'
        )
  if found.get('split', 'train') != 'train':
    raise ValueError(
      f'{where} has split={found["split"]!r}; a file is one split, train.'
    )
  if found.get('cloud_file_name'):
    file = found['cloud_file_name']
  elif found.get('file_name'):
    file = str(path.parent / found['file_name'])
  else:
    raise ValueError(
      f'{where} has no file_name; fetch its files and name them.'
    )
  names = {
    ours: given.get(theirs) if found.get('columns') else default
    for theirs, (ours, default) in columns.items()
  }
  return Entry(
    file,
    {ours: theirs for ours, theirs in names.items() if theirs},
    {**tags, **found.get('tags', {})},
    found.get('num_samples'),
  )


def _check_types(found, where):
  if not isinstance(found, dict):
    raise ValueError(f'{where} is {found!r:.60}, no object of fields.')
  for block in ('columns', 'tags'):
    if not isinstance(found.get(block, {}), dict):
      raise ValueError(f'{where} has {block} that are no object of fields.')
    for field, value in found.get(block, {}).items():
      if value is not None and not isinstance(value, str):
        raise ValueError(f'{where} has {block}.{field}={value!r:.60}, no text.')
  for field in ('formatting', 'split', 'file_name', 'cloud_file_name'):
    if not isinstance(found.get(field) or '', str):
      raise ValueError(f'{where} has {field}={found[field]!r:.60}, no text.')


def record(entry, found):
  """The record as messages.py reads it; ValueError where a field is missing."""
  missing = [
    theirs
    for ours, theirs in entry.columns.items()
    if ours in _REQUIRED and theirs not in found
  ]
  if missing:
    raise ValueError(
      f'no field {missing[0]!r}, which the registry names (fields: '
      f'{", ".join(found)})'
    )
  result = {
    ours: found[theirs]
    for ours, theirs in entry.columns.items()
    if theirs in found
  }
  if not entry.tags:
    return result
  turns = messages.listed(result, 'conversations')
  if not all(isinstance(turn, dict) for turn in turns):
    raise ValueError(
      f'the field {entry.columns["conversations"]!r} is no list of turns'
    )
  roles = {entry.tags[tag]: ours for tag, ours in _ROLES.items()}
  names = {entry.tags['role_tag']: 'from', entry.tags['content_tag']: 'value'}
  turns = [{names.get(k, k): v for k, v in turn.items()} for turn in turns]
  for turn in turns:
    role = turn.get('from')
    turn['from'] = roles.get(role, role) if isinstance(role, str) else role
  system = result.pop('system', None)
  # A system turn stands above the column.
  if system and not (turns and turns[0]['from'] == 'system'):
    turns.insert(0, {'from': 'system', 'value': system})
  return {'conversations': turns}
