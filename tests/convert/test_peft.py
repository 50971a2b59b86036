"""Adapters of PEFT: applied as the library does, or refused by name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import peft as theirs_lib
import pytest
import safetensors.numpy
import torch
import transformers

from lbe.assemble import model as model_lib
from lbe.convert import hf
from lbe.convert import hf_config
from lbe.convert import peft
from lbe.convert import peft_config
from lbe.convert import stored
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights

import runs
import tiny

IDS = np.arange(3, 37)[None]


def save_base(folder, *, tied=False, rows=40):
  """A small model of random weights, as transformers writes it."""
  tiny.save_llama(
    folder,
    vocab_size=rows,
    num_hidden_layers=3,
    initializer_range=0.3,
    tie_word_embeddings=tied,
  )
  return folder


@pytest.fixture(scope='module')
def bases(tmp_path_factory):
  folder = tmp_path_factory.mktemp('bases')
  return {t: save_base(folder / str(t), tied=t) for t in (False, True)}


def save_adapter(base, folder, *, rows=None, **fields):
  """An adapter that PEFT makes, with random values for all that it trains.

  Returns the logits of the model before it was saved.
  """
  torch.manual_seed(1)
  model = transformers.LlamaForCausalLM.from_pretrained(
    base, dtype=torch.float32
  )
  if rows:
    model.resize_token_embeddings(rows, mean_resizing=False)
  model = theirs_lib.get_peft_model(
    model,
    theirs_lib.LoraConfig(
      **{
        'r': 2,
        'lora_alpha': 3,
        'target_modules': ['q_proj', 'v_proj'],
        'task_type': 'CAUSAL_LM',
        **fields,
      }
    ),
  ).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.requires_grad:
        parameter.add_(0.3 * torch.randn_like(parameter))
    logits = model(torch.from_numpy(IDS)).logits.numpy()
  model.save_pretrained(folder)
  return logits


def read(base, adapter):
  """(c, parameters, frozen) of the two together."""
  c, _ = hf_config.read_config(base)
  found = hf.Weights(base, c)
  c, flat = found.config, weights.flatten(found.load())
  c, arrays, frozen = peft.read(adapter, c, flat.__getitem__)
  assert not arrays.keys() & set(frozen) & flat.keys()
  return c, weights.unflatten({**flat, **arrays}), frozen


def logits(base, adapter):
  c, params, _ = read(base, adapter)
  x_BTD = forward.hidden(
    params,
    c,
    jnp.asarray(IDS),
    positions_BT=jnp.arange(IDS.shape[1])[None],
    segments_BT=jnp.ones(IDS.shape, jnp.int32),
    execution=forward.Execution(compute_dtype='float32'),
  )
  return np.asarray(forward.logits(params, c, x_BTD))[..., : c.vocab_size]


BOTH = ['embed_tokens', 'lm_head']


@pytest.mark.parametrize(
  'fields',
  [
    # Which modules.
    dict(target_modules='all-linear'),
    dict(target_modules=None),
    dict(target_modules=r'model\.layers\.[02]\..*(o_proj|up_proj)'),
    dict(target_modules=['self_attn.k_proj', 'model.layers.1.mlp.down_proj']),
    dict(layers_to_transform=[0, 2], layers_pattern='layers'),
    dict(layers_to_transform=1),
    dict(exclude_modules=['layers.0.self_attn.q_proj']),
    dict(exclude_modules=r'.*\.2\..*'),
    # How strongly.
    dict(use_rslora=True, lora_alpha=5),
    dict(rank_pattern={'q_proj': 4}, alpha_pattern={r'1\..*v_proj': 7}),
    dict(rank_pattern={r'layers\.2\..*': 1}, use_rslora=True),
    # What changes nothing of LLaMA, or nothing but the start.
    dict(bias='all', fan_in_fan_out=True, lora_dropout=0.5),
    dict(init_lora_weights='gaussian'),
    dict(init_lora_weights='orthogonal'),
    dict(init_lora_weights='eva'),
    dict(init_lora_weights='mica'),
    dict(init_lora_weights=False),
    # Of embedding and head.
    dict(target_modules=['q_proj', 'lm_head']),
    dict(target_modules=['embed_tokens'], use_rslora=True),
    dict(
      target_modules=['q_proj', *BOTH], rows=44, rank_pattern={'lm_head': 3}
    ),
    # What is saved whole.
    dict(modules_to_save=['norm']),
    dict(modules_to_save=['layers.1.mlp', 'o_proj']),
    dict(modules_to_save=['q_proj'], target_modules=['q_proj', 'v_proj']),
    dict(modules_to_save=['embed_tokens']),
    dict(modules_to_save=['lm_head']),
    dict(rows=44),
    dict(rows=44, modules_to_save=BOTH),
    dict(rows=44, modules_to_save=['embed_tokens']),
    dict(rows=38, modules_to_save=BOTH),
    # Rows that are trained alone.
    dict(trainable_token_indices=[7, 5]),
    dict(trainable_token_indices={'embed_tokens': [7, 5], 'lm_head': [4]}),
    dict(trainable_token_indices=[41, 5], rows=44),
  ],
  ids=str,
)
def test_an_adapter_computes_what_it_did_in_peft(bases, tmp_path, fields):
  """The logits of the library's model, before it was saved."""
  found = save_adapter(bases[False], tmp_path, **fields)
  np.testing.assert_allclose(
    logits(bases[False], tmp_path), found, atol=2e-4, rtol=1e-4
  )


