"""The metrics of a run as TensorBoard reads them."""

import pathlib
import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer import event_file_writer


class Board:
  """A file of events; what earlier ones have from `first_step` on is left out.

  By TensorBoard, which finds a session there that starts anew.
  """

  def __init__(self, folder: pathlib.Path, *, first_step: int):
    self._writer = event_file_writer.EventFileWriter(str(folder))
    self._add(first_step, session_log=SessionLog(status=SessionLog.START))

  def _add(self, step, **what):
    self._writer.add_event(Event(wall_time=time.time(), step=step, **what))

  def write(self, step: int, row: dict[str, float]):
    values = [
      Summary.Value(tag=name, simple_value=value) for name, value in row.items()
    ]
    self._add(step, summary=Summary(value=values))

  def close(self):
    self._writer.close()
