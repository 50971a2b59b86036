"""A run's own train step compiled for devices, and what it will take there."""

import math
import re
import time

import jax

from lbe.assemble import step as step_lib
from lbe.mesh import hardware
from lbe.mesh import hlo
from lbe.mesh import roofline
from lbe.mesh import sharding
from lbe.mesh import topology
from lbe.models import architecture
from lbe.models import weights

_GIB = 2**30
# Of the schedules; neither memory nor time hang on the rates.
_NUM_STEPS = 10**6


def make(
  config,
  model: architecture.Config,
  devices: list,
  chip: hardware.Chip | None,
  name: str,
) -> tuple[dict, jax.stages.Compiled | None]:
  """(the plan's figures as a dict, the compiled step or None).

  `name` is that of the devices, as topology.devices takes it, or 'here'. Bytes
  and FLOPs are those of one device and one step. 'fits' is False where
  the compiler runs out of memory; then there are no figures of the program.
  """
  mesh = sharding.make_mesh(config.mesh.to_dict(), devices=devices)
  step_lib.check_fit(config, model, mesh)
  partition = step_lib.make_partition(config, model)
  training = step_lib.make_training(config, model, mesh, partition, _NUM_STEPS)
  tokens = config.data.batch_size * config.data.seq_len
  plan = dict(
    topology=name,
    device=devices[0].device_kind,
    devices=mesh.size,
    mesh={axis: size for axis, size in mesh.shape.items() if size > 1},
    parameters=weights.num_params(model),
    pieces=model.vocab_size,
    seq_len=config.data.seq_len,
    batch_size=config.data.batch_size,
    num_microbatches=config.num_microbatches,
    execution=config.execution.to_dict(),
    estimate=step_lib.memory_estimate(config, model, mesh, partition),
    memory=memory(devices[0], chip, name),
    model_flops=hardware.flops_per_token(
      model, config.data.seq_len, partition.frozen_names()
    )
    * tokens
    / mesh.size,
  )
  for name in ('params', 'opt_state'):
    plan[f'{name}_bytes'] = sum(
      math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
      for x in jax.tree.leaves(training.abstract_state[name])
    )
  start = time.perf_counter()
  # tokamax takes the kernels of the default device, where others compute.
  kernels_of = devices[0] if config.execution.attention == 'tokamax' else None
  with jax.default_device(kernels_of):
    traced = training.step.trace(
      training.abstract_state, training.abstract_batch, training.abstract_rates
    )
  try:
    with topology.captured() as said:
      compiled = step_lib.compile_step(config, traced)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    needed = re.search(r'\(([\d.]+)G\) exceeds|Used ([\d.]+)G of', str(error))
    plan |= dict(fits=False, compile_seconds=time.perf_counter() - start)
    if needed:
      plan['peak_bytes'] = float(needed[1] or needed[2]) * _GIB
    return plan, None
  plan['compile_seconds'] = time.perf_counter() - start
  stated = compiled.memory_analysis()
  peak = getattr(stated, 'peak_memory_in_bytes', 0) or (
    stated.argument_size_in_bytes + stated.temp_size_in_bytes
  )
  text = compiled.as_text()
  sections = hlo.sections(text, dict(mesh.shape))
  loops = roofline.loops(
    traced.jaxpr.jaxpr,
    attention_flops=_attention_flops(config, model),
    num_devices=mesh.size,
  )
  plan |= dict(
    fits=peak <= plan['memory'] if plan['memory'] else None,
    peak_bytes=peak,
    host_bytes=stated.host_temp_size_in_bytes,
    flops=sum(flops for _, flops in loops),
    memory_moved=sum(s.memory_bytes for s in sections),
    collectives=[
      dict(kind=c.kind, axes=c.axes, count=c.count, sent=c.sent)
      for c in hlo.totals(sections)
    ],
    largest_gather=hlo.largest_gather(text),
    resharded=sum('Involuntary full remat' in line for line in said),
    loops=loops,
  )
  if chip and chip.link:
    parts = roofline.seconds(sections, loops, mesh, chip)
    plan |= _time(plan, parts, chip)
  return plan, compiled


def memory(device: jax.Device, chip: hardware.Chip | None, name: str) -> float:
  """Bytes that programs get of a device, 0 where that is not known."""
  if name == 'here':
    stats = device.memory_stats() or {}
    return stats.get('bytes_limit', 0)
  return chip.memory * (hardware.pool() if chip.gpu else 1)


def _attention_flops(config, c):
  """Of one causal product of queries and keys over a microbatch's rows."""
  rows = config.data.batch_size / config.num_microbatches
  return rows * c.num_heads * config.data.seq_len**2 * c.head_dim


def _time(plan, parts, chip):
  """Figures of the least time of a step, from those of its parts."""
  step = sum(max(p) for p in parts)
  tokens = plan['batch_size'] * plan['seq_len']
  return dict(
    seconds=step,
    seconds_of=[list(p) for p in parts],
    seconds_compute=sum(p[0] for p in parts),
    seconds_memory=sum(p[1] for p in parts),
    seconds_network=sum(p[2] for p in parts),
    mfu=plan['model_flops'] / chip.peak_flops / step,
    tokens_per_second_per_device=tokens / step / plan['devices'],
  )
