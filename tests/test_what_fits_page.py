"""docs/what-fits-where.md: its tables, from recorded plans and from sizes.

`python tests/test_what_fits_page.py` writes them anew.
"""

import json
import pathlib
import re

from lbe.mesh import hardware
from lbe.models import architecture
from lbe.models import weights
from lbe.text import tables

ROOT = pathlib.Path(__file__).parents[1]
PATH = ROOT / 'docs' / 'what-fits-where.md'
MODELS = (
  'llama32_1b',
  'llama32_3b',
  'llama2_7b',
  'llama31_8b',
  'llama2_13b',
  'llama2_70b',
)
# A name, the chip and how many of them.
MACHINES = {
  '1 H100': ('h100', 1),
  '1 H200': ('h200', 1),
  '8 H100': ('h100', 8),
  'v5e-8': ('v5e', 8),
  'v5p-16': ('v5p', 8),  # the sold name counts cores
  'v6e-8': ('v6e', 8),
  'v5p-128': ('v5p', 64),
}
WAYS = {'adamw': 16, 'adamw16': 14, 'adafactor': 8, 'lora': 2}
GIB = 2**30


def compiled():
  lines = (ROOT / 'benchmarks' / 'results.jsonl').read_text('utf-8')
  records = map(json.loads, lines.splitlines())
  newest = {x['case']: x for x in records if x['benchmark'] == 'plan'}
  rows = [
    [
      f'`{case}`',
      x['model'],
      x['topology'],
      f'{x["rows_of_a_chip"]} × {x["seq_len"]:,}',
      f'{x["peak_bytes"] / GIB:.1f}',
      f'{x["estimate_bytes"] / GIB:.1f}' if 'estimate_bytes' in x else '',
      f'{x["memory"] / GIB:.1f}',
    ]
    for case, x in newest.items()
  ]
  heads = ['case', 'model', 'chips', 'rows of a chip', 'peak GiB']
  return tables.markdown([*heads, 'estimate', 'memory'], 'llllrrr', rows)


def least():
  rows = []
  for model in MODELS:
    number = weights.num_params(architecture.PRESETS[model])
    for way, width in WAYS.items():
      cells = []
      for chip, count in MACHINES.values():
        known = hardware.CHIPS[chip]
        has = known.memory * (hardware._POOL if known.gpu else 1)
        needs = number * width / count
        cells.append(f'{needs / GIB:.1f}' if needs < has else '–')
      rows.append([model, f'{number / 1e9:.2f}', f'`{way}`', *cells])
  heads = ['model', '10⁹ parameters', 'way', *MACHINES]
  return tables.markdown(heads, 'lrl' + 'r' * len(MACHINES), rows)


def rendered(text):
  for name, table in (('compiled', compiled), ('least', least)):
    text, number = re.subn(
      f'(<!-- {name} -->\n).*?(<!-- -->)',
      lambda found, table=table: f'{found[1]}{table()}\n{found[2]}',
      text,
      flags=re.S,
    )
    assert number == 1, name
  return text


def test_the_page_has_what_was_recorded():
  """Catches a page that stays behind the newest plans, and typed figures."""
  text = PATH.read_text('utf-8')
  assert text == rendered(text)


if __name__ == '__main__':
  PATH.write_text(rendered(PATH.read_text('utf-8')), encoding='utf-8')
