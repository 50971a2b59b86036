"""A run as TensorBoard shows it: curves, texts and pictures.

Curves have the step as their axis and, by names and in folders of their own,
the tokens and the bytes that were read: in one chart TensorBoard has one axis,
on which a thousand steps are nothing beside a million tokens. Its charts stand
in the order of the alphabet: these behind all others.
"""

import pathlib
import struct
import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text import summary_v2
from tensorboard.summary.writer import event_file_writer

# What of a source `seen` counts, as an axis.
_AXES = ('tokens', 'bytes')
# Curves that are looked at along them.
_ALONG = ('train/loss', 'train/bits_per_byte', 'eval/')


class _Events:
  """A file of events; what earlier ones have from `first` on is left out.

  By TensorBoard, which finds a session there that starts anew.
  """

  def __init__(self, folder, *, first):
    self._writer = event_file_writer.EventFileWriter(str(folder))
    self._event(first, session_log=SessionLog(status=SessionLog.START))

  def _event(self, step, **what):
    self._writer.add_event(Event(wall_time=time.time(), step=step, **what))

  def add(self, step, *values):
    self._event(step, summary=Summary(value=values))

  def close(self):
    self._writer.close()


class Board:
  """Files of events of a process; `last` is the row that it goes on from."""

  def __init__(self, folder: pathlib.Path, *, first_step: int, last: dict):
    self._seen = dict.fromkeys(_AXES, 0) | _seen(last)
    self._steps = _Events(folder, first=first_step)
    self._along = {
      axis: _Events(folder / f'by_{axis}', first=read + 1 if read else 0)
      for axis, read in self._seen.items()
    }

  def write(self, step: int, row: dict[str, float]):
    self._steps.add(step, *_values(row))
    self._seen |= _seen(row)
    chosen = {tag: x for tag, x in row.items() if tag.startswith(_ALONG)}
    for axis, events in self._along.items():
      if chosen:
        events.add(self._seen[axis], *_values(chosen, before=f'vs_{axis}/'))

  def text(self, step: int, tag: str, text: str):
    """A text as it stands: Markdown, which TensorBoard reads, is indented."""
    indented = '\n'.join(f'    {line}' for line in text.split('\n'))
    self._steps.add(step, *summary_v2.text_pb(tag, indented).value)

  def close(self):
    for events in (self._steps, *self._along.values()):
      events.close()


def _values(row, before=''):
  return [
    Summary.Value(tag=f'{before}{tag}', simple_value=x)
    for tag, x in row.items()
  ]


def add_pictures(folder: pathlib.Path, step: int, paths: list[pathlib.Path]):
  """PNG files, each under its name, behind the end of a run."""
  events = _Events(folder, first=step + 1)
  for path in paths:
    data = path.read_bytes()
    width, height = struct.unpack('>II', data[16:24])
    image = Summary.Image(
      height=height, width=width, colorspace=4, encoded_image_string=data
    )
    events.add(step, Summary.Value(tag=path.stem, image=image))
  events.close()


def _seen(row):
  """{axis: what was read of all sources}, where the row says it."""
  return {
    axis: sum(found)
    for axis in _AXES
    if (
      found := [
        x
        for name, x in row.items()
        if name.startswith('seen/') and name.endswith(f'/{axis}')
      ]
    )
  }
