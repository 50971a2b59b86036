"""Processes that tokenize a source's shards, on this machine.

Each imports what tokenizing takes. A process of `multiprocessing` imports the
program that started it as well, which is three times as much: jax, Orbax.
"""

import itertools
import multiprocessing.connection
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable
from collections.abc import Iterator

from lbe.data import shards as shards_lib
from lbe.vocab import tokenizers

# Of each worker: one in its hands, and one that it has read when it is done.
_AHEAD = 2
_PROGRAM = 'from lbe.data import workers; workers.serve({})'


def written(
  shards: Iterable[shards_lib.Shard],
  tokenizer: tuple[str, bytes],
  num_workers: int,
) -> Iterator[int]:
  """Writes the shards in `num_workers` processes; the number of each.

  `tokenizer` is its kind and its bytes. What a shard raises is raised here;
  RuntimeError where a process ends before its work.
  """
  shards = iter(shards)
  head = list(itertools.islice(shards, 2))
  shards = itertools.chain(head, shards)
  if num_workers == 1 or len(head) < 2:
    # Starting processes would take longer than the work.
    known = tokenizers.from_bytes(*tokenizer)
    for shard in shards:
      shards_lib.write(shard, known)
      yield shard.number
    return
  workers = {}  # connection: _Worker
  try:
    for shard in shards:
      free = [w for w in workers.values() if len(w.numbers) < _AHEAD]
      if len(workers) < num_workers and all(w.numbers for w in free):
        free = [_Worker(tokenizer)]
        workers[free[0].connection] = free[0]
      # What is read ahead stays small.
      while not free:
        for connection in multiprocessing.connection.wait(workers):
          yield workers[connection].done()
          free.append(workers[connection])
      min(free, key=lambda worker: len(worker.numbers)).send(shard)
    while busy := [c for c, worker in workers.items() if worker.numbers]:
      for connection in multiprocessing.connection.wait(busy):
        yield workers[connection].done()
  finally:
    for worker in workers.values():
      worker.end()


class _Worker:
  """A process, and the shards that it was sent and has not written."""

  def __init__(self, tokenizer):
    self.numbers = []
    self.connection, theirs = multiprocessing.Pipe()
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, '-c', _PROGRAM.format(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        # What is importable here is so there.
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      )
    self._send(tokenizer)

  def _send(self, what):
    try:
      self.connection.send(what)
    except ConnectionError:
      self._ended()

  def send(self, shard):
    self.numbers.append(shard.number)
    self._send(shard)

  def done(self):
    """The number of the shard that it has written; raises what that raised."""
    try:
      error = self.connection.recv()
    except (EOFError, ConnectionError):
      self._ended()
    if error is not None:
      raise error
    return self.numbers.pop(0)

  def _ended(self):
    raise RuntimeError(
      f'a process that tokenizes ended with {self._process.wait()} (below 0: '
      'killed by that signal, 9 mostly for want of memory; fewer processes '
      'take less, data.num_workers). What is tokenized is kept: start again.'
    )

  def end(self):
    # It ends by itself, also in the middle of a shard.
    self.connection.close()
    self._process.wait()


def serve(file_number: int):
  """Writes the shards that come, until nothing more can: one by one."""
  # Who has started it ends it, and says why.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  connection = multiprocessing.connection.Connection(file_number)
  received = queue.SimpleQueue()

  def receive():
    while True:
      try:
        received.put(connection.recv())
      except (EOFError, ConnectionError):
        # Whoever would take more shards has ended, however that was.
        os._exit(0)

  threading.Thread(target=receive, daemon=True).start()
  tokenizer = tokenizers.from_bytes(*received.get())
  while True:
    shard = received.get()
    error = None
    try:
      shards_lib.write(shard, tokenizer)
    except (ValueError, OSError) as found:  # of a record, of a disk
      error = found
    except BaseException:
      error = RuntimeError(traceback.format_exc())
    connection.send(error)
