"""Facts of accelerators, and how model FLOPs are counted."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Collection

# Of a GPU's memory, for jax's pool. jax's own 0.75 leaves 35 GiB of an H200
# idle; CUDA's context, NCCL's buffers and what libraries load take a few GiB
# beside the pool.
_POOL = 0.92
# The oldest driver of NVIDIA that CUDA 13 runs on.
_DRIVER = 580
# The second is older. jax refuses both together.
_POOL_NAMES = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION')


@dataclasses.dataclass(frozen=True)
class Gpu:
  """What XLA must know of a GPU to compile for it where there is none."""

  name: str
  capability: tuple  # compute capability: major, minor
  cores: int  # streaming multiprocessors
  fpus: int  # of a core
  clock: float  # GHz
  cache: int  # bytes of L2
  shared_memory: int  # bytes of a core
  block_memory: int  # of that, for one block at most


@dataclasses.dataclass(frozen=True)
class Chip:
  """One JAX device. Rates are a second's; memory and links are for plans.

  `peak_flops` is dense bf16. `memory` is what programs get: for TPUs as libtpu
  says, which keeps a little for itself; of a GPU's, all of it, the pool has a
  share. A link leads to one neighbour, and `link` is its bytes in one
  direction (NVLink's: of all links, to the switch); `network` are those of a
  device between slices or hosts. `per_chip` devices share a chip and its
  links; `per_name` of what the sold name counts (v5p-128 has 128 cores) make a
  chip. A side of a slice closes to a ring where it is a multiple of `ring`.
  """

  kinds: tuple  # of jax.Device.device_kind, as they begin
  peak_flops: float
  memory: float = 0.0
  memory_rate: float = 0.0
  link: float = 0.0
  network: float = 0.0
  sides: int = 0
  ring: int = 0
  per_chip: int = 1
  per_name: int = 1
  gpu: Gpu | None = None


_GIB = 2**30
# Cloud TPU documentation, pages of each generation (FLOP/s, memory bandwidth,
# inter-chip and data center bandwidth a chip; a link is the inter-chip figure,
# both directions, by two and by ports); v4's links: Jouppi et al.
# 2023 (arXiv 2304.01433), its network taken for v5e's. Memory as the
# compiler of libtpu 0.0.42 states it. Two devices share a chip of TPU7x.
# NVIDIA: FLOP/s without sparsity and NVLink (half of what is stated, which is
# both directions; of PCIe cards that of PCIe 5.0) of the data sheets of A100,
# H100, H200 and B200; network of the DGX of each, a 200 or 400 Gb/s port a GPU
# (of PCIe cards taken for 200); memory, its rate and
# what the compiler must know from openxla/xla's target_config/specs (Apache
# 2.0).
CHIPS = {
  'v4': Chip(
    ('TPU v4',), 275e12, 30.75 * _GIB, 1.2e12, 50e9, 3.1e9, 3, 4, per_name=2
  ),
  'v5e': Chip(
    ('TPU v5 lite', 'TPU v5e'),
    197e12,
    15.75 * _GIB,
    819e9,
    50e9,
    3.1e9,
    2,
    16,
  ),
  'v5p': Chip(
    ('TPU v5', 'TPU v5p'),
    459e12,
    95.74 * _GIB,
    2.765e12,
    100e9,
    6.25e9,
    3,
    4,
    per_name=2,
  ),
  'v6e': Chip(
    ('TPU v6 lite', 'TPU v6e'),
    918e12,
    31.25 * _GIB,
    1.638e12,
    100e9,
    12.5e9,
    2,
    16,
  ),
  'tpu7x': Chip(
    ('TPU7x',),
    2307e12 / 2,
    94.75 * _GIB,
    7.38e12 / 2,
    100e9,
    12.5e9 / 2,
    3,
    4,
    per_chip=2,
    per_name=2,
  ),
  'a100-40': Chip(
    ('NVIDIA A100-SXM4-40GB', 'NVIDIA A100-PCIE-40GB'),
    312e12,
    42331013120,
    1.5552e12,
    300e9,
    25e9,
    gpu=Gpu(
      'NVIDIA A100-SXM4-40GB', (8, 0), 108, 64, 1.41, 41943040, 167936, 166912
    ),
  ),
  'a100-80': Chip(
    ('NVIDIA A100',),
    312e12,
    85100068864,
    2.03904e12,
    300e9,
    25e9,
    gpu=Gpu(
      'NVIDIA A100-SXM4-80GB', (8, 0), 108, 64, 1.41, 41943040, 167936, 166912
    ),
  ),
  'h100': Chip(
    ('NVIDIA H100',),
    989e12,
    84942979072,
    3.35232e12,
    450e9,
    50e9,
    gpu=Gpu(
      'NVIDIA H100 80GB HBM3',
      (9, 0),
      132,
      128,
      1.98,
      52428800,
      233472,
      232448,
    ),
  ),
  'h100-pcie': Chip(
    ('NVIDIA H100 PCIe',),
    756e12,
    84942979072,
    2.03904e12,
    64e9,
    25e9,
    gpu=Gpu(
      'NVIDIA H100 PCIe', (9, 0), 114, 128, 1.755, 52428800, 233472, 232448
    ),
  ),
  # For MFU alone: XLA's specs have no such card.
  'h100-nvl': Chip(('NVIDIA H100 NVL', 'NVIDIA H200 NVL'), 835e12),
  'h200': Chip(
    ('NVIDIA H200',),
    989e12,
    151397597184,
    4.8e12,
    450e9,
    50e9,
    gpu=Gpu('NVIDIA H200', (9, 0), 132, 128, 1.98, 52428800, 233472, 232448),
  ),
  'b200': Chip(
    ('NVIDIA B200',),
    2250e12,
    191514411008,
    7.67232e12,
    900e9,
    50e9,
    gpu=Gpu('NVIDIA B200', (10, 0), 148, 128, 1.965, 132644864, 233472, 232448),
  ),
}


def chip_of(device_kind: str) -> Chip | None:
  """The Chip of a device kind, None where it is not known (CPUs)."""
  named = {
    kind: chip
    for chip in CHIPS.values()
    for kind in chip.kinds
    if device_kind.startswith(kind)
  }
  return named[max(named, key=len)] if named else None


def pool() -> float:
  """The share of a GPU's memory that jax takes for its arrays."""
  given = [os.environ[name] for name in _POOL_NAMES if os.environ.get(name)]
  return float(given[0]) if given else _POOL


def take_pool():
  """Asks jax for that share; call it before jax looks for devices."""
  if not any(os.environ.get(name) for name in _POOL_NAMES):
    os.environ[_POOL_NAMES[0]] = str(_POOL)


def check_driver(path: str = '/proc/driver/nvidia/version'):
  """Raises ValueError where NVIDIA's driver is too old for jax's plugin.

  jax alone would warn, and go on with the CPU. `path` is where the driver says
  its version.
  """
  if not os.path.exists(path) or os.environ.get('JAX_PLATFORMS') == 'cpu':
    return
  with open(path, encoding='utf-8') as file:
    found = re.search(r'\s((\d+)\.[\d.]+)', file.read())
  newer = importlib.util.find_spec('jax_cuda13_plugin')
  if found and newer and int(found[2]) < _DRIVER:
    raise ValueError(
      f"NVIDIA's driver is {found[1]}, and jax's plugin for CUDA 13 needs "
      f'{_DRIVER} or newer: install a newer driver, or pip uninstall '
      "jax-cuda13-plugin and pip install 'lbe[cuda12]', or set "
      'JAX_PLATFORMS=cpu.'
    )


def peak_flops(device_kind: str) -> float | None:
  """Peak bf16 FLOP/s of a device kind, None where it is not known (CPUs)."""
  chip = chip_of(device_kind)
  return chip and chip.peak_flops


def flops_per_token(c, seq_len: int, frozen: Collection[str] = ()) -> float:
  """Model FLOPs of training on one token, forward and backward.

  6 for each weight of a matrix product (the head once, the embedding's
  look-up not), 4 for one of the names `frozen`, which needs no gradient, and 6
  * L * N * H * T for attention: 12 would be the full square, of which a causal
  row of T tokens needs half. Recomputation and adapters do not count.
  """
  heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
  outputs = dict(q=heads, k=kv_heads, v=kv_heads, o=heads)
  outputs |= dict.fromkeys(('gate', 'up', 'down'), c.mlp_dim)
  weights = {k: c.num_layers * c.dim * n for k, n in outputs.items()}
  # A tied head is the embedding.
  weights['embed' if c.tied else 'head'] = c.dim * c.vocab_size
  kept = {name.split('/')[-1].split('_')[0] for name in frozen}
  attention = c.num_layers * c.num_heads * c.head_dim * seq_len
  return 6 * attention + sum(
    (4 if name in kept else 6) * size for name, size in weights.items()
  )


def describe_mfu(
  c, seq_len: int, frozen: Collection[str], device_kind: str
) -> str:
  """One line: what MFU is measured against."""
  line = (
    f'model FLOPs: {flops_per_token(c, seq_len, frozen):,} a token (6 for each '
    'weight of a product, 4 for a frozen one, attention causal, recomputation '
    'not counted)'
  )
  peak = peak_flops(device_kind)
  if peak is None:
    return f'{line}; no peak is known of {device_kind}, so no MFU'
  return f'{line}; MFU is their share of {peak / 1e12:,.0f} TFLOP/s a chip'
