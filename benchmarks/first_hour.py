"""The first hour of a newcomer: the commands of two pages, as they stand.

  PYTHONPATH=. python benchmarks/first_hour.py --repository=CLONE \
    --home=HOME --output=docs/transcript.md HF_DIR=… ZH=… EN=… EN_HELD_OUT=… \
    BASE=… NTREX=… SIB=…

Takes the commands out of README.md and docs/cookbook.md of a clone, runs them
one after the other in a shell that has HOME and nothing of this one, and
writes a page: each command, what it printed on a terminal of 80 columns, how
long it took, and the longest time in which it printed nothing. What the pages
leave to the reader are the names in capital letters, given as arguments; `...`
stands for the flags of the command before. The suite is not run: it is no part
of the hour.
"""

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
_OUTPUT = flags.DEFINE_string('output', None, 'The page.')
_STATE = flags.DEFINE_string('state', '/tmp/first_hour.env', "The shell's.")
_FROM = flags.DEFINE_integer('first', 1, 'Commands before it are left out.')

# Of each command's lines, these many at its head and at its end.
_HEAD, _END = 12, 28
# Seconds without a word that are too many.
_SILENCE = 5.0


def statements(text):
  """The commands of a page's shell blocks; '\\' at the end of a line joins."""
  for block in re.findall(r'```bash\n(.*?)```', text, re.S):
    here = r"(?:[^\n]*\\\n)*[^\n]*<<'END'\n.*?\nEND\n"
    for found in re.findall(rf'{here}|(?:[^\n]*\\\n)*[^\n]+\n', block, re.S):
      if not found.lstrip().startswith('#'):
        yield found.rstrip('\n')


def filled(statement, given, before):
  """The statement with the reader's own names, and `...` written out."""
  if statement.endswith(' ...'):
    words = [
      line.rstrip('\\').strip()
      for line in before.splitlines()[1:]
      if '--dry_run' not in line
    ]
    statement = f'{statement[:-3]}' + ' '.join(words)
  for name, value in given.items():
    statement = re.sub(rf'(?<=[ =]){name}(?=\s|$)', value, statement)
    statement = re.sub(rf'\b{name}=\S+', f'{name}={value}', statement)
  return statement


def run(statement, environment, folder):
  """(output, status, seconds, longest silence) of a command on a terminal."""
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
  silence, parts = 0.0, []
  while True:
    ready, _, _ = select.select([door], [], [], 0.5)
    now = time.monotonic()
    if not ready:
      continue
    try:
      got = os.read(door, 65536)
    except OSError:
      got = b''
    silence, last = max(silence, now - last), now
    if not got:
      break
    parts.append(got)
  _, status = os.waitpid(child, 0)
  output = b''.join(parts).decode('utf-8', 'replace')
  return output, os.waitstatus_to_exitcode(status), last - start, silence


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


def page(done, words):
  """The transcript as Markdown."""
  total = sum(seconds for *_, seconds, _ in done)
  told = [
    '| | command | seconds | longest silence |',
    '| ---: | --- | ---: | ---: |',
  ]
  for number, (statement, _, status, seconds, silence) in enumerate(done, 1):
    first = statement.splitlines()[0].rstrip('\\').strip().replace('|', '\\|')
    failed = f' (status {status})' if status else ''
    told.append(
      f'| {number} | `{first}`{failed} | {seconds:.1f} | {silence:.1f} |'
    )
  told += [f'| | together | {total:.0f} | |', '']
  for number, (statement, output, *_) in enumerate(done, 1):
    body = ''.join(f'{x}\n' for x in (f'$ {statement}', output) if x)
    told += [f'## {number}', '', f'````\n{body}````', '']
  text = '\n'.join(told)
  for found, ours in words.items():
    text = text.replace(found, ours)
  return text


def main(argv):
  given = dict(word.split('=', 1) for word in argv[1:])
  clone = pathlib.Path(_REPOSITORY.value)
  environment = {
    'HOME': _HOME.value,
    'PATH': '/usr/local/bin:/usr/bin:/bin',
    'TERM': 'xterm',
    'LANG': 'C.UTF-8',
    'COLUMNS': '80',
    **{k: v for k, v in os.environ.items() if k.startswith(('PIP_', 'SSL_'))},
  }
  commands, before = [], ''
  for name in ('README.md', 'docs/cookbook.md'):
    for statement in statements((clone / name).read_text('utf-8')):
      if 'launch/test.sh' not in statement:
        commands.append(filled(statement, given, before))
        before = statement
  done = []
  for number, statement in enumerate(commands, 1):
    if number < _FROM.value:
      continue
    print(f'[{number}/{len(commands)}] {statement}', flush=True)
    output, status, seconds, silence = run(statement, environment, clone)
    told = shown(output)
    mark = ' SILENT' if silence > _SILENCE else ''
    print(told, f'\n[{status}] {seconds:.1f} s, {silence:.1f} s{mark}\n')
    done.append((statement, told, status, seconds, silence))
    words = {os.fspath(clone): '/home/you/lbe', _HOME.value: '/home/you'}
    pathlib.Path(_OUTPUT.value).write_text(page(done, words), 'utf-8')
  sys.exit(any(status for _, _, status, *_ in done))


if __name__ == '__main__':
  app.run(main)
