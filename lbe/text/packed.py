"""Files as bytes, unpacked where gzip, bzip2, xz or Zstandard packed them."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from lbe.text import files

# How the name of a packed file ends, behind the ending of what it holds, and
# how the file begins. ('BZh' alone begins texts; bzip2's first block, or its
# end, comes behind.)
_MAGIC = {
  '.gz': rb'\x1f\x8b',
  '.bz2': rb'BZh[1-9](1AY&SY|\x17rE8P\x90)',
  '.xz': rb'\xfd7zXZ\x00',
  '.zst': rb'\x28\xb5\x2f\xfd',
}
ENDINGS = tuple(_MAGIC)
# What `zstd --long=31` asks for, its most; without a word it is 2^27.
_WINDOW = 1 << 31


@contextlib.contextmanager
def opened(path) -> Iterator[BinaryIO]:
  """The file as bytes, unpacked where it begins or ends as a packed one.

  Raises files.Refused for a pointer of Git LFS, and for UTF-16 and UTF-32.
  """
  with path.open('rb') as file:
    if '://' in str(path):
      file = io.BufferedReader(file, 1 << 20)  # else a line is a request
    head = file.peek(256)
    files.check_head(head, path)
    begins = [e for e, magic in _MAGIC.items() if re.match(magic, head)]
    how = begins[0] if begins else head and path.suffix.lower()
    if how == '.gz':
      file = gzip.open(file)
    elif how == '.bz2':
      file = bz2.open(file)
    elif how == '.xz':
      file = lzma.open(file)
    elif how == '.zst':
      file = io.BufferedReader(_Zstd(file), 1 << 20)
    # Wherever the reader is when it comes to what is broken.
    with file, _told(path, how):
      if how:
        files.check_head(file.peek(256), path)
      yield file


@contextlib.contextmanager
def _told(path, how):
  try:
    yield
  except Exception as error:
    kinds = (EOFError, zlib.error, lzma.LZMAError)
    if not isinstance(error, kinds) and type(error).__name__ != 'ZstdError':
      raise
    raise files.Refused(
      f'{path} cannot be read: {error}; it is packed ({how[1:]}), is the file '
      'whole?'
    ) from error


class _Zstd(io.RawIOBase):
  """Frames of Zstandard; EOFError where the last one is not whole.

  (zstandard's own reader takes a cut file for one that ends.)
  """

  def __init__(self, file):
    self._file = file
    zstandard = library('zstandard')
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    self._start = unpacker.decompressobj
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
