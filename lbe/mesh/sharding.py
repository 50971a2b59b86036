"""One table from logical dims to mesh axes; meshes, shardings, and checks."""

import math
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

AXES = ('data', 'fsdp', 'context', 'tensor')

RULES = {
  'batch': ('data', 'fsdp'),
  'position': 'context',
  'embed': 'fsdp',
  'vocab': 'tensor',
  'heads': 'tensor',
  'kv_heads': 'tensor',
  'mlp': 'tensor',
  'layers': None,
  'head': None,
  'norm': None,
  'rank': None,
  None: None,
}


def spec(dims: tuple) -> PartitionSpec:
  """The PartitionSpec of an array whose dims have these logical names."""
  return PartitionSpec(*(RULES[dim] for dim in dims))


def shardings(mesh: Mesh, dims_tree):
  """A tree of logical dims as a tree of NamedShardings."""
  return jax.tree.map(
    lambda dims: NamedSharding(mesh, spec(dims)),
    dims_tree,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def fitted(sharding: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
  """The sharding without the axes that do not divide `shape`."""
  mesh = sharding.mesh
  parts = [
    axes if axes is None or size % _size(mesh, axes) == 0 else None
    for axes, size in zip(sharding.spec, shape, strict=False)
  ]
  return NamedSharding(mesh, PartitionSpec(*parts))


def _size(mesh, axes):
  axes = (axes,) if isinstance(axes, str) else axes
  return math.prod(mesh.shape[axis] for axis in axes)


def constrain(mesh: Mesh | None) -> Callable:
  """A function (x, dims) that cuts an activation by its logical dims.

  Axes that do not divide it are left out. Without a mesh x is as it was.
  """

  def constrained(x, dims):
    if mesh is None:
      return x
    where = fitted(NamedSharding(mesh, spec(dims)), x.shape)
    return jax.lax.with_sharding_constraint(x, where)

  return constrained


# ------------------------------------------------- collectives over `fsdp`


def gather(x, dim, mesh):
  """Inside shard_map: the parts of x that lie over `fsdp` along `dim`, joined.

  Ring by ring: see `rings`.
  """
  for groups in rings(mesh):
    x = jax.lax.all_gather(
      x, 'fsdp', axis=dim, tiled=True, axis_index_groups=groups
    )
  return x


def sum_scatter(x, dim, mesh):
  """Inside shard_map: the sum of x over `fsdp`, cut along `dim`."""
  for groups in reversed(rings(mesh)):
    x = jax.lax.psum_scatter(
      x,
      'fsdp',
      scatter_dimension=dim,
      tiled=True,
      axis_index_groups=groups,
    )
  return x


def rings(mesh):
  """Groups of positions along `fsdp` for one collective after the other.

  On a TPU the first are neighbours along one side of its torus and the second
  what is left. A group of all chips would be summed whole and then cut, with
  twice as much sent, by the compiler of libtpu 0.0.42. Elsewhere all
  are one group; none where the axis has one.
  """
  size = mesh.shape['fsdp']
  inner = _run_length(mesh.devices[0, :, 0, 0])
  if size == 1:
    return []
  if inner in (1, size) or size % inner:
    return [None]
  positions = np.arange(size).reshape(-1, inner)
  return [positions.tolist(), positions.T.tolist()]


def _run_length(devices):
  """How many of the first devices differ in one coordinate alone."""
  if not hasattr(devices[0], 'core_on_chip'):  # GPUs have coords alone
    return 1
  coords = np.array([(*d.coords, d.core_on_chip) for d in devices])
  moved = np.maximum.accumulate(coords != coords[0])
  return int(np.sum(moved.sum(axis=1) < 2))


# ------------------------------------------------------------------- meshes


def network_between(devices: list) -> str:
  """The attribute in which devices differ where the network parts them.

  Slices of TPUs, and of GPUs what NVLink joins. Of GPUs that do not say it,
  as those that are not there, each host is one.
  """
  slices = {getattr(d, 'slice_index', 0) for d in devices}
  if devices[0].platform == 'gpu' and len(slices) == 1:
    processes = {d.process_index for d in devices}
    if 1 < len(processes) < len(devices):
      return 'process_index'
  return 'slice_index'


def num_parts(devices: list) -> int:
  """How many slices or hosts the network parts the devices into."""
  parted_by = network_between(devices)
  return len({getattr(d, parted_by, 0) or 0 for d in devices})


def _told(shape):
  """All of its axes, as errors tell it."""
  return {axis: shape.get(axis, 1) for axis in AXES}


def fill(shape: dict[str, int], num: int) -> list[int]:
  """The size of each of AXES over so many devices, -1 being what is left.

  Raises ValueError where the axes do not fill them.
  """
  unknown = [axis for axis in shape if axis not in AXES]
  if unknown:
    raise ValueError(
      f'mesh.{unknown[0]} is no mesh axis; the axes are {", ".join(AXES)}.'
    )
  shape = _told(shape)
  sizes = list(shape.values())
  if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes):
    raise ValueError(
      f'mesh={shape}: sizes are positive, and at most one is -1.'
    )
  known = math.prod(s for s in sizes if s != -1)
  if (num % known if -1 in sizes else num != known) or known > num:
    raise ValueError(
      f'mesh={shape} asks for {"a multiple of " * (-1 in sizes)}{known} '
      f'devices, but there are {num}; the product of the axes must be {num}.'
    )
  return [num // known if s == -1 else s for s in sizes]


def make_mesh(shape: dict[str, int], *, devices=None) -> Mesh:
  """A mesh over all devices; one axis may be -1, which takes what is left.

  Several slices, or hosts of GPUs, are laid along `data`, then `fsdp`: only
  these cross the slower network. Raises ValueError where the axes do not fill
  the devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = fill(shape, len(devices))
  types = (AxisType.Auto,) * len(AXES)
  num_slices = num_parts(devices)
  if num_slices > 1:
    across = [math.gcd(sizes[0], num_slices), 1, 1, 1]
    across[1] = num_slices // across[0]
    if sizes[1] % across[1]:
      raise ValueError(
        f'mesh={_told(shape)}: data * fsdp must be a multiple of the '
        f'{num_slices} slices; give data={num_slices}.'
      )
    within = [size // a for size, a in zip(sizes, across, strict=True)]
    grid = mesh_utils.create_hybrid_device_mesh(
      within,
      across,
      devices=devices,
      process_is_granule=network_between(devices) == 'process_index',
    )
    return Mesh(grid, AXES, axis_types=types)
  if devices[0].platform == 'cpu':
    grid = np.asarray(devices).reshape(sizes)
  else:
    grid = mesh_utils.create_device_mesh(sizes, devices=devices)
  return Mesh(grid, AXES, axis_types=types)


def check(
  mesh,
  *,
  num_heads,
  num_kv_heads,
  mlp_dim,
  dim,
  padded_vocab_size,
  batch_size,
  seq_len,
  num_microbatches,
):
  """Raises ValueError where the mesh does not divide the run's dims."""
  size = dict(mesh.shape)
  rows = size['data'] * size['fsdp']
  if num_microbatches < 1 or batch_size % num_microbatches:
    raise ValueError(
      f'num_microbatches={num_microbatches} does not divide '
      f'data.batch_size={batch_size}; take a divisor of it.'
    )
  for what, value, axes, divisor, way_out in (
    (
      f'data.batch_size / num_microbatches = {batch_size // num_microbatches}'
      ' rows',
      batch_size // num_microbatches,
      'data * fsdp',
      rows,
      'take a larger batch, fewer microbatches, or more context or tensor',
    ),
    (
      # Each device holds an early and a late chunk of a row (models/context).
      f'data.seq_len={seq_len}',
      seq_len,
      '2 * context',
      2 * size['context'] if size['context'] > 1 else 1,
      'change the length or mesh.context',
    ),
    (f'the model width {dim}', dim, 'fsdp', size['fsdp'], 'lower mesh.fsdp'),
    (
      f'{num_heads} query heads',
      num_heads,
      'tensor',
      size['tensor'],
      'lower mesh.tensor',
    ),
    (
      f'{num_kv_heads} key/value heads',
      num_kv_heads,
      'tensor',
      size['tensor'],
      'lower mesh.tensor',
    ),
    (
      f'the MLP width {mlp_dim}',
      mlp_dim,
      'tensor',
      size['tensor'],
      'lower mesh.tensor',
    ),
    (
      f'{padded_vocab_size} vocabulary rows',
      padded_vocab_size,
      'tensor',
      size['tensor'],
      'raise vocab_multiple',
    ),
  ):
    if value % divisor:
      raise ValueError(
        f'{what} cannot be divided over mesh axis {axes} = {divisor}; '
        f'{way_out}.'
      )
