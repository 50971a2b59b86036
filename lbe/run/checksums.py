"""Checksums of stored files: what is damaged is found and named before use.

FOLDER/checksums.json has of each file its size and the xxHash of every block,
and in its last line the xxHash of all that. Hosts that write a folder together
keep what each of them wrote in a file of its own, checksums-1.json and so on.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from collections.abc import Iterable

import numpy as np
import xxhash

from lbe.run import progress
from lbe.text import files as files_lib

BLOCK_BYTES = 1 << 26
_READ_BYTES = 1 << 18
_NAME = 'checksums'
# Whether programs compare what they read; --verify_stored sets it.
asked = True


def _path(folder, number):
  return pathlib.Path(folder) / f'{_NAME}{f"-{number}" if number else ""}.json'


def files(folder: str | pathlib.Path) -> list[str]:
  """The names of all files below a folder but for checksums, sorted."""
  folder = pathlib.Path(folder)
  return sorted(
    path.relative_to(folder).as_posix()
    for path in folder.rglob('*')
    if path.is_file()
    and not (path.parent == folder and path.name.startswith(_NAME))
  )


def _block(job):
  """The checksum of a part of a file, (path, start, bytes)."""
  path, start, size = job
  checksum, buffer = xxhash.xxh3_64(), memoryview(bytearray(_READ_BYTES))
  # Not mapped: a sector that cannot be read would end the process.
  with open(path, 'rb', buffering=0) as file:
    file.seek(start)
    while size > 0 and (n := file.readinto(buffer[: min(size, _READ_BYTES)])):
      checksum.update(buffer[:n])
      size -= n
  return checksum.hexdigest()


def _measure(sizes):
  """{path: [checksum of each block]} of {path: bytes}, or its OSError."""
  jobs = [
    (path, start, min(BLOCK_BYTES, size - start))
    for path, size in sizes.items()
    for start in range(0, size, BLOCK_BYTES)
  ]
  result = {path: [] for path in sizes}
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count())) as pool:
    for job, done in [(job, pool.submit(_block, job)) for job in jobs]:
      if isinstance(done.exception(), OSError):
        result[job[0]] = done.exception()
      elif not isinstance(result[job[0]], OSError):
        result[job[0]].append(done.result())
  return result


def write(
  folder: str | pathlib.Path,
  names: Iterable[str] | None = None,
  *,
  part: tuple[int, int] = (0, 1),
):
  """Keeps the checksums of these files of a folder; by default of all.

  `part` is (number, count) where so many hosts keep those of their own files.
  """
  folder = pathlib.Path(folder)
  names = files(folder) if names is None else list(names)
  sizes = {folder / name: (folder / name).stat().st_size for name in names}
  record = {}
  for path, blocks in _measure(sizes).items():
    if isinstance(blocks, OSError):
      raise blocks
    record[path.relative_to(folder).as_posix()] = [sizes[path], *blocks]
  number, count = part
  told = json.dumps({'parts': count, 'block': BLOCK_BYTES, 'files': record})
  own = xxhash.xxh3_64_hexdigest(told.encode())
  files_lib.write_whole(_path(folder, number), f'{told}\n{own}\n')


def is_there(folder: str | pathlib.Path) -> bool:
  return _path(folder, 0).exists()


def _read(folder):
  """({name: [size, checksums]}, {checksum file: what is wrong}, whether all).

  All are there where each host that wrote the folder has kept its own.
  """
  record, wrong, complete = {}, {}, True
  number, count = 0, 1
  while number < count:
    path = _path(folder, number)
    number += 1
    if not path.exists():
      complete = False
      continue
    try:
      told, own, _ = path.read_bytes().split(b'\n')
      if xxhash.xxh3_64_hexdigest(told) != own.decode():
        raise ValueError
    except (ValueError, OSError):
      wrong[path.name] = 'is damaged itself, so that nothing can be compared'
      continue
    read = json.loads(told)
    count = read['parts']
    record |= read['files']
  return record, wrong, complete


@dataclasses.dataclass(frozen=True)
class Compared:
  """What a comparison found, and what it cost.

  `damage` is {name of a file: what is wrong with it}. `kept` says whether there
  are checksums at all, `complete` whether of all hosts that wrote.
  """

  damage: dict[str, str]
  kept: bool
  complete: bool
  num_files: int
  num_bytes: int
  seconds: float

  def told(self) -> str:
    """'params/d/ab12 is missing (and 2 files more)'."""
    first, *more = sorted(self.damage)
    return f'{first} {self.damage[first]}' + (
      f' (and {len(more)} files more)' if more else ''
    )

  def cost(self) -> str:
    """'12 files, 1.0 GB, compared with their checksums in 0.2 s'."""
    return (
      f'{self.num_files} files, {self.num_bytes / 1e9:.3g} GB, compared with '
      f'their checksums in {self.seconds:.1f} s'
    )


NOTHING = Compared({}, False, True, 0, 0, 0.0)


def joined(shares: Iterable[dict]) -> Compared:
  """The comparisons of all shares, as dictionaries, as one."""
  shares = [Compared(**share) for share in shares]
  return Compared(
    {name: what for x in shares for name, what in x.damage.items()},
    kept=any(x.kept for x in shares),
    complete=all(x.complete for x in shares),
    num_files=sum(x.num_files for x in shares),
    num_bytes=sum(x.num_bytes for x in shares),
    seconds=max(x.seconds for x in shares),
  )


def compare(
  folder: str | pathlib.Path,
  within: Iterable[str] | None = None,
  *,
  share: tuple[int, int] = (0, 1),
  by_size: Callable[[str], bool] = lambda name: False,
) -> Compared:
  """Compares the files of a folder with their checksums.

  `within` names the subfolders that are looked at; files beside them always
  are. Of all these a `share`, (number, count). Of files with a name that is to
  be compared `by_size` nothing is read.
  """
  start = time.perf_counter()
  folder = pathlib.Path(folder)
  record, damage, complete = _read(folder)
  names = [
    name
    for name in record
    if within is None or '/' not in name or name.split('/')[0] in within
  ]
  number, count = share
  # In the order of their sizes, so that shares are alike.
  names = sorted(names, key=lambda name: (record[name][0], name))[number::count]
  sizes = {}
  for name in names:
    try:
      sizes[folder / name] = (folder / name).stat().st_size
    except OSError as error:
      damage[name] = _unreadable(error)
  named = {path: path.relative_to(folder).as_posix() for path in sizes}
  what = f'comparing {folder} with its checksums'
  with progress.doing(what, quiet=number > 0):
    measured = _measure({p: sizes[p] for p in sizes if not by_size(named[p])})
  for path, size in sizes.items():
    name = named[path]
    blocks = measured.get(path)
    if isinstance(blocks, OSError):
      damage[name] = _unreadable(blocks)
    elif blocks is None and size == record[name][0]:
      continue
    elif [size, *(blocks or ())] != record[name]:
      damage[name] = _what(path, size, blocks, name, record)
  return Compared(
    damage,
    kept=bool(record or damage),
    complete=complete,
    num_files=len(names),
    num_bytes=sum(sizes[path] for path in measured),
    seconds=time.perf_counter() - start,
  )


def check(
  folder: str | pathlib.Path,
  way: str,
  *,
  by_size: Callable[[str], bool] = lambda name: False,
):
  """Raises ValueError, with the way out, for damage, if that is asked for."""
  if not asked:
    return
  compared = compare(folder, by_size=by_size)
  if compared.damage:
    raise ValueError(
      f'{folder} is damaged: {compared.told()}. {way}; --verify_stored=False '
      'takes it as it is.'
    )
  if compared.seconds > 1:
    print(f'{folder}: {compared.cost()}', file=sys.stderr, flush=True)


def _unreadable(error):
  if isinstance(error, FileNotFoundError):
    return 'is missing'
  return f'cannot be read ({error.strerror})'


def _what(path, size, blocks, name, record):
  """What is wrong with a file of `size` bytes and these checksums."""
  wanted, *checksums = record[name]
  for other, (its_size, *its) in record.items():
    if other != name and size and (its_size, its) == (size, blocks):
      return f'holds what {other} should'
  if size != wanted:
    how = 'is cut off' if size < wanted else 'has grown'
    return f'{how}: {size:,} bytes, not {wanted:,}'
  differing = [
    i for i, (a, b) in enumerate(zip(blocks, checksums, strict=True)) if a != b
  ]
  first = differing[0] * BLOCK_BYTES
  last = min(size, (differing[-1] + 1) * BLOCK_BYTES)
  zeros = all(
    not np.fromfile(
      path, np.uint8, count=BLOCK_BYTES, offset=i * BLOCK_BYTES
    ).any()
    for i in differing
  )
  return (
    f'differs from what was written, in bytes {first:,} to {last:,}'
    + ', which are all zero' * zeros
  )