def test_a_layer_without_an_adapter_never_learns(bases, tmp_path):
  """Its zeros have no gradient: PEFT would train nothing there either."""
  save_adapter(
    bases[False], tmp_path, layers_to_transform=1, rank_pattern={'v_proj': 1}
  )
  c, params, _ = read(bases[False], tmp_path)

  def loss(adapters):
    x_BTD = forward.hidden(
      {**params, 'lora': adapters},
      c,
      jnp.asarray(IDS),
      positions_BT=jnp.arange(IDS.shape[1])[None],
      segments_BT=jnp.ones(IDS.shape, jnp.int32),
      execution=forward.Execution(compute_dtype='float32'),
    )
    return (x_BTD[..., 0] ** 3).sum()

  gradients = jax.grad(loss)(params['lora'])
  for name, d_x in gradients.items():
    assert not np.any(d_x[0]) and not np.any(d_x[2]), name
    ranks = np.moveaxis(d_x[1], -1 if '_a_' in name else 0, 0)
    assert np.any(ranks[0]), name
    assert np.any(ranks[1]) == name.startswith('q'), name


@pytest.mark.parametrize(
  ('fields', 'tied'),
  [
    (dict(), True),
    (dict(modules_to_save=['embed_tokens']), False),
    (dict(modules_to_save=['lm_head']), False),
    (dict(modules_to_save=BOTH), False),
    (dict(modules_to_save=['embed_tokens'], ensure_weight_tying=True), True),
    (dict(rows=44), True),
    (dict(rows=44, modules_to_save=['embed_tokens']), False),
    (
      dict(rows=44, modules_to_save=['embed_tokens'], ensure_weight_tying=True),
      True,
    ),
    (dict(target_modules=['q_proj', 'lm_head']), False),
    (dict(target_modules=['embed_tokens'], rows=44), False),
    (dict(trainable_token_indices=[7, 5]), True),
    (dict(trainable_token_indices=[41, 5], rows=44), True),
  ],
  ids=str,
)
def test_a_tied_base_is_untied_where_peft_unties_it(
  bases, tmp_path, fields, tied
):
  """A saved embedding leaves the head as it was: two matrices, not one."""
  found = save_adapter(bases[True], tmp_path, **fields)
  c, _, frozen = read(bases[True], tmp_path)
  assert c.tied == tied
  if fields.get('modules_to_save') == ['embed_tokens'] and not tied:
    assert ('head_DV' in frozen) == ('rows' not in fields)
  np.testing.assert_allclose(
    logits(bases[True], tmp_path), found, atol=2e-4, rtol=1e-4
  )


def test_adapters_that_are_tied_are_refused(bases, tmp_path):
  save_adapter(
    bases[True],
    tmp_path,
    target_modules=['q_proj', 'embed_tokens'],
    ensure_weight_tying=True,
  )
  with pytest.raises(ValueError, match='ensure_weight_tying with adapters of'):
    read(bases[True], tmp_path)


def as_bin(folder, **more):
  """Rewrites the tensors as torch stored them before safetensors."""
  path = folder / 'adapter_model.safetensors'
  found = safetensors.numpy.load_file(path)
  tensors = {k: torch.from_numpy(x) for k, x in found.items()}
  torch.save({**tensors, **more}, folder / 'adapter_model.bin')
  path.unlink()


def test_a_bin_file_is_read_and_code_in_it_is_not_run(bases, tmp_path):
  """All of Chinese-LLaMA's adapters are such files, with old buffers."""
  found = save_adapter(bases[False], tmp_path, rows=44, modules_to_save=BOTH)
  name = 'base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq'
  as_bin(tmp_path, **{name: torch.ones(2)})
  np.testing.assert_allclose(
    logits(bases[False], tmp_path), found, atol=2e-4, rtol=1e-4
  )
  torch.save({'x': json.loads}, tmp_path / 'adapter_model.bin')
  with pytest.raises(ValueError, match='holds more than tensors'):
    read(bases[False], tmp_path)


