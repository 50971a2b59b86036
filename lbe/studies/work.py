"""The work of a study: the next cell that is ready, in a process of its own.

Any number of workers share a folder, on one machine or many: each takes a cell
that is ready and that nobody has.
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from lbe.run import checkpoint
from lbe.run import identity
from lbe.studies import folder
from lbe.studies import grid
from lbe.text import lines

_SECONDS = 0.2  # between two looks at what others do


def now() -> str:
  return datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def facts() -> dict:
  """The commit, versions and machine that work here."""
  versions = {}
  for name in ('lbe', 'jax', 'jaxlib'):
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  machine = {'host': platform.node(), 'cpus': os.cpu_count()}
  return {'commit': identity.commit(), 'versions': versions, 'machine': machine}


def location(study: pathlib.Path, cell: dict) -> str:
  """Where what a cell made is: its folder, or the weights from elsewhere."""
  if cell['kind'] == 'model':
    return cell['config']['path']
  made = folder.cell_folder(study, cell['name'])
  return str(made / 'made' if cell['kind'] == 'tokenizer' else made)


def command(study: pathlib.Path, record: dict, cell: dict) -> list[str]:
  """What a person would type for a cell."""
  by_name = {c['name']: c for c in record['cells']}
  inputs = {k: location(study, by_name[v]) for k, v in cell['inputs'].items()}
  here = folder.cell_folder(study, cell['name'])
  if cell['kind'] == 'train':
    return [
      sys.executable,
      *('-m', 'lbe.train', '--describe_extension=False'),
      f'--config=lbe:stored:{here / "cell.json"}',
      f'--workdir={here}',
      *(f'--config.{field}={path}' for field, path in inputs.items()),
    ]
  config = grid.placed(cell['config'], str(study / 'files'))
  given = inputs | config['flags']
  return [
    sys.executable,
    *('-m', 'lbe.tokenizer', config['command']),
    f'--output={location(study, cell)}',
    *(
      f'--{flag}={x}'
      for flag, value in given.items()
      for x in (value if isinstance(value, list | tuple) else [value])
    ),
  ]


class Worker:
  """Works on a study until nothing is left that it may do.

  `say` tells what begins and ends. `stop` ends it behind its children, which
  are asked to save.
  """

  def __init__(self, study: pathlib.Path, record: dict, *, say: Callable):
    self._study = study
    self._record = record
    self._say = say
    self._children = set()
    self._stopping = False
    self._tried = set()  # here: a failed cell is tried once a call
    self._changed = set()  # in study.json, since this call read it
    self._began = time.monotonic()
    self._facts = facts()
    self._by_name = {cell['name']: cell for cell in record['cells']}
    self._lock = threading.Lock()

  def stop(self):
    self._stopping = True
    for pid in list(self._children):
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)

  def stopped(self) -> bool:
    return self._stopping

  def work(
    self,
    wanted: set[str],
    *,
    jobs: int,
    budget: float | None,
    tick: Callable[[], None] = lambda: None,
  ):
    """Works on these cells, several at a time; between cells it may end.

    That is where `budget` seconds have passed. `tick` is called meanwhile.
    """
    threads = [
      threading.Thread(target=self._work, args=(wanted, budget))
      for _ in range(jobs)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      while thread.is_alive():
        thread.join(_SECONDS)
        tick()

  def _work(self, wanted, budget):
    while not self._stopping:
      if budget is not None and time.monotonic() - self._began > budget:
        self._say('the time is up: no further cell is begun')
        return
      states = folder.states(self._study, self._record)
      left = [c for c in self._ordered(states) if c['name'] in wanted]
      ready = [
        cell
        for cell in left
        if states[cell['name']] in (folder.WAITING, folder.FAILED)
        and cell['name'] not in self._changed
        and not (cell['name'] in self._tried and self._failed(cell))
        and all(states[x] == folder.DONE for x in cell['inputs'].values())
      ]
      if not any(map(self._take, ready)):
        if not ready and folder.RUNNING not in (
          states[c['name']] for c in left
        ):
          return
        time.sleep(_SECONDS)  # others may finish what it waits for

  def _failed(self, cell):
    state = folder.read_cell(self._study, cell['name']).get('state')
    return state == folder.FAILED

  def _ordered(self, states):
    done = {name for name, state in states.items() if state == folder.DONE}
    return grid.by_comparison(
      self._record['cells'], self._record['claims'], done
    )

  def _is_asked(self, cell):
    """Whether study.json, which a later call may write, has it as it is."""
    cells = folder.read(self._study)['cells']
    return any(
      (other['name'], other['identity']) == (cell['name'], cell['identity'])
      for other in cells
    )

  def _take(self, cell):
    """Whether it was free, and is now done or failed."""
    name = cell['name']
    with folder.locked(self._study, name) as lock:
      if lock is None:
        return False
      if not self._is_asked(cell):
        with self._lock:
          self._changed.add(name)
        self._say(
          f'{name}: left out: a later call changed it in study.json, and works '
          'on it'
        )
        return False
      before = folder.read_cell(self._study, name)
      if before.get('state') == folder.DONE:
        return True
      # Another worker may have had it fail meanwhile.
      with self._lock:
        self._tried.add(name)
      files = str((self._study / 'files').absolute())
      told = {
        'version': folder.VERSION,
        'name': name,
        'identity': cell['identity'],
        'state': folder.RUNNING,
        'started': now(),
        'tries': before.get('tries', 0) + 1,
        'error': None,
        **self._facts,
        'config': grid.placed(cell['config'], files),
      }
      folder.write_cell(self._study, name, told)
      start = time.monotonic()
      error, cpu = self._run(cell, lock)
      if self._stopping and error:
        return True  # as if it had been interrupted
      wall = time.monotonic() - start
      told |= {'ended': now(), 'error': error, 'cpu_seconds': cpu}
      told['state'] = folder.FAILED if error else folder.DONE
      told |= _outcome(self._study, cell, wall)
      folder.write_cell(self._study, name, told)
      if error:
        self._say(f'{name}: failed: {error}')
      else:
        self._say(f'{name}: done in {wall:.0f} s{_amount(told)}')
      return True

  def _run(self, cell, lock):
    """(what went wrong, or None; CPU seconds) of a cell's own process."""
    name, here = cell['name'], folder.cell_folder(self._study, cell['name'])
    if cell['kind'] == 'model':
      return None, 0.0
    with open(here / 'log.txt', 'ab') as log:
      child = subprocess.Popen(
        command(self._study, self._record, cell),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),  # it has the cell for as long as it lives
      )
      self._children.add(child.pid)
      self._say(f'{name}: begun')
      # As wait(), which does not tell what it took.
      _, status, used = os.wait4(child.pid, 0)
      child.returncode = os.waitstatus_to_exitcode(status)
      self._children.discard(child.pid)
    cpu = used.ru_utime + used.ru_stime
    if child.returncode:
      return _last_words(here / 'log.txt', child.returncode), cpu
    if cell['kind'] == 'train' and not _is_finished(here):
      return 'it ended before its last step; see log.txt', cpu
    return None, cpu


