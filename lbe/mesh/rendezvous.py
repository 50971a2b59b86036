"""Before jax: every process says who it is, so that who is missing has a name.

jax waits for all of them and then ends each without a word of who did not come.
Here process 0 listens at its own port until all have come, tells them so, and
leaves the port to jax's service.
"""

import json
import os
import select
import socket
import time

_MOST_BYTES = 1000
_PAUSE_SECONDS = 0.2
_ANSWER_SECONDS = 5.0


def meet(
  address: str, num_processes: int, process_id: int, *, limit_seconds: float
):
  """Returns when all processes have come to process 0, at HOST:PORT.

  Raises TimeoutError where that takes longer, with who is missing, and
  ValueError where two say that they are the same one, or count otherwise.
  """
  if num_processes == 1:
    return
  host, _, port = address.rpartition(':')
  own = {'process': process_id, 'of': num_processes}
  own |= {'host': socket.gethostname(), 'pid': os.getpid()}
  if process_id == 0:
    problem = _receive(int(port), own, limit_seconds)
  else:
    problem = _report(host.strip('[]'), int(port), own, limit_seconds)
  if problem:
    raise (TimeoutError if problem['is_late'] else ValueError)(problem['told'])


def _named(one):
  return f'process {one["process"]} on {one["host"]} (pid {one["pid"]})'


def _listen(port):
  if socket.has_dualstack_ipv6():
    family, dual = socket.AF_INET6, True
  else:
    family, dual = socket.AF_INET, False
  return socket.create_server(
    ('', port), family=family, dualstack_ipv6=dual, backlog=1024
  )


def _receive(port, own, limit_seconds):
  """Process 0: waits, answers everybody, and gives what is wrong, or None."""
  come, talking = {0: own}, {}
  problem, end = None, time.monotonic() + limit_seconds
  with _listen(port) as server:
    while len(come) < own['of'] and not problem:
      left = end - time.monotonic()
      if left <= 0:
        problem = _late(own, come, limit_seconds)
        break
      for ready in select.select([server, *talking], [], [], left)[0]:
        if ready is server:
          talking[server.accept()[0]] = b''
          continue
        try:
          talking[ready] += (new := ready.recv(_MOST_BYTES))
        except OSError:
          new = b''
        if not new or len(talking[ready]) > _MOST_BYTES:
          # It gave up, or is none of ours; who comes again says so again.
          del talking[ready]
          ready.close()
          continue
        if talking[ready].endswith(b'\n'):
          problem = problem or _note(talking[ready], own, come)
  for connection in talking:
    try:
      connection.sendall(json.dumps(problem).encode() + b'\n')
      connection.close()
    except OSError:
      pass  # it is gone, and jax will say so
  return problem


def _note(said, own, come):
  """Puts one process to those that have come, or says what is wrong."""
  try:
    one = json.loads(said)
    number, count = int(one['process']), int(one['of'])
    one['host'] = str(one['host'])
    one['pid'] = int(one['pid'])
  except (ValueError, TypeError, KeyError):
    return None
  told = ''
  if count != own['of'] or not 0 < number < count:
    told = (
      f'{_named(one)} says that the run has {count} processes, {_named(own)} '
      f'that it has {own["of"]}'
    )
  elif number in come and come[number] != one:
    told = (
      f'{_named(come[number])} and {_named(one)} say that they are the same'
    )
  come[number] = one
  if told:
    told = f'{told}; give each host its own --process_id, and the same rest.'
    return {'is_late': False, 'told': told}
  return None


def _late(own, come, limit_seconds):
  missing = [i for i in range(own['of']) if i not in come]
  shown = ', '.join(map(str, missing[:20])) + ', …' * (len(missing) > 20)
  here = ', '.join(f'{i} ({come[i]["host"]})' for i in sorted(come)[:20])
  return {
    'is_late': True,
    'told': f'process {shown} of {own["of"]} did not come within '
    f'{limit_seconds:g} s; here are {here}. The output of the missing says '
    'why: a wrong flag, a host that is down, or one that started later than '
    '--join_seconds.',
  }


def _report(host, port, own, limit_seconds):
  """Any other process: says who it is, and gives what process 0 answers."""
  end = time.monotonic() + limit_seconds
  while time.monotonic() < end:
    try:
      with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(json.dumps(own).encode() + b'\n')
        # Its limit began before this came; its answer takes a moment more.
        connection.settimeout(limit_seconds + _ANSWER_SECONDS)
        answer = connection.makefile('rb').readline()
      return json.loads(answer)
    except (OSError, ValueError):
      time.sleep(_PAUSE_SECONDS)
  return {
    'is_late': True,
    'told': f'process 0 at {host}:{port} did not answer {_named(own)} within '
    f'{limit_seconds:g} s; its own output says why, or a firewall stands '
    'between them.',
  }
