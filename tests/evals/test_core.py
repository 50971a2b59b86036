"""Intervals; hashes; rows."""

import json

import numpy as np

from lbe.evals import core
from lbe.evals import schedule


def test_the_bootstrap_interval_covers_as_often_as_it_says():
  """95% of intervals hold the true ratio; documents are drawn whole."""
  rng = np.random.default_rng(1)
  covered = 0
  for _ in range(100):
    sizes = rng.integers(50, 150, 80)
    nats = sizes * rng.normal(2.0, 0.5, 80)
    low, high = core.bootstrap(nats, sizes)
    covered += low < 2.0 < high
  assert 88 <= covered <= 100
  low, high = core.bootstrap([1, 1, 1], [1, 1, 1], scale=3.0)
  assert (low, high) == (3.0, 3.0)


def test_the_data_hash_knows_borders():
  """The same characters cut otherwise are other data."""
  assert core.data_hash(['ab', 'c']) != core.data_hash(['a', 'bc'])
  assert core.data_hash(['ab', 'c']) == core.data_hash(['ab', 'c'])


def test_rows_are_appended(tmp_path):
  result = core.Result([{'name': '分', 'value': 1.5}], {})
  schedule.record(tmp_path, result)
  schedule.record(tmp_path, core.Result([{'name': 'b', 'value': 2}], {}))
  lines = (tmp_path / 'results.jsonl').read_text().splitlines()
  assert [json.loads(line)['name'] for line in lines] == ['分', 'b']
