"""How every program starts: its flags, its hosts, and errors said plainly."""

import gc
import os
import resource
import shlex
import signal
import sys
import traceback
from collections.abc import Callable

import jax
from absl import app
from absl import flags
from absl import logging

from lbe.mesh import compilation
from lbe.mesh import hardware
from lbe.mesh import hosts
from lbe.run import arguments
from lbe.run import checksums
from lbe.run import child
from lbe.run import fields
from lbe.run import identity
from lbe.run import output

_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Join the other processes of this run, found from the environment (Cloud '
  'TPU, GKE, SLURM, Open MPI); elsewhere give the three flags below.',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address', None, 'HOST:PORT of process 0.'
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'How many processes the run has.'
)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which one this is.')
_COMPILATION_CACHE = flags.DEFINE_string(
  'compilation_cache',
  None,
  'Folder where compiled programs are kept for the next time; empty keeps '
  'none. Unset it is JAX_COMPILATION_CACHE_DIR, else ~/.cache/lbe/compiled, '
  'or WORKDIR/compiled where a run has several processes.',
)
_VERIFY_STORED = flags.DEFINE_bool(
  'verify_stored',
  True,
  'Compare stored weights and data with their checksums when they are read.',
)
_HEARTBEAT = flags.DEFINE_integer(
  'heartbeat_seconds',
  hosts.HEARTBEAT_SECONDS,
  'A process that is not heard from for so long counts as dead, and all '
  'others end.',
  lower_bound=1,
)


_JOIN = flags.DEFINE_integer(
  'join_seconds',
  hosts.JOIN_SECONDS,
  'Who has not come so long after a process started is missing, and all end. '
  'More where hosts start minutes apart.',
  lower_bound=1,
)


def join_hosts():
  """Meets the other processes where the flags ask for it; call it first.

  Raises ValueError where their flags, config, code or versions differ.
  """
  given = [_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value]
  if any(x is not None for x in given):
    if any(x is None for x in given):
      raise ValueError(
        'coordinator_address, num_processes and process_id go together; '
        f'given were {given}.'
      )
  elif not _DISTRIBUTED.value:
    return
  hosts.join(
    *given,
    heartbeat_seconds=_HEARTBEAT.value,
    join_seconds=_JOIN.value,
  )
  told = {}
  for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
    value = flag.value
    if hasattr(value, 'to_dict'):
      told |= identity.flatten({flag.name: value.to_dict()})
    elif isinstance(value, str | bool | int | float | None):
      told[f'--{flag.name}'] = value
  hosts.check_same('command and code', told | hosts.facts())


def keep_compiled(workdir: str | None = None):
  """Says where compiled programs are kept; call it behind join_hosts."""
  folder = _COMPILATION_CACHE.value
  if folder is None:
    if jax.config.jax_compilation_cache_dir:
      return
    folder = compilation.home()
    if workdir and jax.process_count() > 1:
      folder = f'{workdir}/compiled'
  if folder:
    compilation.keep(folder)
  else:
    jax.config.update('jax_enable_compilation_cache', False)


def command(name: str) -> str:
  """The line that runs another program with this one's config and workdir."""
  kept = [
    argument
    for _, _, written in arguments.given(sys.argv[1:], 'config', 'workdir')
    for argument in written
  ]
  return shlex.join(['python', '-m', f'lbe.{name}', *kept])


def _leave():
  """Ends with status 1, also while others wait for this process.

  jax would wait for them, and they for it: without a word they know within
  their heartbeat's limit that it is gone. Python would wait for what compiles.
  """
  if not hosts.fail_together() or compilation.is_pending():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
  sys.exit(1)


def _told(error):
  """An error as one message; None where only a traceback can tell it."""
  mine = isinstance(error, ValueError | OSError | ImportError)
  full = isinstance(error, OSError) and error.errno is not None
  if (full or not mine) and (reason := output.disk_reason(error)):
    of = f' of {error.filename}' if getattr(error, 'filename', None) else ''
    return (
      f'the disk{of} takes no more ({reason}). Make room (or mend the folder) '
      'and start the same command again.'
    )
  return error if mine else None


