"""The forward pass of LLaMA 1, 2, 3, 3.1 and 3.2 over the plain parameters.

Layers are stacked `[L, ...]` and scanned or unrolled.
"""

import dataclasses
import functools
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from lbe.mesh import sharding
from lbe.models import attention
from lbe.models import lora as lora_lib
from lbe.models import products
from lbe.models.attention import context


@dataclasses.dataclass(frozen=True)
class Execution:
  """How the forward pass runs; only `compute_dtype` decides numbers."""

  compute_dtype: str = 'bfloat16'
  scan: bool = True
  remat: str = 'none'
  attention: str = 'auto'

  def __post_init__(self):
    for name, value, known in (
      ('compute_dtype', self.compute_dtype, ('bfloat16', 'float32')),
      ('remat', self.remat, tuple(_REMAT)),
      ('attention', self.attention, attention.IMPLEMENTATIONS),
    ):
      if value not in known:
        raise ValueError(
          f'execution.{name}={value!r} is unknown; take one of '
          f'{", ".join(known)}.'
        )
    if self.attention == 'tokamax' and self.compute_dtype == 'float32':
      raise ValueError(
        "execution.attention='tokamax' rounds the products of float32; take "
        "execution.compute_dtype='bfloat16', or execution.attention='blocks'."
      )


_POLICIES = jax.checkpoint_policies
# What the backward pass finds kept of each layer; the rest it makes again.
# 'attention' is the attention's output and normalizer, 'residual' what goes
# into a layer.
_REMAT = {
  'none': None,
  'dots': _POLICIES.dots_with_no_batch_dims_saveable,
  'dots_attention': _POLICIES.save_from_both_policies(
    _POLICIES.dots_with_no_batch_dims_saveable,
    _POLICIES.save_only_these_names('attention'),
  ),
  'attention': _POLICIES.save_only_these_names('attention'),
  'full': _POLICIES.nothing_saveable,
  'offload': _POLICIES.save_and_offload_only_these_names(
    names_which_can_be_saved=(),
    names_which_can_be_offloaded=('residual',),
    offload_src='device',
    offload_dst='pinned_host',
  ),
}


def rms_norm(x_BTD, scale_D, eps):
  """RMSNorm in float32, back in x's dtype before the scale, as the source."""
  x32_BTD = x_BTD.astype(jnp.float32)
  mean_BT1 = jnp.mean(x32_BTD**2, axis=-1, keepdims=True)
  normed_BTD = (x32_BTD * jax.lax.rsqrt(mean_BT1 + eps)).astype(x_BTD.dtype)
  return scale_D.astype(x_BTD.dtype) * normed_BTD


def rope_frequencies(c):
  """float32 [H / 2] angles per position, scaled as llama3 where asked.

  In numpy, rounded where transformers rounds: an accelerator's own power is
  off by several ulp, which at position 100,000 is a visible angle.
  """
  exponent = np.arange(0, c.head_dim, 2, dtype=np.float32) / c.head_dim
  power = (c.rope_theta ** exponent.astype(np.float64)).astype(np.float32)
  frequency = 1 / power
  s = c.rope_scaling
  if s is None:
    return frequency
  wavelength = np.float32(2 * math.pi) / frequency
  longest = s.original_max_positions / s.low_freq_factor
  shortest = s.original_max_positions / s.high_freq_factor
  smooth = (s.original_max_positions / wavelength - s.low_freq_factor) / (
    s.high_freq_factor - s.low_freq_factor
  )
  between = (1 - smooth) * frequency / s.factor + smooth * frequency
  return np.where(
    wavelength < shortest,
    frequency,
    np.where(wavelength > longest, frequency / s.factor, between),
  ).astype(np.float32)


def rope_tables(c, positions_BT):
  """float32 (cos, sin), each [B, T, H / 2]."""
  angles = positions_BT[..., None].astype(jnp.float32) * rope_frequencies(c)
  return jnp.cos(angles), jnp.sin(angles)


def rope(x_BTNH, tables):
  """Rotates the halves of each head, as Hugging Face stores q and k."""
  cos, sin = (t[:, :, None, :] for t in tables)
  # Halves change places before anything is float32: half the memory.
  a, b = jnp.split(x_BTNH, 2, axis=-1)
  swapped_BTNH = jnp.concatenate([b, a], axis=-1)
  cos, sin = jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1)
  turned = x_BTNH.astype(jnp.float32) * cos
  turned += swapped_BTNH.astype(jnp.float32) * sin
  return turned.astype(x_BTNH.dtype)


