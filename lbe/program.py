"""How every program starts: its flags, its hosts, and errors said plainly."""

import pathlib
import sys

import jax
from absl import app
from absl import flags
from absl import logging

from lbe import compilation

_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Join the other processes of this run through jax.distributed, found from '
  'the environment (Cloud TPU, SLURM) or from the three flags below.',
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


def join_hosts():
  """Starts jax.distributed where the flags ask for it; call it first."""
  given = [_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value]
  if any(x is not None for x in given):
    if any(x is None for x in given):
      raise ValueError(
        'coordinator_address, num_processes and process_id go together; '
        f'given were {given}.'
      )
    jax.distributed.initialize(*given)
  elif _DISTRIBUTED.value:
    jax.distributed.initialize()


def keep_compiled(workdir=None):
  """Says where compiled programs are kept; call it behind join_hosts."""
  folder = _COMPILATION_CACHE.value
  if folder is None:
    if jax.config.jax_compilation_cache_dir:
      return
    folder = compilation.home()
    if workdir and jax.process_count() > 1:
      folder = pathlib.Path(workdir) / 'compiled'
  if folder:
    compilation.keep(folder)
  else:
    jax.config.update('jax_enable_compilation_cache', False)


def wait_for_others(name):
  """A barrier with a name; returns at once where there is one process."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def run(main):
  """Runs `main(argv)`; a user's error ends it with one message, status 1.

  Set --traceback to see where it came from.
  """

  def guarded(argv):
    # Orbax tells at INFO what it does, ten lines a save.
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)
    try:
      main(argv)
    except (ValueError, OSError, ImportError) as error:
      if _TRACEBACK.value:
        raise
      print(f'error: {error}', file=sys.stderr, flush=True)
      sys.exit(1)

  def parse(argv):
    try:
      return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, ValueError, FileNotFoundError) as error:
      # ml_collections wraps a KeyError that names the nearest known field.
      while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
      told = str(error.args[0]).replace('\n', ': ')
      print(
        f'error: in the config or its overrides: {told}',
        file=sys.stderr,
        flush=True,
      )
      sys.exit(1)

  app.run(guarded, flags_parser=parse)


_TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show the Python traceback of an error.'
)
