"""TPU slices and GPUs by name, as devices to compile for where there are none.

v5p:4x4x4   v5p-128   2*v5p:4x4x4     slices of TPUs
h100:8      2*h100:8                  GPUs of a host, and of two hosts
"""

import contextlib
import importlib.util
import math
import os
import re
import tempfile

import jax

from lbe.mesh import hardware

_NAMES = ', '.join(name for name, c in hardware.CHIPS.items() if c.memory)


def parse(name: str) -> tuple[str, tuple[int, ...], int]:
  """(chip, sides, number of slices or hosts) of a name as above.

  'v5p-128' is the name under which a slice is sold, which counts cores for
  some chips. Raises ValueError for a name that is none.
  """
  match = re.fullmatch(
    r'(?:(\d+)\*)?([a-z][a-z0-9]*(?:-(?:\d+|[a-z]+))?)(?::([\dx]+)|-(\d+))',
    name,
  )
  if not match:
    raise ValueError(
      f'topology={name!r} is no name of a slice; write CHIP:SIDES, as '
      "'v5p:4x4x4', or the sold name, as 'v5p-128', or GPU:NUMBER, as "
      "'h100:8', and '2*' before it for two slices or hosts. Chips are "
      f'{_NAMES}.'
    )
  slices, chip_name, sides, count = match.groups()
  chip = hardware.CHIPS.get(chip_name)
  if chip is None or not chip.memory:
    raise ValueError(
      f'topology={name!r}: {chip_name} is no chip that is known; take one of '
      f'{_NAMES}.'
    )
  if chip.gpu:
    if not (sides and sides.isdigit() and 1 <= int(sides) <= 8):
      raise ValueError(
        f'topology={name!r}: a host has 1 to 8 GPUs; write {chip_name}:8, and '
        f'2*{chip_name}:8 for two hosts.'
      )
    return chip_name, (int(sides),), int(slices or 1)
  if sides:
    sides = tuple(int(s) for s in sides.split('x') if s)
  else:
    sides = _sold(chip, int(count), name)
  if len(sides) != chip.sides or min(sides) < 1:
    example = 'x'.join(['4'] * chip.sides)
    raise ValueError(
      f'topology={name!r}: slices of {chip_name} have {chip.sides} sides, as '
      f'{chip_name}:{example}.'
    )
  return chip_name, sides, int(slices or 1)


def _sold(chip, count, name):
  """Sides of a slice of so many cores or chips, as equal as they come."""
  chips, rest = divmod(count, chip.per_name)
  # Sides are 1, 2, or multiples of 4 (of 8 chips on a flat slice: 2x4).
  known = [1, 2, *range(4, 257, 4)]
  fitting = [
    sides
    for sides in _products(chips, chip.sides, known)
    if chip.sides == 3 or sides[1] <= 16
  ]
  if rest or not fitting:
    raise ValueError(
      f'topology={name!r}: no slice has {count} '
      f'{"cores" if chip.per_name > 1 else "chips"}; give its sides, as '
      f'{name.split("-")[0]}:{"x".join(["4"] * chip.sides)}.'
    )
  sides = min(fitting, key=sum)  # smaller ones first, but 1 last: 2x2x1
  return tuple(sorted(sides, key=lambda side: (side == 1, side)))


