"""The tables of docs/speed.md: newest rows of results.jsonl, ours and a peer.

  PYTHONPATH=. python benchmarks/tables.py            # prints it
  PYTHONPATH=. python benchmarks/tables.py --write    # into docs/speed.md

Of each benchmark, setting and processor the newest row stands there. A row has
a line for each ratio in it: `ratio_median` with `ratio_range`, or any
dictionary with `median` and `range`. Rows without a ratio stay in
results.jsonl. A table of its own says how costs grow, by the newest row of
growth.py.
"""

import json
import pathlib
import re

from absl import app
from absl import flags

_WRITE = flags.DEFINE_bool('write', False, 'Put it into docs/speed.md.')

_HERE = pathlib.Path(__file__).resolve().parent
PAGE = _HERE.parent / 'docs' / 'speed.md'
# What tells the settings of a benchmark apart, where a row has it.
_SETTING = (
  'shape',
  'setting',
  'implementation',
  'prompts',
  'dtype',
  'weight_dtype',
  'peer',
)


def _ratios(row, where=''):
  """(what is compared, median, range) of everything in a row."""
  if 'ratio_median' in row:
    yield where, row['ratio_median'], row['ratio_range']
  if 'median' in row and 'range' in row:
    yield where, row['median'], row['range']
  for name, value in row.items():
    if isinstance(value, dict):
      yield from _ratios(value, f'{where} {name}'.strip())


def _device(row):
  """The chip, or the processor."""
  machine = row['machine']
  return machine['cpu'] if machine['device'] == 'cpu' else machine['device']


def table(rows):
  """The rows as Markdown, in the order of their benchmarks' names."""
  newest = {}
  for row in rows:
    setting = tuple(str(row[name]) for name in _SETTING if name in row)
    # Whichever of its caches was the fastest, it is one peer.
    setting = tuple(re.sub(' (default|static) cache.*', '', x) for x in setting)
    newest[row['benchmark'], setting, _device(row)] = row
  lines = [
    '| benchmark | setting | ratio | range | peer | peak | machine | commit |',
    '| --- | --- | ---: | --- | --- | ---: | --- | --- |',
  ]
  for (name, _, device), row in sorted(newest.items()):
    setting = ', '.join(str(row[x]) for x in _SETTING[:-1] if x in row)
    peak = f'{row["peak_ratio"]:.2f}' if 'peak_ratio' in row else ''
    for what, median, (low, high) in _ratios(row):
      cells = (
        f'`{name}.py`',
        ', '.join(x.replace('_', ' ') for x in (setting, what) if x),
        f'{median:.2f}',
        f'{low:.2f} to {high:.2f}',
        row.get('peer', ''),
        peak,
        device,
        row['commit'],
      )
      lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines) + '\n'


def growth(rows):
  """How costs grow: of each size and cost, what was measured and theory."""
  row = [x for x in rows if x['benchmark'] == 'growth' and 'theory' in x][-1]
  lines = [
    '| size | from | to | cost | at first | at last | exponent | theory |',
    '| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |',
  ]
  for name, costs in row['costs'].items():
    sizes = row['sizes'][name]
    for cost, values in costs.items():
      theory = row['theory'][name].get(cost)
      cells = (
        *(name.replace('_', ' '), sizes[0], sizes[-1], cost.replace('_', ' ')),
        *(values[0], values[-1], f'{row["exponents"][name][cost]:.2f}'),
        '' if theory is None else f'{theory:.2f}',
      )
      lines.append(f'| {" | ".join(map(str, cells))} |')
  return '\n'.join(lines) + '\n'


def read():
  lines = (_HERE / 'results.jsonl').read_text(encoding='utf-8').splitlines()
  return [json.loads(line) for line in lines]


def write():
  """Puts the tables between their marks in docs/speed.md."""
  text, rows = PAGE.read_text(encoding='utf-8'), read()
  for name, made in ('benchmarks', table(rows)), ('growth', growth(rows)):
    begin, end = f'<!-- {name} -->\n', f'<!-- {name} end -->\n'
    before, rest = text.split(begin)
    _, after = rest.split(end)
    text = before + begin + made + end + after
  PAGE.write_text(text, encoding='utf-8')


def main(argv):
  del argv
  if _WRITE.value:
    write()
  else:
    print(table(read()), growth(read()), sep='\n')


if __name__ == '__main__':
  app.run(main)
