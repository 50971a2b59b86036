"""What a run will take on hardware that is not there: memory, time, traffic.

  python -m lbe.plan --config=configs/zh_pretrain.py:1m \\
    --config.model.preset=llama2_7b --topology=v5p:4x4x4

Compiles the run's own train step for a TPU slice, on any machine that has
libtpu (pip install 'lbe[tpu]'), or for GPUs, as h100:8 (pip install
'lbe[plan_gpu]'); with --topology=here for the devices at hand.
Of a model in init_from only the shape is read, and no data.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import pickle

import jax
from absl import flags

from lbe.assemble import config_flag
from lbe.assemble import model as model_lib
from lbe.assemble import planned
from lbe.assemble import step as step_lib
from lbe.mesh import hardware
from lbe.mesh import sharding
from lbe.mesh import topology
from lbe.models import architecture
from lbe.models import weights
from lbe.run import program
from lbe.run import progress
from lbe.vocab import tokenizers

_CONFIG = config_flag.define()
_TOPOLOGY = flags.DEFINE_string(
  'topology',
  None,
  "A slice, as 'v5p:4x4x4', its sold name, as 'v5p-128', two slices, as "
  "'2*v5p:4x4x4', GPUs of a host, as 'h100:8', of two, as '2*h100:8', or "
  "'here'.",
)
_VOCAB_SIZE = flags.DEFINE_integer(
  'vocab_size', None, '_Pieces, where neither tokenizer nor preset says it.'
)
_TOKENS = flags.DEFINE_float(
  'tokens', 0.0, 'Of the whole run, for its time and price.'
)
_PRICE = flags.DEFINE_float(
  'price', 0.0, 'Of one chip for an hour, in any currency.'
)
_SEARCH = flags.DEFINE_bool(
  'search', False, 'Try meshes, microbatches and remat; the fastest that fits.'
)
_COMPILES = flags.DEFINE_integer(
  'compiles', 4, 'How many of the search are compiled at most.'
)
_JSON = flags.DEFINE_string('json', None, 'A file for all figures.')
_EXECUTABLE = flags.DEFINE_string(
  'executable', None, 'A file for the compiled step, pickled by jax.'
)

_GIB = 2**30
# Less to spare than this is told as borderline: close to the limit XLA makes
# things again by itself, and memory is in pieces.
_MARGIN = 0.05


def main(argv):
  del argv
  config = _CONFIG.value
  if _TOPOLOGY.value == 'here':
    devices = jax.devices()
  else:
    jax.config.update('jax_platforms', 'cpu')  # for shapes alone
    with topology.captured():
      devices = topology.devices(_TOPOLOGY.value)
  chip = hardware.chip_of(devices[0].device_kind)
  model = _model(config)
  if _SEARCH.value:
    _search(config, model, devices, chip)
    return
  with _compiling():
    plan, compiled = planned.make(config, model, devices, chip, _TOPOLOGY.value)
  print(describe(plan, chip, price=_PRICE.value, tokens=_tokens(config)))
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(json.dumps(plan, indent=1))
  if _EXECUTABLE.value and compiled is not None:
    from jax.experimental import serialize_executable

    with open(_EXECUTABLE.value, 'wb') as file:
      pickle.dump(serialize_executable.serialize(compiled), file)


@contextlib.contextmanager
def _compiling():
  """Within, it is told that this goes on."""
  what = f'compiling for {_TOPOLOGY.value}: seconds, of large models minutes'
  # What is written to standard error meanwhile is taken.
  with os.fdopen(os.dup(2), 'w', encoding='utf-8') as file:
    with progress.doing(what, file=file):
      yield


def _tokens(config):
  return _TOKENS.value or config.budget.tokens


def _model(config):
  """The architecture alone: of a preset, a config's numbers, or init_from."""
  if config.init_from:
    model = model_lib.open_weights(config).config
    if _VOCAB_SIZE.value:
      model = dataclasses.replace(model, vocab_size=_VOCAB_SIZE.value)
    return model_lib.adapted_config(config, model)
  size = _VOCAB_SIZE.value
  if not size and config.tokenizer not in ('', 'train'):
    size = tokenizers.load(config.tokenizer).vocab_size
  if not size and config.model.preset in architecture.PRESETS:
    size = architecture.PRESETS[config.model.preset].vocab_size
  size = size or config.tokenizer_vocab_size
  if not size:
    raise ValueError(
      'the plan knows no vocabulary: give --vocab_size=N, --config.tokenizer, '
      '--config.model.preset or --config.init_from.'
    )
  model = model_lib.make_config(config, _Pieces(size))
  return model_lib.adapted_config(config, model)


@dataclasses.dataclass
class _Pieces:
  vocab_size: int


