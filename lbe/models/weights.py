"""The weights of a LLaMA, each once: names, shapes, dims, how they start.

Layers are stacked `[L, ...]`.
"""

import dataclasses
import functools
import math
import zlib

import jax
import jax.numpy as jnp
from flax import nnx

from lbe.models import lora as lora_lib


@dataclasses.dataclass(frozen=True)
class _Weight:
  shape: tuple
  dims: tuple
  init: str  # 'normal', 'ones', 'zeros', or 'uniform' by what it takes in


def _weights(c):
  """Every weight of the model once: its shape, its logical dims, its start."""
  L, D, N, K, H = (
    c.num_layers,
    c.dim,
    c.num_heads,
    c.num_kv_heads,
    c.head_dim,
  )
  F, V = c.mlp_dim, c.padded_vocab_size

  def w(dims, *shape, init='normal'):
    return _Weight(shape, tuple(dims.split()), init)

  result = {
    'embed_VD': w('vocab embed', V, D),
    'layers': {
      'attn_norm_LD': w('layers norm', L, D, init='ones'),
      'q_LDNH': w('layers embed heads head', L, D, N, H),
      'k_LDKH': w('layers embed kv_heads head', L, D, K, H),
      'v_LDKH': w('layers embed kv_heads head', L, D, K, H),
      'o_LNHD': w('layers heads head embed', L, N, H, D),
      'mlp_norm_LD': w('layers norm', L, D, init='ones'),
      'gate_LDF': w('layers embed mlp', L, D, F),
      'up_LDF': w('layers embed mlp', L, D, F),
      'down_LFD': w('layers mlp embed', L, F, D),
    },
    'final_norm_D': w('norm', D, init='ones'),
  }
  if not c.tied:
    result['head_DV'] = w('embed vocab', D, V)
  if c.lora:
    result['lora'] = adapters = {}
    R = c.lora.rank
    for name in c.lora.weights:
      whole = result['layers'][name]
      cut = 1 + len(lora_lib.INPUTS[name])
      a, b = lora_lib.names(name)
      dims = whole.dims
      adapters[a] = _Weight(
        (*whole.shape[:cut], R), (*dims[:cut], 'rank'), 'uniform'
      )
      adapters[b] = _Weight(
        (L, R, *whole.shape[cut:]), ('layers', 'rank', *dims[cut:]), 'zeros'
      )
  return result


def _is_weight(x):
  return isinstance(x, _Weight)


def _normal(key, shape, std):
  return std * jax.random.normal(key, shape, jnp.float32)


class Llama(nnx.Module):
  """The module tree: one `nnx.Param` a weight, under the names of `dims`."""

  def __init__(self, c, *, rngs):
    def make(name, weight):
      if weight.init == 'ones':
        return nnx.Param(jnp.ones(weight.shape, jnp.float32))
      if weight.init == 'zeros':
        return nnx.Param(jnp.zeros(weight.shape, jnp.float32))
      key = jax.random.fold_in(rngs.params(), zlib.crc32(name.encode()))
      if weight.init == 'uniform':  # as PEFT: Kaiming's, with a = √5
        bound = 1 / math.sqrt(math.prod(weight.shape[1:-1]))
        return nnx.Param(
          jax.random.uniform(key, weight.shape, minval=-bound, maxval=bound)
        )
      if 'vocab' not in weight.dims:
        return nnx.Param(_normal(key, weight.shape, c.init_std))
      # Drawn with the vocabulary in front, the real rows do not depend on
      # how many padding rows follow them; those are zero.
      axis = weight.dims.index('vocab')
      x_VD = _normal(key, (c.padded_vocab_size, c.dim), c.init_std)
      row_V1 = jnp.arange(c.padded_vocab_size)[:, None]
      x_VD = jnp.where(row_V1 < c.vocab_size, x_VD, 0.0)
      return nnx.Param(jnp.moveaxis(x_VD, 0, axis))

    weights = _weights(c)
    for group in ('layers', 'lora'):
      if group in weights:
        module = nnx.Module()
        for name, weight in weights.pop(group).items():
          setattr(module, name, make(name, weight))
        setattr(self, group, module)
    for name, weight in weights.items():
      setattr(self, name, make(name, weight))


class _OneKey:
  """Every weight folds its name into the same key, whatever the order."""

  def __init__(self, key):
    self._key = key

  def params(self):
    return self._key


def init(c, key):
  """Random float32 parameters; each weight's key is made from its name."""
  return nnx.to_pure_dict(nnx.state(Llama(c, rngs=_OneKey(key))))


def shapes(c, *, dtype='float32'):
  """The parameter tree as ShapeDtypeStructs.

  `dtype` is one for all, or {name: dtype} of those that are not float32.
  """
  tree = jax.eval_shape(functools.partial(init, c), jax.random.key(0))

  def shape(path, x):
    name = '/'.join(k.key for k in path)
    one = dtype.get(name, 'float32') if isinstance(dtype, dict) else dtype
    return jax.ShapeDtypeStruct(x.shape, jnp.dtype(one))

  return jax.tree_util.tree_map_with_path(shape, tree)


def dims(c):
  """The parameter tree as tuples of logical dim names."""
  return jax.tree.map(lambda w: w.dims, _weights(c), is_leaf=_is_weight)


def num_params(c):
  """Parameters without the padding rows of the vocabulary."""
  exact = dataclasses.replace(c, vocab_multiple=1)
  return sum(
    math.prod(w.shape)
    for w in jax.tree.leaves(_weights(exact), is_leaf=_is_weight)
  )
