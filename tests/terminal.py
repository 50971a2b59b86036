"""A pseudo-terminal: what a program shows, moment by moment."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time


def screens(script: str, *arguments: str, seconds=100, **variables):
  """[(when, lines)] each time that `python -c SCRIPT` has written something.

  Of 80 columns; a line is what stands in it then. Asserts status 0.
  """
  door, theirs = pty.openpty()
  size = struct.pack('HHHH', 40, 80, 0, 0)
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
  process = subprocess.Popen(
    [sys.executable, '-c', script, *arguments],
    stdin=theirs,
    stdout=theirs,
    stderr=theirs,
    env={**os.environ, **variables},
  )
  os.close(theirs)
  found, written, start = [(0.0, [])], b'', time.monotonic()
  while time.monotonic() - start < seconds:
    if not select.select([door], [], [], 0.5)[0]:
      continue
    try:
      got = os.read(door, 65536)
    except OSError:  # the other side is closed
      break
    written += got
    text = written.decode('utf-8', 'ignore')
    found.append((time.monotonic() - start, _lines(text)))
  os.close(door)
  assert process.wait(timeout=10) == 0, written.decode('utf-8', 'replace')
  return found


def _lines(text):
  """What stands in each line, as a terminal shows it."""
  rows, row, column = [''], 0, 0
  i = 0
  while i < len(text):
    c = text[i]
    i += 1
    if c == '\r':
      column = 0
    elif c == '\n':
      row += 1
      if row == len(rows):
        rows.append('')
    elif c == '\x1b':
      end = i
      while end < len(text) and not text[end].isalpha():
        end += 1
      if text[end : end + 1] == 'A':
        row -= 1
      i = end + 1
    else:
      line = rows[row].ljust(column)
      rows[row] = line[:column] + c + line[column + 1 :]
      column += 1
  return [line.rstrip() for line in rows]
