"""Files as bytes, unpacked where gzip, bzip2 or Zstandard has packed them."""

import bz2
import contextlib
import gzip
import io
from collections.abc import Iterator
from typing import BinaryIO

# How the name of a packed file ends, behind the ending of what it holds.
ENDINGS = ('.gz', '.bz2', '.zst')


@contextlib.contextmanager
def opened(path) -> Iterator[BinaryIO]:
  """The file as bytes, unpacked where its name ends in one of ENDINGS."""
  with path.open('rb') as file:
    if '://' in str(path):
      file = io.BufferedReader(file, 1 << 20)  # else a line is a request
    if path.suffix == '.gz':
      file = gzip.open(file)
    elif path.suffix == '.bz2':
      file = bz2.open(file)
    elif path.suffix == '.zst':
      file = io.BufferedReader(_Zstd(file), 1 << 20)
    with file:
      yield file


class _Zstd(io.RawIOBase):
  """Frames of Zstandard; EOFError where the last one is not whole.

  (zstandard's own reader takes a cut file for one that ends.)
  """

  def __init__(self, file):
    self._file = file
    self._start = library('zstandard').ZstdDecompressor().decompressobj
    self._frame = None
    self._packed, self._text = b'', memoryview(b'')

  def readable(self):
    return True

  def readinto(self, buffer):
    while not self._text:
      self._packed = self._packed or self._file.read(1 << 16)
      if not self._packed:
        if self._frame is not None:
          raise EOFError('it ends in the middle of a frame')
        return 0
      frame = self._frame or self._start()
      self._text = memoryview(frame.decompress(self._packed))
      self._packed = frame.unused_data if frame.eof else b''
      self._frame = None if frame.eof else frame
    size = min(len(buffer), len(self._text))
    buffer[:size], self._text = self._text[:size], self._text[size:]
    return size


def library(name: str):
  """An optional package; ImportError with the line that installs it."""
  try:
    return __import__(name, fromlist=['*'])
  except ImportError as error:
    raise ImportError(
      f"{name.split('.')[0]} is needed to read this; pip install 'lbe[data]'."
    ) from error
