"""docs/fields.md: every field of a config, from configs/common.py itself.

Defaults are those that the builders give, what a field means is the comment
beside it. `python tests/test_fields_page.py` writes the page anew.
"""

import ast
import inspect
import pathlib
import re

from ml_collections import config_dict

from configs import common
from lbe.text import tables

PATH = pathlib.Path(__file__).parents[1] / 'docs' / 'fields.md'
SOURCE = pathlib.Path(common.__file__).read_text(encoding='utf-8')
LINES = SOURCE.splitlines()
FUNCTIONS = {
  x.name: x for x in ast.parse(SOURCE).body if isinstance(x, ast.FunctionDef)
}
# What goes into a config beside base(), and where.
BUILDERS = {
  'config.data.sources.NAME': ['source', 'cleaning', 'benchmark'],
  'config.optim.groups.NAME': ['group'],
  'config.evals.NAME': [
    'perplexity',
    'in_context',
    'parallel',
    'pairs',
    'multiple_choice',
    'exam',
    'generation',
    'code_switching',
    'response_quality',
    'lm_eval',
  ],
  'config.evals.NAME.judge': ['endpoint', 'local_judge'],
}
HEAD = """# Fields of a config

Made from the comments of `configs/common.py` by
`python tests/test_fields_page.py`; a test holds it fresh. What configs are and
which there are is in [configs.md](configs.md). Each field is set in a file, or
on the command line as `--config.optim.peak_lr=1e-4`.
"""


def comment(line, *, end):
  """What stands behind a field's last line, and right above its first."""
  above = []
  for i in range(line - 2, -1, -1):
    if not (found := re.fullmatch(r'\s*# (.*)', LINES[i])):
      break
    above.insert(0, found[1])
  behind = re.search(r'[^#]\s+# (.*)', LINES[end - 1])
  return ' '.join([*above, *([behind[1]] if behind else [])])


def comments(call):
  """{field: comment} of a call that lists fields, helpers' ones with it."""
  result = {}
  name = call.func.id
  if name in FUNCTIONS and name != 'group':
    result |= of_function(name)
  for keyword in call.keywords:
    if keyword.arg is None:
      if isinstance(keyword.value, ast.Call):
        result |= comments(keyword.value)
      continue
    value = keyword.value
    nested = isinstance(value, ast.Call) and value.keywords
    end = keyword.lineno if nested else value.end_lineno
    # On its block's line a field has no comment of its own.
    own = keyword.lineno > call.lineno and comment(keyword.lineno, end=end)
    result[keyword.arg] = own or result.get(keyword.arg, '')
    if nested and getattr(value.func, 'id', '') == 'dict':
      for inner, text in comments(value).items():
        result[f'{keyword.arg}.{inner}'] = text
  return result


def of_function(name):
  """{field: comment} of what a builder of common.py gives."""
  result = {}
  for node in ast.walk(FUNCTIONS[name]):
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in (
      'dict',
      '_evaluator',
    ):
      result = comments(node) | result
  return result


def of_base():
  """{field: comment} of base(): its assignments, and the blocks in them."""
  result = {}
  for node in FUNCTIONS['base'].body:
    if not isinstance(node, ast.Assign):
      continue
    name = ast.unparse(node.targets[0]).partition('.')[2]
    value = node.value
    block = isinstance(value, ast.Call) and value.keywords
    end = node.lineno if block else value.end_lineno
    result[name] = comment(node.lineno, end=end)
    if block:
      for inner, text in comments(value).items():
        result[f'{name}.{inner}'] = text
  return result


def defaults(config, prefix=''):
  """{field: default as one writes it}; a block that is empty is a field."""
  result = {}
  for name in config:
    value = config.get_oneway_ref(name).get()
    if isinstance(value, config_dict.ConfigDict):
      result[f'{prefix}{name}'] = '' if len(value) else '{}'
      result |= defaults(value, f'{prefix}{name}.')
    else:
      result[f'{prefix}{name}'] = repr(value)
  return result


def table(values, texts, *, without=()):
  names = sorted(set(values) - set(without), key=list(texts).index)
  rows = [[f'`{x}`', values[x] and f'`{values[x]}`', texts[x]] for x in names]
  return tables.markdown(
    ['field', 'default', 'what it is'],
    'lll',
    rows,
  )


def rendered():
  base = defaults(common.base())
  groups = {x for x in base if x.startswith('optim.groups.')}
  parts = [HEAD, '## A run\n', table(base, of_base(), without=groups)]
  for place, names in BUILDERS.items():
    parts.append(f'\n## {place}')
    for name in names:
      function = getattr(common, name)
      about = inspect.getdoc(function).partition('\n\n')[0].replace('\n', ' ')
      inside = {'cleaning.', 'judge.'}
      values = {
        k: v
        for k, v in defaults(function()).items()
        if not any(k.startswith(x) for x in inside)
      }
      parts.append(f'\n### common.{name}\n\n{about}\n')
      parts.append(table(values, of_function(name), without={'evaluator'}))
  return '\n'.join(parts) + '\n'


def test_the_page_has_the_fields():
  """Catches a field or a comment that changed without its page."""
  assert PATH.read_text('utf-8') == rendered()


def test_fields_mean_what_their_comments_say():
  """Catches comments that are read for another field, or for none."""
  page = rendered()
  for row in (
    '`holdout` | `0.0` | Share of the documents that is held out, chosen by '
    'their hash.',
    '`budget.tokens` | `0` | ',
    '`lora.rank` | `8` | ',
    '`mesh.fsdp` | `-1` | ',
    '`temperature` | `0.0` | 0 is greedy',
  ):
    assert f'\n| {row} |\n' in page, row


if __name__ == '__main__':
  PATH.write_text(rendered(), encoding='utf-8')