def _products(number, sides, known):
  if sides == 1:
    return [(number,)] if number in known else []
  return [
    (first, *rest)
    for first in known
    if number % first == 0
    for rest in _products(number // first, sides - 1, known)
    if first <= rest[0]
  ]


def devices(name: str) -> list:
  """The devices of a slice that is not there: jit compiles for their mesh.

  Raises ValueError for a slice that libtpu does not know, ImportError where
  the compiler is missing.
  """
  chip, sides, num_slices = parse(name)
  if hardware.CHIPS[chip].gpu:
    return _gpus(hardware.CHIPS[chip], sides[0], num_slices)
  try:
    import libtpu  # noqa: F401
  except ImportError:
    raise ImportError(
      "compiling for TPUs takes libtpu: pip install 'lbe[tpu]'."
    ) from None
  # Nothing is asked of a cloud, and two compilations may run at a time.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', f'{chip}-8')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  from jax.experimental import topologies

  size = 'x'.join(str(s) for s in sides)
  more = {'num_slices': num_slices} if num_slices > 1 else {}
  if chip == 'v4':  # both cores of a chip are one device
    bounds = tuple(min(s, b) for s, b in zip(sides, (2, 2, 1), strict=True))
    more |= dict(
      chip_config_name='megacore',
      chips_per_host_bounds=bounds,
      num_slices=num_slices,
      wrap=tuple(s % 4 == 0 for s in sides),
    )
  elif math.prod(sides) < 4:
    more['chips_per_host_bounds'] = (*sides, 1)[:3]
  try:
    return topologies.get_topology_desc(
      platform='tpu', topology_name=f'{chip}:{size}', **more
    ).devices
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(
      f'topology={name!r}: libtpu knows no such slice ({error}).'
    ) from None


def _gpus(chip, per_host, num_hosts):
  """GPUs that are not there, as XLA's compiler for NVIDIA knows them."""
  missing = [
    package
    for package, module in (
      ('jax-cuda13-plugin', 'jax_cuda13_plugin'),
      ('nvidia-cuda-nvcc and nvidia-nvvm', 'nvidia.cu13'),
    )
    if importlib.util.find_spec(module.split('.')[0]) is None
    or importlib.util.find_spec(module) is None
  ]
  if missing:
    raise ImportError(
      f'compiling for GPUs takes {", ".join(missing)}: pip install '
      "'lbe[plan_gpu]' (without CUDA's own libraries)."
    )
  from jax.experimental import topologies

  gpu = chip.gpu
  # Thread and grid limits and registers are those of all since Ampere.
  target = f"""
    gpu_device_info {{
      name: "{gpu.name}"
      cuda_compute_capability {{
        major: {gpu.capability[0]} minor: {gpu.capability[1]}
        feature_extension: {_extension(gpu)}
      }}
      core_count: {gpu.cores} fpus_per_core: {gpu.fpus}
      clock_rate_ghz: {gpu.clock} l2_cache_size: {gpu.cache}
      device_memory_size: {int(chip.memory)}
      memory_bandwidth: {int(chip.memory_rate)}
      shared_memory_per_core: {gpu.shared_memory}
      shared_memory_per_block: 49152
      shared_memory_per_block_optin: {gpu.block_memory}
      threads_per_warp: 32 threads_per_block_limit: 1024
      threads_per_core_limit: 2048
      thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
      block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535 block_dim_limit_z: 65535
      registers_per_core_limit: 65536 registers_per_block_limit: 65536
    }}
    platform_name: "CUDA"
    dnn_version_info {{ major: 9 minor: 10 }}
    device_description_str: "{gpu.name}"
  """
  return topologies.get_topology_desc(
    platform='cuda',
    target_config=target,
    topology=f'1x{num_hosts}x{per_host}',
  ).devices


def _extension(gpu):
  """Hopper and newer have instructions of their own (sm_90a, sm_100a)."""
  return 'ACCELERATED_FEATURES' if gpu.capability[0] >= 9 else 'NONE'


def send_rate(chip: hardware.Chip, devices: list) -> float:
  """Bytes a second that each of these devices sends while all exchange.

  Along a side of the slice on which they lie in a closed ring both directions
  count, on an open line one; GPUs of a host have a switch between them.
  Between slices and hosts it is the network's.
  """
  if len({getattr(d, 'slice_index', 0) or 0 for d in devices}) > 1:
    return chip.network
  if chip.gpu:
    hosts = {d.process_index for d in devices}
    return chip.network if len(hosts) > 1 else chip.link
  links = 0
  for coordinates in zip(*(d.coords for d in devices), strict=True):
    length = len(set(coordinates))
    if length > 1:
      links += 2 if length % chip.ring == 0 else 1
  return chip.link * max(links, 1) / chip.per_chip


@contextlib.contextmanager
def captured():
  """A list that gets what libraries write to standard error meanwhile."""
  kept, lines = os.dup(2), []
  with tempfile.TemporaryFile() as file:
    os.dup2(file.fileno(), 2)
    try:
      yield lines
    finally:
      os.dup2(kept, 2)
      os.close(kept)
      file.seek(0)
      lines += file.read().decode(errors='replace').splitlines()
