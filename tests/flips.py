"""Bits that flip in the memory of arrays, as a faulty one would have them."""

import ctypes

import jax


def flip(x: jax.Array, *, device: int = 0, byte: int = 0, bit: int = 0):
  """Flips a bit of what the array has on its n-th device, a CPU, in place."""
  jax.block_until_ready(x)
  part = x.addressable_shards[device].data
  address = part.unsafe_buffer_pointer() + byte
  ctypes.c_uint8.from_address(address).value ^= 1 << bit
