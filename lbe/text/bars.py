"""Bars, and words for what has none: on a terminal one of them at a time."""

import shutil
import sys
import time
import weakref

import tqdm

_bars = weakref.WeakSet()  # a closed one is disabled
_clocks = []  # of what is being done, the innermost last


def make(iterable=None, **how) -> tqdm.tqdm:
  """A bar, as tqdm.tqdm makes it; clocks give way to it."""
  with tqdm.tqdm.get_lock():
    for clock in _clocks:
      clock.hide()
    made = tqdm.tqdm(iterable, **how)
    _bars.add(made)
  return made


def say(text: str, file=None):
  """A line above all bars, on standard output where no `file` is given."""
  with tqdm.tqdm.get_lock():
    for clock in _clocks:
      clock.hide()
    tqdm.tqdm.write(text, file=file)
    (file or sys.stdout).flush()


def finish(bar: tqdm.tqdm):
  """At the end of what is done: all of it, where `total` was an estimate."""
  if bar.n:
    bar.total = bar.n
  bar.refresh()


def _shown():
  return {bar for bar in _bars if not bar.disable}


class Clock:
  """'WHAT … 00:07' below the bars that stand there, or a line in a file.

  Where a bar is made meanwhile, its own clock goes on instead. On standard
  error, or in `file`.
  """

  def __init__(self, what: str, file=None):
    self._what, self._start = what, time.monotonic()
    self._file = file
    self._is_terminal = self._out().isatty()
    self._told = ''
    with tqdm.tqdm.get_lock():
      for clock in _clocks:
        clock.hide()
      self._above = _shown()
      _clocks.append(self)

  def _out(self):
    return self._file or sys.stderr

  def seconds(self) -> float:
    return time.monotonic() - self._start

  def tell(self) -> bool:
    """Says what is done; whether on a terminal, where it can be said often."""
    with tqdm.tqdm.get_lock():
      inner = _shown() - self._above
      if _clocks[-1] is not self:
        pass  # what is done within it is told
      elif inner:
        for bar in inner:
          bar.refresh()
      elif self._is_terminal:
        self._write(f'{self._what} … {self._elapsed()}')
      else:
        elapsed = self._told and f' {self._elapsed()}'
        self._told = f'{self._what} …'
        print(f'{self._told}{elapsed}', file=self._out(), flush=True)
    return self._is_terminal

  def _elapsed(self):
    return tqdm.tqdm.format_interval(self.seconds())

  def _write(self, text):
    below = len(self._above & _shown())
    # Of a line that is broken only the end could be written over.
    text = text[: shutil.get_terminal_size().columns - 1]
    blank = ' ' * (len(self._told) - len(text))
    up = '\x1b[A' * below
    self._put('\n' * below + f'\r{text}{blank}{up}')
    self._told = text

  def _put(self, text):
    self._out().write(text)
    self._out().flush()

  def hide(self):
    """Its line is empty, and the next one's."""
    if self._is_terminal and self._told:
      self._write('')
      self._put('\r')

  def close(self):
    with tqdm.tqdm.get_lock():
      self.hide()
      _clocks.remove(self)
