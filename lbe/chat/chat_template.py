"""A named template as the `chat_template` of a tokenizer_config.json."""

import json
import re

from lbe.chat import templates

_PARTS = re.compile(r'(\{[a-z]+\}|</?s>)')
_VARIABLES = {'<s>': 'bos_token', '</s>': 'eos_token'}


def _quoted(text):
  return json.dumps(text, ensure_ascii=False)


def written(template: templates.Template) -> str:
  """Jinja that writes a conversation as the template does.

  The user's text goes up to where the response begins, also without
  add_generation_prompt. A system message that has no place is an error.
  """

  def put(literal, **texts):
    if template.strip:
      texts = {name: f'{text} | trim' for name, text in texts.items()}
    parts = [
      _VARIABLES.get(x) or texts.get(x[1:-1]) or _quoted(x)
      for x in _PARTS.split(literal)
      if x
    ]
    return ''.join(f'{{{{ {part} }}}}' for part in parts)

  user = put(template.user, user="m['content']")
  if template.first_user:
    first = put(template.first_user, user="m['content']", system='system')
    user = (
      f'{{% if loop.first and system %}}{first}{{% else %}}{user}{{% endif %}}'
    )
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
      put(template.begin),
      system,
      '{% for m in turns %}',
      f"{{% if m['role'] == 'assistant' %}}{response}{put(template.after)}",
      f'{{% else %}}{user}{{% endif %}}',
      '{% endfor %}',
    ]
  )
