"""Compilation: kept from one process to the next, and told where it repeats.

What a run does again and again compiles the first time only. Where something
compiles later, a line names it and the arguments that differ from before.
"""

import contextlib
import functools
import inspect
import os
import pathlib
import threading
from collections.abc import Callable
from concurrent import futures

import jax
import xxhash

# There is no public way to the files; what reads and writes them is replaced.
from jax._src import compilation_cache
from jax._src import lru_cache

# -------------------------------------------------------------- kept programs


def keep(folder: str | pathlib.Path):
  """Programs compiled from now on are kept in `folder`, and found there.

  Call it before anything is compiled. What takes less than a fiftieth of a
  second is made anew. Of several processes the first one writes, so that the
  folder is to be one that all of them see. What was damaged there is made anew.
  """
  compilation_cache.get_file_cache = _checked_cache
  jax.config.update('jax_compilation_cache_dir', str(folder))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.02)


class _Checked(lru_cache.LRUCache):
  """JAX's files, each with its xxHash behind it.

  JAX has none: of 11 flipped bits 3 ended the process, and one trained other
  numbers.
  """

  def get(self, key):
    data = super().get(key)
    if data is None:
      return None
    program, own = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    if xxhash.xxh3_64_digest(program) == own:
      return program
    # Also one that another version wrote without. In its place comes a new one.
    (self.path / f'{key}-cache').unlink(missing_ok=True)
    return None

  def put(self, key, value):
    super().put(key, value + xxhash.xxh3_64_digest(value))


_HASH_BYTES = 8


def _checked_cache(path):
  size = jax.config.jax_compilation_cache_max_size
  return _Checked(path, max_size=size), path


def home() -> pathlib.Path:
  """The user's own folder for compiled programs."""
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'lbe' / 'compiled'


def num_found() -> int:
  """How many programs this thread has found there."""
  return _found.count(threading.get_ident())


def beside(make: Callable) -> futures.Future:
  """Begins `make()`, which compiles, in a thread that no error waits for."""
  pool = futures.ThreadPoolExecutor(1, thread_name_prefix=_BESIDE)
  future = pool.submit(make)
  pool.shutdown(wait=False)
  return future


def is_pending() -> bool:
  """Whether something compiles beside: Python would not end before it does."""
  return any(x.name.startswith(_BESIDE) for x in threading.enumerate())


_BESIDE = 'compiling'

# ----------------------------------------------------------------- recompiled

_compiled = []  # {'name', 'seconds', 'reason'} in their order
_found = []  # the threads that asked for them
_seen = {}  # signatures by the name of a function of `jit`


def _note_compiled(event, seconds, *, fun_name='a function', **_):
  if event == '/jax/core/compile/backend_compile_duration':
    _compiled.append({'name': fun_name, 'seconds': seconds, 'reason': ''})


def _note_found(event, **_):
  if event == '/jax/compilation_cache/cache_hits':
    _found.append(threading.get_ident())


jax.monitoring.register_event_duration_secs_listener(_note_compiled)
jax.monitoring.register_event_listener(_note_found)


def num_compiled() -> int:
  """How many programs this process has compiled, or found."""
  return len(_compiled)


class Watch:
  """Tells what compiles in a part of the run that has been there before.

  with watch('step'):  # silent the first time
    ...
  """

  def __init__(self, say: Callable[[str], None]):
    self._say = say
    self._parts = set()

  @contextlib.contextmanager
  def __call__(self, part: str):
    first = part not in self._parts
    self._parts.add(part)
    before = len(_compiled)
    yield
    for it in _compiled[before:] if not first else ():
      self._say(
        f'warning: {part} compiled {it["name"]} again, {it["seconds"]:.1f} s'
        + (it['reason'] and f': {it["reason"]}')
      )


def jit(function: Callable, **options) -> Callable:
  """jax.jit of a function whose arguments a Watch is to tell apart."""
  jitted = jax.jit(function, **options)
  of = inspect.signature(function)
  static = options.get('static_argnames', ())
  seen = _seen.setdefault(function.__name__, [])

  @functools.wraps(function)
  def call(*args, **kwargs):
    before = len(_compiled)
    result = jitted(*args, **kwargs)
    for it in _compiled[before:]:
      if it['name'] == f'jit({function.__name__})':
        new = _signature(of.bind(*args, **kwargs).arguments, static)
        it['reason'] = _difference(seen, new)
        seen.append(new)
    return result

  return call


def _signature(arguments, static):
  """{path: (shape and dtype, sharding)} of the leaves of named arguments."""
  result = {}
  for path, x in jax.tree_util.tree_leaves_with_path(arguments):
    name = path[0].key + jax.tree_util.keystr(path[1:])
    if not hasattr(x, 'shape'):
      result[name] = (repr(x) if name in static else type(x).__name__, '')
      continue
    where = str(getattr(x, 'sharding', 'the host'))
    if not getattr(x, 'committed', True):
      where += ', where JAX put it'
    shape = ','.join(str(n) for n in x.shape)
    result[name] = (f'{x.dtype}[{shape}]', where)
  return result


def _difference(seen, new, most=3):
  """How `new` differs from the nearest signature that was seen, in words."""
  if not seen:
    return ''

  def differing(old):
    return [k for k in {**old, **new} if old.get(k) != new.get(k)]

  old = min(reversed(seen), key=lambda s: len(differing(s)))
  changes = []
  for name in differing(old):
    (was, was_at), (now, now_at) = (
      s.get(name, ('absent', '')) for s in (old, new)
    )
    if was == now:
      was, now = was_at, now_at
    changes.append(f'{name} was {was}, is {now}')
  if not changes:
    return 'its arguments are as before, so the model or how it runs changed'
  more = f' and {len(changes) - most} more' if len(changes) > most else ''
  return '; '.join(changes[:most]) + more
