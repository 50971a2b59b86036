"""Behind an alarm a run begins again by itself, but not for ever."""

import subprocess
import sys

from lbe.run import rollback

import runs

# Each life of the process saves `SAVES` of them and has an alarm.
_LIVES = """
import pathlib, sys
from lbe.run import rollback
workdir, saves, kind = pathlib.Path(sys.argv[1]), *sys.argv[2:]
kept = workdir / 'lives'
life = len(kept.read_text()) if kept.exists() else 0
kept.write_text('x' * (life + 1))
if life < len(saves) and saves[life] == 's':
  (workdir / 'checkpoints' / str(life + 1) / 'meta').mkdir(parents=True)
try:
  with rollback.on_alarm(str(workdir), lambda: print('closed')):
    raise rollback.Alarm('A bit flipped.', passes=kind == 'passes')
except ValueError as error:
  print('error:', error)
"""


def lives(tmp_path, saves, kind='passes'):
  """What the lives of the process print."""
  script = tmp_path / 'lives.py'
  script.write_text(_LIVES)
  return subprocess.run(
    [sys.executable, script, tmp_path, saves, kind],
    env=runs.environment() | {'PYTHONPATH': str(runs.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=True,
    timeout=100,
  ).stdout


def test_it_goes_back_twice_and_then_ends(tmp_path):
  """A fault that does not pass would keep the machine busy for ever."""
  told = lives(tmp_path, 's')
  assert (
    told.count('ALARM: A bit flipped. No checkpoint in use has it; the') == 2
  )
  assert 'goes back to step 1 by itself (2 of at most 2 times' in told
  assert told.count('closed') == 3
  assert 'error: A bit flipped. That is alarm 3 in a row behind step 1' in told
  assert 'the same command goes on from there.' in told


def test_a_checkpoint_between_two_alarms_begins_the_count_anew(tmp_path):
  """A run of weeks has more than two."""
  told = lives(tmp_path, '-ss')
  for where in ('where it began', 'step 2', 'step 3'):
    assert f'back to {where} by itself (1 of at most 2' in told
  assert len((tmp_path / 'lives').read_text()) == 5


def test_what_does_not_pass_ends_it_at_once(tmp_path):
  """Two rounds more that end in the same."""
  told = lives(tmp_path, 's', 'stays')
  assert 'ALARM' not in told
  assert 'error: A bit flipped. No checkpoint in use has it. With that' in told
  assert 'the same command goes on from step 1.' in told
  assert (tmp_path / 'lives').read_text() == 'x'


def test_in_a_bucket_whoever_started_it_starts_it_again(tmp_path):
  """A checkpoint that may be bad cannot be moved there."""
  alarm = rollback.set_aside('gs://no/where', 7, rollback.Alarm('A bit.'))
  assert str(alarm) == 'A bit. Checkpoint 7 may hold it: delete that one.'
