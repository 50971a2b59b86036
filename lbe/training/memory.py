"""The memory of a train step: before it is compiled, and as XLA states it."""

import jax

from lbe.models import architecture
from lbe.models import attention
from lbe.models import forward
from lbe.models.attention import blocks
from lbe.text import tables
from lbe.training import groups
from lbe.training import loss


def estimate(
  state: dict,
  c: architecture.Config,
  *,
  partition: groups.Partition,
  mesh: jax.sharding.Mesh,
  batch_size: int,
  seq_len: int,
  num_microbatches: int,
  execution: forward.Execution,
  gradient_dtype: str,
  replays: bool = False,
) -> dict[str, float]:
  """Bytes on each device by part, before anything is compiled.

  Parameters and moments as in the shapes of `state`, gradients of what learns
  (over microbatches the vocabulary's twice, and the parameters again in a
  narrower dtype),
  activations by what each remat policy keeps, weights as gathered over `fsdp`.
  With `replays` the state a second time.
  A planning figure: the compiled step states its own.
  """
  learning, _ = jax.eval_shape(partition.split, state['params'])

  def per_device(tree):  # sharding.RULES cut weights over two axes alone
    sizes = (x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    return sum(sizes) / (mesh.shape['fsdp'] * mesh.shape['tensor'])

  width = 2 if execution.compute_dtype == 'bfloat16' else 4
  tokens = batch_size * seq_len / num_microbatches / mesh.size
  heads = c.num_heads * c.head_dim
  kv = c.num_kv_heads * c.head_dim
  kept = c.dim  # the residual stream at the border of a layer
  if execution.remat == 'offload':
    kept = 0
  if execution.remat in ('dots', 'dots_attention'):
    kept += heads + 2 * kv + c.dim + 2 * c.mlp_dim
    # And what each adapter adds to its product.
    adds = dict(q=heads, k=kv, v=kv, gate=c.mlp_dim, up=c.mlp_dim)
    for name in c.lora.weights if c.lora else ():
      kept += adds.get(name.split('_')[0], c.dim)
  if execution.remat in ('attention', 'dots_attention'):
    kept += heads
  within = 6 * c.dim + 3 * heads + 2 * kv + 4 * c.mlp_dim
  implementation = attention.chosen(execution.attention, mesh)
  # In float32, those of the forward pass and their gradients.
  scores = c.num_heads * seq_len * 4 / width * 2
  if implementation == 'blocks':
    longest = max(stop - start for start, stop in blocks.bounds(seq_len))
    scores *= 1.5 * longest / seq_len
  if implementation == 'splash':
    scores = 4 * heads  # none, but the queries' gradient in 4 parts at most
  if implementation in ('tiles', 'tokamax'):
    scores = 0
  if implementation == 'tokamax':
    within += 2 * heads  # gradients of keys and values, by query head
  within += 2 * kv * (mesh.shape['context'] - 1)  # those of whole rows
  if execution.remat == 'none':
    kept += within
    within = 0
    if implementation == 'xla':
      kept += scores
      scores = 0
  activations = tokens * width * (c.num_layers * kept + within + scores)
  logits = 2 * 4 * min(loss.CHUNK, tokens) * c.padded_vocab_size
  gathered = 0.0
  if mesh.shape['fsdp'] > 1:
    # A layer forward, made again and ahead; embedding and head, and the
    # gradient of one of them.
    vocabulary = c.padded_vocab_size * c.dim / mesh.shape['tensor']
    layer = c.dim * (2 * heads + 2 * kv + 3 * c.mlp_dim) / mesh.shape['tensor']
    gathered = width * 3 * layer + (2 * width + 4) * vocabulary
  gradients = per_device(
    jax.tree.map(lambda x: x.update(dtype=gradient_dtype), learning)
  )
  cast = gradients if gradient_dtype != 'float32' else 0
  if num_microbatches > 1:
    # Beside their sum those of one microbatch, of scanned layers one by one.
    beside = dict(learning)
    if execution.scan:
      beside.pop('layers', None)
      beside.pop('lora', None)
    gradients += per_device(
      jax.tree.map(lambda x: x.update(dtype=gradient_dtype), beside)
    )
  return {
    'parameters': per_device(state['params']) + cast,
    'optimizer': per_device(state['opt_state']),
    'gradients': gradients,
    'activations': activations,
    'gathered': gathered,
    'logits': logits,
    **({'replayed': per_device(state)} if replays else {}),
  }


def check(parts: dict[str, float], limit: int | None):
  """Raises ValueError where what is there in any case exceeds `limit` bytes.

  Parameters, moments and gradients are known to the byte, and so is the second
  state of a step that is computed twice; a device that does not say how much it
  holds (None) is not judged.
  """
  known = ('parameters', 'optimizer', 'gradients', 'replayed')
  needed = sum(parts.get(name, 0.0) for name in known)
  if limit and needed > limit:
    raise ValueError(
      f'parameters, moments and gradients take {needed / 2**30:.1f} GiB on '
      f'each device, which has {limit / 2**30:.1f}: they cannot fit. Take more '
      'devices along mesh.fsdp or mesh.tensor, freeze groups or adapt (lora), '
      "or keep less (optim.first_moment_dtype='bfloat16', optim.kind="
      "'adafactor', replay_every=0); `python -m lbe.plan` says what fits. (Of "
      "a GPU's memory jax has the share that XLA_CLIENT_MEM_FRACTION says.)"
    )


def describe(parts: dict[str, float], limit: int | None = None) -> str:
  """One line of what `estimate` gives, and of what a device has."""
  listed = ', '.join(f'{k} {tables.size(v)}' for k, v in parts.items())
  of = f' of {tables.size(limit)}' if limit else ''
  total = tables.size(sum(parts.values()))
  return f'memory per device: about {total}{of} ({listed})'


def describe_compiled(compiled: jax.stages.Compiled) -> str:
  """What XLA says of the memory of a compiled step, in one line."""
  memory = compiled.memory_analysis()
  if memory is None:
    return 'the compiler does not state its memory'
  arguments = memory.argument_size_in_bytes
  temporary = memory.temp_size_in_bytes
  return (
    f'per device {tables.size(arguments)} of arguments and '
    f'{tables.size(temporary)} of temporaries'
  )
