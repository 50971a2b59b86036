"""LoRA: low-rank updates beside weights that stay (arXiv 2106.09685).

An adapted weight W of a layer computes W x + scale · B (A x). Adapters are
stacked `[L, ...]` like the weights, under params['lora']; of 'q_LDNH' they are
'q_a_LDR' and 'q_b_LRNH'. Their layout follows W, so that A takes the dims that
W takes in and B gives those that it gives out.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

from lbe.models import architecture
from lbe.models import weights


def make(
  params: str, *, rank: int, alpha: float, rslora: bool = False
) -> architecture.Lora:
  """A Lora of the weights whose whole name ('layers/q_LDNH') matches.

  Raises ValueError for a pattern that matches none that can be adapted.
  """
  try:
    pattern = re.compile(params)
  except re.error as error:
    raise ValueError(
      f'lora.params={params!r} is no regular expression ({error}).'
    ) from error
  names = tuple(
    n for n in weights.ADAPTABLE if pattern.fullmatch(f'layers/{n}')
  )
  if not names:
    raise ValueError(
      f'lora.params={params!r} matches no weight that can be adapted; these '
      f'are {", ".join(f"layers/{n}" for n in weights.ADAPTABLE)}. '
      'Embeddings, head and norms are trained whole (optim.groups).'
    )
  if rank < 1:
    raise ValueError(f'lora.rank={rank} is not positive.')
  return architecture.Lora(names, rank, alpha, rslora)


def update(x, w, weight, spec, lora, *, project):
  """What the adapter of one layer adds to `einsum(spec, x, w[weight])`."""
  a, b = (w[name] for name in weights.adapters(weight))
  inner = weights.takes(weight)
  x_dims, rest = spec.split(',')
  w_dims, out = rest.split('->')
  low_BTR = project(x, a, f'{x_dims},{inner}R->BTR')
  outer = w_dims.removeprefix(inner)
  return lora.scale * project(low_BTR, b, f'BTR,R{outer}->{out}')


def dropout(x, rate, key):
  """x with a share of its elements at zero, the others scaled up."""
  keep = jax.random.bernoulli(key, 1 - rate, x.shape)
  return jnp.where(keep, x / (1 - rate), 0)


def merged(array, a, b, lora):
  """A stacked weight [L, ...] with its update, in numpy and float32."""
  result = np.empty(array.shape, np.float32)
  for i, one in enumerate(array):
    a_IR = np.asarray(a[i], np.float32).reshape(-1, lora.rank)
    b_RO = np.asarray(b[i], np.float32).reshape(lora.rank, -1)
    delta = lora.scale * (a_IR @ b_RO)
    result[i] = np.asarray(one, np.float32) + delta.reshape(one.shape)
  return result
