"""What a study will take before it runs: tokens, FLOPs, time, disk, price.

And what it will be able to tell: the smallest difference of each claim.
"""

import math
import time
from collections.abc import Callable

import jax
import numpy as np

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.mesh import hardware
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.mesh import topology
from lbe.models import architecture
from lbe.models import weights
from lbe.studies import verdicts
from lbe.text import tables

# Of a chip's peak, where nothing is measured: what well-tuned training of
# models of some billions reaches.
MFU = 0.4
# Of one process beside its training: start, data, checkpoint.
_SECONDS_BESIDE = 15
_STEPS = 10
# Standard errors that a difference takes to be seen by a test at 5% in 80% of
# studies: 1.96 + 0.84.
_POWER = 2.8


class _Pieces:
  """A tokenizer of so many pieces, of which nothing else is known."""

  def __init__(self, vocab_size):
    self.vocab_size = vocab_size


def shape(record: dict, cell: dict, make_config: Callable):
  """(config, architecture) of a training cell; its base's where it has one.

  `make_config` gives a config of a cell's dictionary. The pieces are those of
  `pieces` of the cell.
  """
  by_name = {c['name']: c for c in record['cells']}
  base = cell
  while base['kind'] == 'train' and 'init_from' in base['inputs']:
    base = by_name[base['inputs']['init_from']]
  config = make_config(cell['config'])
  if base['kind'] == 'model':
    model = architecture.PRESETS[base['config']['preset']]
    model = architecture.Config.from_json(
      model.to_json() | {'vocab_size': cell['pieces']}
    )
  else:
    origin = make_config(base['config'])
    model = model_lib.make_config(origin, _Pieces(cell['pieces']))
  return config, model_lib.adapted_config(config, model)


def measure(config, model: architecture.Config) -> float:
  """Tokens a second of the train step on the devices at hand."""
  mesh = sharding.make_mesh(config.mesh.to_dict())
  partition = step_lib.make_partition(config, model)
  training = step_lib.make_training(config, model, mesh, partition, 10**6)
  state = step_lib.new_state(
    training, model_lib.init_params(model, mesh, seed=0)
  )
  step = step_lib.compile_step(
    config,
    training.step.trace(
      training.abstract_state, training.abstract_batch, training.abstract_rates
    ),
  )
  T, rng = config.data.seq_len, np.random.default_rng(0)
  rows = place.local_rows(training.abstract_batch)
  B = rows.stop - rows.start
  ids_BT = rng.integers(0, model.vocab_size, (B, T), np.int32)
  batch = {
    'ids_BT': ids_BT,
    'targets_BT': np.roll(ids_BT, -1, 1),
    'positions_BT': np.tile(np.arange(T, dtype=np.int32), (B, 1)),
    'segments_BT': np.ones((B, T), np.int32),
    'weights_BT': np.ones((B, T), np.float32),
    'num_bytes_B': np.full(B, T, np.int32),
  }
  batch = place.batch(training.abstract_batch, batch, rows)
  seconds = []
  for _ in range(_STEPS + 1):
    start = time.perf_counter()
    state, metrics = step(state, batch, training.rates(state['step']))
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - start)
  # The first one brings its arguments; the median passes over a hiccup.
  return config.data.batch_size * T / float(np.median(seconds[1:]))


def cells(record: dict, make_config: Callable, wanted: set[str]) -> list[dict]:
  """For each wanted cell name, tokens, FLOPs, bytes on disk, and its shape."""
  result = []
  for cell in record['cells']:
    if cell['name'] not in wanted:
      continue
    row = dict(name=cell['name'], tokens=0, flops=0.0, disk=0, shape=None)
    if cell['kind'] == 'train':
      config, model = shape(record, cell, make_config)
      partition = step_lib.make_partition(config, model)
      per_token = hardware.flops_per_token(
        model, config.data.seq_len, partition.frozen_names()
      )
      # Weights and two moments in float32, of each checkpoint that is kept.
      kept = 12 * weights.num_params(model) * config.checkpoint.keep
      row |= dict(
        tokens=cell['tokens'],
        flops=per_token * cell['tokens'],
        disk=kept,
        shape=(model, config.data.seq_len, config.data.batch_size),
        config=config,
      )
    result.append(row)
  return result


