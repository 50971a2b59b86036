"""A tokenizer's own chat_template, rendered in a sandbox."""

import functools
import json
import re

from lbe.chat import bounded
from lbe.chat import templates
from lbe.text import files

# Unicode's noncharacters: no text has them. They mark where a response begins
# and ends, and a control string that stands in a message.
_BEGIN, _END, _QUOTE = '\ufdd0', '\ufdd1', '\ufdd2'


def load(template: str, tokenizer) -> 'str | ChatTemplate':
  """The ChatTemplate of a .jinja file; a name of templates as it is."""
  if not template.endswith('.jinja'):
    return template
  return ChatTemplate(files.text(template), tokenizer)


class ChatTemplate:
  """A tokenizer's own Jinja `chat_template`, as transformers renders it.

  Responses are what stands in {% generation %}, and a special token right
  behind that. There is no strftime_now: text must not depend on the day.
  """

  def __init__(self, source, tokenizer):
    """Raises ValueError where the source is no template."""
    self._template = _compile(source)
    self.has_marks = bool(re.search(r'{%[-+]?\s*generation\b', source))
    # Longest first, as a tokenizer cuts them out.
    self._specials = sorted(tokenizer.specials, key=len, reverse=True)
    self._special = re.compile(
      '|'.join(map(re.escape, self._specials)) or r'(?!)'
    )
    ids = {
      r: getattr(tokenizer, f'{r}_id') for r in ('bos', 'eos', 'unk', 'pad')
    }
    self._names = {
      f'{role}_token': '' if token is None else tokenizer.piece(token)
      for role, token in ids.items()
    }

  def spans(self, conversation):
    """As templates.spans; raises ValueError for what is refused."""
    spans, count, response, closing = [], 0, 0, False
    written = self._render(conversation)
    for piece in re.split(
      f'({_BEGIN}|{_END}|{self._special.pattern})', written
    ):
      if piece == _BEGIN:
        count += 1
        response, closing = count, False
      elif piece == _END:
        # An end of turn may stand in the marks, or right behind them.
        response, closing = 0, bool(spans) and not spans[-1].special
      elif piece:
        special = bool(self._special.fullmatch(piece))
        number = count if closing and special else response
        spans.append(templates.Span(self._unquoted(piece), number, special))
        closing = False
    asked = sum(m.role == 'assistant' for m in conversation)
    full = len({span.response for span in spans} - {0})
    if self.has_marks and not full == count == asked:
      raise ValueError(
        f'the chat_template marks {count} responses with {{% generation %}}, '
        f'{full} of them not empty, where the conversation has {asked}; mend '
        'the template.'
      )
    self._check_kept(conversation, written)
    return spans

  def _check_kept(self, conversation, written):
    """Raises ValueError for a message that the template leaves out."""
    start = 0
    for i, message in enumerate(conversation):
      # A template may strip a text, and cut what a model thinks from its front.
      last = self._quoted(message.content.strip().rpartition('\n')[2])
      found = written.find(last, start)
      if found >= 0:
        start = found + len(last)
        continue
      other = message._replace(content=f'{message.content} - and more')
      if self._render([*conversation[:i], other, *conversation[i + 1 :]]) == (
        written
      ):
        raise ValueError(
          f'the chat_template leaves out message {i + 1} of '
          f'{len(conversation)}, of the {message.role} '
          f'({message.content!r:.60}); mend the template, or leave such '
          'conversations out.'
        )

  def _quoted(self, text):
    """A message's text, whose control strings will not be taken for such."""
    clash = re.search(f'[{_BEGIN}{_END}{_QUOTE}]', text)
    if clash:
      raise ValueError(
        f'a message has the noncharacter U+{ord(clash[0]):X}, which no text '
        'should have; leave it out.'
      )

    def quote(match):
      return f'{_QUOTE}{self._specials.index(match[0])}{_QUOTE}'

    return self._special.sub(quote, text)

  def _unquoted(self, text):
    def unquote(match):
      return self._specials[int(match[1])]

    return re.sub(f'{_QUOTE}([0-9]+){_QUOTE}', unquote, text)

  def _render(self, conversation):
    turns = [
      {
        'role': m.role,
        'content': self._quoted('\n'.join(filter(None, (m.content, m.input)))),
      }
      for m in conversation
    ]
    try:
      with bounded.bounds():
        return self._template.render(
          messages=turns,
          tools=None,
          documents=None,
          add_generation_prompt=conversation[-1].role == 'user',
          **self._names,
        )
    except Exception as error:  # whatever its expressions come to
      said = str(error) or type(error).__name__
      raise ValueError(
        f'the chat_template refuses the conversation: {said}'
      ) from error


def _compile(source):
  try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
  except ImportError as error:
    raise ImportError(
      "a chat_template needs jinja2; pip install 'lbe[chat]' (jinja2)."
    ) from error

  class Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %}: its text, between marks."""

    tags = {'generation'}

    def parse(self, parser):
      line = next(parser.stream).lineno
      body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
      call = self.call_method('_mark')
      return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _mark(self, caller):
      return f'{_BEGIN}{caller()}{_END}'

  def refuse(message):
    raise jinja2.TemplateError(message)

  class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(['*', '**'])

    def call_binop(self, context, operator, left, right):
      return bounded.product(operator, left, right)

  environment = Environment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[Generation, jinja2.ext.loopcontrols],
  )
  environment.filters['tojson'] = functools.partial(
    json.dumps, ensure_ascii=False
  )
  environment.globals['raise_exception'] = refuse
  try:
    with bounded.bounds():
      return environment.from_string(source)
  except Exception as error:  # Python reads it, too: thousands of brackets
    said = str(error) or type(error).__name__
    line = getattr(error, 'lineno', None)
    raise ValueError(
      f'the chat_template cannot be read: {said}'
      + (f' (line {line})' if line else '')
    ) from error
