"""The first hour of a newcomer: the commands of two pages, as they stand.

  PYTHONPATH=. python benchmarks/first_hour.py --repository=CLONE \
    --home=HOME --records=FILE --output=docs/transcript.md HF_DIR=… ZH=… EN=… \
    EN_HELD_OUT=… BASE=… NTREX=… SIB=…

Takes the commands out of README.md and docs/cookbook.md of a clone, runs them
one after the other in a shell that has HOME and nothing of this one, and writes
the tables and the transcript: what each printed on a terminal of 80 columns,
how long it took by the clock and of the processor, and the longest time in
which it printed nothing. What the pages leave to the reader are the names in
capital letters, given as arguments; `...` stands for the flags of the command
before. The suite is not run: it is no part of the hour. `--first=N` goes on
with command N; what stands in --records is not run again.
"""

import json
import os
import pathlib
import pty
import re
import select
import sys
import termios
import time

from absl import app
from absl import flags

_REPOSITORY = flags.DEFINE_string('repository', None, 'A fresh clone.')
_HOME = flags.DEFINE_string('home', None, 'The folder that is HOME.')
_RECORDS = flags.DEFINE_string('records', None, 'JSON lines, one a command.')
_OUTPUT = flags.DEFINE_string('output', None, 'The page.')
_STATE = flags.DEFINE_string('state', '/tmp/first_hour.env', "The shell's.")
_FIRST = flags.DEFINE_integer('first', 1, 'Commands before it are not run.')

# Of each command's lines, these many at its head and at its end.
_HEAD, _END = 12, 28


def statements(text):
  """The commands of a page's shell blocks; '\\' at the end of a line joins."""
  here = r"(?:[^\n]*\\\n)*[^\n]*<<'END'\n.*?\nEND\n"
  for block in re.findall(r'```bash\n(.*?)```', text, re.S):
    for found in re.findall(rf'{here}|(?:[^\n]*\\\n)*[^\n]+\n', block, re.S):
      if not found.lstrip().startswith('#'):
        yield found.rstrip('\n')


def filled(statement, given, before):
  """The statement with the reader's own names, and `...` written out."""
  if statement.endswith(' ...'):
    flags_of = [
      line.rstrip('\\').strip()
      for line in before.splitlines()[1:]
      if '--dry_run' not in line
    ]
    statement = statement[:-3] + ' '.join(flags_of)
  for name, value in given.items():
    statement = re.sub(rf'(?<=[ =]){name}(?=\s|$)', value, statement)
    statement = re.sub(rf'\b{name}=\S+', f'{name}={value}', statement)
  return statement


def _processor(session):
  """Seconds of the processor that the processes of a session have had."""
  ticks = 0
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:  # it has just ended
      continue
    if int(fields[3]) == session:
      ticks += sum(map(int, fields[11:15]))
  return ticks / os.sysconf('SC_CLK_TCK')


def run(statement, environment, folder):
  """What a command on a terminal printed and took, as a record."""
  state = _STATE.value
  script = (
    f'if [ -f {state} ]; then . {state}; fi\n{statement}\n'
    f'code=$?; export -p >{state}; exit $code'
  )
  start = last = time.monotonic()
  child, door = pty.fork()
  if not child:
    termios.tcsetwinsize(0, (24, 80))
    os.chdir(folder)
    os.execvpe('bash', ['bash', '--norc', '-c', script], environment)
  used, silence, parts = 0.0, (0.0, 0.0, ''), []
  while True:
    ready, _, _ = select.select([door], [], [], 1.0)
    if not ready:
      continue
    try:
      got = os.read(door, 65536)
    except OSError:
      got = b''
    now = time.monotonic()
    if now - last > 1:
      using = _processor(child)
      behind = shown(b''.join(parts[-8:]).decode('utf-8', 'replace'))
      behind = (behind.splitlines() or [''])[-1][:80]
      silence = max(silence, (now - last, using - used, behind))
    last, used = now, _processor(child)
    if not got:
      break
    parts.append(got)
  _, status, usage = os.wait4(child, 0)
  return {
    'command': statement,
    'output': b''.join(parts).decode('utf-8', 'replace'),
    'status': os.waitstatus_to_exitcode(status),
    'seconds': last - start,
    'processor': usage.ru_utime + usage.ru_stime,
    'silence': silence[0],
    'silence_processor': max(0.0, silence[1]),
    'behind': silence[2],
  }