# macOS sets no more (OPEN_MAX), also where the hard limit is none.
_MOST_FILES_ON_MACOS = 10_240


def _open_more_files():
  """Files that may be open: as many as the system lets this user have.

  Data is read from all of its shards, which stay open; the usual 1,024 are
  8 GB of text.
  """
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  most = hard
  if sys.platform == 'darwin':
    most = min(hard, _MOST_FILES_ON_MACOS)
  if soft < most:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run(
  main: Callable[[list[str]], None],
  *,
  goes_on: bool = True,
  num_words: int = 0,
):
  """Runs `main(argv)`; a user's error ends it with one message, status 1.

  The first `num_words` arguments may be words, as a command; all else is flags.

  Set --traceback to see where it came from. What leaves files `goes_on` where
  nobody reads its output any more; the others end.
  """
  child.end_with_parent()
  output.open_streams(goes_on=goes_on)
  _open_more_files()

  hardware.take_pool()
  # What is imported stays: 150,000 objects that each collection would visit.
  gc.freeze()

  def guarded(argv):
    # Orbax tells at INFO what it does, ten lines a save.
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)
    if not _TRACEBACK.value:
      output.hide_errors_of_threads()
    try:
      rest = argv[1 + num_words :]
      for meant in arguments.flags_meant(rest):
        raise ValueError(meant)
      if rest:
        raise ValueError(
          f'{rest[0]!r} is no flag; flags are --NAME=VALUE, see --help.'
        )
      checksums.asked = _VERIFY_STORED.value
      hardware.check_driver()
      if 'config' in flags.FLAGS:
        fields.check(flags.FLAGS['config'].value)
        if _PRINT_CONFIG.value:
          print(fields.told(flags.FLAGS['config'].value))
          return
      main(argv)
      sys.stdout.flush()
      # Process 0 may still export, and jax's own wait at the end is short.
      hosts.wait_for_others('the end', limit_seconds=hosts.DAY)
    except KeyboardInterrupt:
      print('interrupted.', file=sys.stderr, flush=True)
      os._exit(128 + signal.SIGINT)
    except Exception as error:
      told = _told(error)
      if told is not None:
        if _TRACEBACK.value:
          traceback.print_exc()
        else:
          print(f'error: {told}', file=sys.stderr, flush=True)
        _leave()
      if hosts.alone() and not compilation.is_pending():
        raise
      traceback.print_exc()
      if not hosts.alone():
        print(
          'If another process of this run ended first, its output says why; '
          'the same command on all hosts goes on from the last checkpoint.',
          file=sys.stderr,
        )
      _leave()

  def parse(argv):
    try:
      argv = arguments.find_config(argv)
      return flags.FLAGS(argv)
    except flags.Error as error:
      told = f'FATAL Flags parsing error: {error}'
      if 'as a ConfigDict' in told:
        told += ''.join(arguments.fields_meant(argv))
      told += ''.join(f'\n{meant}' for meant in arguments.flags_meant(argv[1:]))
      told += '\nPass --helpshort or --helpfull to see help on flags.'
      print(told, file=sys.stderr, flush=True)
      sys.exit(1)
    except (
      AttributeError,
      KeyError,
      TypeError,
      ValueError,
      OverflowError,
      FileNotFoundError,
      ImportError,
    ) as error:
      # ml_collections wraps a KeyError that names the nearest known field.
      while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
      told = str(error.args[0]).replace('\n', ': ')
      if isinstance(error, KeyError) and 'Did you mean' not in told:
        told += ''.join(arguments.fields_meant(argv))
      print(
        f'error: in the config or its overrides: {told}',
        file=sys.stderr,
        flush=True,
      )
      sys.exit(1)

  app.run(guarded, flags_parser=parse)


_PRINT_CONFIG = flags.DEFINE_bool(
  'print_config', False, 'Print every field of the config as it is, and stop.'
)
_TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show the Python traceback of an error.'
)
