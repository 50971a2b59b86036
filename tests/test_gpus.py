"""What runs on NVIDIA GPUs, compiled for some that are not there."""

import types

import jax
import jax.numpy as jnp
import pytest
from absl import flags

from lbe.assemble import model as model_lib
from lbe.assemble import planned
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.configs import hardware as hardware_configs
from lbe.configs import zh_pretrain
from lbe.inference import engine
from lbe.inference import sampling
from lbe.mesh import hardware
from lbe.mesh import sharding
from lbe.mesh import topology
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights


@pytest.fixture(autouse=True, scope='module')
def nothing_kept():
  """What is compiled for absent devices cannot be loaded again."""
  jax.config.update('jax_enable_compilation_cache', False)
  yield
  jax.config.update('jax_enable_compilation_cache', True)


def gpus(name):
  pytest.importorskip(
    'jax_cuda13_plugin', reason="GPU compiler missing: pip install 'lbe[test]'"
  )
  return topology.devices(name)


def plan(name, *, chip='h100', preset='', **changes):
  """The plan of a step of zh_pretrain, small where no preset is named."""
  devices = gpus(name)
  if changes.get('execution__attention') == 'tokamax':
    pytest.importorskip('tokamax', reason="pip install 'lbe[test]'")
    flags.FLAGS.mark_as_parsed()  # tokamax would take pytest's for its own
  config = zh_pretrain.get_config(f'10k,{chip}')
  config.model.preset = preset
  if not preset:
    config.model.update(
      dim=256, num_layers=2, num_heads=4, num_kv_heads=2, mlp_dim=512
    )
    config.data.seq_len, config.data.batch_size = 256, 32
  config.execution.scan = True
  if changes.pop('adapted', False):
    common.adapt(config)
  for field, value in changes.items():
    block, _, name_in_it = field.rpartition('__')
    (config[block] if block else config).update({name_in_it or field: value})
  size = 32_000 if preset else 512
  model = model_lib.make_config(config, types.SimpleNamespace(vocab_size=size))
  model = model_lib.adapted_config(config, model)
  chip = hardware.chip_of(devices[0].device_kind)
  figures, compiled = planned.make(config, model, devices, chip, name)
  return figures, compiled and compiled.as_text()


def test_two_hosts_are_parted_by_the_network():
  """Catches tensor or fsdp neighbours in two hosts, and NVLink's rate there."""
  devices = gpus('2*h100:8')
  chip = hardware.CHIPS['h100']
  assert hardware.chip_of(devices[0].device_kind) is chip
  mesh = sharding.make_mesh(dict(fsdp=-1, tensor=2), devices=devices)
  hosts = [[d.process_index for d in row] for row in mesh.devices[0, :, 0, :]]
  assert hosts == [[0, 0]] * 4 + [[1, 1]] * 4
  assert sharding.rings(mesh) == [None]  # GPUs have coords and no torus
  assert topology.send_rate(chip, devices[:8]) == chip.link
  assert topology.send_rate(chip, devices[7:9]) == chip.network


@pytest.mark.parametrize(
  'name, changes',
  [
    ('h100:1', dict(compiler_options=('xla_gpu_enable_triton_gemm=false',))),
    ('h100:8', dict(num_microbatches=2, execution__attention='tokamax')),
    (
      'h100:8',
      dict(mesh__tensor=2, adapted=True),
    ),
    (
      'a100-80:1',
      dict(execution__scan=False, optim__gradient_dtype='bfloat16'),
    ),
  ],
)
def test_the_train_step_compiles(name, changes):
  """Catches what only GPUs refuse: coords, options, kernels, layouts."""
  figures, text = plan(name, **changes)
  assert figures['fits'] and figures['peak_bytes'] > 0
  assert 1.0 < figures['flops'] / figures['model_flops'] < 1.6
  assert ' all-to-all(' not in text
  if changes.get('execution__attention') == 'tokamax':
    assert 'mosaic_gpu' in text
  if name == 'h100:8' and 'adapted' not in changes:
    sent = {}
    for c in figures['collectives']:
      sent[c['kind']] = sent.get(c['kind'], 0) + c['sent']
    # Of each microbatch, bfloat16: gathered forward and backward, summed once.
    weights_sent = 2 * figures['parameters'] * 7 / 8 * 2
    assert sent['all-gather'] == pytest.approx(2 * weights_sent, rel=0.1)
    assert sent['reduce-scatter'] == pytest.approx(weights_sent, rel=0.1)


def test_a_7b_fits_into_an_h200_with_float32_gradients():
  """Catches arrays as large as the model that nothing needs.

  Zeros in place of updates that are not finite were 12.8 GiB of it, gradients
  of a microbatch beside their sum 24.
  """
  figures, _ = plan(
    'h200:1', chip='h200', preset='llama_7b', num_microbatches=32
  )
  assert figures['fits'], figures['peak_bytes'] / 2**30
  model = 4 * figures['parameters']
  state = figures['params_bytes'] + figures['opt_state_bytes']
  # The sum of gradients, the vocabulary's of one microbatch, and 4 rows.
  assert figures['peak_bytes'] < state + model + 9.5 * 2**30
  assert figures['compile_seconds'] < 180
  estimate = sum(figures['estimate'].values())
  assert estimate == pytest.approx(figures['peak_bytes'], rel=0.1)


