"""The global batch: its shapes, the rows of each host, and its places."""

import jax
import jax.numpy as jnp
import numpy as np

from lbe.mesh import sharding


def shapes(mesh, batch_size, seq_len):
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


def local_rows(abstract_batch):
  """The rows [start, stop) of the global batch that this host loads."""
  struct = abstract_batch['num_bytes_B']
  slices = struct.sharding.addressable_devices_indices_map(struct.shape)
  bounds = [s[0].indices(struct.shape[0])[:2] for s in slices.values()]
  return slice(min(b[0] for b in bounds), max(b[1] for b in bounds))


def place(abstract_batch, batch, rows):
  """Local numpy rows as global arrays in their shards."""

  def one(struct, x):
    def shard(index):
      first, *rest = index
      start, stop, _ = first.indices(struct.shape[0])
      return x[(slice(start - rows.start, stop - rows.start), *rest)]

    return jax.make_array_from_callback(struct.shape, struct.sharding, shard)

  return {
    name: one(struct, np.asarray(batch[name]))
    for name, struct in abstract_batch.items()
  }
