"""Prompts from a file, and what a model answers to them."""

from typing import NamedTuple

from lbe import prompting
from lbe.judging import files


class Prompt(NamedTuple):
  """A text to answer or to go on with; `references` are right answers."""

  id: str
  text: str
  language: str = ''
  references: tuple = ()


def read(path, *, limit=0, language=''):
  """The Prompts of a JSONL file, the first `limit` of them; 0 is all.

  A line is an object with `prompt`, `question`, or `instruction` (behind which
  an `input` stands on a line of its own), and if it likes `id`, `language`
  (else the given one) and `reference`, a text or a list of them. Raises
  ValueError with file and line for what is missing, empty or of another type,
  and for an id that stands there twice.
  """
  found, seen = [], {}
  for number, (record, where) in enumerate(files.records(path), 1):
    names = ('prompt', 'question', 'instruction')
    name = next((n for n in names if n in record), None)
    if name is None:
      raise ValueError(
        f'{where}: there is none of the fields {", ".join(names)} (fields: '
        f'{", ".join(map(str, record)) or "none"}).'
      )
    text = files.text(record, name, where)
    more = files.text(record, 'input', where, default='')
    if name == 'instruction' and more:
      text = f'{text}\n{more}'
    references = record.get('reference') or ()
    if isinstance(references, str):
      references = (references,)
    if not all(isinstance(r, str) for r in references):
      raise ValueError(
        f"{where}: the field 'reference' is a text or a list of texts, not "
        f'{references!r}.'
      )
    own = files.name(record, 'id', where) if 'id' in record else str(number)
    files.once(own, seen, where)
    found.append(
      Prompt(
        own,
        text,
        files.text(record, 'language', where, default='') or language,
        tuple(references),
      )
    )
  if not found:
    raise ValueError(f'{path} has no prompts; a line is one JSON object.')
  return found[: limit or None]


def respond(model, texts, *, template, max_new_tokens, stop=(), **sampling):
  """A decode.Response to each text by a core.Model.

  A template (see lbe.prompting) says where a response ends, beside `stop`. A
  prompt that is too long is cut from the left. Raises ValueError where the
  window has no room for a prompt.
  """
  if max_new_tokens >= model.max_len - 1:
    raise ValueError(
      f'max_new_tokens={max_new_tokens} leaves no room for a prompt in the '
      f"model's window of {model.max_len}; take fewer."
    )
  encode = prompting.Prompts(template, model.tokenizer)
  return model.generate(
    [encode.of_text(text) for text in texts],
    max_new_tokens=max_new_tokens,
    too_long='cut_left',
    eos_ids=encode.eos_ids,
    stop=(*stop, *encode.stop),
    **sampling,
  )


def read_responses(path, prompts):
  """The `response` of each prompt in a JSONL file with `id`, in their order.

  Raises ValueError where one is missing.
  """
  found, seen = {}, {}
  for record, where in files.records(path, ('id', 'response')):
    own = files.name(record, 'id', where)
    files.once(own, seen, where)
    found[own] = files.text(record, 'response', where, default='')
  missing = [p.id for p in prompts if p.id not in found]
  if missing:
    raise ValueError(
      f'{path} has no response to {len(missing)} of {len(prompts)} prompts, '
      f'the first with the id {missing[0]!r}.'
    )
  return [found[p.id] for p in prompts]