def _gated(gate_BTF, up_BTF):
  return jax.nn.silu(gate_BTF) * up_BTF


def decoder_layer(
  c,
  w,
  x_BTD,
  tables,
  attend,
  constrain,
  drop=None,
  mesh=None,
  gated=_gated,
):
  """One decoder layer; `attend(q, k, v)` returns [B, T, N, H].

  `drop(x, name)` is the dropout before an adapter, and `gated(gate, up)` is
  SiLU(gate) * up, however its derivative comes about. With a `mesh`, which must
  divide rows and positions, products say what they send.
  """
  dtype = x_BTD.dtype

  def one(x, weight, spec):
    return products.project(x, (weight,), (spec,), mesh)[0]

  def project(x, **specs):
    """The product with each named weight, and what its adapter adds."""
    weights = tuple(w[name] for name in specs)
    result = products.project(x, weights, tuple(specs.values()), mesh)
    if c.lora is None:
      return result
    result = list(result)
    for i, (name, spec) in enumerate(specs.items()):
      if name in c.lora.weights:
        dropped = x if drop is None else drop(x, name)
        result[i] += lora_lib.update(
          dropped, w, name, spec, c.lora, project=one
        )
    return result

  w = {name: value.astype(dtype) for name, value in w.items()}
  residual = ('batch', 'position', None)
  heads = ('batch', 'position', 'heads', None)
  kv_heads = ('batch', 'position', 'kv_heads', None)

  x_BTD = checkpoint_name(x_BTD, 'residual')
  y_BTD = rms_norm(x_BTD, w['attn_norm_LD'], c.norm_eps)
  q_BTNH, k_BTKH, v_BTKH = project(
    y_BTD,
    q_LDNH='BTD,DNH->BTNH',
    k_LDKH='BTD,DKH->BTKH',
    v_LDKH='BTD,DKH->BTKH',
  )
  q_BTNH = constrain(rope(q_BTNH, tables), heads)
  k_BTKH = constrain(rope(k_BTKH, tables), kv_heads)
  v_BTKH = constrain(v_BTKH, kv_heads)
  out_BTNH = attend(q_BTNH, k_BTKH, v_BTKH)
  (o_BTD,) = project(out_BTNH, o_LNHD='BTNH,NHD->BTD')
  x_BTD += o_BTD
  x_BTD = constrain(x_BTD, residual)

  y_BTD = rms_norm(x_BTD, w['mlp_norm_LD'], c.norm_eps)
  gate_BTF, up_BTF = project(
    y_BTD, gate_LDF='BTD,DF->BTF', up_LDF='BTD,DF->BTF'
  )
  hidden_BTF = constrain(gated(gate_BTF, up_BTF), ('batch', 'position', 'mlp'))
  (down_BTD,) = project(hidden_BTF, down_LFD='BTF,FD->BTD')
  x_BTD += down_BTD
  return constrain(x_BTD, residual)


def embed(params, ids_BT, execution, mesh=None):
  """[B, T, D] in the compute dtype; a `mesh` must divide rows and positions."""
  embed_VD = params['embed_VD'].astype(execution.compute_dtype)
  if mesh is None or mesh.size == 1:
    return embed_VD[ids_BT]
  return products.look_up(embed_VD, ids_BT, mesh)


def layers(params, execution):
  """The weights of all layers as `through_layers` takes them.

  With the adapters beside them, as stacks [L, ...] to be scanned, or where
  `execution` unrolls as a tuple, cut out by one split: the gradient of
  `w_L[i]` is a whole stack, nearly all zeros.
  """
  stacks = {**params['layers'], **params.get('lora', {})}
  if execution.scan:
    return stacks
  num_layers = len(stacks['attn_norm_LD'])
  parts = jax.tree.map(
    lambda w_L: jax.lax.split(w_L, (1,) * num_layers), stacks
  )
  return tuple(
    jax.tree.map(
      lambda x, i=i: x[i][0], parts, is_leaf=lambda x: isinstance(x, list)
    )
    for i in range(num_layers)
  )


