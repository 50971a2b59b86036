"""Whether a checkpoint is as it was written.

Each host keeps the checksums of the files that it wrote, in the background,
when a checkpoint is whole. A bucket keeps checksums of its own.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import sys

import jax
from etils import epath

from lbe.mesh import hosts
from lbe.run import checksums

# Of each comparison of several hosts, in their talk.
_numbers = itertools.count()


def keep_checksums(step: epath.Path):
  """Those of a finished checkpoint's files that this process has written."""
  if not isinstance(step, pathlib.Path):
    return
  own = f'ocdbt.process_{jax.process_index()}/'
  first = jax.process_index() == 0
  checksums.write(
    step,
    [
      name
      for name in checksums.files(step)
      if own in name or (first and 'ocdbt.process_' not in name)
    ],
    part=(jax.process_index(), jax.process_count()),
  )


def compare(
  step: epath.Path,
  within: tuple[str, ...] | None = None,
  *,
  alone: bool = False,
) -> checksums.Compared:
  """Compares a checkpoint, or these checkpointables of it, with its checksums.

  Hosts share the work, and all get the same answer, unless it is done `alone`.
  """
  if not isinstance(step, pathlib.Path):
    return checksums.NOTHING
  if alone or hosts.alone():
    return checksums.compare(step, within)
  share = (jax.process_index(), jax.process_count())
  own = checksums.compare(step, within, share=share)
  parts = hosts.gather(f'checksums {next(_numbers)}', dataclasses.asdict(own))
  return checksums.joined(parts.values())


def checked(
  step: epath.Path,
  within: tuple[str, ...] | None = None,
  *,
  alone: bool = False,
) -> epath.Path:
  """The checkpoint; ValueError where `compare` finds damage, if it is asked."""
  if not checksums.asked:
    return step
  compared = compare(step, within, alone=alone)
  if compared.damage:
    raise ValueError(
      f'{step} is damaged: {compared.told()}. Copy it again, or take another '
      'one; --verify_stored=False takes it as it is.'
    )
  told = ''
  if compared is not checksums.NOTHING and not compared.kept:
    told = f'{step} has no checksums: it is taken as it is'
  elif compared.seconds > 1:
    told = f'{step}: {compared.cost()}'
  if told and not alone and jax.process_index() == 0:
    print(told, file=sys.stderr, flush=True)
  return step


@contextlib.contextmanager
def told_plainly(step: epath.Path):
  """What cannot be read, in a line: Orbax tells it in two hundred."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError):
    raise  # a device or its memory is at fault
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise ValueError(
      f'{step} cannot be read ({type(error).__name__}: {reason[:300]}); it is '
      'damaged, or holds another model. Copy it again, or take another one.'
    ) from error
