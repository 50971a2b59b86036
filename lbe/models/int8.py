"""Weights in 8 bits, for those who score and generate.

A quarter of float32's memory is read, and CPUs multiply integers fastest. Each
column of a weight has its own scale (absolute maxima, symmetric). What it is
multiplied with is split into two integers of 8 bits, about 15 bits in all, so
that what is lost is the rounding of the weights. Sums of integers are exact, so
that it is the same whichever way they are made. The head, embeddings and norms
stay as they are, as in LLM.int8() (arXiv 2208.07339). No gradients.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from lbe.models import weights

_MOST = 127
# The second integer counts in parts of the first, of which it has half at most.
_PARTS = 2 * _MOST
# Fewer rows are no product of integers for XLA on a CPU, but a slow loop.
_FEWEST_ROWS = 8
# A CPU has the sums of so few rows by themselves before a product of eight
# (LOG.md, 2026-11-30).
_MOST_SUMMED = 2


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['ints', 'scales'],
  meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Int8:
  """One weight, or those of all layers [L, ...].

  ints: int8 [out, in], the dims of either side as one; rows are read whole.
  scales: float32, the shape of what it gives out.
  """

  ints: jax.Array
  scales: jax.Array

  def astype(self, dtype) -> 'Int8':
    """Itself: what is computed with it has the dtype of the activations."""
    del dtype
    return self

  def times(self, x_BTI: jax.Array) -> jax.Array:
    """[B, T, *out] in the dtype of x, whose dims behind B and T are summed."""
    rows = x_BTI.shape[:2]
    x_CI = x_BTI.reshape(math.prod(rows), -1).astype(jnp.float32)
    largest_C1 = jnp.max(jnp.abs(x_CI), axis=-1, keepdims=True)
    scale_C1 = _scale(largest_C1)
    x_CI /= scale_C1
    first_CI = jnp.round(x_CI)
    second_CI = jnp.round((x_CI - first_CI) * _PARTS)
    both_CI = (first_CI.astype(jnp.int8), second_CI.astype(jnp.int8))
    if len(x_CI) > _MOST_SUMMED:
      sums_CO = _products(self.ints, *both_CI)
    else:
      sums_CO = jax.lax.platform_dependent(
        self.ints, *both_CI, cpu=_sums, default=_products
      )
    first_CO, second_CO = (x_CO.astype(jnp.float32) for x_CO in sums_CO)
    y_CO = (first_CO + second_CO / _PARTS) * scale_C1
    y_CO *= self.scales.reshape(-1)
    return y_CO.reshape(*rows, *self.scales.shape).astype(x_BTI.dtype)


def check(mesh: jax.sharding.Mesh):
  """Raises ValueError for a mesh of several devices."""
  if mesh.size > 1:
    raise ValueError(
      f'weights of 8 bits are for one device, and the mesh has {mesh.size}; '
      'take one, or leave the weights as they are.'
    )


def quantized(params: dict, mesh: jax.sharding.Mesh) -> dict:
  """The parameters with the weights of layers as Int8; the others stay.

  Raises ValueError as `check`.
  """
  check(mesh)
  layers = {
    name: _quantized(w_L, len(weights.takes(name)))
    if name in weights.ADAPTABLE
    else w_L
    for name, w_L in params['layers'].items()
  }
  return {**params, 'layers': layers}


def _scale(largest):
  """What one counts for; where it is not finite, the product is not either."""
  return jnp.where(largest == 0, 1, largest) / _MOST


def _products(ints_OI, first_CI, second_CI):
  """int32 [C, O] of both, by one product of their rows."""
  C = len(first_CI)
  both_CI = jnp.concatenate([first_CI, second_CI])
  missing = max(_FEWEST_ROWS - 2 * C, 0)
  y_CO = jax.lax.dot_general(
    jnp.pad(both_CI, ((0, missing), (0, 0))),
    ints_OI,
    (((1,), (1,)), ((), ())),
    preferred_element_type=jnp.int32,
  )
  return y_CO[:C], y_CO[C : 2 * C]


def _sums(ints_OI, first_CI, second_CI):
  """As `_products`, in one pass over the weight for each row.

  In a loop over two halves of it, since XLA would else make the rows' integers
  anew for each output; and as one reduction of two, since it has those of one
  made by a library, ten times as slowly.
  """
  O, I = ints_OI.shape
  halves = math.gcd(O, 2)

  def of_half(ints_OI):
    terms = tuple(
      ints_OI.astype(jnp.int32) * x_CI.astype(jnp.int32)[:, None]
      for x_CI in (first_CI, second_CI)
    )
    return jax.lax.reduce(
      terms,
      (jnp.int32(0), jnp.int32(0)),
      lambda x, y: (x[0] + y[0], x[1] + y[1]),
      dimensions=(2,),
    )

  parts = jax.lax.map(of_half, ints_OI.reshape(halves, -1, I))
  return tuple(jnp.swapaxes(x, 0, 1).reshape(-1, O) for x in parts)


def is_in(params: dict) -> bool:
  """Whether these are parameters of `quantized`."""
  layers = params.get('layers', {})  # who judges what is written has none
  return any(isinstance(x, Int8) for x in layers.values())


@functools.partial(jax.jit, static_argnums=1)
def _quantized(w_L, num_taken):
  """[L, in..., out...] as Int8, whose first `num_taken` dims are summed."""
  L, *dims = w_L.shape
  w_LIO = w_L.reshape(L, math.prod(dims[:num_taken]), -1).astype(jnp.float32)
  largest_LO = jnp.max(jnp.abs(w_LIO), axis=1)
  scales_LO = _scale(largest_LO)
  ints_LIO = jnp.round(w_LIO / scales_LO[:, None]).astype(jnp.int8)
  return Int8(
    jnp.swapaxes(ints_LIO, 1, 2), scales_LO.reshape(L, *dims[num_taken:])
  )
