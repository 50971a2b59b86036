"""The train step: one pure function of (state, batch, rates)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.training import groups
from lbe.training import loss

# Of the usual norm of gradients: so much of it is that of the last step.
_NORM_SHARE = 0.02


def init_state(
  params: dict,
  tx: optax.GradientTransformation,
  partition: groups.Partition,
  *,
  skips_spikes: bool = False,
) -> dict:
  """{'params', 'opt_state', 'step'} around `params`, at step 0.

  And 'usual_norm', of the gradients so far, where steps far above it are
  skipped.
  """
  learning, _ = partition.split(params)
  state = {
    'params': params,
    'opt_state': tx.init(learning),
    'step': jnp.zeros((), jnp.int32),
  }
  if skips_spikes:
    state['usual_norm'] = jnp.zeros((), jnp.float32)
  return state


def state_shardings(
  mesh: jax.sharding.Mesh,
  c: architecture.Config,
  tx: optax.GradientTransformation,
  partition: groups.Partition,
  *,
  skips_spikes: bool = False,
) -> dict:
  """NamedShardings of the state: moments lie where their parameters do."""
  params = sharding.shardings(mesh, weights.dims(c))
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shapes = jax.eval_shape(
    lambda p: init_state(p, tx, partition, skips_spikes=skips_spikes),
    weights.shapes(c),
  )
  by_path = {
    tuple(k.key for k in path): s
    for path, s in jax.tree_util.tree_leaves_with_path(params)
  }

  def of_state(path, x):
    # A moment's path ends with its parameter's, or that of some of its rows.
    keys = tuple(k.key for k in path if hasattr(k, 'key'))
    for i in range(len(keys)):
      for end in (len(keys), len(keys) - 1):
        if keys[i:end] in by_path and x.ndim:
          return sharding.fitted(by_path[keys[i:end]], x.shape)
    return replicated

  return jax.tree_util.tree_map_with_path(of_state, shapes)


def batch_sums(
  params: dict,
  batch: dict,
  c: architecture.Config,
  *,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh,
  z_loss: float,
  **dropout,
) -> dict:
  """loss.sums of a batch; `dropout` goes to forward.hidden."""
  x_BTD = forward.hidden(
    params,
    c,
    batch['ids_BT'],
    positions_BT=batch['positions_BT'],
    segments_BT=batch['segments_BT'],
    execution=execution,
    mesh=mesh,
    **dropout,
  )
  return loss.sums(
    x_BTD,
    forward.head_DV(params, c),
    batch['targets_BT'],
    batch['weights_BT'],
    vocab_size=c.vocab_size,
    z_loss=z_loss,
    mesh=mesh,
  )


def make_train_step(
  c: architecture.Config,
  *,
  execution: forward.Execution,
  make_tx: Callable[[dict[str, jax.Array]], optax.GradientTransformation],
  partition: groups.Partition,
  mesh: jax.sharding.Mesh,
  num_microbatches: int,
  lora_dropout: float,
  z_loss: float,
  gradient_dtype: str,
  seed: int,
  skip_above: float = 0.0,
) -> Callable[[dict, dict, dict], tuple[dict, dict]]:
  """A pure (state, batch, rates) → (state, metrics); the caller jits it.

  `rates` are the step's learning rates by group, float32 scalars: arguments,
  so that runs of any length and rate are one program. `make_tx` gives the
  optimizer that goes by them.

  The loss is the mean over the weighted targets of the whole global batch,
  however it is cut into microbatches: gradients are summed, in
  `gradient_dtype`, and divided once in float32. Where their norm is no finite
  number, or `skip_above` (if that is not 0) times the mean of those before,
  parameters and moments stay as they were; metrics have `is_spike` then.
  Metrics are float32 scalars: `loss_sum` (nats), `weight_sum`, `num_bytes`,
  `grad_norm` (before clipping), `param_norm` (before the update), and
  `learning_rates` by group.
  """
  constrain = sharding.constrain(mesh)

  def objective(learning, frozen, batch, key):
    total = batch_sums(
      partition.join(learning, frozen),
      batch,
      c,
      execution=execution,
      mesh=mesh,
      z_loss=z_loss,
      lora_dropout=lora_dropout,
      dropout_key=key,
    )
    return total['objective'], total['loss_sum']

  def one(learning, frozen, batch, key):
    (_, loss_sum), d_learning = jax.value_and_grad(objective, has_aux=True)(
      learning, frozen, batch, key
    )
    return loss_sum, d_learning

  def accumulated(learning, frozen, batch, key):
    # Gradients have the dtype of what they are taken for; products are in the
    # compute dtype anyway.
    learning = jax.tree.map(lambda x: x.astype(gradient_dtype), learning)
    if num_microbatches == 1:
      return one(learning, frozen, batch, key)

    # Each layer's gradient is added to its sum as the backward pass makes it:
    # the whole of a microbatch's stands nowhere.
    sums = jax.tree.map(lambda x: jax.new_ref(jnp.zeros_like(x)), learning)

    def add(total, part_and_number):
      part, i = part_and_number
      part = {
        name: constrain(x, ('batch', 'position')[: x.ndim])
        for name, x in part.items()
      }
      own = jax.random.fold_in(key, i)
      value, backward, loss_sum = jax.vjp(
        lambda learning: objective(learning, frozen, part, own),
        learning,
        has_aux=True,
      )
      backward.with_refs(sums)(jnp.ones_like(value))
      return total + loss_sum, None

    total, _ = jax.lax.scan(
      add,
      jnp.zeros((), jnp.float32),
      (_microbatches(batch, num_microbatches), jnp.arange(num_microbatches)),
    )
    return total, jax.tree.map(jax.freeze, sums)

  def train_step(state, batch, rates):
    tx = make_tx(rates)
    learning, frozen = partition.split(state['params'])
    key = jax.random.fold_in(jax.random.key(seed), state['step'])
    loss_sum, d_learning = accumulated(learning, frozen, batch, key)
    weight_sum = jnp.sum(batch['weights_BT'])
    # A batch without a target changes nothing but the moments.
    scale = 1.0 / jnp.maximum(weight_sum, 1.0)
    d_learning = jax.tree.map(
      lambda d_x: d_x.astype(jnp.float32) * scale, d_learning
    )
    d_learning = partition.begun(d_learning, state['step'])
    grad_norm = optax.tree.norm(d_learning)
    updates, opt_state = tx.update(d_learning, state['opt_state'], learning)
    metrics = {
      'loss_sum': loss_sum,
      'weight_sum': weight_sum,
      'num_bytes': jnp.sum(batch['num_bytes_B']).astype(jnp.float32),
      'grad_norm': grad_norm,
      'param_norm': optax.tree.norm(state['params']),
      'learning_rates': rates,
    }
    taken = jnp.isfinite(grad_norm)
    new = {}
    if skip_above:
      # Of more parameters another norm is usual.
      usual = jnp.where(
        partition.begins(state['step']), 0.0, state['usual_norm']
      )
      is_spike = (usual > 0) & (grad_norm > skip_above * usual)
      taken &= ~is_spike
      share = jnp.where(usual > 0, _NORM_SHARE, 1.0)
      mean = share * grad_norm + (1 - share) * usual
      new['usual_norm'] = jnp.where(taken, mean, usual)
      metrics['is_spike'] = is_spike
    new |= {
      'params': partition.join(
        _where(taken, optax.apply_updates(learning, updates), learning), frozen
      ),
      'opt_state': _where(taken, opt_state, state['opt_state']),
      'step': state['step'] + 1,
    }
    return new, metrics

  return train_step


def _microbatches(batch, num_microbatches):
  """[M, B / M, ...]: each takes every M-th row, so hosts keep theirs."""

  def cut(x):
    x = x.reshape(-1, num_microbatches, *x.shape[1:])
    return jnp.moveaxis(x, 1, 0)

  return jax.tree.map(cut, batch)


def _where(taken, new, old):
  """`new`, or `old` where a gradient was not finite, or a spike.

  One such gradient would spoil the weights, and all checkpoints after it. Of
  counts the new ones: they go on, and the schedules with them. (Updates of
  zeros would do the same, but XLA keeps those zeros from the beginning of the
  step on: 12.8 GiB of a 7B on a GPU.)
  """
  return jax.tree.map(
    lambda new, old: jnp.where(taken, new, old) if new.ndim else new, new, old
  )
