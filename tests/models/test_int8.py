"""Weights in 8 bits: what is lost is their rounding, and no more."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.convert import stored
from lbe.inference import model as model_lib
from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import int8
from lbe.models import products
from lbe.models import weights

import runs


def one_device():
  return sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])


def as_rounded(w):
  """The float32 weights [L, in, out] that an Int8 stands for."""
  L = len(w.ints)
  ints = np.swapaxes(np.asarray(w.ints, np.float32), 1, 2)
  return ints * np.asarray(w.scales).reshape(L, 1, -1)


@pytest.mark.parametrize('rows', [(1, 1), (3, 5)])
@pytest.mark.parametrize(
  'name, spec',
  [
    ('q_LDNH', 'BTD,DNH->BTNH'),
    ('o_LNHD', 'BTNH,NHD->BTD'),
    ('down_LFD', 'BTF,FD->BTD'),
  ],
)
def test_a_product_loses_the_rounding_of_the_weights_alone(name, spec, rows):
  """Rows with an element a thousand times the others, and of zeros, too."""
  rng = np.random.default_rng(0)
  sizes = {'D': 48, 'N': 4, 'H': 12, 'F': 48}
  dims = [sizes[letter] for letter in name.split('_')[1][1:]]
  w = rng.normal(size=(2, *dims)).astype(np.float32)
  w[..., 0] *= 100  # a column of its own size
  params = {'layers': {name: jnp.asarray(w), 'attn_norm_LD': jnp.ones((2, 48))}}
  stacks = int8.quantized(params, one_device())['layers']
  assert stacks['attn_norm_LD'] is params['layers']['attn_norm_LD']
  rounded = as_rounded(stacks[name]).reshape(w.shape)
  column = np.abs(w.reshape(2, 48, -1)).max(1)
  off = np.abs(rounded - w).reshape(2, 48, -1).max(1)
  assert np.all(off <= column / 254 * 1.001)
  taken = [sizes[letter] for letter in weights.takes(name)]
  x = rng.normal(size=(*rows, *taken)).astype(np.float32)
  x.reshape(*rows, -1)[0, 0, 7] = 1000
  if rows != (1, 1):
    x[1, 1] = 0
  execution = forward.Execution(scan=False)
  layer = forward.layers({'layers': stacks}, execution)[1]
  (y,) = jax.jit(lambda x, w: products.project(x, (w,), (spec,), None))(
    jnp.asarray(x), layer[name]
  )
  want = x.reshape(*rows, 48) @ rounded[1].reshape(48, -1)
  # 15 bits of what is largest in the row, times the weights of a column.
  largest = np.abs(x).reshape(*rows, -1).max(-1, keepdims=True)
  most = largest * np.abs(rounded[1].reshape(48, -1)).sum(0) / (127 * 254 * 2)
  assert np.all(np.abs(np.asarray(y).reshape(want.shape) - want) <= most * 1.1)


@pytest.mark.parametrize('outputs', [7, 64])
def test_a_row_alone_is_what_it_is_among_others(outputs):
  """A CPU sums few rows in another way than many; integers are exact."""
  rng = np.random.default_rng(1)
  stack = int8.quantized(
    {'layers': {'down_LFD': jnp.asarray(rng.normal(size=(1, 300, outputs)))}},
    one_device(),
  )['layers']['down_LFD']
  layer = int8.Int8(stack.ints[0], stack.scales[0])
  x = jnp.asarray(rng.normal(size=(5, 1, 300)), jnp.float32)
  times = jax.jit(lambda x: layer.times(x))
  whole = np.asarray(times(x))
  for num in (1, 2, 3):
    np.testing.assert_allclose(times(x[:num]), whole[:num], rtol=1e-6)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
  """Integers have no NaN: a broken model would answer as if it were whole."""
  w = np.ones((1, 3, 4), np.float32)
  w[0, 1, 2] = bad
  params = {'layers': {'down_LFD': jnp.asarray(w)}}
  stack = int8.quantized(params, one_device())['layers']['down_LFD']
  layer = int8.Int8(stack.ints[0], stack.scales[0])
  x = np.ones((1, 2, 3), np.float32)
  finite = np.isfinite(np.asarray(layer.times(jnp.asarray(x))))
  assert finite.tolist() == [[[True, True, False, True]] * 2]
  x[0, 1, 0] = bad
  finite = np.isfinite(np.asarray(layer.times(jnp.asarray(x))))
  assert finite.tolist() == [[[True, True, False, True], [False] * 4]]


@pytest.mark.parametrize('scan', [True, False])
def test_scores_and_texts_are_those_of_the_rounded_weights(test_data, scan):
  opened = stored.open_model(test_data / 'ckpt_stories260K' / 'hf')
  mesh, tokenizer = one_device(), opened.tokenizer
  params = opened.load_params(mesh)
  small = int8.quantized(params, mesh)
  rounded = {
    **params,
    'layers': {
      name: jnp.asarray(as_rounded(w).reshape(params['layers'][name].shape))
      if isinstance(w, int8.Int8)
      else w
      for name, w in small['layers'].items()
    },
  }

  def model(params):
    return model_lib.Model(
      params=params,
      config=opened.config,
      tokenizer=tokenizer,
      mesh=mesh,
      execution=forward.Execution(compute_dtype='float32', scan=scan),
      batch_size=2,
      max_len=256,
    )

  ids = tokenizer.encode('Once upon a time there was a little girl named Lily.')
  found, of_rounded, exact = (
    model(x).score_texts([ids])[0] for x in (small, rounded, params)
  )
  assert abs(found - of_rounded) < 0.01 < 0.2 < abs(exact)
  assert 0 < abs(found - exact) < 0.5
  texts = [
    x.generate(['Once upon'], max_new_tokens=24)[0].text
    for x in map(model, (small, rounded))
  ]
  assert texts[0] == texts[1]
  assert 'int8' in model(small).row()['dtype']
  assert 'int8' not in model(params).row()['dtype']


def test_several_devices_are_refused():
  mesh = sharding.make_mesh({'fsdp': 2}, devices=jax.devices()[:2])
  with pytest.raises(ValueError, match='for one device, and the mesh has 2'):
    int8.quantized({'layers': {}}, mesh)


def test_evaluate_refuses_several_devices_before_it_reads(test_data, tmp_path):
  """Minutes of reading, and then a word that a flag would have told."""
  told = runs.run(
    'evaluate',
    *runs.TINY,
    *('--config.tokenizer=', '--int8'),
    f'--config.init_from={test_data}/ckpt_stories260K/hf',
    f'--workdir={tmp_path}',
    num_devices=2,
    status=1,
  )
  assert 'for one device, and the mesh has 2' in told
  assert not (tmp_path / 'data').exists()


def test_the_programs_take_them(test_data, tmp_path):
  model = test_data / 'ckpt_stories260K' / 'hf'
  told = runs.run(
    'generate',
    f'--model={model}',
    '--int8',
    '--prompt=Once upon a time',
    '--max_new_tokens=8',
  )
  assert 'Once upon a time' in told
  runs.run(
    'evaluate',
    '--config=configs/eval_languages.py:sw',
    '--int8',
    f'--workdir={tmp_path / "run"}',
    f'--config.init_from={model}',
    f'--config.evals.parallel.path={test_data / "text_ntrex"}',
    f'--config.evals.swap.path={test_data / "bench_sib200"}',
    '--config.evals.parallel.limit=1',
    '--config.evals.swap.limit=1',
    '--config.evals.in_context.sequences=0',
  )
  rows = (tmp_path / 'run' / 'results.jsonl').read_text().splitlines()
  assert {json.loads(row)['dtype'] for row in rows} == {'float32, int8 weights'}
