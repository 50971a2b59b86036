"""Attention of packed rows, forward and backward, by all that runs here.

  PYTHONPATH=. python benchmarks/attention.py    # CPU, one GPU or one TPU
  PYTHONPATH=. python benchmarks/attention.py --seq_len=8192 --dtype=bfloat16
  PYTHONPATH=. python benchmarks/attention.py --head_dim=64 --head_dim=128 ...

Ours: every implementation of the platform. Beside them jax.nn's
dot_product_attention and torch's scaled_dot_product_attention, both with the
mask of causal segments; and as a bound torch's without documents, causal only.
Each is compared with the reference (float32, largest difference of output and
gradients over the largest value), and ours with another first document in each
row, which must change no bit of the others; then all are timed in turns.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app
from absl import flags

from benchmarks import record
from lbe.mesh import sharding
from lbe.models import attention
from lbe.models.attention import reference

_ROWS = flags.DEFINE_integer('rows', 4, 'Rows of the batch.')
_SEQ_LEN = flags.DEFINE_integer('seq_len', 1024, 'Tokens of a row.')
_DOCUMENTS = flags.DEFINE_integer('documents', 5, 'In each row, uneven.')
_HEADS = flags.DEFINE_integer('heads', 8, 'Of queries.')
_KV_HEADS = flags.DEFINE_integer('kv_heads', 2, 'Of keys and values.')
_HEAD_DIM = flags.DEFINE_multi_integer('head_dim', [64], 'Sizes of a head.')
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], '')
_TURNS = flags.DEFINE_integer('turns', 9, 'Measurements of each.')


def _inputs(head_dim):
  """q, k, v, the output's gradient [B, T, heads, H]; positions, segments."""
  rng = np.random.default_rng(0)
  B, T, N, K = _ROWS.value, _SEQ_LEN.value, _HEADS.value, _KV_HEADS.value
  arrays = [
    rng.normal(size=(B, T, heads, head_dim)).astype(np.float32)
    for heads in (N, K, K, N)
  ]
  starts = np.zeros((B, T), bool)
  for row in starts:
    row[rng.choice(np.arange(1, T), _DOCUMENTS.value - 1, replace=False)] = True
  segments = 1 + np.cumsum(starts, axis=1, dtype=np.int32)
  place = np.arange(T, dtype=np.int32)
  first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
  return arrays, place - first, segments


def _visible(segments_BT):
  """bool [B, 1, T, T]."""
  same = segments_BT[:, :, None] == segments_BT[:, None, :]
  T = segments_BT.shape[1]
  return (same & np.tri(T, dtype=bool))[:, None]


def _of_jax(attend, arrays, dtype):
  """A function that gives output and gradients, maybe of others, and MiB."""
  *qkv, gradient = (jnp.asarray(x, dtype) for x in arrays)

  def both(qkv, gradient):
    out, backward = jax.vjp(lambda qkv: attend(*qkv), qkv)
    return (out, *backward(gradient)[0])

  compiled = jax.jit(both).lower(qkv, gradient).compile()
  memory = compiled.memory_analysis()

  def run(*others):
    given = [jnp.asarray(x, dtype) for x in others] or qkv
    return jax.block_until_ready(compiled(given, gradient))

  return (
    run,
    round(memory.temp_size_in_bytes / 2**20, 1),
  )


def _ours(arrays, positions, segments):
  mesh = sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])
  for name in attention.IMPLEMENTATIONS[1:]:
    try:
      attention.chosen(name, mesh)
    except ValueError:
      continue  # of another platform
    if name == 'tokamax' and _DTYPE.value == 'float32':
      continue
    attend = functools.partial(
      attention.attend_rows,
      positions_BT=jnp.asarray(positions),
      segments_BT=jnp.asarray(segments),
      implementation=name,
      mesh=mesh,
    )
    yield name, *_of_jax(attend, arrays, _DTYPE.value)


def _jax_nn(arrays, segments):
  mask = jnp.asarray(_visible(segments))
  on_gpu = jax.default_backend() == 'gpu'
  for kind in ('xla', *['cudnn'] * (on_gpu and _DTYPE.value == 'bfloat16')):
    attend = functools.partial(
      jax.nn.dot_product_attention, mask=mask, implementation=kind
    )
    yield f'jax.nn {kind}', *_of_jax(attend, arrays, _DTYPE.value)