@pytest.mark.parametrize(
  'name, topology_name',
  [
    ('h100-7b-lora', 'h100:1'),
    ('h100-7b', 'h100:1'),
    ('h200-7b', 'h200:1'),
    ('h100x8-7b', 'h100:8'),
  ],
)
def test_a_preset_takes_what_it_says_and_fits(name, topology_name):
  """A preset that a change of memory has made wrong; estimated alone."""
  devices = gpus(topology_name)
  config = zh_pretrain.get_config(f'1m,{name}')
  config.model.preset = 'llama_7b'
  model = model_lib.make_config(
    config, types.SimpleNamespace(vocab_size=32_000)
  )
  model = model_lib.adapted_config(config, model)
  mesh = sharding.make_mesh(config.mesh.to_dict(), devices=devices)
  step_lib.check_fit(config, model, mesh)
  partition = step_lib.make_partition(config, model)
  parts = step_lib.memory_estimate(config, model, mesh, partition)
  peak = hardware_configs.PRESETS[name]['gib'] * 2**30
  assert sum(parts.values()) == pytest.approx(peak, rel=0.1)
  chip = hardware.chip_of(devices[0].device_kind)
  assert peak < 0.92 * chip.memory


def test_scores_and_generation_compile():
  devices = gpus('h100:8')
  mesh = sharding.make_mesh(dict(fsdp=-1), devices=devices)
  c = architecture.Config(
    vocab_size=512,
    dim=128,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=64,
    mlp_dim=256,
  )
  run = engine.functions(c, forward.Execution(), mesh)

  def struct(dims, *shape, dtype=jnp.int32):
    where = jax.sharding.NamedSharding(mesh, sharding.spec(dims))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

  params = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    weights.shapes(c),
    sharding.shardings(mesh, weights.dims(c)),
  )
  rows = ('batch', None)
  batch = {
    name: struct(rows, 8, 64)
    for name in ('ids_BT', 'positions_BT', 'branches_BT', 'until_BT')
  }
  batch |= {name: struct(rows, 8, 8) for name in ('scored_BQ', 'targets_BQ')}
  scored = jax.jit(run.score.__wrapped__).lower(params, batch, None)
  assert scored.compile().memory_analysis() is not None
  prompts = dict(ids_BT=struct(rows, 8, 64))
  for name in ('lengths_B', 'seeds_B', 'samples_B'):
    prompts[name] = struct(('batch',), 8)
  prompts['live_B'] = struct(('batch',), 8, dtype=jnp.bool_)
  settings = sampling.Settings().check()
  begun = jax.jit(run.begin.__wrapped__, static_argnames=('num_new',)).lower(
    params,
    prompts,
    None,
    settings,
    struct((None,), 2),
    struct((None,), c.padded_vocab_size, dtype=jnp.bool_),
    jnp.int32(0),
    jnp.int32(4),
    num_new=16,
  )
  assert begun.compile().memory_analysis() is not None


def test_a_kernel_too_large_for_a_block_is_not_a_model_too_large():
  with pytest.raises(ValueError, match='shared memory .* take execution.atten'):
    plan('h100:1', execution__attention='tokamax', model__head_dim=512)


def test_a_value_that_is_none_of_an_option_is_told():
  with pytest.raises(ValueError, match='of each a value of its kind'):
    plan('h100:1', compiler_options=('xla_gpu_enable_triton_gemm=perhaps',))


def test_without_the_compiler_the_way_to_it_is_told(monkeypatch):
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r"pip install 'lbe\[plan_gpu\]'"):
    topology.devices('h100:8')


def test_a_mesh_over_more_gpus_than_there_are_is_refused():
  with pytest.raises(ValueError, match='asks for 8 devices, but there are 1'):
    sharding.make_mesh(dict(fsdp=8), devices=gpus('h100:1'))


@pytest.mark.parametrize(
  'told',
  [
    'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19',
    'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Rel',
  ],
)
def test_a_driver_too_old_for_the_plugin_is_told(told, tmp_path, monkeypatch):
  """jax warns in the middle of others, and a 7B trains on the CPU."""
  file = tmp_path / 'version'
  file.write_text(told)
  monkeypatch.setattr(hardware.importlib.util, 'find_spec', lambda name: name)
  hardware.check_driver(str(file))  # on the CPU by choice, as in all tests
  monkeypatch.delenv('JAX_PLATFORMS')
  with pytest.raises(
    ValueError, match=r'is 5[37]5\..*needs 580.*lbe\[cuda12\]'
  ):
    hardware.check_driver(str(file))
  file.write_text(told.replace('535', '580').replace('575', '580'))
  hardware.check_driver(str(file))
  hardware.check_driver(str(tmp_path / 'none'))


def test_the_pool_is_taken_where_nothing_else_is_asked_for(monkeypatch):
  for name in ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION'):
    monkeypatch.delenv(name, raising=False)
  hardware.take_pool()
  assert hardware.pool() == 0.92
  monkeypatch.delenv('XLA_CLIENT_MEM_FRACTION')
  monkeypatch.setenv('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.5')
  hardware.take_pool()  # jax refuses both names together
  assert hardware.pool() == 0.5
  assert 'XLA_CLIENT_MEM_FRACTION' not in hardware.os.environ
