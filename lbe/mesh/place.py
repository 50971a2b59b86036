"""The global batch: its shapes, the rows of each host, and on devices."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from lbe.mesh import sharding


def batch_shapes(
  mesh: jax.sharding.Mesh, batch_size: int, seq_len: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """The global batch as ShapeDtypeStructs, rows over data and fsdp."""

  def shape(dims, dtype):
    size = {'batch': batch_size, 'position': seq_len}
    return jax.ShapeDtypeStruct(
      tuple(size[d] for d in dims),
      dtype,
      sharding=jax.sharding.NamedSharding(mesh, sharding.spec(dims)),
    )

  row = ('batch', 'position')
  return {
    'ids_BT': shape(row, jnp.int32),
    'targets_BT': shape(row, jnp.int32),
    'weights_BT': shape(row, jnp.float32),
    'positions_BT': shape(row, jnp.int32),
    'segments_BT': shape(row, jnp.int32),
    'num_bytes_B': shape(('batch',), jnp.int32),
  }


def local_rows(abstract_batch: dict[str, jax.ShapeDtypeStruct]) -> slice:
  """The rows [start, stop) of the global batch that this host loads."""
  struct = abstract_batch['num_bytes_B']
  slices = struct.sharding.addressable_devices_indices_map(struct.shape)
  bounds = [s[0].indices(struct.shape[0])[:2] for s in slices.values()]
  return slice(min(b[0] for b in bounds), max(b[1] for b in bounds))


def batch(
  abstract_batch: dict[str, jax.ShapeDtypeStruct],
  local: dict[str, np.ndarray],
  rows: slice,
) -> dict[str, jax.Array]:
  """The global batch on its devices, from what this host has of it: `rows`."""

  def one(struct, x):
    def shard(index):
      first, *rest = index
      start, stop, _ = first.indices(struct.shape[0])
      return x[(slice(start - rows.start, stop - rows.start), *rest)]

    return jax.make_array_from_callback(struct.shape, struct.sharding, shard)

  return {
    name: one(struct, np.asarray(local[name]))
    for name, struct in abstract_batch.items()
  }


def array(mesh: jax.sharding.Mesh | None, x, dims: tuple):
  """A host's array on the mesh, its dims laid out where they divide."""
  if mesh is None:
    return x
  x = np.asarray(x)
  where = jax.sharding.NamedSharding(mesh, sharding.spec(dims))
  where = sharding.fitted(where, x.shape)
  return jax.make_array_from_callback(x.shape, where, lambda i: x[i])


def print_digests(step: int, batch: dict):
  """One line a row, read back from this host's shards of the batch."""
  rows = {}
  for name in sorted(batch):
    for shard in batch[name].addressable_shards:
      start = shard.index[0].indices(batch[name].shape[0])[0]
      for i, row in enumerate(np.asarray(shard.data)):
        rows.setdefault(start + i, {})[name, str(shard.index[1:])] = row
  for i, parts in sorted(rows.items()):
    digest = hashlib.sha256()
    for part in sorted(parts):
      digest.update(np.ascontiguousarray(parts[part]).tobytes())
    print(f'batch {step} {i} {digest.hexdigest()[:16]}', flush=True)