def shown(output):
  """What stays on a terminal: no colours, of a bar its last state."""
  output = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', output).replace('\r\n', '\n')
  lines = [
    next((x for x in reversed(line.split('\r')) if x.strip()), '').rstrip()
    for line in output.split('\n')
  ]
  while lines and not lines[-1]:
    lines.pop()
  if len(lines) > _HEAD + _END:
    left = len(lines) - _HEAD - _END
    lines[_HEAD:-_END] = [f'… {left} lines …']
  return '\n'.join(lines)


def page(records, words):
  """The table of times and the transcript, as Markdown."""
  told = [
    '| | command | clock | processor | longest silence |',
    '| ---: | --- | ---: | ---: | ---: |',
  ]
  for number, one in enumerate(records, 1):
    first = one['command'].splitlines()[0].rstrip('\\').strip()
    first = first.replace('|', '\\|')
    failed = f' (status {one["status"]})' if one['status'] else ''
    told.append(
      f'| {number} | `{first}`{failed} | {one["seconds"]:.1f} | '
      f'{one["processor"]:.1f} | {one["silence"]:.1f} '
      f'({one["silence_processor"]:.1f}) |'
    )
  totals = [sum(r[x] for r in records) for x in ('seconds', 'processor')]
  told += [f'| | together | {totals[0]:.0f} | {totals[1]:.0f} | |', '']
  for number, one in enumerate(records, 1):
    printed = shown(one['output'])
    body = ''.join(f'{x}\n' for x in (f'$ {one["command"]}', printed) if x)
    told += [f'### {number}', '', f'````\n{body}````', '']
  text = '\n'.join(told)
  for found, ours in words.items():
    text = text.replace(found, ours)
  return text


def main(argv):
  given = dict(word.split('=', 1) for word in argv[1:])
  clone = pathlib.Path(_REPOSITORY.value)
  kept = pathlib.Path(_RECORDS.value)
  environment = {
    'HOME': _HOME.value,
    'PATH': '/usr/local/bin:/usr/bin:/bin',
    'TERM': 'xterm',
    'LANG': 'C.UTF-8',
    **{k: v for k, v in os.environ.items() if k.startswith(('PIP_', 'SSL_'))},
  }
  commands, before = [], ''
  for name in ('README.md', 'docs/cookbook.md'):
    for statement in statements((clone / name).read_text('utf-8')):
      if 'launch/test.sh' not in statement:
        commands.append(filled(statement, given, before))
        before = statement
  records = []
  if kept.exists():
    records = [json.loads(x) for x in kept.read_text('utf-8').splitlines()]
    records = records[: _FIRST.value - 1]
  for number, statement in enumerate(commands, 1):
    if number < _FIRST.value:
      continue
    print(f'[{number}/{len(commands)}] {statement}', flush=True)
    records.append(run(statement, environment, clone))
    one = records[-1]
    print(shown(one['output']))
    print({k: v for k, v in one.items() if k not in ('command', 'output')})
    sys.stdout.flush()
    lines = [json.dumps(x, ensure_ascii=False) for x in records]
    kept.write_text('\n'.join(lines) + '\n', 'utf-8')
    words = {os.fspath(clone): '/home/you/lbe', _HOME.value: '/home/you'}
    pathlib.Path(_OUTPUT.value).write_text(page(records, words), 'utf-8')
  sys.exit(any(one['status'] for one in records))


if __name__ == '__main__':
  app.run(main)
