"""Prompts and responses: from a file, to a model's ids, and back to a file.

A line of a file of prompts is a JSON object with one of

  prompt, question                              a text
  messages, conversations, conversation         turns
  instruction [, input]                         a text, and what it is about
  input                                         a text

in the forms of lbe.chat.messages, so with `system` and `history` beside it; a
last response that is there already is not looked at. `id` may name it, else
the number of its line does.
"""

import pathlib
from typing import NamedTuple

from lbe.chat import jinja
from lbe.chat import messages
from lbe.chat import templates
from lbe.text import lines
from lbe.vocab import tokenizers

# Where a prompt is looked for, in this order; what is a text comes first.
FIELDS = ('prompt', 'question', *messages.TURNS, 'instruction', 'input')


# Where right answers are looked for, in this order.
_REFERENCES = ('reference', 'references', 'answers', 'answer')


class Prompt(NamedTuple):
  """A conversation to answer, or a text to go on with.

  `text` is all that is said in it, `record` and `number` its line; `references`
  are right answers.
  """

  id: str
  text: str
  talk: tuple[messages.Message, ...]
  record: dict
  where: str  # 'FILE:LINE'
  number: int
  language: str = ''
  references: tuple[str, ...] = ()


# ---------------------------------------------------------------------- files


def read(path, *, template: str, field: str = 'prompt') -> list[Prompt]:
  """The Prompts of a JSONL file; `field` is another name for `prompt`.

  Without a template an input stands on a line of its own. Raises ValueError
  with file and line for what is missing, empty or of another type, for what
  the template has no place for, and for an id that stands there twice.
  """
  prompts, seen = [], {}
  for record, where in lines.records(path):
    number = int(where.rpartition(':')[2])
    own = lines.name(record, 'id', where) if _has(record, 'id') else str(number)
    lines.once(own, seen, where)
    talk = _talk(record, field, where, template)
    _check_place(talk, template, where)
    text = '\n'.join(t for m in talk for t in (m.content, m.input) if t)
    prompts.append(Prompt(own, text, talk, record, where, number))
  if not prompts:
    raise ValueError(f'{path} has no prompts; a line is one JSON object.')
  return prompts


def read_scored(
  path, *, template: str, limit: int = 0, language: str = ''
) -> list[Prompt]:
  """The first `limit` Prompts, and what their responses are compared with.

  0 is all. A record may have `language`, else it is the given one, and
  `reference` or `answer`, a text or a list of them, or `answers` as SQuAD has
  them; where these are none, the right answer is ''. Raises ValueError as
  `read` does, for one of another type, and for an empty text.
  """
  prompts = []
  for p in read(path, template=template):
    if not p.text.strip():  # what goes on from BOS can be compared with nothing
      name = 'prompt' if 'prompt' in p.record else 'question'
      lines.text(p.record, name, p.where)
    references = _references(p.record, p.where)
    own = lines.text(p.record, 'language', p.where, default='')
    prompts.append(p._replace(language=own or language, references=references))
  return first(prompts, limit)


def first(prompts: list[Prompt], limit: int) -> list[Prompt]:
  """So many of the Prompts; 0 is all."""
  if limit < 0:
    raise ValueError(f'limit={limit}: it counts prompts; 0 is all.')
  return prompts[: limit or None]


def _references(record, where):
  """The right answers of a record; () where it does not say."""
  field = next((x for x in _REFERENCES if record.get(x) is not None), None)
  if field is None:
    return ()
  found = record[field]
  if isinstance(found, dict):
    found = found.get('text')
  if isinstance(found, list) and all(isinstance(x, dict) for x in found):
    found = [x.get('text') for x in found]
  if found == [] and field == 'answers':
    return ('',)
  if isinstance(found, str):
    found = [found] if found or field != 'reference' else []
  elif field == 'answer' and type(found) in (int, float):
    found = [str(found)]
  if not isinstance(found, list | tuple) or not all(
    isinstance(x, str) for x in found
  ):
    raise ValueError(
      f'{where}: the field {field!r} is a text or a list of texts, not '
      f'{record[field]!r}.'
    )
  return tuple(found)


def _talk(record, field, where, template):
  """The Messages of a record, the last one of the user."""
  known = (field, *FIELDS[1:])
  name = next((n for n in known if _has(record, n)), None)
  name = name or next((n for n in known if n in record), None)
  if name is None:
    raise ValueError(
      f'{where}: there is none of the fields {", ".join(known)} (fields: '
      f'{", ".join(map(str, record)) or "none"}).'
    )
  if name not in (field, 'question'):
    return tuple(messages.question(record, where=where))
  said = record[name]
  if isinstance(said, list):
    turns = {'messages': said, **{k: record[k] for k in record if k != name}}
    return tuple(messages.question(turns, where=where))
  # A text to go on with may be empty: then BOS is gone on with.
  if template or not isinstance(said, str):
    said = lines.text(record, name, where)
  return (*messages.before(record, where=where), messages.Message('user', said))


