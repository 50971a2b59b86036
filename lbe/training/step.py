"""The train step: one pure function of (state, batch), and its memory."""

import jax
import jax.numpy as jnp
import optax

from lbe.mesh import sharding
from lbe.models import attention
from lbe.models import llama
from lbe.training import loss


def init_state(params, tx, partition):
  """{'params', 'opt_state', 'step'} around `params`, at step 0."""
  learning, _ = partition.split(params)
  return {
    'params': params,
    'opt_state': tx.init(learning),
    'step': jnp.zeros((), jnp.int32),
  }


def state_shardings(mesh, c, tx, partition):
  """NamedShardings of the state: moments lie where their parameters do."""
  params = sharding.shardings(mesh, llama.dims(c))
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shapes = jax.eval_shape(
    lambda p: init_state(p, tx, partition), llama.shapes(c)
  )
  by_path = {
    tuple(k.key for k in path): s
    for path, s in jax.tree_util.tree_leaves_with_path(params)
  }

  def place(path, x):
    # A moment's path ends with its parameter's, or that of some of its rows.
    keys = tuple(k.key for k in path if hasattr(k, 'key'))
    for i in range(len(keys)):
      for end in (len(keys), len(keys) - 1):
        if keys[i:end] in by_path and x.ndim:
          return sharding.fitted(by_path[keys[i:end]], x.shape)
    return replicated

  return jax.tree_util.tree_map_with_path(place, shapes)


def make_train_step(
  c,
  *,
  execution,
  tx,
  partition,
  mesh,
  num_microbatches,
  lora_dropout=0.0,
  z_loss=0.0,
  gradient_dtype='float32',
  seed=0,
):
  """A pure (state, batch) → (state, metrics); the caller jits it.

  The loss is the mean over the weighted targets of the whole global batch,
  however it is cut into microbatches: gradients are summed, in
  `gradient_dtype`, and divided once in float32. Where their norm is no finite
  number, parameters and moments stay as they were.
  Metrics are float32 scalars: `loss_sum` (nats), `weight_sum`, `num_bytes`,
  `grad_norm` (before clipping), `param_norm` (before the update), and
  `learning_rates` by group.
  """
  constrain = sharding.constrain(mesh)

  def objective(learning, frozen, batch, key):
    params = partition.join(learning, frozen)
    x_BTD = llama.hidden(
      params,
      c,
      batch['ids_BT'],
      positions_BT=batch['positions_BT'],
      segments_BT=batch['segments_BT'],
      execution=execution,
      mesh=mesh,
      lora_dropout=lora_dropout,
      dropout_key=key,
    )
    total = loss.sums(
      x_BTD,
      llama.head_DV(params, c),
      batch['targets_BT'],
      batch['weights_BT'],
      vocab_size=c.vocab_size,
      z_loss=z_loss,
      mesh=mesh,
    )
    return total['objective'], total['loss_sum']

  def one(learning, frozen, batch, key):
    (_, loss_sum), grads = jax.value_and_grad(objective, has_aux=True)(
      learning, frozen, batch, key
    )
    return loss_sum, grads

  def microbatch(x):
    """[M, B / M, ...]: each takes every M-th row, so hosts keep theirs."""
    x = x.reshape(-1, num_microbatches, *x.shape[1:])
    return jnp.moveaxis(x, 1, 0)

  def gradients(learning, frozen, batch, key):
    # Gradients have the dtype of what they are taken for; products are in the
    # compute dtype anyway.
    learning = jax.tree.map(lambda x: x.astype(gradient_dtype), learning)
    if num_microbatches == 1:
      return one(learning, frozen, batch, key)

    def add(total, part_and_number):
      part, i = part_and_number
      part = {
        name: constrain(x, ('batch', 'position')[: x.ndim])
        for name, x in part.items()
      }
      own = jax.random.fold_in(key, i)
      new = one(learning, frozen, part, own)
      return jax.tree.map(jnp.add, total, new), None

    zeros = jax.tree.map(jnp.zeros_like, learning)
    total, _ = jax.lax.scan(
      add,
      (jnp.zeros((), jnp.float32), zeros),
      (jax.tree.map(microbatch, batch), jnp.arange(num_microbatches)),
    )
    return total

  def train_step(state, batch):
    learning, frozen = partition.split(state['params'])
    key = jax.random.fold_in(jax.random.key(seed), state['step'])
    total, grads = gradients(learning, frozen, batch, key)
    weight_sum = jnp.sum(batch['weights_BT'])
    # A batch without a target changes nothing but the moments.
    scale = 1.0 / jnp.maximum(weight_sum, 1.0)
    grads = jax.tree.map(lambda g: g.astype(jnp.float32) * scale, grads)
    grads = partition.begun(grads, state['step'])
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state['opt_state'], learning)
    # One such gradient would spoil the weights, and all checkpoints after it.
    finite = jnp.isfinite(grad_norm)
    updates = jax.tree.map(lambda x: jnp.where(finite, x, 0), updates)
    opt_state = jax.tree.map(
      # Counts go on, and the schedules with them.
      lambda new, old: jnp.where(finite, new, old) if new.ndim else new,
      opt_state,
      state['opt_state'],
    )
    metrics = {
      'loss_sum': total,
      'weight_sum': weight_sum,
      'num_bytes': jnp.sum(batch['num_bytes_B']).astype(jnp.float32),
      'grad_norm': grad_norm,
      'param_norm': optax.tree.norm(state['params']),
      'learning_rates': partition.learning_rates(state['step']),
    }
    learning = optax.apply_updates(learning, updates)
    state = {
      'params': partition.join(learning, frozen),
      'opt_state': opt_state,
      'step': state['step'] + 1,
    }
    return state, metrics

  return train_step


