"""The train step of a config: what learns and how, its shapes and places."""

import dataclasses

import jax

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
  tx: object
  partition: groups.Partition
  step: object  # the jitted (state, batch) -> (state, metrics)


def check_fit(config, model, mesh, *, num_old=None):
  """Raises ValueError where rows, model, groups and mesh do not go together.

  It needs no data, so it is asked before hours of tokenizing.
  """
  model_lib.make_execution(config)
  if not 0 <= config.lora.dropout < 1:
    raise ValueError(
      f'lora.dropout={config.lora.dropout} is no share; it lies from 0 up to, '
      'and without, 1.'
    )
  if config.lora.params and not config.init_from:
    raise ValueError(
      f'lora.params={config.lora.params!r}: adapters need trained weights '
      'beside them; set init_from.'
    )
  if config.data.seq_len > model.max_positions:
    raise ValueError(
      f"data.seq_len={config.data.seq_len} is longer than the model's "
      f'{model.max_positions} positions; shorten it.'
    )
  # However long the run will be: how long is known once the data is there.
  make_partition(config, model, 10**9, num_old=num_old)
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


def check_memory(config, model, mesh, *, num_old=None):
  """Raises ValueError where the state alone is more than a device holds."""
  stats = mesh.local_devices[0].memory_stats() or {}
  partition = make_partition(config, model, 10**9, num_old=num_old)
  training = make_training(config, model, mesh, partition)
  memory.check(memory_estimate(config, training), stats.get('bytes_limit'))


def memory_estimate(config, training):
  """Bytes on each device by part, before anything is compiled."""
  return memory.estimate(
    training.abstract_state,
    training.model,
    partition=training.partition,
    mesh=training.mesh,
    batch_size=config.data.batch_size,
    seq_len=config.data.seq_len,
    num_microbatches=config.num_microbatches,
    execution=model_lib.make_execution(config),
    gradient_dtype=config.optim.gradient_dtype,
  )


def compile_step(config, lowered):
  """The compiled train step, by the compiler options of the config.

  Raises ValueError for an option that is not NAME=VALUE, or that XLA lacks.
  """
  options = {}
  for option in config.compiler_options:
    name, given, value = option.partition('=')
    if not given:
      raise ValueError(
        f'compiler_options has {option!r}; write NAME=VALUE, as '
        "'xla_tpu_scoped_vmem_limit_kib=98304'."
      )
    options[name] = value
  try:
    return lowered.compile(compiler_options=options or None)
  except jax.errors.JaxRuntimeError as error:
    if 'compile option' not in str(error):
      raise
    raise ValueError(
      f'compiler_options={tuple(config.compiler_options)}: {error}; XLA takes '
      'other options for other devices.'
    ) from None


# A group with these values learns as it would without one.
_UNCHANGED = {
  'frozen': False,
  'from_step': 0,
  'peak_lr': None,
  'schedule': None,
  'weight_decay': None,
}


def make_partition(config, model, num_steps, *, num_old=None):
  """Which parameters learn, and how: the groups of the config, and the rest.

  `num_old` is the number of old rows of an extended vocabulary. Groups that
  change nothing are left out. Raises ValueError for groups that do not fit.
  """
  o = config.optim

  def group(name, fields):
    from_step = fields.pop('from_step', 0)
    if not 0 <= from_step < num_steps:
      raise ValueError(
        f'optim.groups.{name}.from_step={from_step} does not lie within the '
        f'{num_steps} steps of the run.'
      )
    own = {k: fields.pop(k, None) for k in ('peak_lr', 'schedule')}
    weight_decay = fields.pop('weight_decay', None)
    left = num_steps - from_step
    schedule = optim.make_schedule(
      kind=o.schedule if own['schedule'] is None else own['schedule'],
      peak_lr=o.peak_lr if own['peak_lr'] is None else own['peak_lr'],
      num_steps=left,
      warmup_steps=round(o.warmup_fraction * left),
      final_fraction=o.final_fraction,
      decay_steps=round(o.decay_fraction * left),
    )
    return groups.Group(
      name,
      schedule,
      o.weight_decay if weight_decay is None else weight_decay,
      from_step=from_step,
      **fields,
    )

  def changes(fields):
    return any(fields[k] != value for k, value in _UNCHANGED.items())

  named = {k: v for k, v in o.groups.to_dict().items() if changes(v)}
  partition = groups.Partition(
    [*(group(*item) for item in named.items()), group('rest', {})],
    weights.dims(model),
    num_old=num_old,
  )
  if model.lora:
    adapted = {f'layers/{name}' for name in model.lora.weights}
    both = sorted(adapted - set(partition.frozen_names()))
    if both:
      raise ValueError(
        f'{", ".join(both)}: both adapted (lora) and fully trained; freeze '
        'them, as --config.optim.groups.body.frozen=True, or adapt others.'
      )
  return partition


def param_dtypes(config, partition):
  """{name: dtype} of what is not float32: weights.shapes takes it."""
  dtype = config.optim.frozen_dtype
  if dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f"optim.frozen_dtype={dtype!r} is unknown; take 'float32' or 'bfloat16'."
    )
  return dict.fromkeys(partition.frozen_names(), dtype)


def make_training(config, model, mesh, partition):
  """The jitted train step with the shapes and places of its arguments."""
  if config.optim.gradient_dtype not in ('float32', 'bfloat16'):
    raise ValueError(
      f'optim.gradient_dtype={config.optim.gradient_dtype!r} is unknown; take '
      "'float32' or 'bfloat16'."
    )
  tx = optim.make(
    partition,
    kind=config.optim.kind,
    first_moment_dtype=config.optim.first_moment_dtype,
    b1=config.optim.b1,
    b2=config.optim.b2,
    eps=config.optim.eps,
    clip_norm=config.optim.clip_norm,
  )
  shardings = step_lib.state_shardings(mesh, model, tx, partition)
  shapes = jax.eval_shape(
    lambda params: step_lib.init_state(params, tx, partition),
    weights.shapes(model, dtype=param_dtypes(config, partition)),
  )
  abstract_state = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )
  abstract_batch = place.shapes(
    mesh, config.data.batch_size, config.data.seq_len
  )
  step = jax.jit(
    step_lib.make_train_step(
      model,
      execution=model_lib.make_execution(config),
      tx=tx,
      partition=partition,
      mesh=mesh,
      lora_dropout=config.lora.dropout,
      z_loss=config.optim.z_loss,
      gradient_dtype=config.optim.gradient_dtype,
      seed=config.seed,
      num_microbatches=config.num_microbatches,
    ),
    donate_argnums=0,
    in_shardings=(
      shardings,
      jax.tree.map(lambda x: x.sharding, abstract_batch),
    ),
    out_shardings=(shardings, None),
  )
  return Training(
    model, mesh, abstract_state, abstract_batch, tx, partition, step
  )


def new_state(training, params):
  """The state of step 0 around `params`, which it takes over."""
  shardings = jax.tree.map(lambda x: x.sharding, training.abstract_state)

  def init_state(params):
    return step_lib.init_state(params, training.tx, training.partition)

  init_state = jax.jit(init_state, out_shardings=shardings, donate_argnums=0)
  return init_state(params)
