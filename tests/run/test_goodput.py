"""Where the time of a run goes, over resumes and failures."""

import os
import time

import pytest

from lbe.run import goodput
from lbe.text import lines


def test_seconds_of_phases_are_those_of_all_processes():
  """A resumed run that cost what its last process did."""
  phases = goodput.Phases()
  phases.lap('start')
  first = phases.row()
  assert first['seconds/start'] > 0 == first['seconds/train']
  phases.goes_on_from({'step': 3, 'seconds/start': 5.0, 'seconds/train': 7.0})
  phases.lap('train')
  row = phases.row()
  assert row['seconds/start'] == first['seconds/start'] + 5
  assert 7 < row['seconds/train'] < 8
  assert row.keys() == first.keys()


def test_installing_is_no_part_of_a_run(monkeypatch):
  """The launcher's process becomes the run's: its first took 20 min."""
  monkeypatch.setenv('LBE_ENTERED', str(time.time()))
  phases = goodput.Phases()
  phases.lap('start')
  assert phases.row()['seconds/start'] < 1


def test_what_a_failed_process_did_behind_its_checkpoint_is_redone(
  tmp_path,
):
  """Hours that a resumed run seems never to have spent."""
  path = tmp_path / 'metrics.jsonl'
  rows = [
    {'step': 10, 'seconds/start': 4.0, 'seconds/train': 10.0},
    {'step': 15, 'seconds/start': 4.0, 'seconds/train': 16.0},
    {'step': 19, 'seconds/start': 4.0, 'seconds/train': 21.0},
  ]
  lines.write(path, rows)
  with open(path, 'a') as f:
    f.write('{"step": 20, "seco')
  phases = goodput.Phases()
  now = phases._start
  os.utime(path, (now - 30, now - 30))
  phases.look(path)
  phases.goes_on_from(rows[0])
  row = phases.row()
  assert row['seconds/train'] == 10
  assert row['seconds/redone'] == pytest.approx(11.0)
  assert row['seconds/waited'] == pytest.approx(30.0, abs=0.1)
  told = phases.told()
  assert told.startswith('goodput: 18.2% of the time')
  assert '| training | 0.0 | 10.0 | 18.2% |' in told
  # The next one fails as well, before its first checkpoint.
  lines.write(path, [rows[0], {**row, 'step': 12}])
  again = goodput.Phases()
  again.look(path)
  os.utime(path, (now, now))
  again.goes_on_from(rows[0])
  assert again.row()['seconds/redone'] == pytest.approx(11.0)
  assert again.row()['seconds/waited'] == pytest.approx(30.0, abs=5)


def test_a_run_without_a_failure_has_nothing_redone(tmp_path):
  """An end on purpose that counts as a failure."""
  path = tmp_path / 'metrics.jsonl'
  row = {'step': 10, 'seconds/start': 4.0, 'seconds/train': 10.0}
  lines.write(path, [row])
  phases = goodput.Phases()
  phases.look(path)
  phases.goes_on_from(row)
  assert phases.row()['seconds/redone'] == 0
