"""Processes that tokenize: what they import, raise, and leave when killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lbe.data import build
from lbe.data import shards
from lbe.data import sources
from lbe.data import workers
from lbe.vocab import tokenizers


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  monkeypatch.setattr(shards, 'SHARD_BYTES', 2000)


def write(folder, records):
  path = folder / 'zh.jsonl'
  path.write_text('\n'.join(map(json.dumps, records)))
  return str(path)


def prepare(folder, records, **fields):
  how = {k: fields.pop(k) for k in ('seq_len', 'eos') if k in fields}
  return build.prepare(
    sources.Source(name='zh', path=write(folder, records), **fields),
    tokenizers.Bytes(),
    cache_dir=folder / 'cache',
    num_workers=2,
    progress=False,
    **how,
  )


TEXTS = [{'text': f'{i} ' + 'ab ' * 300} for i in range(20)]


_PROGRAM = """
import sys
print('imported', __name__)
from lbe.data import build, shards, sources
from lbe.vocab import tokenizers
if __name__ == '__main__':
  shards.SHARD_BYTES = 2000
  build.prepare(
    sources.Source('zh', sys.argv[1]), tokenizers.Bytes(),
    cache_dir=sys.argv[2], num_workers=2, progress=False)
"""


def test_a_worker_does_not_import_the_program(tmp_path):
  """Each took a second and more for jax, which it never used."""
  program = tmp_path / 'program.py'
  program.write_text(_PROGRAM)
  arguments = (write(tmp_path, TEXTS), tmp_path / 'cache')
  done = subprocess.run(
    [sys.executable, program, *arguments],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split('\n') == ['imported __main__', '']
  served = subprocess.run(
    [sys.executable, '-c', 'import sys; import lbe.data.workers\n'
     'print([m for m in ("jax", "orbax", "grain") if m in sys.modules])'],
    capture_output=True,
    text=True,
    check=True,
  )  # fmt: skip
  assert served.stdout == '[]\n'


def test_what_a_worker_raises_is_raised_here(tmp_path):
  """As if there had been one process: the place of the record, and the rule."""
  talk = [
    {'instruction': 'a' * (1000 if i == 15 else 100), 'output': 'b'}
    for i in range(30)
  ]
  with pytest.raises(ValueError, match=r'zh\.jsonl, line 16: an example has'):
    prepare(tmp_path, talk, template='belle', seq_len=512, too_long='fail')


def test_what_nobody_expected_comes_with_its_place(tmp_path, monkeypatch):
  def without_source(self, shard):
    send(self, shards.Shard(**{**vars(shard), 'source': None}))

  send = workers._Worker.send
  monkeypatch.setattr(workers._Worker, 'send', without_source)
  with pytest.raises(RuntimeError, match=r'(?s)shards\.py", line .*Attribute'):
    prepare(tmp_path, TEXTS)


def test_a_worker_that_is_killed_is_told_and_its_work_is_kept(
  tmp_path, monkeypatch
):
  """By the kernel, for want of memory."""
  started = []
  send = workers._Worker.send

  def kill(self, shard):
    started.append(self._process)
    if shard.number == 6:
      os.kill(self._process.pid, signal.SIGKILL)
      self._process.wait()
    send(self, shard)

  monkeypatch.setattr(workers._Worker, 'send', kill)
  with pytest.raises(RuntimeError, match='ended with -9 .*data.num_workers'):
    prepare(tmp_path, TEXTS)
  assert all(process.poll() is not None for process in started)
  (work,) = tmp_path.glob('cache/zh-*/1.0.0/work')
  kept = len(list(work.glob('*.npz')))
  assert kept >= 1
  monkeypatch.setattr(workers._Worker, 'send', send)
  fresh = tmp_path / 'fresh'
  fresh.mkdir()
  again, whole = prepare(tmp_path, TEXTS), prepare(fresh, TEXTS)
  assert again.train.num_tokens == whole.train.num_tokens


def test_workers_end_with_the_process_that_started_them(tmp_path):
  """Left behind they would go on writing what a new start writes."""
  program = tmp_path / 'program.py'
  program.write_text(_PROGRAM.replace(
    '  build.prepare(',
    """  from lbe.data import workers
  send = workers._Worker.send
  def tell(self, shard):
    print('worker', self._process.pid, flush=True)
    send(self, shard)
    if shard.number == 3:
      import os
      os.kill(os.getpid(), 9)
  workers._Worker.send = tell
  build.prepare(""",
  ))  # fmt: skip
  arguments = (write(tmp_path, TEXTS), tmp_path / 'cache')
  done = subprocess.run(
    [sys.executable, program, *arguments], capture_output=True, text=True
  )
  assert done.returncode == -signal.SIGKILL
  pids = {int(x.split()[1]) for x in done.stdout.split('\n') if 'worker' in x}
  assert len(pids) == 2
  deadline = time.monotonic() + 60
  while any(os.path.exists(f'/proc/{pid}/cwd') for pid in pids):
    assert time.monotonic() < deadline
    time.sleep(0.05)
