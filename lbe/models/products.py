"""Products of activations and weights, with what is sent over a mesh.

The rules of lbe/mesh/sharding.py cut a weight over `fsdp` along D and over
`tensor` along heads or F, and activations over rows and positions. Here each
product gathers its weight, and its gradient is summed straight into the
weight's own parts. Left to itself a TPU's compiler sums whole gradients instead
and then cuts them, which sends twice as much (LOG.md, 2026-11-25).
"""

import functools

import jax
import jax.numpy as jnp

from lbe.mesh import sharding
from lbe.models import attention
from lbe.models import int8
from lbe.models import weights as weights_lib

# Dims of activations by their letters (GLOSSARY.md); those of weights are in
# weights.DIMS.
_CUT = dict(N='heads', K='kv_heads', F='mlp')
_OF_X = dict(B='batch', T='position', D=None, H=None, R=None, **_CUT)


def _multiply(a, b, spec):
  """jnp.einsum of dims that come in the order of the result.

  Not jnp.einsum itself, which sums over N and H in the order of the alphabet:
  a CPU then transposes the weight, and at every step of decoding. B and T are
  one dim here, since a CPU transposes what is summed over two.
  """
  rows = a.shape[:2]
  with jax.named_scope(spec):  # which product it is, in a profile
    if isinstance(b, int8.Int8):
      return b.times(a)
    a_dims, b_dims, out = _letters(spec.replace('BT', 'C'))
    a, b = (
      x.reshape(-1, *x.shape[2:]) if letters[0] == 'C' else x
      for x, letters in ((a, a_dims), (b, b_dims))
    )
    shared = [dim for dim in a_dims if dim in b_dims]
    assert out == ''.join(d for d in a_dims + b_dims if d not in shared)
    result = jax.lax.dot_general(
      a,
      b,
      (
        ([a_dims.index(d) for d in shared], [b_dims.index(d) for d in shared]),
        ((), ()),
      ),
      precision=attention.precision(a.dtype),
    )
    return result.reshape(*rows, *result.shape[1:]) if out[0] == 'C' else result


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def project(x, weights, specs, mesh=None):
  """One product of x with each weight, by specs as 'BTD,DF->BTF'; a tuple.

  Weights that take the same x go together: over `tensor` the gradients of x
  are then summed before they are sent, once. Gradients are written out: the
  derivative that JAX makes gives the weight's transposed, and undoing that
  costs a CPU as much as the product (LOG.md, 2026-11-23).
  """
  return _project(x, weights, specs, mesh)


def _project(x, weights, specs, mesh):
  if mesh is None or mesh.size == 1:
    return tuple(
      _multiply(x, w, s) for w, s in zip(weights, specs, strict=True)
    )

  def local(x, weights):
    products = []
    for w, spec in zip(weights, specs, strict=True):
      x_dims, w_dims, _ = _letters(spec)
      y = _multiply(x, _gathered(w, w_dims, mesh), spec)
      cut = _is_cut(x_dims, mesh) and _is_cut(w_dims, mesh)
      products.append(jax.lax.psum(y, 'tensor') if cut else y)
    return tuple(products)

  x_dims, _, _ = _letters(specs[0])
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(_spec(x_dims, _OF_X), _weight_specs(specs)),
    out_specs=tuple(_spec(_letters(s)[2], _OF_X) for s in specs),
    check_vma=False,
  )(x, weights)


def _project_forward(x, weights, specs, mesh):
  return _project(x, weights, specs, mesh), (x, weights)


def _project_backward(specs, mesh, saved, d_outs):
  x, weights = saved
  over_mesh = mesh is not None and mesh.size > 1

  def local(x, weights, d_outs):
    d_x, d_weights, partial = None, [], False
    for w, spec, d_out in zip(weights, specs, d_outs, strict=True):
      x_dims, w_dims, out = _letters(spec)
      if over_mesh:
        w = _gathered(w, w_dims, mesh)
        # A device that has some heads, or some of F, knows what these alone
        # give to x. Where x itself is cut there, its part is whole.
        partial |= _is_cut(out, mesh)
      d_own = _multiply(d_out, w, f'{out},{w_dims}->{x_dims}')
      d_x = d_own if d_x is None else d_x + d_own
      d_w = _multiply(x, d_out, f'{x_dims},{out}->{w_dims}')
      if over_mesh:
        d_w = _summed(d_w, w_dims, mesh)
      d_weights.append(d_w)
    if partial:  # added up before it is sent: q, k and v cost one sum
      d_x = jax.lax.psum(d_x, 'tensor')
    return d_x, tuple(d_weights)

  if not over_mesh:
    return local(x, weights, d_outs)
  in_x = _spec(_letters(specs[0])[0], _OF_X)
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(
      in_x,
      _weight_specs(specs),
      tuple(_spec(_letters(s)[2], _OF_X) for s in specs),
    ),
    out_specs=(in_x, _weight_specs(specs)),
    check_vma=False,
  )(x, weights, d_outs)


