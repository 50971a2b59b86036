"""The train step of a config: what learns and how, shapes and shardings."""

import dataclasses
import re
from collections.abc import Callable

import jax
import optax

from lbe.assemble import model as model_lib
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import weights
from lbe.training import groups
from lbe.training import memory
from lbe.training import optim
from lbe.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Training:
  """What the train step needs, as shapes: nothing here is on a device."""

  model: architecture.Config
  mesh: jax.sharding.Mesh
  abstract_state: dict  # ShapeDtypeStructs with their shardings
  abstract_batch: dict
  abstract_rates: dict
  tx: object  # of any rates: it makes the state
  partition: groups.Partition
  rates: object  # the jitted step's number -> rates
  step: object  # the jitted (state, batch, rates) -> (state, metrics)


def check_fit(config, model: architecture.Config, mesh: jax.sharding.Mesh):
  """Raises ValueError where rows, model and mesh do not go together.

  It needs no data, so it is asked before hours of tokenizing.
  """
  model_lib.make_execution(config)
  if not 0 <= config.lora.dropout < 1:
    raise ValueError(
      f'lora.dropout={config.lora.dropout} is no share; it lies from 0 up to, '
      'and without, 1.'
    )
  if config.optim.gradient_dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f'optim.gradient_dtype={config.optim.gradient_dtype!r} is unknown; take '
      "'float32' or 'bfloat16'."
    )
  if config.data.seq_len > model.max_positions:
    raise ValueError(
      f"data.seq_len={config.data.seq_len} is longer than the model's "
      f'{model.max_positions} positions; shorten it.'
    )
  sharding.check(
    mesh,
    num_heads=model.num_heads,
    num_kv_heads=model.num_kv_heads,
    mlp_dim=model.mlp_dim,
    dim=model.dim,
    padded_vocab_size=model.padded_vocab_size,
    batch_size=config.data.batch_size,
    seq_len=config.data.seq_len,
    num_microbatches=config.num_microbatches,
  )


def check_base(config):
  """Raises ValueError where adapters would stand beside random weights."""
  if config.lora.params and not config.init_from:
    raise ValueError(
      f'lora.params={config.lora.params!r}: adapters need trained weights '
      'beside them; set init_from.'
    )


def memory_estimate(
  config,
  model: architecture.Config,
  mesh: jax.sharding.Mesh,
  partition: groups.Partition,
) -> dict[str, float]:
  """Bytes on each device by part, before anything is compiled."""
  # Moments are as large at any rate, so it is known before the run's length.
  tx = _make_tx(config, partition, _no_rates(partition))
  return memory.estimate(
    _abstract_state(config, model, mesh, partition, tx),
    model,
    partition=partition,
    mesh=mesh,
    batch_size=config.data.batch_size,
    seq_len=config.data.seq_len,
    num_microbatches=config.num_microbatches,
    execution=model_lib.make_execution(config),
    gradient_dtype=config.optim.gradient_dtype,
    replays=bool(config.replay_every),
  )


def check_memory(parts: dict[str, float], mesh: jax.sharding.Mesh) -> str:
  """A line on the memory of a device and what `parts` take of it.

  Raises ValueError where the state alone is more than that.
  """
  stats = mesh.local_devices[0].memory_stats() or {}
  memory.check(parts, stats.get('bytes_limit'))
  return memory.describe(parts, stats.get('bytes_limit'))


# The group of what no other one has. A group with these values learns as it
# would without one, whatever its parameters.
_REST = {
  'params': '.*',
  'rows': 'all',
  'frozen': False,
  'from_step': 0,
  'peak_lr': None,
  'schedule': None,
  'weight_decay': None,
}


def _groups(config):
  """{name: fields} of groups that change something, by name; last the rest."""
  named = {
    name: fields
    for name, fields in config.optim.groups.to_dict().items()
    if any(fields[k] != _REST[k] for k in _REST.keys() - {'params', 'rows'})
  }
  if 'rest' in named:
    raise ValueError(
      'optim.groups.rest: that name has what no other group has; set '
      'optim.peak_lr, schedule and weight_decay for it, or take another name.'
    )
  return named | {'rest': dict(_REST)}