def _has(record, name):
  """Whether a field is there; null is not."""
  return record.get(name) is not None


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


def read_responses(
  path, wheres: dict[str, str], *, limit: int = 0
) -> list[str]:
  """The `response` to each of the first `limit` prompts, in their order.

  `wheres` has 'FILE:LINE' of all prompts by their ids, `path` a record with
  `id` and `response` in each line; null is ''. Raises ValueError where one is
  missing, of no prompt, or there twice.
  """
  responses, seen = {}, {}
  for record, where in lines.records(path, ('id', 'response')):
    own = lines.name(record, 'id', where)
    lines.once(own, seen, where)
    if own not in wheres:
      source = next(iter(wheres.values())).rpartition(':')[0]
      raise ValueError(
        f'{where}: the id {own!r} is none of the {len(wheres)} in {source}; '
        'leave the line out, or give the file that it belongs to.'
      )
    responses[own] = lines.text(record, 'response', where, default='')
  wanted = list(wheres)[: limit or None]
  missing = [own for own in wanted if own not in responses]
  if missing:
    raise ValueError(
      f'{path} has no response to {len(missing)} of {len(wanted)} prompts, '
      f'the first with the id {missing[0]!r} ({wheres[missing[0]]}); write '
      "'' where a model said nothing."
    )
  return [responses[own] for own in wanted]


# --------------------------------------------------------------------- models


def check_template(template: str):
  """Raises ValueError for a template that is not there."""
  if not template.endswith('.jinja'):
    if template:
      templates.find(template)
  elif not pathlib.Path(template).is_file():
    raise ValueError(f'template={template!r}: there is no such file.')


class Encoder:
  """Prompts in a template; '' is plain text, which the model goes on from.

  `template` is a name of lbe.chat.templates or the path of a .jinja file. What
  the template writes behind a response ends one: `eos_ids` are the special
  tokens, the tokenizer's EOS among them, `stop` the texts.
  """

  def __init__(
    self, template: str, tokenizer, *, system: str = '', bos: bool | None = None
  ):
    """Raises ValueError for an unknown template, or one without the tokens.

    `bos` is for text without a template; None is the tokenizer's habit.
    """
    self._bos = bos
    self._tokenizer, self._encode = tokenizer, None
    self._head = [messages.Message('system', system)] if system else []
    self.one_turn, self.stop = not template, ()
    ends = {tokenizer.eos_id}
    if template:
      check_template(template)
      rules = jinja.load(template, tokenizer)
      self.one_turn = rules == template and templates.find(template).one_turn
      self._encode = templates.Encoder(rules, tokenizer, loss='all')
      token, text = self._encode.end_of_response()
      ends.add(token)
      self.stop = (text,) if text else ()
    elif system:
      raise ValueError('a system message needs a template; name one.')
    self.eos_ids = tuple(sorted(ends - {None}))

  def ends(self, stop=()) -> dict:
    """What ends a response, the texts `stop` as well: for decode.respond."""
    return {'eos_ids': self.eos_ids, 'stop': (*stop, *self.stop)}

  def of_text(self, text: str) -> list[int]:
    """The ids of a text to go on from, or of a question to answer."""
    if self._encode:
      return self.of_turns([messages.Message('user', text)])
    ids = tokenizers.prompt_ids(self._tokenizer, text, bos=self._bos)
    ids = ids or tokenizers.start_ids(self._tokenizer, True)
    if not ids:
      raise ValueError('an empty prompt needs a tokenizer with BOS.')
    return ids

  def of_turns(self, turns) -> list[int]:
    """The ids of Messages, the last of them the user's.

    Without a template only that one is seen.
    """
    if not self._encode:
      last = turns[-1]
      return self.of_text('\n'.join(filter(None, (last.content, last.input))))
    head = [] if turns[0].role == 'system' else self._head
    return self._encode([*head, *turns])[0]

  def of_prompts(self, prompts: list[Prompt]) -> list[list[int]]:
    """The ids of each Prompt; ValueError with its file and line."""
    encoded = []
    for p in prompts:
      try:
        encoded.append(self.of_turns(p.talk))
      except ValueError as error:
        raise ValueError(f'{p.where}: {error}') from error
    return encoded


def respond(
  model,
  prompts: list[Prompt],
  *,
  template: str,
  max_new_tokens: int,
  stop=(),
  **sampling,
):
  """A decode.Response to each Prompt by a inference.model.Model.

  A template says where a response ends, beside `stop`. A prompt that is too
  long is cut from the left. Raises ValueError where the window has no room for
  a prompt.
  """
  if max_new_tokens >= model.max_len - 1:
    raise ValueError(
      f'max_new_tokens={max_new_tokens} leaves no room for a prompt in the '
      f"model's window of {model.max_len}; take fewer."
    )
  encoder = Encoder(template, model.tokenizer)
  return model.generate(
    encoder.of_prompts(prompts),
    max_new_tokens=max_new_tokens,
    too_long='cut_left',
    **encoder.ends(stop),
    **sampling,
  )
