"""Prompts from a file, and what a model answers to them."""

from typing import NamedTuple

from lbe.chat import messages
from lbe.chat import prompting
from lbe.chat import templates
from lbe.text import lines

_FIELDS = ('prompt', 'question', 'instruction', 'messages')


class Prompt(NamedTuple):
  """A conversation to answer, or a text to go on with.

  `text` is all that is said in it; `references` are right answers.
  """

  id: str
  text: str
  talk: tuple
  language: str = ''
  references: tuple = ()


def read(path, *, template, limit=0, language=''):
  """The Prompts of a JSONL file, the first `limit` of them; 0 is all.

  A line is an object with `prompt`, `question`, `instruction` (and perhaps
  input, system and history) or `messages` that end with the user, and if it
  likes `id`, `language` (else the given one) and `reference`, a text or a list
  of them. An input stands where the template has it, and without a template
  on a line of its own. Raises ValueError with file and line for what is
  missing, empty or of another type, for what the template has no place for,
  and for an id that stands there twice.
  """
  found, seen = [], {}
  for number, (record, where) in enumerate(lines.records(path), 1):
    talk = _talk(record, where)
    text = '\n'.join(t for m in talk for t in (m.content, m.input) if t)
    _check_place(talk, template, where)
    references = record.get('reference') or ()
    if isinstance(references, str):
      references = (references,)
    if not isinstance(references, list | tuple) or not all(
      isinstance(r, str) for r in references
    ):
      raise ValueError(
        f"{where}: the field 'reference' is a text or a list of texts, not "
        f'{references!r}.'
      )
    own = lines.name(record, 'id', where) if 'id' in record else str(number)
    lines.once(own, seen, where)
    found.append(
      Prompt(
        own,
        text,
        talk,
        lines.text(record, 'language', where, default='') or language,
        tuple(references),
      )
    )
  if not found:
    raise ValueError(f'{path} has no prompts; a line is one JSON object.')
  return found[: limit or None]


def _talk(record, where):
  """The Messages of a record, the last one of the user."""
  name = next((n for n in _FIELDS if n in record), None)
  if name is None:
    raise ValueError(
      f'{where}: there is none of the fields {", ".join(_FIELDS)} (fields: '
      f'{", ".join(map(str, record)) or "none"}).'
    )
  if name in ('prompt', 'question'):
    return (messages.Message('user', lines.text(record, name, where)),)
  # Read like instruction data, whose records have the answer as well.
  if name == 'instruction':
    answered = {**record, 'output': '?'}
  else:
    turns = record['messages']
    if not isinstance(turns, list):
      raise ValueError(
        f"{where}: the field 'messages' is {type(turns).__name__}, not list."
      )
    answered = {'messages': [*turns, {'role': 'assistant', 'content': '?'}]}
  return tuple(messages.conversation(answered, where=where)[:-1])


def _check_place(talk, template, where):
  if not template and len(talk) > 1:
    raise ValueError(
      f'{where}: a conversation of {len(talk)} messages needs a template, and '
      "template=''; take one as chatml."
    )
  if template and not template.endswith('.jinja'):
    try:
      templates.spans(template, talk)
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from error


def encode(prompts, tokenizer, *, template):
  """The ids that a model goes on from, of each Prompt.

  `template` is that which they were read with.
  """
  encoder = prompting.Prompts(template, tokenizer)
  return [
    encoder.of_turns(p.talk) if template else encoder.of_text(p.text)
    for p in prompts
  ]


def respond(model, prompts, *, template, max_new_tokens, stop=(), **sampling):
  """A decode.Response to each Prompt by a inference.model.Model.

  A template (see lbe.chat.prompting) says where a response ends, beside `stop`.
  A prompt that is too long is cut from the left. Raises ValueError where the
  window has no room for a prompt.
  """
  if max_new_tokens >= model.max_len - 1:
    raise ValueError(
      f'max_new_tokens={max_new_tokens} leaves no room for a prompt in the '
      f"model's window of {model.max_len}; take fewer."
    )
  encoder = prompting.Prompts(template, model.tokenizer)
  return model.generate(
    encode(prompts, model.tokenizer, template=template),
    max_new_tokens=max_new_tokens,
    too_long='cut_left',
    eos_ids=encoder.eos_ids,
    stop=(*stop, *encoder.stop),
    **sampling,
  )


def read_responses(path, prompts):
  """The `response` of each prompt in a JSONL file with `id`, in their order.

  Raises ValueError where one is missing.
  """
  found, seen = {}, {}
  for record, where in lines.records(path, ('id', 'response')):
    own = lines.name(record, 'id', where)
    lines.once(own, seen, where)
    found[own] = lines.text(record, 'response', where, default='')
  missing = [p.id for p in prompts if p.id not in found]
  if missing:
    raise ValueError(
      f'{path} has no response to {len(missing)} of {len(prompts)} prompts, '
      f'the first with the id {missing[0]!r}.'
    )
  return [found[p.id] for p in prompts]
