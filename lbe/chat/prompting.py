"""From questions to ids that a model answers, and where its answer ends."""

import pathlib

from lbe.chat import messages
from lbe.chat import templates
from lbe.vocab import tokenizers

# In the place of a response that is still to come.
_MISSING = 'response'


class Prompts:
  """Prompts in a template; '' is plain text, which the model goes on from.

  `template` is a name of lbe.chat.templates or the path of a .jinja file. What
  the template writes behind a response ends one: `eos_ids` are the special
  tokens, the tokenizer's EOS among them, `stop` the texts.
  """

  def __init__(self, template, tokenizer, *, system=''):
    """Raises ValueError for an unknown template, or one without the tokens."""
    self._tokenizer, self._encode = tokenizer, None
    self._head = [messages.Message('system', system)] if system else []
    self.one_turn, self.stop = not template, ()
    ends = {tokenizer.eos_id}
    if template:
      found = template
      if template.endswith('.jinja'):
        text = pathlib.Path(template).read_text('utf-8')
        found = templates.ChatTemplate(text, tokenizer)
      else:
        self.one_turn = templates.find(template).one_turn
      self._encode = templates.Encoder(found, tokenizer, loss='all')
      token, text = self._encode.end_of_response()
      ends.add(token)
      self.stop = (text,) if text else ()
    elif system:
      raise ValueError('a system message needs a template; name one.')
    self.eos_ids = tuple(sorted(ends - {None}))

  def of_text(self, text):
    """The ids of a text to go on from, or of a question to answer."""
    if self._encode:
      return self.of_turns([messages.Message('user', text)])
    ids = tokenizers.prompt_ids(self._tokenizer, text)
    if not ids:
      raise ValueError('an empty prompt needs a tokenizer with BOS.')
    return ids

  def of_turns(self, turns):
    """The ids of Messages, the last of them the user's."""
    head = [] if turns[0].role == 'system' else self._head
    return self._encode([*head, *turns])[0]

  def of_record(self, record, *, field, where):
    """The ids of a JSON record: its text `field`, or its conversation.

    With a template a record may have any form of lbe.chat.messages; a last
    response that it has is not looked at. Raises ValueError with `where`.
    """
    if not isinstance(record, dict):
      raise ValueError(
        f'{where}: a record is a JSON object with named fields, not '
        f'{type(record).__name__}.'
      )
    try:
      if field in record or not self._encode:
        return self.of_text(self._text(record, field))
      turns = messages.conversation(_answered(record), where=where)[:-1]
      return self.of_turns(turns)
    except ValueError as error:
      told = str(error)
      raise ValueError(
        told if told.startswith(where) else f'{where}: {told}'
      ) from error

  def _text(self, record, field):
    text = record.get(field)
    if not isinstance(text, str):
      raise ValueError(
        f'the field {field!r} is missing or no text (fields: '
        f'{", ".join(map(str, record))}); name another one, or a template for '
        'conversations.'
      )
    return text


def _answered(record):
  """The record with a response where it has none, so that it can be read."""
  for field, role, text in (
    ('messages', 'role', 'content'),
    ('conversations', 'from', 'value'),
  ):
    turns = record.get(field)
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
      last = str(turns[-1].get(role)).lower()
      if messages.ROLES.get(last) == 'user':
        answer = {role: 'assistant', text: _MISSING}
        return {**record, field: [*turns, answer]}
      return record
  name = 'output' if 'instruction' in record else 'target'
  if name == 'target' and 'input' not in record:
    return record
  return {**record, name: record.get(name) or _MISSING}