# ---------------------------------------------------------------- what is told


def describe(plan, chip, *, price=0.0, tokens=0.0):
  """The plan in some thirty lines."""
  # Of a toy the figures would all be 0.00.
  small = plan.get('peak_bytes', _GIB) < _GIB / 10
  g, unit = (2**20, 'MiB') if small else (_GIB, 'GiB')
  batch = plan['batch_size'] // plan['num_microbatches']
  mesh = ' x '.join(f'{a}={n}' for a, n in plan['mesh'].items()) or 'one device'
  lines = [
    f'{plan["topology"]}: {plan["devices"]} x {plan["device"]}, mesh {mesh}',
    f'model: {plan["parameters"]:,} parameters, {plan["pieces"]:,} pieces',
    f'step: {plan["num_microbatches"]} x {batch} rows of {plan["seq_len"]:,} '
    f'tokens; remat {plan["execution"]["remat"]}, layers '
    f'{"scanned" if plan["execution"]["scan"] else "unrolled"}; compiled in '
    f'{plan["compile_seconds"]:.0f} s',
    '',
    f'memory of a device, {unit}',
    f'  parameters {plan["params_bytes"] / g:8.2f}',
    f'  optimizer  {plan["opt_state_bytes"] / g:8.2f}',
  ]
  state = plan['params_bytes'] + plan['opt_state_bytes']
  peak, limit = plan.get('peak_bytes', 0), plan['memory']
  if 'flops' in plan:
    lines.append(f'  the rest   {(peak - state) / g:8.2f}  at the peak')
  line = f'  peak       {peak / g:8.2f}' if peak else '  peak unknown'
  if limit:
    left = limit - peak
    verdict = f'FITS, {left / g:.2f} to spare ({left / limit:.0%})'
    if plan['fits'] is False:
      verdict = f'DOES NOT FIT, by {-left / g:.2f}'
    elif left < _MARGIN * limit:
      verdict = f'BORDERLINE, {left / g:.2f} to spare ({left / limit:.1%})'
    pool = ''
    if chip and chip.gpu:
      pool = f' ({limit / chip.memory:.0%} of {chip.memory / g:.2f})'
    line += f'  of {limit / g:.2f}{pool}: {verdict}'
  lines.append(line)
  estimate = sum(plan['estimate'].values())
  lines.append(f'  (our estimate before compiling {estimate / g:.2f})')
  if plan.get('host_bytes'):
    lines.append(f'  on the host {plan["host_bytes"] / g:.2f}')
  if 'flops' not in plan:
    lines.append('take more remat, microbatches, or chips; --search tries.')
    return '\n'.join(lines)
  lines += [
    '',
    f'TFLOP of a device: {plan["model_flops"] / 1e12:.1f} by formula, '
    f'{plan["flops"] / 1e12:.1f} computed '
    f'({plan["flops"] / plan["model_flops"] - 1:+.0%}: what is made again, '
    'less what masks leave out)',
  ]
  for trips, flops in plan['loops'][1:]:
    lines.append(f'  a loop of {trips:3}: {flops / 1e12:.1f}')
  lines.append(f'memory traffic: {plan["memory_moved"] / 1e9:.0f} GB')
  lines.append('sent by a device in a step:')
  shown = plan['collectives'][:9]
  for c in shown:
    lines.append(
      f'  {c["kind"]:18} {"+".join(c["axes"]):12} x {c["count"]:<5} '
      f'{c["sent"] / 1e9:8.3f} GB'
    )
  if not shown:
    lines.append('  nothing')
  lines.append(
    f'  largest array gathered at once: {plan["largest_gather"] / g:.2f} {unit}'
  )
  if plan['resharded']:
    lines.append(
      f'  {plan["resharded"]} arrays are gathered whole to be cut otherwise'
    )
  if 'seconds' in plan:
    lines += _describe_time(plan, chip, price, tokens)
  return '\n'.join(lines)


def _describe_time(plan, chip, price, tokens):
  step = plan['seconds']
  lines = [
    '',
    f'a step takes {step:.3f} s at least: MFU {plan["mfu"]:.1%}, '
    f'{plan["tokens_per_second_per_device"]:,.0f} tokens/s a device, at most',
    f'  compute {plan["seconds_compute"]:.3f} s at {chip.peak_flops / 1e12:.0f}'
    f' TFLOP/s, memory {plan["seconds_memory"]:.3f} s at '
    f'{chip.memory_rate / 1e12:.2f} TB/s, network '
    f'{plan["seconds_network"]:.3f} s at {chip.link / 1e9:.0f} GB/s a link',
    '  (each loop as long as the longest of the three, the others hidden: a '
    'bound, not a forecast)',
  ]
  if tokens:
    seconds = tokens / plan['tokens_per_second_per_device'] / plan['devices']
    chips = plan['devices'] / chip.per_chip
    line = f'{tokens:,.0f} tokens: {seconds / 3600:,.1f} hours at least'
    if price:
      line += (
        f', {seconds / 3600 * chips * price:,.0f} at {price:g} a chip-hour'
      )
    lines.append(line)
  return lines


