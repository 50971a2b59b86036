"""The least time of a compiled step: what it computes, moves and sends."""

import math

import jax
from jax.interpreters import partial_eval

from lbe.mesh import hardware
from lbe.mesh import hlo
from lbe.mesh import topology


def loops(
  jaxpr, *, attention_flops: float, num_devices: int
) -> list[tuple[int, float]]:
  """[(trips, FLOPs of a device in all of them)]: outside of loops, then loops.

  Of a traced function, where products are as they were written. A causal
  product of attention takes `attention_flops` on all devices; a kernel has two
  of them forward, and backward as many as _products says.
  """
  result = [[1, 0.0]]

  def walk(jaxpr, times, share, section):
    for e in jaxpr.eqns:
      name = e.primitive.name
      if name == 'dot_general':
        (contracted, _), _ = e.params['dimension_numbers']
        shape = e.invars[0].aval.shape
        depth = math.prod(shape[d] for d in contracted)
        section[1] += 2 * times * share * depth * e.outvars[0].aval.size
      elif name in ('pallas_call', 'mpmd_map'):  # the second is Mosaic's
        products = _products(str(e.params.get('name', e.params)))
        section[1] += products * times * attention_flops / num_devices
      elif name == 'scan':
        trips = times * e.params['length']
        inner = [trips, 0.0]
        result.append(inner)
        walk(e.params['jaxpr'].jaxpr, trips, share, inner)
      elif name == 'shard_map':
        # Its shapes are already those of one device.
        walk(e.params['jaxpr'], times, 1.0, section)
      elif name == 'cond':
        walk(e.params['branches'][0].jaxpr, times, share, section)
      else:
        for inner in jax.tree.leaves(
          list(e.params.values()), is_leaf=_is_jaxpr
        ):
          if _is_jaxpr(inner):
            walk(getattr(inner, 'jaxpr', inner), times, share, section)

  # A product's rule gives the gradients of frozen weights as well, which the
  # compiler leaves out.
  jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  walk(jaxpr, 1, 1 / num_devices, result[0])
  return [tuple(x) for x in result if x[1] or x[0] == 1]


def _products(name):
  """Of queries' and keys' size, causal, in a kernel of this name."""
  # tokamax's make scores and their gradients twice, of the whole square: seven
  # products in one kernel (Triton), or in two without a name (Mosaic).
  if 'flash_attention_vjp' in name:
    return 2 * 7
  if name == 'anonymous':
    return 7
  return 5 if 'dkv' in name else 2


def _is_jaxpr(x):
  return hasattr(x, 'eqns') or hasattr(getattr(x, 'jaxpr', None), 'eqns')


def seconds(
  sections: list[hlo.Section],
  loops: list[tuple[int, float]],
  mesh: jax.sharding.Mesh,
  chip: hardware.Chip,
) -> list[tuple[float, float, float]]:
  """(compute, memory, network) of each part of a step.

  A part lasts at least as long as the longest of its three, with the others
  hidden. The parts are what is outside of loops and each loop, where the
  compiled program has the loops that were written; else all is one part.
  """
  devices = mesh.devices.reshape(-1)

  def of(flops, sections):
    network = sum(
      c.sent / topology.send_rate(chip, [devices[i] for i in c.group])
      for s in sections
      for c in s.collectives
    )
    moved = sum(s.memory_bytes for s in sections)
    return flops / chip.peak_flops, moved / chip.memory_rate, network

  inner = [s for s in sections[1:] if s.trips > 1]
  if [s.trips for s in inner] != [trips for trips, _ in loops[1:]]:
    return [of(sum(flops for _, flops in loops), sections)]
  rest = [s for s in sections if s not in inner]
  return [
    of(loops[0][1], rest),
    *(of(flops, [s]) for s, (_, flops) in zip(inner, loops[1:], strict=True)),
  ]
