"""Attention as one function; packed documents do not see each other."""

import functools
import importlib.util

import jax
import jax.numpy as jnp

from lbe.models.attention import blocks
from lbe.models.attention import context
from lbe.models.attention import reference
from lbe.models.attention import tiles


def precision(dtype) -> str | None:
  """Of products: float32 ones stay float32 where a chip would round them."""
  return 'highest' if dtype == jnp.float32 else None


IMPLEMENTATIONS = ('auto', 'xla', 'blocks', 'tiles', 'splash', 'tokamax')
# Those that are written for one platform.
_PLATFORMS = {'splash': 'tpu', 'tiles': 'cpu', 'tokamax': 'gpu'}
# They see whole rows.
_WHOLE = ('tiles', 'tokamax')


def chosen(implementation: str, mesh: jax.sharding.Mesh | None) -> str:
  """What 'auto' stands for: 'splash' on TPUs, 'tiles' on CPUs, else 'blocks'.

  On CPUs that cut rows, too.

  Raises ValueError where the mesh or its platform lacks the implementation,
  ImportError where its package is missing.
  """
  platform = mesh.devices.flat[0].platform if mesh is not None else 'no mesh'
  if implementation == 'auto':
    if platform == 'cpu' and context.size(mesh) == 1:
      return 'tiles'
    return 'splash' if platform == 'tpu' else 'blocks'
  if implementation in _WHOLE and context.size(mesh) > 1:
    raise ValueError(
      f'execution.attention={implementation!r} sees whole rows, but '
      f'mesh.context={context.size(mesh)} cuts them; set mesh.context=1, or '
      "take 'blocks'."
    )
  needed = _PLATFORMS.get(implementation, platform)
  if platform != needed:
    raise ValueError(
      f'execution.attention={implementation!r} runs on {needed.upper()}s, and '
      f"this is {platform}; take 'auto' or 'blocks'."
    )
  if implementation == 'tokamax' and not importlib.util.find_spec('tokamax'):
    raise ImportError(
      "execution.attention='tokamax' takes a package: pip install "
      "'lbe[tokamax]', or take 'blocks'."
    )
  return implementation


def attend_rows(
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  *,
  positions_BT: jax.Array,
  segments_BT: jax.Array,
  implementation: str,
  mesh: jax.sharding.Mesh | None,
) -> jax.Array:
  """Attention of whole rows to themselves, by an implementation.

  Positions count from 0 inside each segment, in the order of the row; over a
  mesh that cuts rows, tokens come in context's order.
  """
  implementation = chosen(implementation, mesh)
  if implementation == 'xla':
    return reference.attend(
      q_BTNH,
      k_BTKH,
      v_BTKH,
      q_positions_BT=positions_BT,
      kv_positions_BS=positions_BT,
      q_segments_BT=segments_BT,
      kv_segments_BS=segments_BT,
      precision=precision(q_BTNH.dtype),
    )
  if implementation in ('blocks', 'tiles'):
    run = {'blocks': blocks.attend, 'tiles': tiles.attend}[implementation]
    run = functools.partial(run, precision=precision(q_BTNH.dtype))
  else:
    # Importing a kernel takes half a second.
    run = importlib.import_module(
      f'lbe.models.attention.{implementation}'
    ).attend
  return run(q_BTNH, k_BTKH, v_BTKH, segments_BT=segments_BT, mesh=mesh)