def make_partition(
  config, model: architecture.Config, *, num_old: int | None = None
) -> groups.Partition:
  """Which parameters learn: the groups of the config, and the rest.

  `num_old` is the number of old rows of an extended vocabulary. Raises
  ValueError for groups and schedules that fit into no run, so that it is said
  before the run's length is known.
  """
  o = config.optim
  made = []
  for name, fields in _groups(config).items():
    kind, weight_decay = fields.pop('schedule'), fields.pop('weight_decay')
    optim.check_schedule(
      o.schedule if kind is None else kind,
      warmup_fraction=o.warmup_fraction,
      decay_fraction=o.decay_fraction,
    )
    if fields['from_step'] < 0:
      raise ValueError(
        f'optim.groups.{name}.from_step={fields["from_step"]} lies before the '
        'run; its first step is 0.'
      )
    del fields['peak_lr']
    if weight_decay is None:
      weight_decay = o.weight_decay
    made.append(groups.Group(name, weight_decay, **fields))
  partition = groups.Partition(made, weights.dims(model), num_old=num_old)
  if model.lora:
    adapted = {f'layers/{name}' for name in model.lora.weights}
    both = sorted(adapted - set(partition.frozen_names()))
    if both:
      raise ValueError(
        f'{", ".join(both)}: both adapted (lora) and fully trained; freeze '
        'them, as --config.optim.groups.body.frozen=True, or adapt others.'
      )
  return partition


def make_schedules(config, num_steps: int) -> dict[str, Callable]:
  """The learning rate of each group by the steps since its first one.

  Raises ValueError for a group that does not begin within the run.
  """
  o = config.optim
  schedules = {}
  for name, fields in _groups(config).items():
    from_step, kind = fields['from_step'], fields['schedule']
    peak_lr = fields['peak_lr']
    if from_step >= num_steps:
      raise ValueError(
        f'optim.groups.{name}.from_step={from_step} does not lie within the '
        f'{num_steps} steps of the run.'
      )
    left = num_steps - from_step
    schedules[name] = optim.make_schedule(
      kind=o.schedule if kind is None else kind,
      peak_lr=o.peak_lr if peak_lr is None else peak_lr,
      num_steps=left,
      warmup_steps=round(o.warmup_fraction * left),
      final_fraction=o.final_fraction,
      decay_steps=round(o.decay_fraction * left),
    )
  return schedules


def param_dtypes(config, partition: groups.Partition) -> dict[str, str]:
  """{name: dtype} of what is not float32: weights.shapes takes it."""
  dtype = config.optim.frozen_dtype
  if dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f"optim.frozen_dtype={dtype!r} is unknown; take 'float32' or 'bfloat16'."
    )
  return dict.fromkeys(partition.frozen_names(), dtype)


def _no_rates(partition):
  return {g.name: 0.0 for g in partition.learning}


def _make_tx(config, partition, rates):
  """The optimizer of one step; its state is the same at any rates."""
  o = config.optim
  return optim.make(
    partition,
    {name: optax.constant_schedule(rate) for name, rate in rates.items()},
    kind=o.kind,
    first_moment_dtype=o.first_moment_dtype,
    b1=o.b1,
    b2=o.b2,
    eps=o.eps,
    clip_norm=o.clip_norm,
  )


def _abstract_state(config, model, mesh, partition, tx):
  """The state as ShapeDtypeStructs with their shardings."""
  spikes = {'skips_spikes': bool(config.optim.skip_above)}
  shardings = step_lib.state_shardings(mesh, model, tx, partition, **spikes)
  shapes = jax.eval_shape(
    lambda params: step_lib.init_state(params, tx, partition, **spikes),
    weights.shapes(model, dtype=param_dtypes(config, partition)),
  )
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )


# Without it a CPU's compiler copies the whole state at each step, since nothing
# says which comes first: a weight's update, or that of the moments it reads.
_COMPILED_WITH = {'cpu': {'xla_cpu_copy_insertion_use_region_analysis': True}}


