"""Hashes; rows."""

import json

from lbe.evals import core
from lbe.evals import schedule


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
