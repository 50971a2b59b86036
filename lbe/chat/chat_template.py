"""A named template as the `chat_template` of a tokenizer_config.json."""

import json
import re
from collections.abc import Iterable

from lbe.chat import templates

_PARTS = re.compile(r'(\{[a-z]+\}|</?s>)')
_VARIABLES = {'<s>': 'bos_token', '</s>': 'eos_token'}


def _quoted(text):
  return json.dumps(text, ensure_ascii=False)


def written(
  template: templates.Template, *, spaced: Iterable[str] | None = None
) -> str:
  """Jinja that writes a conversation as the template does.

  Text behind BOS and EOS begins anew, with the space that a tokenizer puts
  there; where it puts none behind special tokens, `spaced` are these, and the
  space is written.

  The user's text goes up to where the response begins, also without
  add_generation_prompt. A system message that has no place is an error.
  """

  def is_spaced(literal):
    control = ('<s>', '</s>', *(spaced or ()))
    return literal and spaced is not None and not literal.startswith(control)

  def put(literal, then='', **texts):
    if template.strip:
      texts = {name: f'{text} | trim' for name, text in texts.items()}
    written = [x for x in _PARTS.split(literal) if x]
    parts = [
      _VARIABLES.get(x) or texts.get(x[1:-1]) or _quoted(x) for x in written
    ]
    following = [*written, then][1:]
    for i, (one, more) in enumerate(zip(written, following, strict=True)):
      if one in _VARIABLES and is_spaced(more):
        parts[i] += " + ' '"
    return ''.join(f'{{{{ {part} }}}}' for part in parts)

  user = put(template.user, user="m['content']")
  if template.first_user:
    first = put(template.first_user, user="m['content']", system='system')
    user = (
      f'{{% if loop.first and system %}}{first}{{% else %}}{user}{{% endif %}}'
    )
  if template.response.endswith('</s>') and is_spaced(template.user):
    user = f"{{% if not loop.first %}}{{{{ ' ' }}}}{{% endif %}}{user}"
  response = put(template.response, response="m['content']")
  system = ''
  if template.system:
    text = put(template.system, system='system')
    system = f'{{% if system %}}{text}{{% endif %}}'
  elif not template.first_user:
    system = (
      "{% if system %}{{ raise_exception('this template has no place for a "
      "system message') }}{% endif %}"
    )
  return ''.join(
    [
      "{% if messages[0]['role'] == 'system' %}",
      "{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}",
      f'{{% else %}}{{% set system = {_quoted(template.default_system)} %}}',
      '{% set turns = messages %}{% endif %}',
      put(template.begin, then=template.system or template.user),
      system,
      '{% for m in turns %}',
      f"{{% if m['role'] == 'assistant' %}}{response}{put(template.after)}",
      f'{{% else %}}{user}{{% endif %}}',
      '{% endfor %}',
    ]
  )
