"""LoRA: nothing at its start, the published counts, and PEFT's own numbers."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.configs import common
from lbe.convert import stored
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import lora
from lbe.models import weights
from lbe.run import checkpoint

import runs
import tiny

TINY = tiny.TINY
ALL = lora.make(common.LINEAR, rank=4, alpha=8)
ADAPTED = dataclasses.replace(TINY, lora=ALL)
FP32 = forward.Execution(compute_dtype='float32')


def random_adapters(params, seed=0):
  """B is zero at the start; here it is not."""
  rng = np.random.default_rng(seed)
  return {
    **params,
    'lora': {
      name: jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32)
      for name, x in params['lora'].items()
    },
  }


@functools.partial(jax.jit, static_argnames=('c', 'execution', 'lora_dropout'))
def logits(params, c, execution=FP32, **more):
  rows = tiny.batch()
  x_BTD = forward.hidden(
    params,
    c,
    rows['ids_BT'],
    positions_BT=rows['positions_BT'],
    segments_BT=rows['segments_BT'],
    execution=execution,
    **more,
  )
  return forward.logits(params, c, x_BTD)


def test_at_its_start_an_adapted_model_is_its_base():
  """A B that is not zero would throw away what the base knows."""
  params = weights.init(ADAPTED, jax.random.key(0))
  base = {k: v for k, v in params.items() if k != 'lora'}
  np.testing.assert_array_equal(logits(params, ADAPTED), logits(base, TINY))
  a = params['lora']['o_a_LNHR']
  assert a.shape == (2, 4, 8, 4) and abs(np.abs(a).max() - 32**-0.5) < 0.01
  assert params['lora']['q_b_LRNH'].shape == (2, 4, 4, 8)


@pytest.mark.parametrize('rslora', [False, True])
def test_an_adapter_is_its_weight_with_the_product_added(rslora):
  """Every one of the seven weights, and the scale."""
  c = dataclasses.replace(
    TINY, lora=lora.make(common.LINEAR, rank=4, alpha=8, rslora=rslora)
  )
  assert c.lora.scale == (4.0 if rslora else 2.0)
  params = random_adapters(weights.init(c, jax.random.key(0)))
  merged = {**params, 'layers': dict(params['layers'])}
  for name in c.lora.weights:
    parts = (params['lora'][part] for part in weights.adapters(name))
    array = lora.merged(np.asarray(params['layers'][name]), *parts, c.lora)
    assert np.abs(array - params['layers'][name]).max() > 0.01
    merged['layers'][name] = array
  del merged['lora']
  expected = logits(merged, TINY)
  for scan in (True, False):
    execution = dataclasses.replace(FP32, scan=scan)
    np.testing.assert_allclose(
      logits(params, c, execution), expected, atol=2e-5
    )


# PAPER of Chinese-LLaMA: what PEFT printed for LLaMA-7B with 49,953 pieces.
QKVO = 'layers/(q|k|v|o)_.*'


@pytest.mark.parametrize(
  'params, rank, vocab_size, percent',
  [
    (None, 0, 49953, 2.97),
    (QKVO, 8, 49953, 6.06),
    (common.LINEAR, 8, 49953, 6.22),
    (common.LINEAR, 64, 49954, 8.08),
  ],
)
def test_the_published_shares_of_trained_parameters(
  params, rank, vocab_size, percent
):
  """Embedding and head whole; in the first stage the embedding alone."""
  config = common.base()
  c = dataclasses.replace(
    architecture.PRESETS['llama_7b'], vocab_size=vocab_size, vocab_multiple=1
  )
  if params:
    common.adapt(config, params=params, also='all')
    config.init_from = 'llama-7b'
    config.lora.rank = rank
    c = model_lib.adapted_config(config, c)
  else:
    config.optim.groups.body.frozen = True
    config.optim.groups.head = common.group(params='head_DV', frozen=True)
  partition = step_lib.make_partition(config, c)
  told = partition.describe(weights.shapes(c)).splitlines()[0]
  assert told.endswith(f'({percent:.2f}%)'), told


def make_config(also='nothing', **fields):
  config = common.adapt(common.base(), also=also)
  config.init_from = 'base'
  config.data.batch_size, config.data.seq_len = 4, 8
  config.execution.compute_dtype = 'float32'
  config.optim.peak_lr = 0.01
  config.lora.rank, config.lora.alpha = 4, 8.0
  config.lora.update(fields)
  return config


def train(config, num_steps=3, shape=(1, 1, 1)):
  """(parameters before, after, the state)."""
  data, fsdp, tensor = shape
  mesh = sharding.make_mesh(
    dict(data=data, fsdp=fsdp, context=1, tensor=tensor),
    devices=jax.devices()[: data * fsdp * tensor],
  )
  c = model_lib.adapted_config(config, TINY)
  partition = step_lib.make_partition(config, c, num_old=40)
  training = step_lib.make_training(config, c, mesh, partition, 10)
  params = model_lib.init_params(c, mesh, 0)
  dtypes = step_lib.param_dtypes(config, partition)
  params = jax.tree.map(
    lambda x, like: x.astype(like.dtype),
    params,
    weights.shapes(c, dtype=dtypes),
  )
  before = jax.device_get(params)
  state = step_lib.new_state(training, params)
  for step in range(num_steps):
    rows = jax.device_put(
      tiny.batch(step),
      {k: x.sharding for k, x in training.abstract_batch.items()},
    )
    state, _ = training.step(state, rows, training.rates(state['step']))
  return before, jax.device_get(state['params']), state


@pytest.mark.parametrize(
  'also, moving',
  [
    ('nothing', set()),
    ('all', {'embed_VD', 'head_DV'}),
    ('new_rows', {'embed_VD', 'head_DV'}),
  ],
)
def test_only_what_was_asked_for_learns(also, moving):
  """And only that has moments: two a parameter."""
  before, after, state = train(make_config(also))
  flat = weights.flatten(after)
  for name, x in weights.flatten(before).items():
    moved = not np.array_equal(x, flat[name])
    assert moved == (name.startswith('lora/') or name in moving), name
  if also == 'new_rows':
    np.testing.assert_array_equal(
      before['embed_VD'][:40], after['embed_VD'][:40]
    )
  size = optax.tree.size(after['lora'])
  rows = {'nothing': 0, 'all': 128, 'new_rows': 128 - 40}[also]
  moments = [x.size for x in jax.tree.leaves(state['opt_state']) if x.ndim]
  assert sum(moments) == 2 * (size + 2 * rows * TINY.dim)


def test_a_mesh_learns_the_same_adapters():
  alone = train(make_config())[1]['lora']
  many = train(make_config(), shape=(2, 2, 2))[1]['lora']
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alone, many
  )


def test_a_frozen_base_may_be_half_as_wide():
  """bfloat16 for what never learns; adapters and moments stay float32."""
  config = make_config()
  config.optim.frozen_dtype = 'bfloat16'
  before, after, _ = train(config)
  assert after['layers']['q_LDNH'].dtype == jnp.bfloat16
  assert after['lora']['q_a_LDR'].dtype == np.float32
  np.testing.assert_array_equal(before['embed_VD'], after['embed_VD'])
  config.optim.frozen_dtype = 'float16'
  with pytest.raises(ValueError, match="frozen_dtype='float16' is unknown"):
    train(config)


def test_dropout_is_before_the_adapter_and_only_in_training():
  """Scaled up, so that the mean stays; another mask each step and layer."""
  params = random_adapters(weights.init(ADAPTED, jax.random.key(0)))
  plain = logits(params, ADAPTED)
  key = jax.random.key(1)
  scanned, unrolled = (
    logits(
      params,
      ADAPTED,
      dataclasses.replace(FP32, scan=scan),
      lora_dropout=0.5,
      dropout_key=key,
    )
    for scan in (True, False)
  )
  assert np.abs(scanned - plain)[..., :50].max() > 1e-3
  np.testing.assert_allclose(scanned, unrolled, atol=2e-5)
  dropped = lora.dropout(jnp.ones(100_000), 0.2, key)
  assert set(np.unique(dropped)) == {0.0, np.float32(1.25)}
  assert abs(dropped.mean() - 1) < 0.01
  a, b = (train(make_config(dropout=d), 2)[1]['lora'] for d in (0.0, 0.5))
  assert not np.allclose(a['q_b_LRNH'], b['q_b_LRNH'])


@pytest.mark.parametrize(
  'change, words',
  [
    (dict(params='embed_VD'), 'matches no weight that can be adapted'),
    (dict(params='('), 'is no regular expression'),
    (dict(rank=0), 'rank=0 is not positive'),
  ],
)
def test_adapters_that_cannot_be_are_refused(change, words):
  with pytest.raises(ValueError, match=words):
    model_lib.adapted_config(make_config(**change), TINY)


def test_a_weight_is_adapted_or_trained_not_both():
  """Two updates of one weight would fight, and PEFT could not hold them."""
  config = make_config()
  config.optim.groups.body.frozen = False
  with pytest.raises(ValueError, match='both adapted .* and fully trained'):
    train(config)


def test_other_adapters_than_those_of_the_weights_are_refused():
  with pytest.raises(ValueError, match='has adapters already'):
    model_lib.adapted_config(make_config(rank=8), ADAPTED)
  assert model_lib.adapted_config(make_config(params=''), ADAPTED) == ADAPTED


# ------------------------------------------------- PEFT, on a trained model


@pytest.fixture(scope='module')
def trained(test_data, tmp_path_factory):
  """A short LoRA run of the real small model; embedding trained as well."""
  folder = tmp_path_factory.mktemp('lora')
  runs.run(
    'train',
    *runs.TINY,
    '--config.tokenizer=',
    f'--config.init_from={test_data / "ckpt_stories260K" / "hf"}',
    '--config.budget.steps=3',
    '--config.optim.groups.body.frozen=True',
    f'--config.lora.params={common.LINEAR}',
    '--config.lora.dropout=0.1',
    '--config.optim.peak_lr=0.01',
    f'--workdir={folder}',
  )
  return folder


def our_logits(path, ids):
  opened = stored.open_model(path)
  mesh = sharding.make_mesh(
    dict(data=1, fsdp=1, context=1, tensor=1), devices=jax.devices()[:1]
  )
  params = opened.load_params(mesh)
  x_BTD = forward.hidden(
    params,
    opened.config,
    jnp.asarray(ids),
    positions_BT=jnp.arange(ids.shape[1])[None],
    segments_BT=jnp.ones(ids.shape, jnp.int32),
    execution=FP32,
  )
  found = forward.logits(params, opened.config, x_BTD)
  return np.asarray(found)[..., : opened.config.vocab_size]


def test_adapters_are_merged_into_what_transformers_loads(
  trained, test_data, tmp_path
):
  """The certificate compares the merged model with the adapted one."""
  import torch
  import transformers

  runs.run('export_hf', f'--source={trained}', f'--target={tmp_path / "hf"}')
  record = json.loads((tmp_path / 'hf' / 'certificate.json').read_text())
  assert record['logits']['max_abs_difference'] < 1e-3
  ids = np.arange(3, 60)[None]
  theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / 'hf')
  with torch.no_grad():
    found = theirs(torch.from_numpy(ids)).logits.numpy()
  np.testing.assert_allclose(our_logits(trained, ids), found, atol=1e-4)
  base = our_logits(test_data / 'ckpt_stories260K' / 'hf', ids)
  assert np.abs(found - base).max() > 0.1, 'it learnt nothing'


def test_peft_loads_our_adapters_with_equal_logits(
  trained, test_data, tmp_path
):
  """Layout, scale and names of q, k, v, o, MLP, and the saved embedding."""
  import peft as theirs_lib
  import torch
  import transformers

  target = tmp_path / 'adapter'
  runs.run(
    'export_hf', f'--source={trained}', f'--target={target}', '--adapter_only'
  )
  record = json.loads((target / 'certificate.json').read_text())
  assert record['logits']['max_abs_difference'] < 1e-3
  base = transformers.LlamaForCausalLM.from_pretrained(
    test_data / 'ckpt_stories260K' / 'hf'
  )
  model = theirs_lib.PeftModel.from_pretrained(base, target).eval()
  ids = np.arange(3, 60)[None]
  with torch.no_grad():
    found = model(torch.from_numpy(ids)).logits.numpy()
  np.testing.assert_allclose(our_logits(trained, ids), found, atol=1e-4)
  # And back again.
  runs.run(
    'import_hf',
    f'--source={test_data / "ckpt_stories260K" / "hf"}',
    f'--adapter={target}',
    f'--target={tmp_path / "again"}',
    runs.QUICK,
  )
  for name in ('lora/q_a_LDR', 'lora/down_b_LRD', 'embed_VD'):
    np.testing.assert_array_equal(
      checkpoint.load_array(tmp_path / 'again', name),
      checkpoint.load_array(trained, name),
    )


def test_adapters_that_peft_made_are_imported(test_data, tmp_path):
  """rsLoRA on two modules, made and saved by the library itself."""
  import peft as theirs_lib
  import torch
  import transformers

  source = test_data / 'ckpt_stories260K' / 'hf'
  torch.manual_seed(0)
  model = theirs_lib.get_peft_model(
    transformers.LlamaForCausalLM.from_pretrained(source),
    theirs_lib.LoraConfig(
      r=4,
      lora_alpha=6,
      use_rslora=True,
      target_modules=['o_proj', 'k_proj'],
      init_lora_weights=False,
      task_type='CAUSAL_LM',
    ),
  ).eval()
  model.save_pretrained(tmp_path / 'adapter')
  runs.run(
    'import_hf',
    f'--source={source}',
    f'--adapter={tmp_path / "adapter"}',
    f'--target={tmp_path / "ours"}',
    '--verify=logits',
  )
  ids = np.arange(3, 60)[None]
  with torch.no_grad():
    found = model(torch.from_numpy(ids)).logits.numpy()
  np.testing.assert_allclose(
    our_logits(tmp_path / 'ours', ids), found, atol=1e-4
  )
  base = our_logits(source, ids)
  assert np.abs(found - base).max() > 0.1