project.defvjp(_project_forward, _project_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def look_up(embed_VD, ids_BT, mesh):
  """[B, T, D] rows of the embedding, which is gathered over `fsdp` for it.

  Left to itself the compiler looks up all rows of the batch on every device,
  each its few columns of them, and sends them round: work that grows with the
  number of devices.
  """
  return _look_up(embed_VD, ids_BT, mesh)


_EMBED, _IDS = ('vocab', 'embed'), ('batch', 'position')


def _own(ids_BT, num_rows):
  """Ids as rows of this device's part over `tensor`, and which are there."""
  own_BT = ids_BT - jax.lax.axis_index('tensor') * num_rows
  return own_BT, (own_BT >= 0) & (own_BT < num_rows)


def _look_up(embed_VD, ids_BT, mesh):
  def local(embed_VD, ids_BT):
    embed_VD = sharding.gather(embed_VD, 1, mesh)
    if mesh.shape['tensor'] == 1:
      return embed_VD[ids_BT]
    own_BT, inside_BT = _own(ids_BT, embed_VD.shape[0])
    x_BTD = jnp.where(inside_BT[..., None], embed_VD[own_BT], 0)
    return jax.lax.psum(x_BTD, 'tensor')

  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(sharding.spec(_EMBED), sharding.spec(_IDS)),
    out_specs=sharding.spec((*_IDS, None)),
    check_vma=False,
  )(embed_VD, ids_BT)


def _look_up_forward(embed_VD, ids_BT, mesh):
  # The embedding itself is not needed again, its shape is.
  return _look_up(embed_VD, ids_BT, mesh), (ids_BT, embed_VD.shape[0])


def _look_up_backward(mesh, saved, d_x_BTD):
  ids_BT, num_rows = saved

  def local(ids_BT, d_x_BTD):
    num_own = num_rows // mesh.shape['tensor']
    own_BT, inside_BT = _own(ids_BT, num_own)
    own_BT = jnp.where(inside_BT, own_BT, num_own)  # left out
    d_embed_VD = jnp.zeros((num_own, d_x_BTD.shape[-1]), jnp.float32)
    d_embed_VD = d_embed_VD.at[own_BT].add(d_x_BTD, mode='drop')
    return _summed(d_embed_VD.astype(d_x_BTD.dtype), 'VD', mesh)

  d_embed_VD = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(sharding.spec(_IDS), sharding.spec((*_IDS, None))),
    out_specs=sharding.spec(_EMBED),
    check_vma=False,
  )(ids_BT, d_x_BTD)
  return d_embed_VD, None


look_up.defvjp(_look_up_forward, _look_up_backward)


def _letters(spec):
  inputs, out = spec.split('->')
  return *inputs.split(','), out


def _spec(letters, names):
  return sharding.spec([names[letter] for letter in letters])


def _weight_specs(specs):
  return tuple(_spec(_letters(s)[1], weights_lib.DIMS) for s in specs)


def _is_cut(letters, mesh):
  """Whether one of these dims of an activation lies in parts on `tensor`."""
  return mesh.shape['tensor'] > 1 and any(
    letter in _CUT and sharding.RULES[_CUT[letter]] == 'tensor'
    for letter in letters
  )


def _gathered(w, w_dims, mesh):
  if 'D' not in w_dims:
    return w
  return sharding.gather(w, w_dims.index('D'), mesh)


def _summed(d_w, w_dims, mesh):
  """The sum of all rows' gradients, each device its own part of the weight."""
  axes = [a for a in ('data', 'context') if mesh.shape[a] > 1]
  if 'D' in w_dims:
    d_w = sharding.sum_scatter(d_w, w_dims.index('D'), mesh)
  elif mesh.shape['fsdp'] > 1:
    axes.append('fsdp')
  return jax.lax.psum(d_w, tuple(axes)) if axes else d_w
