"""Several processes as one run: they meet, agree, wait, and are watched.

They talk through jax.distributed's coordination service, which process 0
holds: small texts under keys, and barriers. No device takes part, so all of
this works before anything is compiled, and while a device hangs.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import socket
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterable

import jax

from lbe.mesh import rendezvous

# Who is not heard from for so long is dead, and all others end. Together with
# the time that a process waits for the others when it ends: under a minute.
HEARTBEAT_SECONDS = 30
SHUTDOWN_SECONDS = 20
JOIN_SECONDS = 50
WAIT_SECONDS = 600
# For what process 0 does alone: tokenizing, exporting. If it dies meanwhile,
# the heartbeat says so.
DAY = 86_400
# The first line of who waits comes after this, the next after twice as long.
TELL_SECONDS = 5
# A host is slow where its own work takes this share of a step longer than
# that of the median host.
SLOW_SHARE = 0.1


def _state():
  # There is no public way to the service; Orbax takes the same.
  from jax._src import distributed

  return distributed.global_state


def alone() -> bool:
  """Whether this process is the whole run; starts no backend."""
  return _state().num_processes == 1


def join(
  coordinator_address=None,
  num_processes=None,
  process_id=None,
  *,
  heartbeat_seconds=HEARTBEAT_SECONDS,
  join_seconds=JOIN_SECONDS,
):
  """Meets the other processes, found from the environment where not given.

  Raises ValueError where neither says who they are, or they contradict each
  other, and TimeoutError where somebody does not come in time, with its number.
  """
  state = _state()
  given = coordinator_address, num_processes, process_id
  *given, devices = _detected(*given, join_seconds)
  with _telling(
    lambda: f'joining the other processes at {given[0]}',
    limit_seconds=join_seconds,
  ):
    rendezvous.meet(*given, limit_seconds=join_seconds)
    jax.distributed.initialize(
      *given,
      devices,
      initialization_timeout=JOIN_SECONDS,
      heartbeat_timeout_seconds=heartbeat_seconds,
      shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
  state.client.key_value_set(
    f'lbe/host/{state.process_id}', socket.gethostname()
  )
  print(
    f'process {state.process_id} of {state.num_processes} on '
    f'{socket.gethostname()}; process 0 is at {state.coordinator_address}',
    file=sys.stderr,
    flush=True,
  )


def _detected(address, num_processes, process_id, join_seconds):
  """(address, number of processes, which one, its devices or None)."""
  from jax._src import clusters

  address = address or os.environ.get('JAX_COORDINATOR_ADDRESS')
  try:
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
      address, num_processes, process_id, None, None, join_seconds
    )
    if None in found[:3]:
      raise ValueError('nothing was found')
    return found
  except (ValueError, RuntimeError) as error:
    if process_id is not None:
      raise
    raise ValueError(
      f'--distributed finds no cluster that says who takes part ({error}). '
      'Looked for: Cloud TPU (metadata of the machine), GKE '
      '(TPU_WORKER_HOSTNAMES, or a Job and `pip install kubernetes`), SLURM '
      '(SLURM_PROCID and others, set by srun), Open MPI. Elsewhere give '
      '--coordinator_address=HOST:PORT --num_processes=N --process_id=I.'
    ) from error


def _names():
  """{process: name of its host}, of those that have come so far."""
  entries = _state().client.key_value_dir_get('lbe/host')
  return {int(key.rsplit('/', 1)[1]): name for key, name in entries}


def named(processes: Iterable[int]) -> str:
  """'1 (host-b), 4 (host-e)'."""
  names = _names()
  return ', '.join(f'{i} ({names.get(i, "never joined")})' for i in processes)


# ----------------------------------------------------------------- waiting


@contextlib.contextmanager
def _telling(what, *, limit_seconds):
  """Says after a while, and ever less often, what is being waited for."""
  done = threading.Event()
  start = time.monotonic()

  def tell():
    pause = TELL_SECONDS
    while not done.wait(pause):
      print(
        f'{what()}: {time.monotonic() - start:.0f} s so far, at most '
        f'{limit_seconds:,.0f} s',
        file=sys.stderr,
        flush=True,
      )
      pause = min(2 * pause, 300)

  thread = threading.Thread(target=tell, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def wait_for_others(name: str, *, limit_seconds: float = WAIT_SECONDS):
  """A barrier with a name; returns at once where there is one process.

  Raises TimeoutError where somebody does not come in time, and
  ConnectionError where somebody died, with the name and who it is.
  """
  if alone():
    return
  try:
    with _telling(
      lambda: f'waiting for the others at {name!r}', limit_seconds=limit_seconds
    ):
      _state().client.wait_at_barrier(f'lbe/{name}', int(limit_seconds * 1000))
  except jax.errors.JaxRuntimeError as error:
    match = re.search(r'timed out task names:\n((?:.*\d+\n)+)', str(error))
    if not match:
      raise ConnectionError(
        f'waiting at {name!r} failed, since another process died or gave up: '
        f'{error}'
      ) from error
    missing = [int(re.search(r'\d+$', x)[0]) for x in match[1].splitlines()]
    raise TimeoutError(
      f'waited {limit_seconds:g} s at {name!r}, and process '
      f'{named(missing)} did not come; its own output says what it does. '
      'The same command goes on from the last checkpoint.'
    ) from error


def share(
  name: str, text: str | None, *, limit_seconds: float = WAIT_SECONDS
) -> str:
  """The text of the one process that gives one; the others give None."""
  if alone():
    return text
  client = _state().client
  if text is not None:
    client.key_value_set(f'lbe/{name}', text)
  wait_for_others(name, limit_seconds=limit_seconds)
  return client.blocking_key_value_get(f'lbe/{name}', 1000 * WAIT_SECONDS)


def gather(name: str, value) -> dict[int, object]:
  """{process: its value}, on every process; what JSON holds. A name a time."""
  if alone():
    return {0: value}
  state = _state()
  state.client.key_value_set(
    f'lbe/{name}/{state.process_id}', json.dumps(value)
  )
  wait_for_others(name)
  entries = state.client.key_value_dir_get(f'lbe/{name}')
  return {int(k.rsplit('/', 1)[1]): json.loads(v) for k, v in sorted(entries)}


def fail_together(*, limit_seconds: float = 3) -> bool:
  """Whether all processes call this: one that fails alone is not waited for."""
  if alone():
    return True
  try:
    _state().client.wait_at_barrier('lbe/failed', 1000 * limit_seconds)
  except jax.errors.JaxRuntimeError:
    return False
  return True


# ---------------------------------------------------------------- agreeing


def facts() -> dict[str, str | None]:
  """What has to be the same on all hosts: code, versions, compiler's flags."""
  package = pathlib.Path(__file__).parent.parent
  result = {
    f'lbe/{path.relative_to(package).as_posix()}': hashlib.sha256(
      path.read_bytes()
    ).hexdigest()[:12]
    for path in sorted(package.rglob('*.py'))
  }
  for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS'):
    result[name] = os.environ.get(name)
  result['Python'] = platform.python_version()
  for name in ('jax', 'jaxlib', 'libtpu', 'flax', 'optax', 'orbax-checkpoint'):
    try:
      result[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      result[name] = None
  return result


def check_same(
  name: str,
  own: dict,
  *,
  way_out: str = 'Give all of them the same command, code and versions.',
):
  """Refuses hosts of which one differs from process 0 in these facts.

  Every process raises the same ValueError, with both values and the way out.
  `name` says of what the facts are.
  """
  if alone():
    return
  own = {k: json.dumps(v, default=str) for k, v in own.items()}
  first = _state().process_id == 0
  wanted = json.loads(share(name, json.dumps(own) if first else None))
  differs = {
    key: [own.get(key, 'absent'), wanted.get(key, 'absent')]
    for key in sorted(own.keys() | wanted.keys())
    if own.get(key) != wanted.get(key)
  }
  lines = [
    f'  {key}: {a} on process {named([process])}, {b} on process {named([0])}'
    for process, theirs in gather(f'differences of {name}', differs).items()
    for key, (a, b) in theirs.items()
  ]
  if lines:
    rest = [f'  and {len(lines) - 20} more'] if len(lines) > 20 else []
    listed = '\n'.join([*lines[:20], *rest])
    raise ValueError(
      f'the hosts of this run differ in the {name}:\n{listed}\n{way_out}'
    )


def blind_to(folder: str | pathlib.Path, name: str) -> list[int]:
  """The processes that do not see what process 0 writes into a folder."""
  if alone():
    return []
  folder, mark, first = pathlib.Path(folder), None, _state().process_id == 0
  if first:
    folder.mkdir(parents=True, exist_ok=True)
    mark = f'.seen-{uuid.uuid4().hex}'
    (folder / mark).touch()
  mark = share(f'mark in {name}', mark)
  seen = gather(f'{name} seen', (folder / mark).exists())
  if first:
    (folder / mark).unlink()
  return [process for process, sees in seen.items() if not sees]


def check_shared(folder: str | pathlib.Path):
  """Refuses a --workdir that is another folder on another host."""
  blind = blind_to(folder, 'workdir')
  if blind:
    raise ValueError(
      f'--workdir={folder} of process {named([0])} is not seen by process '
      f'{named(blind)}, and every host writes its part of a checkpoint '
      'there; give a folder that all hosts mount, or gs://BUCKET/FOLDER.'
    )


# ---------------------------------------------------------------- watching


def pace(
  own_seconds: float, seconds_per_step: float, say: Callable[[str], None]
) -> dict[str, float]:
  """Tells process 0 how long this host works before it dispatches a step.

  That is what a host does alone (waiting for data, handing it over): what
  comes after it takes equally long on all, since each waits for the slowest.
  One small message, on log lines only. On process 0 metrics come out, and
  `say` gets a line that names a slow host. Nobody is waited for: a host may
  have told of the log line before.
  """
  if alone():
    return {}
  state = _state()
  state.client.key_value_set(
    f'lbe/pace/{state.process_id}', str(own_seconds), allow_overwrite=True
  )
  if state.process_id != 0:
    return {}
  own_by_id = {
    int(key.rsplit('/', 1)[1]): float(value)
    for key, value in state.client.key_value_dir_get('lbe/pace')
  }
  metrics, slow = compare(own_by_id, seconds_per_step)
  if slow is not None:
    say(
      f'slowest host: process {named([slow])} takes {own_by_id[slow]:.3f} s of '
      f'{seconds_per_step:.3f} s a step on its own, the median host '
      f'{metrics["hosts/median_own_seconds"]:.3f} s'
    )
  return metrics


def compare(
  own_seconds: dict[int, float], seconds_per_step: float
) -> tuple[dict[str, float], int | None]:
  """(metrics, slow process or None) of {process: own seconds a step}.

  Slow is the slowest where it takes SLOW_SHARE of a step more than the median.
  """
  slowest = max(own_seconds, key=own_seconds.get)
  most, median = (
    own_seconds[slowest],
    statistics.median_low(own_seconds.values()),
  )
  metrics = {
    'hosts/slowest': slowest,
    'hosts/slowest_own_seconds': most,
    'hosts/median_own_seconds': median,
  }
  is_slow = most - median > SLOW_SHARE * seconds_per_step
  return metrics, slowest if is_slow else None


class Heartbeat:
  """The last step of this process in the file that LBE_HEARTBEAT names.

  For whoever watches the process from outside, as launch/multihost_local.sh
  does: '1 host-b 57', process, host and step.
  """

  def __init__(self):
    path = os.environ.get('LBE_HEARTBEAT')
    self._file = open(path, 'w', encoding='utf-8') if path else None  # noqa: SIM115

  def beat(self, step: int):
    if self._file is not None:
      self._file.seek(0)
      self._file.write(f'{_state().process_id} {socket.gethostname()} {step}\n')
      self._file.flush()