def test_safetensors_come_before_a_bin_file_and_that_is_said(bases, tmp_path):
  found = save_adapter(bases[False], tmp_path)
  assert peft.notices(tmp_path) == []
  torch.save({}, tmp_path / 'adapter_model.bin')
  (notice,) = peft.notices(tmp_path)
  assert 'adapter_model.bin' in notice
  np.testing.assert_allclose(
    logits(bases[False], tmp_path), found, atol=2e-4, rtol=1e-4
  )


@pytest.mark.parametrize(
  'fields',
  [
    dict(rows=44, modules_to_save=['embed_tokens']),
    dict(modules_to_save=['norm', 'lm_head']),
    dict(trainable_token_indices=[7, 5]),
  ],
  ids=str,
)
def test_a_narrow_base_keeps_its_dtype_and_the_adapter_its_values(
  tmp_path, fields
):
  """What the adapter holds is float32 in PEFT, beside a base of bfloat16."""
  wide, narrow = save_base(tmp_path / 'wide', tied=True), tmp_path / 'narrow'
  transformers.LlamaForCausalLM.from_pretrained(
    wide, dtype=torch.bfloat16
  ).save_pretrained(narrow)
  found = save_adapter(narrow, tmp_path / 'adapter', **fields)
  np.testing.assert_allclose(
    logits(narrow, tmp_path / 'adapter'), found, atol=2e-4, rtol=1e-4
  )
  _, params, frozen = read(narrow, tmp_path / 'adapter')
  flat = weights.flatten(params)
  assert {str(flat[n].dtype) for n in frozen} == {'bfloat16'}
  # An adapter may be narrow as well; PEFT computes with it in float32.
  edit(
    tmp_path / 'adapter',
    lambda t: t.update({k: x.astype(jnp.bfloat16) for k, x in t.items()}),
  )
  model = transformers.LlamaForCausalLM.from_pretrained(
    narrow, dtype=torch.float32
  )
  if 'rows' in fields:
    model.resize_token_embeddings(44, mean_resizing=False)
  model = theirs_lib.PeftModel.from_pretrained(model, tmp_path / 'adapter')
  with torch.no_grad():
    found = model.eval()(torch.from_numpy(IDS)).logits.numpy()
  np.testing.assert_allclose(
    logits(narrow, tmp_path / 'adapter'), found, atol=2e-4, rtol=1e-4
  )


RECORD = dict(peft_type='LORA', r=4, lora_alpha=8, target_modules=['q_proj'])
C = architecture.Config(40, 16, 3, 4, 2, 4, 24)
MODULES = ['lm_head', 'model.norm', 'model.embed_tokens'] + [
  f'model.layers.{i}.self_attn.{m}_proj' for i in range(3) for m in 'qkvo'
]


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (dict(init_lora_weights='pissa'), "'pissa' changed the base before"),
    (dict(init_lora_weights='pissa_niter_4'), 'init_lora_weights=.*niter_4'),
    (dict(init_lora_weights='olora'), 'path_initial_model_for_weight_conv'),
    (dict(init_lora_weights='loftq'), "init_lora_weights='loftq'"),
    (dict(init_lora_weights='corda'), "init_lora_weights='corda'"),
    (dict(init_lora_weights='lora_ga'), "init_lora_weights='lora_ga'"),
    (dict(init_lora_weights='of 2030'), "init_lora_weights='of 2030'"),
    (dict(peft_type='IA3'), "peft_type='IA3'; only LORA"),
    (dict(peft_type='ADALORA'), "peft_type='ADALORA'; .*merge_and_unload"),
    (dict(peft_type=None), 'peft_type=None'),
    (dict(task_type='SEQ_CLS'), "task_type='SEQ_CLS'; only"),
    (dict(use_dora=True), 'use_dora=True is not supported'),
    (dict(lora_bias=True), 'lora_bias=True is not supported'),
    (dict(layer_replication=[[0, 3]]), 'layer_replication=.* not supported'),
    (dict(target_parameters=['w']), 'target_parameters=.* not supported'),
    (dict(megatron_config={'a': 1}), 'megatron_config=.* not supported'),
    (dict(alora_invocation_tokens=[3]), 'alora_invocation_tokens=.3. is not'),
    (dict(a_field_of_2030=0.5), 'a_field_of_2030=0.5 is not supported'),
    (dict(enable_lora=[True, False]), 'enable_lora=.* is not supported'),
    (dict(target_modules=['norm']), 'adapt model.norm, which'),
    (dict(target_modules='.*'), 'adapt .*, which is not supported'),
    (dict(target_modules=['c_attn']), "'c_attn'. match no module of LLaMA"),
    (dict(target_modules='(q_proj'), "'.q_proj' is no regular expression"),
    (dict(modules_to_save=['score']), "modules_to_save has 'score'"),
    (dict(trainable_token_indices={'wte': [1]}), "indices of 'wte'"),
    (dict(r=0), 'r=0; it must be above 0'),
    (dict(r='8'), "r='8'; it must be above 0"),
    (dict(rank_pattern={'q_proj': 1.5}), 'rank_pattern=.* whole number'),
  ],
  ids=str,
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, changes, words):
  """Ignoring one gives another model without a word."""
  path = tmp_path / 'adapter_config.json'
  path.write_text(json.dumps(RECORD | dict(megatron_config=None)))
  record = peft_config.read(tmp_path)
  peft_config.check_modules(record, MODULES, tmp_path)
  path.write_text(json.dumps(RECORD | changes))
  with pytest.raises(ValueError, match=words) as error:
    record = peft_config.read(tmp_path)
    peft_config.check_modules(record, MODULES, tmp_path)
  assert str(path) in str(error.value)