def memory_estimate(
  state,
  c,
  *,
  partition,
  mesh,
  batch_size,
  seq_len,
  num_microbatches,
  execution,
  gradient_dtype='float32',
):
  """Bytes on each device by part, before anything is compiled.

  Parameters and moments as in the shapes of `state`, gradients of what learns,
  activations by what each remat policy keeps. A planning figure: the compiled
  step states its own.
  """
  learning, _ = jax.eval_shape(partition.split, state['params'])

  def per_device(tree):
    sizes = (x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    return sum(sizes) / mesh.size

  width = 2 if execution.compute_dtype == 'bfloat16' else 4
  tokens = batch_size * seq_len / num_microbatches / mesh.size
  heads = c.num_heads * c.head_dim
  kv = c.num_kv_heads * c.head_dim
  kept = c.dim  # the residual stream at the border of a layer
  if execution.remat == 'offload':
    kept = 0
  if execution.remat in ('dots', 'dots_attention'):
    kept += heads + 2 * kv + c.dim + 2 * c.mlp_dim
  if execution.remat in ('attention', 'dots_attention'):
    kept += heads
  within = 6 * c.dim + 3 * heads + 2 * kv + 4 * c.mlp_dim
  implementation = attention.chosen(execution.attention, mesh)
  scores = c.num_heads * seq_len * 4 / width * 2
  if implementation == 'splash':
    scores = 4 * heads  # none, but the queries' gradient in 4 parts at most
  if implementation == 'triton':
    scores = 0
    within += 2 * heads  # keys and values of each query head
  within += 2 * kv * (mesh.shape['context'] - 1)  # those of whole rows
  if execution.remat == 'none':
    kept += within
    within = 0
    if implementation == 'xla':
      kept += scores
      scores = 0
  activations = tokens * width * (c.num_layers * kept + within + scores)
  logits = 2 * 4 * min(loss.CHUNK, tokens) * c.padded_vocab_size
  return {
    'parameters': per_device(state['params']),
    'optimizer': per_device(state['opt_state']),
    'gradients': per_device(
      jax.tree.map(lambda x: x.update(dtype=gradient_dtype), learning)
    ),
    'activations': activations,
    'logits': logits,
  }


def check_memory(estimate, limit):
  """Raises ValueError where what is there in any case exceeds `limit` bytes.

  Parameters, moments and gradients are known to the byte; a device that does
  not say how much it holds (None) is not judged.
  """
  known = ('parameters', 'optimizer', 'gradients')
  needed = sum(estimate[name] for name in known)
  if limit and needed > limit:
    raise ValueError(
      f'parameters, moments and gradients take {needed / 2**30:.1f} GiB on '
      f'each device, which has {limit / 2**30:.1f}: they cannot fit. Take more '
      'devices along mesh.fsdp or mesh.tensor, freeze groups or adapt (lora), '
      "or keep less (optim.first_moment_dtype='bfloat16', optim.kind="
      "'adafactor'); `python -m lbe.plan` says what fits."
    )


def describe_memory(estimate):
  """One line of what `memory_estimate` gives."""
  parts = ', '.join(f'{k} {v / 2**30:.2f}' for k, v in estimate.items())
  return (
    f'memory per device: about {sum(estimate.values()) / 2**30:.2f} GiB '
    f'({parts})'
  )


def describe_compiled(compiled):
  """What XLA says of the memory of a compiled step, in one line."""
  memory = compiled.memory_analysis()
  if memory is None:
    return 'the compiler does not state its memory'
  arguments = memory.argument_size_in_bytes
  temporary = memory.temp_size_in_bytes
  return (
    f'per device {arguments / 2**30:.2f} GiB of arguments and '
    f'{temporary / 2**30:.2f} GiB of temporaries'
  )
