"""A workdir in a bucket: what is copied, when, and what comes back.

The bucket is a folder behind the same paths (etils.epath) that lead to gs://.
"""

import subprocess
import sys

import pytest
from etils import epath

from lbe.run import workdir as workdir_lib

import runs


def make(tmp_path, host):
  return workdir_lib.Workdir(
    'gs://bucket/run',
    here=tmp_path / host,
    bucket=epath.Path(tmp_path / 'bucket'),
  )


def below(folder):
  return {
    p.relative_to(folder).as_posix(): p.read_text()
    for p in folder.rglob('*')
    if p.is_file()
  }


def test_another_host_finds_what_was_sent(tmp_path):
  """Catches a file that is left behind, data that is copied, and old lines
  that stand where the bucket has newer ones."""
  a, b = make(tmp_path, 'a'), make(tmp_path, 'b')
  for name in (
    *('config.json', 'metrics.jsonl', 'tensorboard/events', 'hf/model'),
    *('data/tokens', 'compiled/step'),
  ):
    (a.here / name).parent.mkdir(exist_ok=True)
    (a.here / name).write_text(name)
  a.send(now=True)
  sent = {'config.json', 'metrics.jsonl', 'tensorboard/events', 'hf/model'}
  assert below(tmp_path / 'bucket') == {name: name for name in sent}
  (b.here / 'metrics.jsonl').write_text('an older run of this host')
  b.fetch()
  kept = ('config.json', 'metrics.jsonl')
  assert below(b.here) == {name: name for name in kept}
  (b.here / 'metrics.jsonl').write_text('more')
  b.send(now=True)
  assert (tmp_path / 'bucket' / 'metrics.jsonl').read_text() == 'more'


def test_only_what_changed_is_sent_and_only_now_and_then(tmp_path, monkeypatch):
  """Catches a copy with every log line, and one of what is there already."""
  a = make(tmp_path, 'a')
  (a.here / 'config.json').write_text('{}')
  a.send()
  assert not (tmp_path / 'bucket').exists()
  monkeypatch.setattr(workdir_lib, 'SECONDS', -1)
  a.send()
  a.send(now=True)
  (tmp_path / 'bucket' / 'config.json').write_text('touched')
  (a.here / 'data.txt').write_text('new')
  a.send(now=True)
  assert below(tmp_path / 'bucket') == {
    'config.json': 'touched',
    'data.txt': 'new',
  }


def test_a_new_run_finds_nothing_of_an_older_one(tmp_path):
  """Catches metrics of a run whose bucket was emptied."""
  a = make(tmp_path, 'a')
  for name in ('metrics.jsonl', 'data/tokens'):
    (a.here / name).parent.mkdir(exist_ok=True)
    (a.here / name).write_text(name)
  a.fetch()
  assert below(a.here) == {'data/tokens': 'data/tokens'}


def test_a_copy_that_fails_is_told_of_and_at_the_end_an_error(
  tmp_path, capsys, monkeypatch
):
  """Catches results that are thought to be in the bucket and are not."""
  (tmp_path / 'bucket').write_text('no folder')
  monkeypatch.setattr(workdir_lib, 'SECONDS', -1)
  a = make(tmp_path, 'a')
  (a.here / 'metrics.jsonl').write_text('{}')
  a.send()
  with pytest.raises(OSError, match='still lies in the first'):
    a.send(now=True)
  assert 'it is tried again' in capsys.readouterr().err


def test_buckets_that_checkpoints_cannot_go_to_are_refused():
  """Catches a run that fails at its first save."""
  with pytest.raises(ValueError, match='mount the bucket as a folder'):
    workdir_lib.open_workdir('s3://bucket/run')


_HOLDS = """
import sys, time
from lbe.run import workdir
workdir.open_workdir(sys.argv[1]).lock()
print('held', flush=True)
time.sleep(60)
"""


def test_a_folder_has_one_run_at_a_time(tmp_path):
  """Two runs that write each other's checkpoints and metrics."""
  with subprocess.Popen(
    [sys.executable, '-c', _HOLDS, tmp_path],
    cwd=runs.ROOT,
    env=runs.environment(),
    stdout=subprocess.PIPE,
  ) as other:
    assert other.stdout.readline() == b'held\n'
    mine = workdir_lib.open_workdir(str(tmp_path))
    since = (
      rf'in use by .*process {other.pid} on \S+ since \d{{4}}-\d\d-\d\d \d'
    )
    with pytest.raises(ValueError, match=since):
      mine.lock()
    mine.lock(tmp_path / 'evaluations' / 'a')
    other.kill()
  mine.lock()


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
  """A file; a folder below one; one that is read-only is alike."""
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='file is a file; a run keeps'):
    workdir_lib.open_workdir(str(tmp_path / 'file'))
  with pytest.raises(OSError, match='cannot be written to .Not a directory'):
    workdir_lib.open_workdir(str(tmp_path / 'file' / 'run'))
  with pytest.raises(OSError, match='--workdir=/proc/run cannot be written to'):
    workdir_lib.open_workdir('/proc/run')
