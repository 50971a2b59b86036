"""What a program prints: whoever reads it, and an error last and alone."""

import errno
import io
import logging
import os
import re
import shlex
import sys
import threading
import time
import traceback

# `| head` has read enough; the terminal was closed.
_GONE = (errno.EPIPE, errno.EIO)
READER_GONE = 128 + 13  # the status of what SIGPIPE ends


# But for what bars and marks of our own write: up a line, green, and plain.
_CONTROL = re.compile(
  r'\x1b(?!\[(?:A|32m|0m))|[\0-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]'
)


class Stream(io.TextIOWrapper):
  """A standard stream: what its encoding lacks is written as '\\u4e2d'.

  On a terminal, control characters in what models and texts say are written as
  '\\x1b': they could move its cursor, set its title or its clipboard.
  Where nobody reads any more, what `goes_on` writes to nowhere from there on;
  everything else ends quietly.
  """

  def __init__(self, stream: io.TextIOWrapper, *, goes_on: bool):
    super().__init__(
      stream.buffer,
      encoding=stream.encoding,
      errors='backslashreplace',
      line_buffering=stream.line_buffering,
      write_through=stream.write_through,
    )
    self._goes_on = goes_on
    self._shown = _CONTROL if stream.isatty() else None
    self.copy = None  # a file that has it as well

  def write(self, text: str) -> int:
    # A bar on a terminal writes over itself.
    if self.copy and '\r' not in text and '\x1b[A' not in text:
      try:
        self.copy.write(_spelt(_CONTROL, _COLOUR.sub('', text)))
      except OSError:
        self.copy = None  # a full disk is told of where it is waited for
    if self._shown:
      text = _spelt(self._shown, text)
    try:
      return super().write(text)
    except OSError as error:
      self._lose(error)
      return len(text)

  def flush(self):
    try:
      super().flush()
    except OSError as error:
      self._lose(error)

  def _lose(self, error):
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, self.fileno())
    os.close(nowhere)
    if error.errno not in _GONE:
      raise OSError(
        f'what was printed could not be written ({error.strerror}); make room, '
        'or print to another place.'
      ) from error
    if not self._goes_on:
      sys.exit(READER_GONE)


_COLOUR = re.compile('\x1b\\[[0-9;]*m')


def keep(path: str | os.PathLike):
  """What is printed from here on is added to a file, behind the command."""
  file = open(path, 'a', encoding='utf-8', buffering=1)  # noqa: SIM115
  now = time.strftime('%Y-%m-%d %H:%M:%S %Z')
  file.write(f'--- {now}: {shlex.join(sys.argv)}\n')
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, Stream):
      stream.copy = file


def _spelt(pattern, text):
  return pattern.sub(lambda m: repr(m[0])[1:-1], text)


def open_streams(*, goes_on: bool):
  """Puts a Stream in the place of standard output and standard error."""
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    # Under a test or in a notebook they are something else.
    if type(stream) is io.TextIOWrapper:
      setattr(sys, name, Stream(stream, goes_on=goes_on))


# What a refusal of the file system looks like inside the errors of libraries.
_DISK = re.compile('No space left on device|File too large|Disk quota exceeded')


def disk_reason(error: Exception) -> str | None:
  """Why the file system refused, whatever library says so; None for others."""
  found = _DISK.search(str(error))
  return found and found[0]


# Their threads say in tracebacks what they then raise where it is waited for.
_RAISED_AGAIN = ('/orbax/', '/tensorboard/', '/asyncio/')


def _is_raised_again(path):
  return any(library in path for library in _RAISED_AGAIN)


def hide_errors_of_threads():
  """Leaves it to the program to tell what goes wrong in its libraries."""

  def quieter(show):
    def told(args):
      frames = traceback.extract_tb(args.exc_traceback)
      if not any(_is_raised_again(frame.filename) for frame in frames):
        show(args)

    return told

  threading.excepthook = quieter(threading.excepthook)
  sys.unraisablehook = quieter(sys.unraisablehook)
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(
      lambda record: not (record.exc_info and _is_raised_again(record.pathname))
    )
