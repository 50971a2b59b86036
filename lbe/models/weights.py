"""The weights of a LLaMA, each once: all that is said of one follows from here.

The letters behind a name are its dims (GLOSSARY.md). Where L is one of them,
the weights of all layers are stacked.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lbe.models import architecture


@dataclasses.dataclass(frozen=True)
class Weight:
  """What the letters of a weight's name do not say.

  `takes` are the dims that a product sums over; a weight without is no matrix
  of a product. `theirs` is Hugging Face's module: of a stacked weight, in each
  layer. `init` is 'normal', 'ones', 'zeros', or 'uniform' by what it takes.
  """

  takes: str
  theirs: str
  init: str = 'normal'


TABLE = {
  'embed_VD': Weight('', 'model.embed_tokens'),
  'layers/attn_norm_LD': Weight('', 'input_layernorm', 'ones'),
  'layers/q_LDNH': Weight('D', 'self_attn.q_proj'),
  'layers/k_LDKH': Weight('D', 'self_attn.k_proj'),
  'layers/v_LDKH': Weight('D', 'self_attn.v_proj'),
  'layers/o_LNHD': Weight('NH', 'self_attn.o_proj'),
  'layers/mlp_norm_LD': Weight('', 'post_attention_layernorm', 'ones'),
  'layers/gate_LDF': Weight('D', 'mlp.gate_proj'),
  'layers/up_LDF': Weight('D', 'mlp.up_proj'),
  'layers/down_LFD': Weight('F', 'mlp.down_proj'),
  'final_norm_D': Weight('', 'model.norm', 'ones'),
  'head_DV': Weight('D', 'lm_head'),
}
# Logical dims of the letters, which sharding.RULES lays out; D of a norm is
# 'norm'.
DIMS = {
  'L': 'layers',
  'V': 'vocab',
  'D': 'embed',
  'N': 'heads',
  'K': 'kv_heads',
  'H': 'head',
  'F': 'mlp',
  'R': 'rank',
}


def is_stacked(name: str) -> bool:
  """Whether a weight of the table has one part a layer."""
  return 'L' in letters(name)


def letters(name: str) -> str:
  """'LDNH' of 'layers/q_LDNH'."""
  return name.rpartition('_')[2]


# Names in a layer of the weights that a low-rank update can adapt.
ADAPTABLE = [
  name.removeprefix('layers/')
  for name, weight in TABLE.items()
  if weight.takes and is_stacked(name)
]


def of(c: architecture.Config) -> dict[str, Weight]:
  """{whole name: Weight} of a model, in the order of the forward pass.

  Adapters come last, each A before its B, under the modules of PEFT.
  """
  result = dict(TABLE)
  if c.tied:
    del result['head_DV']
  for name in c.lora.weights if c.lora else ():
    whole = TABLE[f'layers/{name}']
    a, b = adapters(name)
    result[f'lora/{a}'] = Weight(
      whole.takes, f'{whole.theirs}.lora_A', 'uniform'
    )
    result[f'lora/{b}'] = Weight('R', f'{whole.theirs}.lora_B', 'zeros')
  return result


def takes(name: str) -> str:
  """The dims that a weight of a layer takes in: 'NH' of 'o_LNHD'."""
  return TABLE[f'layers/{name}'].takes


def adapters(name: str) -> tuple[str, str]:
  """('q_a_LDR', 'q_b_LRNH') of 'q_LDNH': what takes in, what gives out."""
  stem, dims = name.split('_')
  inner = takes(name)
  outer = dims[1:].removeprefix(inner)
  return f'{stem}_a_L{inner}R', f'{stem}_b_LR{outer}'


def sizes(c: architecture.Config) -> dict[str, int]:
  """{letter: size}; V counts the padding rows."""
  return {
    'L': c.num_layers,
    'V': c.padded_vocab_size,
    'D': c.dim,
    'N': c.num_heads,
    'K': c.num_kv_heads,
    'H': c.head_dim,
    'F': c.mlp_dim,
    'R': c.lora.rank if c.lora else 0,
  }


def flatten(tree: dict) -> dict[str, Any]:
  """{'layers/q_LDNH': ...} of the parameter tree, or of one like it."""
  flat = {}
  for name, x in tree.items():
    if isinstance(x, dict):
      flat |= {f'{name}/{inner}': y for inner, y in flatten(x).items()}
    else:
      flat[name] = x
  return flat


def unflatten(flat: dict[str, Any]) -> dict:
  """The tree of what `flatten` gives."""
  tree = {}
  for name, x in flat.items():
    *groups, last = name.split('/')
    node = tree
    for group in groups:
      node = node.setdefault(group, {})
    node[last] = x
  return tree


def _tree(c, make: Callable[[str, Weight], Any]):
  """The parameter tree of what `make` gives for each weight, as jax sorts."""
  return unflatten({name: make(name, w) for name, w in sorted(of(c).items())})


def _shape(c, name):
  size = sizes(c)
  return tuple(size[letter] for letter in letters(name))


def init(c: architecture.Config, key) -> dict:
  """Random float32 parameters; each weight's key is made from its name."""

  def make(name, weight):
    shape = _shape(c, name)
    if weight.init == 'ones':
      return jnp.ones(shape, jnp.float32)
    if weight.init == 'zeros':
      return jnp.zeros(shape, jnp.float32)
    own = jax.random.fold_in(key, zlib.crc32(name.split('/')[-1].encode()))
    if weight.init == 'uniform':  # as PEFT: Kaiming's, with a = √5
      bound = 1 / math.sqrt(math.prod(shape[1:-1]))
      return jax.random.uniform(
        own, shape, jnp.float32, minval=-bound, maxval=bound
      )
    if 'V' not in letters(name):
      return c.init_std * jax.random.normal(own, shape, jnp.float32)
    # Drawn with the vocabulary in front, the real rows do not depend on
    # how many padding rows follow them; those are zero.
    rows = c.padded_vocab_size
    x_VD = c.init_std * jax.random.normal(own, (rows, c.dim), jnp.float32)
    x_VD = jnp.where(jnp.arange(rows)[:, None] < c.vocab_size, x_VD, 0.0)
    return jnp.moveaxis(x_VD, 0, letters(name).index('V'))

  return _tree(c, make)


def shapes(c: architecture.Config, *, dtype='float32') -> dict:
  """The parameter tree as ShapeDtypeStructs.

  `dtype` is one for all, or {name: dtype} of those that are not float32.
  """

  def make(name, _):
    one = dtype.get(name, 'float32') if isinstance(dtype, dict) else dtype
    return jax.ShapeDtypeStruct(_shape(c, name), jnp.dtype(one))

  return _tree(c, make)


def dims(c: architecture.Config) -> dict:
  """The parameter tree as tuples of logical dim names."""

  def make(name, weight):
    names = DIMS | {'D': 'norm'} if weight.init == 'ones' else DIMS
    return tuple(names[letter] for letter in letters(name))

  return _tree(c, make)


def num_params(c: architecture.Config) -> int:
  """Parameters without the padding rows of the vocabulary."""
  exact = dataclasses.replace(c, vocab_multiple=1)
  return sum(math.prod(_shape(exact, name)) for name in of(exact))