def unfit(rows: list[dict], num_devices: int) -> list[str]:
  """Lines: the cells that train refuses on so many devices, and why."""
  refused = {}
  for row in rows:
    if row['shape'] is None:
      continue
    config, (model, *_) = row['config'], row['shape']
    try:
      sizes = sharding.fill(config.mesh.to_dict(), num_devices)
      mesh = jax.sharding.AbstractMesh(tuple(sizes), sharding.AXES)
      step_lib.check_fit(config, model, mesh)
    except ValueError as error:
      refused.setdefault(str(error), []).append(row['name'])
  return [f'{", ".join(names)}: {why}' for why, names in refused.items()]


def here(rows: list[dict], say: Callable[[str], None]) -> float:
  """Seconds of all cells one after the other, by ten steps of each shape.

  Raises ValueError for cells that cannot be trained on the devices at hand.
  """
  if refused := unfit(rows, jax.device_count()):
    raise ValueError(
      f'on the {jax.device_count()} devices here these cells cannot be '
      'trained; estimate them elsewhere with --topology.\n' + '\n'.join(refused)
    )
  speeds, total = {}, 0.0
  for row in rows:
    if row['shape'] is None:
      total += _SECONDS_BESIDE
      continue
    if row['shape'] not in speeds:
      model, seq_len, batch_size = row['shape']
      speed = measure(row['config'], model)
      speeds[row['shape']] = speed
      say(
        f'measured: {weights.num_params(model):,} parameters, {batch_size} '
        f'rows of {seq_len}: {speed:,.0f} tokens/s'
      )
    row['seconds'] = _SECONDS_BESIDE + row['tokens'] / speeds[row['shape']]
    total += row['seconds']
  return total


def elsewhere(rows: list[dict], name: str, price: float, mfu: float) -> str:
  """A line: chip-hours and price on a topology, at a share of its peak.

  More lines where it has a number of devices on which train refuses cells.
  """
  chip_name, sides, slices = topology.parse(name)
  chip = hardware.CHIPS[chip_name]
  num_chips = math.prod(sides) * slices
  flops = sum(row['flops'] for row in rows)
  peak = chip.peak_flops * chip.per_chip
  hours = flops / (peak * mfu) / 3600
  line = (
    f'{name}: {hours:,.1f} chip-hours, {hours / num_chips:,.2f} hours on its '
    f'{num_chips} chips, at {mfu:.0%} of {peak / 1e12:,.0f} TFLOP/s'
  )
  if price:
    line += f'; {hours * price:,.0f} at {price:g} a chip-hour'
  refused = unfit(rows, num_chips * chip.per_chip)
  return '\n'.join([line, *(f'{name}: train refuses {x}' for x in refused)])


def detectable(claim: dict, cells: list[dict]) -> str:
  """The smallest difference of a claim that is seen in 80% of studies.

  By `units`, questions whose answers differ in a fifth of them, or by
  `seed_sd`, the standard deviation over seeds, and the number of those.
  """
  pairs = max(len(verdicts.cells_of(cells, t['cells'])) for t in claim['terms'])
  if claim.get('seed_sd') and pairs > 1:
    # Student's t with so few seeds stands for 1.96.
    from scipy import stats

    needed = stats.t.ppf(0.975, pairs - 1) + 0.84
    least = needed * claim['seed_sd'] * math.sqrt(2 / pairs)
    return f'{least:.3g} over {pairs} seeds of sd {claim["seed_sd"]:g}'
  if claim.get('units'):
    least = _POWER * math.sqrt(0.2 / claim['units'])
    return f'{least:.3g} over {claim["units"]:,} questions'
  return 'not known: give the claim `units`, or `seed_sd` and seeds'


def table(rows: list[dict]) -> str:
  """The cells in Markdown, their sum last."""
  lines = [
    [
      row['name'],
      f'{row["tokens"]:,}',
      f'{row["flops"]:.3g}',
      f'{row["disk"] / 1e9:,.2f}',
      f'{row["seconds"]:,.0f}' if 'seconds' in row else '',
    ]
    for row in rows
  ]
  lines.append(
    [
      f'all {len(rows)}',
      f'{sum(r["tokens"] for r in rows):,}',
      f'{sum(r["flops"] for r in rows):.3g}',
      f'{sum(r["disk"] for r in rows) / 1e9:,.2f}',
      f'{sum(r.get("seconds", 0) for r in rows):,.0f}',
    ]
  )
  heads = ['cell', 'tokens', 'FLOP', 'GB kept', 'seconds here']
  return tables.markdown(heads, 'lrrrr', lines)