def through_layers(layer, carry, layers):
  """(`carry` behind the last of the `layers`, what each has for itself).

  `layer(carry, w, i)` gives both of one layer. What layers have for themselves
  comes as stacks [L, ...] where they are scanned, and as tuples else.
  """
  if not isinstance(layers, tuple):
    numbers_L = jnp.arange(len(layers['attn_norm_LD']))
    return jax.lax.scan(
      lambda carry, xs: layer(carry, *xs), carry, (layers, numbers_L)
    )
  own = []
  for i, w in enumerate(layers):
    carry, of_layer = layer(carry, w, i)
    own.append(of_layer)
  return carry, jax.tree.map(lambda *xs: xs, *own)


def hidden(
  params,
  c,
  ids_BT,
  *,
  positions_BT,
  segments_BT,
  execution,
  mesh=None,
  lora_dropout=0.0,
  dropout_key=None,
  look=None,
):
  """The states behind the final norm, [B, T, D] in the compute dtype.

  With `look`, (these, what it gives of the states behind each layer [L, ...]).

  Positions count from 0 inside each segment; segment 0 is padding. With a
  `dropout_key` the inputs of adapters are dropped at the rate `lora_dropout`.
  Over a `mesh` activations lie by sharding.RULES; without one, anywhere.
  """
  constrain = sharding.constrain(mesh)
  ids_BT, positions_BT, segments_BT = (
    context.balance(x_BT, mesh) for x_BT in (ids_BT, positions_BT, segments_BT)
  )
  tables = rope_tables(c, positions_BT)
  attend = functools.partial(
    attention.attend_rows,
    positions_BT=positions_BT,
    segments_BT=segments_BT,
    implementation=execution.attention,
    mesh=mesh,
  )

  gated = _gated
  if execution.remat == 'none':
    # Two arrays [B, T, F] of each layer less are kept for the backward pass.
    gated = jax.checkpoint(_gated, prevent_cse=not execution.scan)

  def layer(x_BTD, w, i):
    drop = None
    if lora_dropout and dropout_key is not None:
      key = jax.random.fold_in(dropout_key, i)

      def drop(x, name):
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        # What is dropped goes by the place in the batch, on any mesh.
        x = lora_lib.dropout(context.unbalance(x, mesh), lora_dropout, own)
        return context.balance(x, mesh)

    return decoder_layer(
      c, w, x_BTD, tables, attend, constrain, drop, mesh, gated
    )

  if execution.remat != 'none':
    layer = jax.checkpoint(
      layer,
      policy=_REMAT[execution.remat],
      # Inside a scan XLA cannot undo the recomputation anyway.
      prevent_cse=not execution.scan,
    )
  if not execution.scan:
    layer = jax.jit(layer)  # all layers are traced once; XLA inlines it
  x_BTD = constrain(
    embed(params, ids_BT, execution, mesh), ('batch', 'position', None)
  )

  def looked_at(x_BTD, w, i):
    x_BTD = layer(x_BTD, w, i)
    return x_BTD, None if look is None else look(x_BTD)

  x_BTD, seen_L = through_layers(looked_at, x_BTD, layers(params, execution))
  x_BTD = rms_norm(x_BTD, params['final_norm_D'], c.norm_eps)
  x_BTD = context.unbalance(x_BTD, mesh)
  return x_BTD if look is None else (x_BTD, seen_L)


def head_DV(params, c):
  """The output matrix [D, V padded]; the embedding's transpose where tied."""
  return params['embed_VD'].T if c.tied else params['head_DV']


def mask_padding(logits, vocab_size, *, parts=1, first=0):
  """Logits with the padding columns at -1e30, so that none is ever chosen.

  Where the vocabulary is cut into `parts`, `first` is the number of the first
  column here.
  """
  if logits.shape[-1] * parts == vocab_size:
    return logits  # a pass over all of them saved
  column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  return jnp.where(column + first < vocab_size, logits, -1e30)


def logits(params, c, x_BTD):
  """float32 [B, T, V padded] logits of the states that `hidden` gives."""
  logits_BTV = jnp.einsum(
    'BTD,DV->BTV',
    x_BTD,
    head_DV(params, c).astype(x_BTD.dtype),
    precision=attention.precision(x_BTD.dtype),
    preferred_element_type=jnp.float32,
  )
  return mask_padding(logits_BTV, c.vocab_size)
