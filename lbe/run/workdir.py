"""Where a run keeps its files: a folder, or a bucket with a folder before it.

Of a bucket only the checkpoints are written there directly, by Orbax. What
grows line by line (metrics, scores, TensorBoard's files) and what other
libraries read from a disk (tokenizer, tokenized data, an export) lies in a
local folder, and process 0 copies it at intervals, on every save and at the
end: all but the tokenized data.
"""

import concurrent.futures
import errno
import fcntl
import os
import pathlib
import socket
import sys
import time

import jax

from lbe.mesh import hosts
from lbe.text import files

SECONDS = 60
DEAD_HOST_SECONDS = 100
_LOCK = 'in_use'
_LOCAL = ('data', 'checkpoints', 'compiled', _LOCK)  # what is never copied
# What a run does not read again.
_HEAVY = ('tensorboard', 'wandb', 'hf', 'profile')


def open_workdir(path: str | None) -> 'Workdir':
  """The Workdir at `path`, here or gs://; its local folder exists then.

  Raises ValueError for none, one that checkpoints cannot be written to, and
  OSError where a bucket cannot be reached.
  """
  if not path:
    raise ValueError(
      'there is no place for files: give --workdir=FOLDER, or gs://BUCKET/FOLDER.'
    )
  cloud, there, rest = str(path).partition('://')
  if not there:
    return Workdir(path, here=pathlib.Path(path))
  if cloud != 'gs':
    raise ValueError(
      f'--workdir={path}: Orbax writes checkpoints to folders and to gs:// '
      'only; mount the bucket as a folder (Mountpoint for S3, rclone, …) and '
      'give that.'
    )
  from etils import epath

  caches = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  here = pathlib.Path(caches).expanduser() / 'lbe' / cloud / rest
  return Workdir(path, here=here, bucket=epath.Path(path))


class Workdir:
  """`path` as given, for checkpoints; `here`, a folder, for all else.

  They are the same where there is no `bucket`; then nothing is copied.
  """

  def __init__(self, path, *, here, bucket=None):
    self.path = str(path)
    self.here = here
    self._bucket = bucket
    self._versions = {}
    self._sent = time.monotonic()
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    self._sending = None
    try:
      here.mkdir(parents=True, exist_ok=True)
      probe = here / f'{_LOCK}.tmp'
      probe.touch()
      probe.unlink(missing_ok=True)  # hosts may do so together
    except FileExistsError:
      raise ValueError(
        f'--workdir={here} is a file; a run keeps its files in a folder, give '
        'one or another name.'
      ) from None
    except OSError as error:
      raise OSError(
        f'--workdir={here} cannot be written to ({error.strerror}); give a '
        'folder that can, or mend it.'
      ) from error

  def is_local(self) -> bool:
    return self._bucket is None

  def lock(self, folder: pathlib.Path | None = None):
    """Has the folder for this process until it ends, however it ends.

    Or a `folder` below it, which is made. Raises ValueError where another run
    has it: both would write its files. Nothing is asked where the file system
    knows no locks.
    """
    if jax.process_index() != 0:
      return
    folder = folder or self.here
    folder.mkdir(parents=True, exist_ok=True)
    # Open until the process ends; it is not its children's.
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    start = time.monotonic()
    while True:
      try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
          return
      told = os.pread(file, 1000, 0).decode()
      # A host that is gone may hold it for a while.
      alive = f' on {socket.gethostname()} since ' in told
      if alive or time.monotonic() - start > DEAD_HOST_SECONDS:
        raise ValueError(
          f'{self.path if folder == self.here else folder} is in use by '
          f'another run, process {told}; end that one, or take another '
          '--workdir.'
        )
      time.sleep(1)
    now = time.strftime('%Y-%m-%d %H:%M:%S %Z')
    told = f'{os.getpid()} on {socket.gethostname()} since {now}'
    os.truncate(file, 0)
    os.pwrite(file, told.encode(), 0)

  def fetch(self):
    """Brings what an earlier process, maybe on another host, left there.

    Of a new run nothing lies there: then what is left here of an older one
    goes, but for its data.
    """
    if self._bucket is None:
      return
    self._fetch()
    # Hosts may share the folder, and from here on the first one writes there.
    hosts.wait_for_others('what the bucket holds')

  def _fetch(self):
    try:
      if not (self._bucket / 'config.json').exists():
        for file in _files(self.here, leave=_LOCAL):
          file.unlink(missing_ok=True)
      for file in _files(self._bucket, leave=_LOCAL + _HEAVY):
        target = self.here / file.relative_to(self._bucket)
        data = file.read_bytes()
        if not target.exists() or target.read_bytes() != data:
          target.parent.mkdir(parents=True, exist_ok=True)
          files.write_whole(target, data)
        self._versions[target] = _version(target)
    except ImportError as error:
      raise ImportError(
        f"{self.path}: {error}; pip install 'lbe[remote]'."
      ) from error
    except Exception as error:  # each cloud's library has errors of its own
      raise OSError(
        f'{self.path} cannot be read ({type(error).__name__}: {error}); '
        'without credentials run `gcloud auth application-default login`, or '
        'set GOOGLE_APPLICATION_CREDENTIALS to a key file.'
      ) from error

  def send(self, *, now: bool = False):
    """Copies what has changed: in the background, at most every SECONDS.

    With `now` it has arrived when this returns, or OSError is raised;
    else a copy that fails is told of, and tried again by the next.
    """
    if self._bucket is None or jax.process_index() != 0:
      return
    if self._sending is not None and (now or self._sending.done()):
      error, self._sending = self._sending.exception(), None
      if error:
        print(
          f'copying from {self.here} to {self.path} failed ({error}); it is '
          'tried again',
          file=sys.stderr,
          flush=True,
        )
    if now:
      try:
        self._copy()
      except Exception as error:
        raise OSError(
          f'copying from {self.here} to {self.path} failed ({error}); what '
          'the run wrote still lies in the first.'
        ) from error
    elif self._sending is None and time.monotonic() - self._sent > SECONDS:
      self._sending = self._pool.submit(self._copy)

  def _copy(self):
    self._sent = time.monotonic()
    for file in _files(self.here, leave=_LOCAL):
      version = _version(file)
      if self._versions.get(file) != version:
        target = self._bucket / file.relative_to(self.here).as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(file, target)
        self._versions[file] = version


def _files(folder, *, leave):
  """The files below a folder; of its own children those in `leave` not."""
  if not folder.is_dir():
    return
  for child in sorted(folder.iterdir()):
    if child.name in leave or child == folder or '.tmp' in child.name:
      continue  # a store may list a folder as a part of itself
    if child.is_dir():
      yield from _files(child, leave=(_LOCK,))
    else:
      yield child


def _version(file):
  stat = file.stat()
  return stat.st_size, stat.st_mtime_ns


def _copy_file(source, target):
  """In blocks: a file of an export has gigabytes."""
  with source.open('rb') as a, target.open('wb') as b:
    while block := a.read(1 << 24):
      b.write(block)
