"""docs/api.md, from the docstrings of what a notebook meets.

`python tests/test_api_page.py` writes it anew.
"""

import inspect
import pathlib

import lbe
from lbe.inference import loaded
from lbe.models import llama

PATH = pathlib.Path(__file__).parents[1] / 'docs' / 'api.md'
HEAD = """# Python

What `import lbe` offers. Made from docstrings by
`python tests/test_api_page.py`; a test holds it fresh. Examples are in
[generate.md](generate.md) and in the notebook [lbe.ipynb](lbe.ipynb); all else
in lbe is of the programs, and may change with them.
"""
EMPTY = inspect.Signature.empty
ENTRIES = (
  ('lbe.load', lbe.load),
  ('Loaded', loaded.Loaded),
  ('Loaded.generate', loaded.Loaded.generate),
  ('Loaded.score', loaded.Loaded.score),
  ('Llama', llama.Llama),
  ('Llama.__call__', llama.Llama.__call__),
  ('Llama.load', llama.Llama.load),
  ('Llama.from_params', llama.Llama.from_params),
)
TOKENIZER = """
## Loaded.tokenizer

`encode(text)` gives ids without BOS and EOS, `decode(ids)` the text;
`vocab_size`, `bos_id`, `eos_id` are numbers, `piece(id)` is a token's text. A
control string in a text is text.
"""


def rendered():
  parts = [HEAD]
  for name, it in ENTRIES:
    signature = ''
    if not inspect.isclass(it):
      whole = inspect.signature(it)
      bare = [
        x.replace(annotation=x.empty)
        for x in whole.parameters.values()
        if x.name != 'self'
      ]
      signature = str(whole.replace(parameters=bare, return_annotation=EMPTY))
    parts.append(f'\n## {name}\n')
    if signature:
      parts.append(f'```python\n{name}{signature}\n```\n')
    parts.append(inspect.getdoc(it))
  return '\n'.join(parts) + '\n' + TOKENIZER


def test_the_page_has_the_docstrings():
  """Catches a page that stays behind the code."""
  assert PATH.read_text('utf-8') == rendered()


if __name__ == '__main__':
  PATH.write_text(rendered(), encoding='utf-8')