def _torch(arrays, segments):
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  *qkv, gradient = (
    torch.tensor(np.swapaxes(x, 1, 2), dtype=getattr(torch, _DTYPE.value))
    .contiguous()
    .to(device)
    for x in arrays
  )
  mask = torch.tensor(_visible(segments), device=device)

  def run(**how):
    leaves = [x.detach().requires_grad_() for x in qkv]
    out = torch.nn.functional.scaled_dot_product_attention(
      *leaves, enable_gqa=_HEADS.value != _KV_HEADS.value, **how
    )
    out.backward(gradient)
    found = (out.detach(), *(x.grad for x in leaves))
    if device == 'cuda':
      torch.cuda.synchronize()
    return found

  yield 'torch', functools.partial(run, attn_mask=mask), None
  yield 'torch causal only', functools.partial(run, is_causal=True), None


def _difference(found, expected):
  """The largest over output and gradients, in parts of the largest value."""
  worst = 0.0
  for a, b in zip(found, expected, strict=True):
    if isinstance(a, torch.Tensor):
      a = a.float().cpu().numpy().swapaxes(1, 2)
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
  return worst


def _check_documents_apart(name, run, arrays, segments):
  """Raises AssertionError where the first document reaches another one."""
  first = (segments == 1)[:, :, None, None]
  before = run()
  after = run(*(np.where(first, 3 * x + 1, x) for x in arrays[:3]))
  for a, b in zip(before, after, strict=True):
    a, b = (np.asarray(x, np.float32)[segments > 1] for x in (a, b))
    assert np.array_equal(a, b), f'{name}: documents of a row touch'


def _faster(ours, theirs):
  ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
  return {
    'median': round(statistics.median(ratios), 3),
    'range': [round(min(ratios), 3), round(max(ratios), 3)],
  }


def main(argv):
  del argv
  for head_dim in _HEAD_DIM.value:
    _measure(head_dim)


def _measure(head_dim):
  arrays, positions, segments = _inputs(head_dim)
  expected_fn = functools.partial(
    reference.attend,
    q_positions_BT=positions,
    kv_positions_BS=positions,
    q_segments_BT=segments,
    kv_segments_BS=segments,
    precision='highest',
  )
  expected = _of_jax(expected_fn, arrays, 'float32')[0]()
  runs, figures = {}, {}
  for name, run, memory in (
    *_ours(arrays, positions, segments),
    *_jax_nn(arrays, segments),
    *_torch(arrays, segments),
  ):
    difference = _difference(run(), expected)
    same = 'causal only' not in name
    assert not same or difference < (
      1e-4 if _DTYPE.value == 'float32' else 0.03
    ), f'{name} differs from the reference by {difference}'
    if name in attention.IMPLEMENTATIONS:
      _check_documents_apart(name, run, arrays, segments)
    runs[name] = run
    figures[name] = {} if memory is None else {'temporary_mib': memory}
    if same:
      figures[name]['largest_difference'] = float(f'{difference:.1e}')
  times = {name: [] for name in runs}
  for _ in range(_TURNS.value):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      times[name].append(1e3 * (time.perf_counter() - start))
  for name, taken in times.items():
    figures[name]['ms_median'] = round(statistics.median(taken), 2)
    figures[name]['ms_range'] = [round(min(taken), 2), round(max(taken), 2)]
  record.write(
    'attention',
    {
      'shape': (
        f'{_ROWS.value} rows of {_SEQ_LEN.value} in {_DOCUMENTS.value} '
        f'documents, {_HEADS.value}/{_KV_HEADS.value} heads of '
        f'{head_dim}'
      ),
      'dtype': _DTYPE.value,
      'peer': 'torch, scaled_dot_product_attention',
      'turns': _TURNS.value,
      'forward_and_backward': figures,
      'faster': {
        name: _faster(times[name], times['torch'])
        for name in times
        if 'torch' not in name
      },
    },
    packages=('jax', 'torch'),
  )


if __name__ == '__main__':
  app.run(main)
