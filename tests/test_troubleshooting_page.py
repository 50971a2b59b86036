"""docs/troubleshooting.md quotes messages that lbe really has."""

import ast
import re

import conftest


def text_of(node):
  """A string as it stands in the source; what differs is …, else None."""
  if isinstance(node, ast.Constant) and isinstance(node.value, str):
    return node.value
  if isinstance(node, ast.JoinedStr):
    return ''.join(text_of(x) or '…' for x in node.values)
  return None


def strings():
  for path in (conftest.ROOT / 'lbe').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      if (text := text_of(node)) is not None:
        yield ' '.join(text.split())


def test_what_the_page_quotes_stands_in_the_source():
  """Catches a message that was changed and is looked for in vain."""
  page = conftest.ROOT / 'docs' / 'troubleshooting.md'
  quoted = re.findall('^> (.+)$', page.read_text('utf-8'), re.M)
  assert len(quoted) > 25
  known = '\n'.join(strings())
  assert not [x for x in quoted if x not in known]
