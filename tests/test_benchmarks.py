"""Benchmarks: docs/speed.md says what was measured, newest first and only."""

import ast

import pytest

from benchmarks import tables

import conftest


def row(commit, **fields):
  machine = {'device': 'cpu', 'cpu': '2 x A'}
  fixed = {'benchmark': 'train_step', 'commit': commit, 'machine': machine}
  return {**fixed, 'ratio_median': 0.9, 'ratio_range': [0.8, 1.0], **fields}


def test_the_page_has_the_table_of_the_newest_rows():
  """Figures edited by hand, or measured again and not shown."""
  assert tables.table(tables.read()) in tables.PAGE.read_text()


def test_a_newer_row_of_a_setting_takes_the_place_of_an_older_one():
  told = tables.table(
    [
      row('aaa', shape='58m', setting='fast', peer='p'),
      row('bbb', shape='58m', setting='lean', peer='p', peak_ratio=0.688),
      row('ccc', shape='58m', setting='fast', peer='p'),
    ]
  )
  assert 'aaa' not in told
  assert (
    '| `train_step.py` | 58m, lean | 0.90 | 0.80 to 1.00 | p | 0.69 | 2 x A | '
    'bbb |' in told
  )
  nested = row('ddd', zh={'lists': {'median': 2, 'range': [1, 3]}})
  assert '| zh lists | 2.00 | 1.00 to 3.00 |' in tables.table([nested])


@pytest.mark.parametrize(
  'path',
  [
    path
    for path in sorted(conftest.ROOT.glob('benchmarks/*.py'))
    if "__name__ == '__main__'" in path.read_text()
  ],
  ids=lambda p: p.stem,
)
def test_every_benchmark_says_its_one_line(path):
  """A script that nobody knows how to start."""
  told = ast.get_docstring(ast.parse(path.read_text()))
  assert f'  PYTHONPATH=. python benchmarks/{path.name}' in told