def make_training(
  config,
  model: architecture.Config,
  mesh: jax.sharding.Mesh,
  partition: groups.Partition,
  num_steps: int,
) -> Training:
  """The jitted train step with the shapes and shardings of its arguments.

  It hangs neither on the rates nor on the number of steps.
  """
  schedules = make_schedules(config, num_steps)
  tx = _make_tx(config, partition, _no_rates(partition))
  abstract_state = _abstract_state(config, model, mesh, partition, tx)
  abstract_batch = place.batch_shapes(
    mesh, config.data.batch_size, config.data.seq_len
  )

  # Where the step's number is, so are the rates: the host waits for neither.
  everywhere = abstract_state['step'].sharding
  abstract_rates = {
    g.name: jax.ShapeDtypeStruct((), 'float32', sharding=everywhere)
    for g in partition.learning
  }

  def rates(step):
    return partition.learning_rates(schedules, step)

  def shardings(tree):
    return jax.tree.map(lambda x: x.sharding, tree)

  step = jax.jit(
    step_lib.make_train_step(
      model,
      execution=model_lib.make_execution(config),
      make_tx=lambda rates: _make_tx(config, partition, rates),
      partition=partition,
      mesh=mesh,
      lora_dropout=config.lora.dropout,
      z_loss=config.optim.z_loss,
      gradient_dtype=config.optim.gradient_dtype,
      seed=config.seed,
      num_microbatches=config.num_microbatches,
      skip_above=config.optim.skip_above,
    ),
    donate_argnums=0,
    compiler_options=_COMPILED_WITH.get(mesh.devices.flat[0].platform),
    in_shardings=(
      shardings(abstract_state),
      shardings(abstract_batch),
      shardings(abstract_rates),
    ),
    out_shardings=(shardings(abstract_state), None),
  )
  return Training(
    model,
    mesh,
    abstract_state,
    abstract_batch,
    abstract_rates,
    tx,
    partition,
    jax.jit(rates, out_shardings=everywhere),
    step,
  )


def compile_step(config, traced: jax.stages.Traced) -> jax.stages.Compiled:
  """The compiled train step, by the compiler options of the config.

  Raises ValueError for an option that is not NAME=VALUE, or that XLA lacks, and
  for a kernel of attention that a GPU has too little shared memory for.
  """
  options = {}
  for option in config.compiler_options:
    name, given, value = option.partition('=')
    if not given:
      raise ValueError(
        f'compiler_options has {option!r}; write NAME=VALUE, as '
        "'xla_tpu_scoped_vmem_limit_kib=98304'."
      )
    # XLA takes its own spelling of them alone.
    options[name] = {'true': True, 'false': False}.get(value.lower(), value)
  try:
    return traced.lower().compile(compiler_options=options or None)
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    if re.search('shared memory', str(error), re.IGNORECASE):
      raise ValueError(
        f'execution.attention={config.execution.attention!r}: its kernel asks '
        f'for more than a block of threads has of shared memory ({error}); '
        "take execution.attention='blocks'."
      ) from None
    if not re.search('compile option|setting option', str(error)):
      raise
    raise ValueError(
      f'compiler_options={tuple(config.compiler_options)}: {error}; XLA takes '
      'other options for other devices, and of each a value of its kind.'
    ) from None


def new_state(training: Training, params: dict) -> dict:
  """The state of step 0 around `params`, which it takes over."""
  shardings = jax.tree.map(lambda x: x.sharding, training.abstract_state)

  def init_state(params):
    return step_lib.init_state(
      params,
      training.tx,
      training.partition,
      skips_spikes='usual_norm' in training.abstract_state,
    )

  init_state = jax.jit(init_state, out_shardings=shardings, donate_argnums=0)
  return init_state(params)


def describe(
  config, training: Training, num_steps: int, *, num_new: int = 0
) -> str:
  """The model, the run, the mesh, and what learns, for people.

  `num_new` rows are new in this run: a warning where they would stay as made.
  """
  model, mesh = training.model, training.mesh
  tokens_per_step = config.data.batch_size * config.data.seq_len
  exact = dataclasses.replace(model, vocab_multiple=1)  # without padding
  return (
    f'model: {weights.num_params(model):,} parameters, '
    f'{model.vocab_size:,} pieces in {model.padded_vocab_size:,} rows\n'
    f'run: {num_steps:,} steps of {tokens_per_step:,} tokens = '
    f'{num_steps * tokens_per_step:,} tokens\n'
    f'mesh: {dict(mesh.shape)} over {jax.device_count()} '
    f'{jax.devices()[0].device_kind} in {jax.process_count()} process(es)\n'
    + training.partition.describe(weights.shapes(exact))
    + _frozen_new_rows(training.partition, num_new)
  )


def _frozen_new_rows(partition, num_new):
  """A line on new rows that never learn, or ''."""
  kept = partition.frozen_new_rows()
  if not num_new or not kept:
    return ''
  fields = [f'optim.groups.{name}.frozen' for name in sorted({*kept.values()})]
  return (
    f'\nwarning: the {num_new:,} new rows of {" and ".join(kept)} never learn '
    f'({", ".join(fields)}=True); set it to False, and '
    'optim.groups.old_rows.frozen=True where they are to learn alone'
  )
