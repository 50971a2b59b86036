"""The one table of weights: names, shapes, dims, how they start."""

import dataclasses
import functools
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.convert import hf
from lbe.models import architecture
from lbe.models import lora
from lbe.models import weights

import tiny

TINY = tiny.ODD
# PAPER.md's table: parameters without padding, computed from the published
# config.json files.
COUNTS = {
  'llama_7b': 6_738_415_616,
  'llama_13b': 13_015_864_320,
  'llama_33b': 32_528_943_616,
  'llama_65b': 65_285_660_672,
  'llama2_7b': 6_738_415_616,
  'llama2_13b': 13_015_864_320,
  'llama2_70b': 68_976_648_192,
  'llama3_8b': 8_030_261_248,
  'llama3_70b': 70_553_706_496,
  'llama31_8b': 8_030_261_248,
  'llama31_70b': 70_553_706_496,
  'llama31_405b': 405_853_388_800,
  'llama32_1b': 1_235_814_400,
  'llama32_3b': 3_212_749_824,
}


def init(c):
  return jax.jit(functools.partial(weights.init, c))(jax.random.key(0))


@pytest.mark.parametrize('name', COUNTS)
def test_preset_has_the_published_number_of_parameters(name):
  """A wrong width, head count or tying in a preset."""
  assert COUNTS.keys() == architecture.PRESETS.keys()
  assert weights.num_params(architecture.PRESETS[name]) == COUNTS[name]


@pytest.mark.parametrize('tied', [False, True])
def test_shapes_names_and_dims_agree(tied):
  """A weight whose sharding, name and shape are declared apart."""
  c = dataclasses.replace(TINY, tied=tied)
  size = dict(V=128, D=48, L=3, N=4, K=2, H=16, F=80)
  shapes, dims = weights.shapes(c, dtype='bfloat16'), weights.dims(c)
  flat = jax.tree_util.tree_leaves_with_path(shapes)
  for path, x in flat:
    letters = path[-1].key.rsplit('_', 1)[1]
    assert x.shape == tuple(size[letter] for letter in letters), path
    assert x.dtype == jnp.bfloat16
    logical = functools.reduce(lambda tree, key: tree[key.key], path, dims)
    assert len(logical) == len(letters)
  assert ('head_DV' in shapes) == (not tied)
  assert sum(math.prod(x.shape) for _, x in flat) == weights.num_params(
    dataclasses.replace(c, vocab_size=128)
  )


def test_initial_weights_do_not_depend_on_the_padding():
  """Padding that shifts the random numbers, or is not zero."""
  few = dataclasses.replace(TINY, vocab_multiple=1)
  a, b = init(TINY), init(few)
  assert a['embed_VD'].shape == (128, 48)
  assert not np.any(a['embed_VD'][97:]) and not np.any(a['head_DV'][:, 97:])
  np.testing.assert_array_equal(a['embed_VD'][:97], b['embed_VD'])
  np.testing.assert_array_equal(a['head_DV'][:, :97], b['head_DV'])
  np.testing.assert_array_equal(a['layers']['q_LDNH'], b['layers']['q_LDNH'])


def test_initial_weights_differ_by_name_and_have_the_asked_spread():
  """One key for all weights: gate and up would be the same matrix."""
  p = init(TINY)
  assert np.std(p['layers']['gate_LDF']) == pytest.approx(0.1, rel=0.05)
  assert np.any(p['layers']['gate_LDF'] != p['layers']['up_LDF'])
  assert np.any(p['layers']['k_LDKH'][0] != p['layers']['k_LDKH'][1])
  assert np.all(p['layers']['attn_norm_LD'] == 1)


def test_a_weight_is_drawn_with_the_key_of_its_name():
  """A draw that hangs on the order of the table: another start for all."""
  c = dataclasses.replace(
    TINY, lora=lora.make('layers/down_LFD', rank=4, alpha=8)
  )
  p = weights.init(c, jax.random.key(7))

  def key(name):
    return jax.random.fold_in(jax.random.key(7), zlib.crc32(name.encode()))

  def normal(name, *shape):
    return 0.1 * jax.random.normal(key(name), shape)

  np.testing.assert_array_equal(
    p['layers']['q_LDNH'], normal('q_LDNH', 3, 48, 4, 16)
  )
  np.testing.assert_array_equal(
    p['embed_VD'][:97], normal('embed_VD', 128, 48)[:97]
  )
  np.testing.assert_array_equal(
    p['head_DV'][:, :97], normal('head_DV', 128, 48)[:97].T
  )
  bound = 1 / math.sqrt(80)
  np.testing.assert_array_equal(
    p['lora']['down_a_LFR'],
    jax.random.uniform(
      key('down_a_LFR'), (3, 80, 4), minval=-bound, maxval=bound
    ),
  )
  assert not np.any(p['lora']['down_b_LRD'])


def test_a_tree_and_its_flat_names_are_the_same():
  """A name that is cut at another place than it was joined."""
  tree = weights.shapes(TINY)
  flat = weights.flatten(tree)
  assert 'layers/q_LDNH' in flat and 'embed_VD' in flat
  assert weights.unflatten(flat) == tree


def test_their_names_and_shapes_follow_from_the_letters():
  """A weight that is named or turned otherwise than Hugging Face's."""
  c = dataclasses.replace(TINY, lora=lora.make('layers/o_.*', rank=4, alpha=8))
  shapes = {
    hf.their_names(c, name)[-1]: hf.their_shape(c, name)
    for name in weights.of(c)
  }
  layer, attention = 'model.layers.2', 'model.layers.2.self_attn'
  assert shapes == {
    'model.embed_tokens.weight': (97, 48),
    f'{layer}.input_layernorm.weight': (48,),
    f'{attention}.q_proj.weight': (64, 48),
    f'{attention}.k_proj.weight': (32, 48),
    f'{attention}.v_proj.weight': (32, 48),
    f'{attention}.o_proj.weight': (48, 64),
    f'{layer}.post_attention_layernorm.weight': (48,),
    f'{layer}.mlp.gate_proj.weight': (80, 48),
    f'{layer}.mlp.up_proj.weight': (80, 48),
    f'{layer}.mlp.down_proj.weight': (48, 80),
    'model.norm.weight': (48,),
    'lm_head.weight': (97, 48),
    f'{attention}.o_proj.lora_A.weight': (4, 64),
    f'{attention}.o_proj.lora_B.weight': (48, 4),
  }