def edit(folder, change):
  """Changes the tensors of an adapter by their names without the prefix."""
  path = folder / 'adapter_model.safetensors'
  prefix = 'base_model.model.'
  tensors = {
    k.removeprefix(prefix): x
    for k, x in safetensors.numpy.load_file(path).items()
  }
  change(tensors)
  safetensors.numpy.save_file(
    {prefix + k: np.ascontiguousarray(x) for k, x in tensors.items()}, path
  )


Q_A = 'model.layers.1.self_attn.q_proj.lora_A.weight'


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda t: t.pop(Q_A), f'no tensor .*{Q_A}'),
    (lambda t: t.update({Q_A: t[Q_A][:1]}), r'shape \(1, 16\).*says \(2, 16\)'),
    (lambda t: t.update({Q_A: t[Q_A][:, :8]}), 'belongs to another model'),
    (lambda t: t.update({Q_A: t[Q_A][:0]}), 'is empty.*ZeRO-3'),
    (lambda t: t.update({Q_A: t[Q_A].astype(np.int8)}), 'is I8'),
    (lambda t: t.update({Q_A: t[Q_A].astype(np.float64)}), 'is F64'),
    (lambda t: t.update({Q_A: t[Q_A] * np.nan}), 'not finite'),
    (lambda t: t.update({'lm_head.lora_A.weight': t[Q_A]}), 'lm_head.lora_A'),
    (
      lambda t: t.update({'model.x.weight': t[Q_A]}),
      "1 tensors that are not read.*'base_model.model.mo",
    ),
    (
      lambda t: t.update({Q_A.replace('A.', 'A.default.'): t.pop(Q_A)}),
      "no tensor .*lora_A.weight'.*lora_A.default.weight",
    ),
    (
      lambda t: [t.update({f'x.{k}': t.pop(k)}) for k in list(t)],
      "no tensor .*lora_A.weight'.* of its 12 others 'x",
    ),
    (
      lambda t: t.update(
        {
          f'lm_head{x}.weight': np.full((44, 16), i, np.float32)
          for i, x in enumerate(('', '.modules_to_save'))
        }
      ),
      "'lm_head.weight' under two names, and they differ",
    ),
    (
      lambda t: t.update({'lm_head.weight': np.ones((44, 16), np.float32)}),
      'the embedding has 40 rows and the head 44; save both',
    ),
  ],
)
def test_tensors_of_another_adapter_are_named(bases, tmp_path, change, words):
  save_adapter(bases[False], tmp_path)
  read(bases[False], tmp_path)
  edit(tmp_path, change)
  with pytest.raises(ValueError, match=words):
    read(bases[False], tmp_path)


def test_a_saved_module_without_its_tensor_is_named(bases, tmp_path):
  save_adapter(bases[False], tmp_path, modules_to_save=['embed_tokens'])
  edit(tmp_path, lambda t: t.pop('model.embed_tokens.weight'))
  with pytest.raises(ValueError, match='no tensor .*embed_tokens.weight'):
    read(bases[False], tmp_path)


def test_a_head_that_is_kept_equal_must_be_there(bases, tmp_path):
  """Without it the head of the base would be taken, which is not equal."""
  save_adapter(
    bases[True],
    tmp_path,
    modules_to_save=['embed_tokens'],
    ensure_weight_tying=True,
  )
  edit(tmp_path, lambda t: t.pop('lm_head.weight'))
  with pytest.raises(ValueError, match='no tensor .*lm_head.weight'):
    read(bases[True], tmp_path)