# ---------------------------------------------------------------------- search


def _search(config, model, devices, chip):
  """Prints the plans that were compiled, the fastest that fits first."""
  candidates = []
  partition = step_lib.make_partition(config, model)
  if chip is None:
    raise ValueError(
      f'--search: no speed is known of {devices[0].device_kind}; name a slice '
      'or GPUs.'
    )
  slices = sharding.num_parts(devices)
  memory_limit = planned.memory(devices[0], chip, _TOPOLOGY.value)
  for tensor, microbatches, remat in itertools.product(
    (1, 2, 4, 8), (1, 2, 4, 8), ('none', 'dots_attention', 'attention', 'full')
  ):
    tried = config.copy_and_resolve_references()
    tried.mesh.update(data=slices, fsdp=-1, tensor=tensor)
    tried.num_microbatches = microbatches
    tried.execution.remat = remat
    try:
      mesh = sharding.make_mesh(tried.mesh.to_dict(), devices=devices)
      step_lib.check_fit(tried, model, mesh)
    except ValueError:
      continue
    seconds, memory = _guess(tried, model, mesh, partition, chip)
    if memory <= memory_limit:
      candidates.append((seconds, memory, tried))
  if not candidates:
    raise ValueError(
      f'none of the meshes, microbatches and remat policies fits into '
      f'{memory_limit / _GIB:.1f} GiB by the estimate; take more chips, a '
      'smaller batch, or optim.kind and moments that keep less.'
    )
  candidates.sort(key=lambda x: x[:2])
  rows = []
  told = f'{len(candidates)} fit by the estimate; compiling the fastest'
  print(told, flush=True)
  for _, _, tried in candidates[: _COMPILES.value]:
    with _compiling():
      plan, _ = planned.make(tried, model, devices, chip, _TOPOLOGY.value)
    rows.append(plan)
    print(_row(plan), flush=True)
  fitting = [p for p in rows if p['fits']]
  if fitting:
    best = min(fitting, key=lambda p: p['seconds'])
    print('\nthe fastest that fits:\n' + _flags(best))
    print(describe(best, chip, price=_PRICE.value, tokens=_tokens(config)))
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(json.dumps(rows, indent=1))


def _guess(config, model, mesh, partition, chip):
  """(seconds, bytes) of a step before compiling, to order the candidates."""
  memory = step_lib.memory_estimate(config, model, mesh, partition)
  tokens = config.data.batch_size * config.data.seq_len / mesh.size
  flops = tokens * hardware.flops_per_token(
    model, config.data.seq_len, partition.frozen_names()
  )
  again = {'none': 0, 'dots_attention': 0.02, 'attention': 0.3, 'full': 1 / 3}
  remat = config.execution.remat
  compute = flops * (1 + again.get(remat, 1 / 3)) / chip.peak_flops
  tensor = mesh.shape['tensor']
  passes = 2 if remat == 'none' else 3  # gathers, and the gradients' sum
  gathered = 2 * weights.num_params(model) / tensor * config.num_microbatches
  links = (2 * chip.sides or 1) * chip.link / chip.per_chip
  network = gathered * (passes + 1) / links * (mesh.shape['fsdp'] > 1)
  activations = 2 * tokens * tensor * model.dim * model.num_layers
  network += 8 * activations * (tensor - 1) / tensor / (2 * chip.link)
  return max(compute, network), sum(memory.values())


def _flags(plan):
  mesh = {axis: plan['mesh'].get(axis, 1) for axis in sharding.AXES}
  given = [f'--config.mesh.{axis}={size}' for axis, size in mesh.items()]
  given.append(f'--config.num_microbatches={plan["num_microbatches"]}')
  given.append(f'--config.execution.remat={plan["execution"]["remat"]}')
  return '  ' + ' '.join(given)


def _row(plan):
  fits = {True: 'fits', False: 'does not fit', None: ''}[plan['fits']]
  figures = f'{plan.get("peak_bytes", 0) / _GIB:.2f} GiB'
  if 'seconds' in plan:
    figures += f', {plan["seconds"]:.3f} s, MFU {plan["mfu"]:.1%}'
  return f'{_flags(plan)}: {figures}, {fits}'


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'topology'])
  program.run(main, goes_on=False)
