"""What programs print: in any encoding, whoever reads it, or nobody."""

import io
import subprocess
import sys

import pytest

from lbe.run import output

import runs

_PRINTS = """
import sys
from lbe.run import output
output.open_streams(goes_on={goes_on})
{how}
for i in range(100000):
  print('中文', i)
print('done', file=sys.stderr)
"""


def start(goes_on, how='', **more):
  return subprocess.Popen(
    [sys.executable, '-c', _PRINTS.format(goes_on=goes_on, how=how)],
    env=runs.environment() | {'PYTHONUNBUFFERED': ''},
    cwd=runs.ROOT,
    stderr=subprocess.PIPE,
    **more,
  )


def test_what_is_printed_is_kept_without_bars_and_colours(
  tmp_path, monkeypatch
):
  """A log of thousand states of one bar; one that the next process cuts."""
  monkeypatch.setattr(sys, 'argv', ['train', '--x=a b'])
  for text in ('one', 'two'):
    bytes_of = io.TextIOWrapper(io.BytesIO(), 'utf-8')
    stream = output.Stream(bytes_of, goes_on=True)
    monkeypatch.setattr(sys, 'stdout', stream)
    output.keep(tmp_path / 'train.log')
    print(f'\033[32m{text}\033[0m')
    print('\r 50%', end='')
    print('error', flush=True)
    assert b'\r 50%' in stream.buffer.getvalue()
    stream.copy.close()
  log = (tmp_path / 'train.log').read_text().splitlines()
  heads = [line for line in log if line.startswith('--- 20')]
  assert len(heads) == 2 and heads[0].endswith(": train '--x=a b'")
  assert [x for x in log if x not in heads] == ['one', 'error', 'two', 'error']


@pytest.mark.parametrize('goes_on, status', [(True, 0), (False, 141)])
def test_a_reader_that_has_enough_ends_no_run(goes_on, status):
  """`train | head` lost the steps behind the last save; others end quietly."""
  with start(goes_on, stdout=subprocess.PIPE) as process:
    assert process.stdout.readline() == '中文 0\n'.encode()
    process.stdout.close()
    told = process.stderr.read()
  assert process.returncode == status
  assert told == (b'done\n' if goes_on else b'')


def test_a_full_disk_behind_the_output_is_told():
  """What was printed is lost without a word."""
  with open('/dev/full', 'wb') as full, start(False, stdout=full) as process:
    told = process.stderr.read().decode()
  assert process.returncode == 1
  assert told.splitlines()[-1].startswith(
    'OSError: what was printed could not be written (No space left on device)'
  )


@pytest.mark.parametrize('terminal', [True, False])
def test_a_text_does_not_command_the_terminal(terminal):
  """Catches a model that sets the window's title, or what is pasted next."""

  class Raw(io.BytesIO):
    def isatty(self):
      return terminal

  raw = Raw()
  wrapped = io.TextIOWrapper(raw, 'utf-8')
  stream = output.Stream(wrapped, goes_on=True)
  text = '中 \x1b]0;title\x07 \x9b2J \x1b[32mgreen\x1b[0m\r\n\t.'
  stream.write(text)
  stream.flush()
  shown = raw.getvalue().decode()
  if terminal:
    assert shown == (
      '中 \\x1b]0;title\\x07 \\x9b2J \x1b[32mgreen\x1b[0m\r\n\t.'
    )
  else:
    assert shown == text


@pytest.mark.parametrize('variables', [{'PYTHONIOENCODING': 'ascii'}, {}])
def test_any_encoding_can_be_printed_to(variables):
  """A run of hours that ends at its first Chinese sample."""
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      'from lbe.run import output; output.open_streams(goes_on=True);'
      "print('中', '\\ud800')",
    ],
    env=runs.environment() | variables,
    cwd=runs.ROOT,
    capture_output=True,
  )
  assert done.returncode == 0, done.stderr
  expected = r'\u4e2d' if variables else '中'
  assert done.stdout.decode() == f'{expected} \\ud800\n'