def test_a_folder_without_an_adapter_says_where_one_is(tmp_path):
  """PEFT saves an adapter of another name than `default` in a folder of it."""
  with pytest.raises(ValueError, match='has no adapter_config.json; give'):
    peft_config.read(tmp_path)
  (tmp_path / 'zh').mkdir()
  path = tmp_path / 'zh' / 'adapter_config.json'
  path.write_text(json.dumps(RECORD))
  with pytest.raises(ValueError, match='but zh inside it does; .*/zh'):
    peft_config.read(tmp_path)
  peft_config.read(tmp_path / 'zh')
  with pytest.raises(ValueError, match='neither adapter_model.safetensors nor'):
    peft.read(tmp_path / 'zh', C, None)


@pytest.mark.parametrize('tied', [False, True])
@pytest.mark.parametrize(
  'fields',
  [
    dict(rows=44),
    dict(modules_to_save=['embed_tokens']),
    dict(rows=44, modules_to_save=BOTH),
    dict(rows=44, modules_to_save=['embed_tokens'], ensure_weight_tying=True),
    dict(target_modules=['layers.1.mlp.up_proj'], use_rslora=True),
    dict(rank_pattern={'q_proj': 4}, alpha_pattern={'v_proj': 7}),
  ],
  ids=str,
)
def test_peft_loads_what_we_write_of_it(bases, tmp_path, fields, tied):
  """Grown vocabularies and tied bases included."""
  found = save_adapter(bases[tied], tmp_path / 'theirs', **fields)
  c, params, frozen = read(bases[tied], tmp_path / 'theirs')
  peft.write(
    tmp_path / 'ours',
    c,
    weights.flatten(params).__getitem__,
    dtype='float32',
    base='elsewhere',
    saved=[n for n in hf.tensor_names(c) if n not in frozen],
  )
  model = transformers.LlamaForCausalLM.from_pretrained(bases[tied])
  if 'rows' in fields:
    model.resize_token_embeddings(44, mean_resizing=False)
  model = theirs_lib.PeftModel.from_pretrained(model, tmp_path / 'ours').eval()
  with torch.no_grad():
    again = model(torch.from_numpy(IDS)).logits.numpy()
  np.testing.assert_allclose(again, found, atol=2e-4, rtol=1e-4)
  np.testing.assert_allclose(
    logits(bases[tied], tmp_path / 'ours'), found, atol=2e-4, rtol=1e-4
  )


def test_new_rows_go_with_an_adapter_though_they_never_learned(tmp_path):
  """The base has none: they would be drawn anew."""
  c = architecture.Config(
    44, 16, 1, 2, 2, 8, 24, lora=architecture.Lora(('q_LDNH',), 2, 4)
  )
  ours, target = tmp_path / 'ours', tmp_path / 'adapter'
  runs.save_random(
    ours,
    c,
    None,
    num_old_rows=40,
    base='llama',
    frozen=list(hf.tensor_names(c)),
  )
  runs.run(
    'export_hf',
    f'--source={ours}',
    f'--target={target}',
    '--adapter_only',
    runs.QUICK,
  )
  tensors = safetensors.numpy.load_file(target / 'adapter_model.safetensors')
  assert tensors['base_model.model.lm_head.weight'].shape == (44, 16)
  assert tensors['base_model.model.model.embed_tokens.weight'].shape == (44, 16)
  # Whoever may read one file may read all; safetensors wrote for one user.
  assert len({path.stat().st_mode for path in target.iterdir()}) == 1
  assert 'library_name: peft' in (target / 'README.md').read_text('utf-8')


def test_adapters_that_go_on_stay_those_of_their_base():
  """A second run's adapter beside the first's base, not beside itself."""
  c = architecture.Config(40, 16, 1, 2, 2, 8, 24)
  first = {'base': 'llama', 'frozen': ['layers/q_LDNH', 'final_norm_D']}
  config = ml_collections.ConfigDict({'init_from': 'runs/first'})

  def origin(lora):
    opened = stored.Opened(
      'runs/first', 'hf', dataclasses.replace(c, lora=lora), None, first
    )
    return model_lib.origin(config, opened, ['embed_VD', 'layers/q_LDNH'])

  assert origin(architecture.Lora(('k_LDKH',), 2, 4)) == {
    'base': 'llama',
    'frozen': ['layers/q_LDNH'],
  }
  assert origin(None) == {
    'base': 'runs/first',
    'frozen': ['embed_VD', 'layers/q_LDNH'],
  }