def _is_finished(workdir):
  """Whether the run has a checkpoint of its last step."""
  config = workdir / 'config.json'
  if not config.is_file():
    return False
  steps = checkpoint.steps(workdir)
  last = json.loads(config.read_text('utf-8'))['num_steps']
  return bool(steps) and steps[-1] == last


def _last_words(log, status):
  """What a process said that ended with a status other than 0."""
  said = log.read_text('utf-8', 'replace').splitlines()
  errors = [i for i, line in enumerate(said) if line.startswith('error: ')]
  if errors:
    return '\n'.join(said[errors[-1] :]).removeprefix('error: ')
  return '\n'.join([*said[-3:], f'status {status}; see log.txt'])


def _outcome(study, cell, wall):
  """What a cell's files say of it: seconds, updates, text that it has seen."""
  here = folder.cell_folder(study, cell['name'])
  rows = lines.rows(here / 'metrics.jsonl') if cell['kind'] == 'train' else []
  last = rows[-1] if rows else {}
  seconds, seen = {'wall': wall}, {}
  for name, value in last.items():
    of, _, rest = name.partition('/')
    if of == 'seconds':
      seconds[rest] = value
    elif of == 'seen':
      source, _, unit = rest.rpartition('/')
      seen.setdefault(source, {})[unit] = value
  result = {'seconds': seconds, 'seen': seen, 'updates': last.get('step', 0)}
  config = here / 'config.json'
  if config.is_file() and cell['kind'] == 'train':
    run = json.loads(config.read_text('utf-8'))
    result |= {'model': run['model'], 'tokenizer': run['tokenizer']}
  return result


def _amount(told):
  tokens = sum(s['tokens'] for s in told['seen'].values())
  if not tokens:
    return ''
  return f', {tokens:,} tokens in {told["updates"]:,} steps'
