"""New rows: old ones untouched, each method by what it promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lbe.assemble import extension
from lbe.assemble import model as model_lib
from lbe.configs import common
from lbe.convert import stored
from lbe.evals import perplexity
from lbe.mesh import sharding
from lbe.vocab import extend
from lbe.vocab import rows
from lbe.vocab import tokenizers
from lbe.vocab import train

import runs

SPELLINGS = [[[1, 2]], [[3]], [[4, 4, 5]]]


def old(V=40, D=8):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(0.5, 2.0, (V, D)), jnp.float32)


def make(method, spellings=SPELLINGS, **changes):
  settings = dict(method=method, key=jax.random.key(0)) | changes
  return np.asarray(rows.make(old(), spellings, **settings))


def test_means_are_those_of_the_rows_that_spell_the_piece():
  """A sum instead of a mean makes long pieces loud."""
  new = make('pieces_mean')
  np.testing.assert_allclose(new[0], (old()[1] + old()[2]) / 2, rtol=1e-6)
  np.testing.assert_array_equal(new[1], old()[3])
  np.testing.assert_allclose(new[2], (2 * old()[4] + old()[5]) / 3, rtol=1e-6)
  np.testing.assert_allclose(make('mean')[2], old().mean(axis=0), rtol=1e-5)


def test_draws_have_the_promised_moments():
  """Gaussian: mean and covariance of the old rows; normal: 0.02."""
  many = [[[0]]] * 20_000
  new = make('gaussian', many)
  np.testing.assert_allclose(new.mean(0), old().mean(0), atol=0.1)
  np.testing.assert_allclose(
    np.cov(new.T), np.cov(np.asarray(old()).T, ddof=0), atol=0.25
  )
  new = make('normal', many)
  assert abs(new.std() - 0.02) < 2e-4 and abs(new.mean()) < 2e-4


@pytest.mark.parametrize('method', rows.METHODS)
def test_matched_norms_are_the_old_rows_mean_norm(method):
  """Loud rows take probability from all others at the first step."""
  norm = np.linalg.norm(old(), axis=1).mean()
  new = make(method, match_norms=True)
  np.testing.assert_allclose(np.linalg.norm(new, axis=1), norm, rtol=1e-5)


def test_several_spellings_weigh_the_same():
  """A long translation must not outweigh a short one."""
  new = make('dictionary', [[[1, 2], [3]]])
  between = (old()[1] + old()[2]) / 2
  np.testing.assert_allclose(new[0], (between + old()[3]) / 2, rtol=1e-6)


@pytest.fixture(scope='module')
def chinese(test_data, tmp_path_factory):
  """stories260K's tokenizer, extended by pieces of real Chinese."""
  text = (test_data / 'text_zh_niutrans_modern' / '左传.txt').read_text()
  path = tmp_path_factory.mktemp('zh') / 'zh.model'
  train.train_sentencepiece(
    [text[:300_000]], path, vocab_size=3000, character_coverage=0.98
  )
  base = tokenizers.load(test_data / 'ckpt_stories260K' / 'hf')
  return extend.extend(base, tokenizers.load(path)).tokenizer


def extended(
  test_data, tokenizer, mesh_shape, method='pieces_mean', dictionary=''
):
  """(opened base, extended model, its parameters) on a mesh."""
  opened = stored.open_model(test_data / 'ckpt_stories260K' / 'hf')
  data, fsdp, tensor = mesh_shape
  mesh = sharding.make_mesh(
    dict(data=data, fsdp=fsdp, context=1, tensor=tensor),
    devices=jax.devices()[: data * fsdp * tensor],
  )
  model = model_lib.extended_config(opened, tokenizer)
  params = extension.extend_params(
    opened,
    tokenizer,
    model,
    mesh,
    opened.load_params(mesh),
    method=method,
    match_norms=False,
    dictionary=dictionary,
    seed=0,
  )
  return opened, model, params, mesh


def test_old_rows_are_bit_identical_on_any_mesh(test_data, chinese):
  """An extension that moves an old row moves old text."""
  opened, model, alone, mesh = extended(test_data, chinese, (1, 1, 1))
  base = opened.load_params(mesh)
  np.testing.assert_array_equal(alone['embed_VD'][:512], base['embed_VD'][:512])
  assert alone['embed_VD'].shape[0] == model.padded_vocab_size
  assert not np.any(alone['embed_VD'][chinese.vocab_size :])
  many = extended(test_data, chinese, (1, 4, 2))[2]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), many, alone
  )
  np.testing.assert_array_equal(many['embed_VD'][:512], base['embed_VD'][:512])
  piece = many['embed_VD'].addressable_shards[0].data
  assert piece.size * 8 == many['embed_VD'].size


@pytest.mark.parametrize('method', sorted(set(rows.METHODS) - {'dictionary'}))
def test_old_text_scores_as_before_with_new_rows_masked(
  test_data, chinese, method
):
  """Step 0 of an extended run is the base model on old text."""
  texts = ['Once upon a time there was a dog.', 'She said: "No!" and ran.']
  opened, model, params, mesh = extended(test_data, chinese, (1, 1, 1), method)

  def score(p, c, tokenizer):
    seen = model_lib.as_evaluated(p, c, tokenizer, mesh, common.base())
    seen = dataclasses.replace(seen, batch_size=2, max_len=64)
    return perplexity.document_nats(seen, texts)[0]

  base = score(opened.load_params(mesh), opened.config, opened.tokenizer)
  masked = dataclasses.replace(model, vocab_size=512)
  np.testing.assert_allclose(score(params, masked, chinese), base, rtol=1e-6)
  if method == 'normal':
    assert (score(params, model, chinese) > base).all(), 'they take a share'


def test_rows_that_do_not_match_the_pieces_are_refused(test_data, chinese):
  """New pieces would get rows that mean something else."""
  opened = stored.open_model(test_data / 'ckpt_stories260K' / 'hf')
  wrong = dataclasses.replace(
    opened, config=dataclasses.replace(opened.config, vocab_size=520)
  )
  with pytest.raises(ValueError, match='has 520 rows for 512 pieces'):
    model_lib.is_extended(wrong, chinese)
  assert not model_lib.is_extended(opened, opened.tokenizer)


def test_a_dictionary_spells_pieces_by_their_translations(
  test_data, chinese, tmp_path
):
  """The row of a word starts where the model knows its meaning."""
  i = next(i for i in range(512, 800) if len(chinese.piece(i)) == 2)
  words = tmp_path / 'zh-en.tsv'
  words.write_text(f'\ufeff{chinese.piece(i)}\tdog\n{chinese.piece(i)}\tcat\n')
  opened, _, params, _ = extended(
    test_data, chinese, (1, 1, 1), 'dictionary', str(words)
  )
  embed_VD = np.asarray(params['embed_VD'])
  means = [
    embed_VD[opened.tokenizer.encode(word)].mean(0) for word in ('dog', 'cat')
  ]
  np.testing.assert_allclose(embed_VD[i], np.mean(means, 0), rtol=1e-5)
  alone = extended(test_data, chinese, (1, 1, 1))[2]['embed_VD']
  same = (embed_VD == np.asarray(alone)).all(axis=1)
  assert not same[i] and same.sum() == len(same) - 1


@pytest.mark.parametrize(
  'text, words',
  [
    ('狗 dog\n', "line 1: '狗 dog' is not a word, a tab"),
    ('狗\tdog\n\n猫\t\n', 'line 3'),
    ('dog\t狗\n', 'none of the .* new pieces is a word of it'),
  ],
)
def test_dictionaries_that_cannot_be_used_are_refused(
  test_data, chinese, tmp_path, text, words
):
  base = tokenizers.load(test_data / 'ckpt_stories260K' / 'hf')
  path = tmp_path / 'words.tsv'
  path.write_text(text)
  with pytest.raises(ValueError, match=words):
    rows.translate(base, chinese, path)


def test_a_dictionary_whose_columns_are_turned_is_told(
  test_data, chinese, tmp_path
):
  """A few words stand on both sides: 37 of 1,500 were found, turned 615."""
  base = tokenizers.load(test_data / 'ckpt_stories260K' / 'hf')
  found = [chinese.piece(i) for i in range(512, 800)]
  found = [piece for piece in found if len(piece) == 2][:9]
  path = tmp_path / 'words.tsv'
  path.write_text(
    '\n'.join([f'w{x}\t{x}' for x in found[:6]] + [f'{found[6]}\tx'])
  )
  with pytest.raises(ValueError, match='1 of the .* 6 of its second; turn the'):
    rows.translate(base, chinese, path)
  path.write_text('\n'.join(f'{x}\tw{x}' for x in found[:6]))
  assert rows.translate(base, chinese, path)[1] == 6


def dry_run(test_data, chinese, folder):
  """A command of `train` that extends the vocabulary, and writes no step."""
  (folder / 'zh.model').write_bytes(chinese.to_bytes())
  return (
    'train',
    *runs.TINY,
    '--dry_run',
    f'--workdir={folder / "run"}',
    f'--config.init_from={test_data / "ckpt_stories260K" / "hf"}',
    f'--config.tokenizer={folder / "zh.model"}',
    '--config.budget.steps=1',
  )


@pytest.mark.parametrize(
  'method, dictionary, words',
  [
    ('focus', '', "new_rows.method='focus' is unknown; take one"),
    ('dictionary', '', "the method 'dictionary' needs a file, and only it"),
    ('mean', __file__, "the method 'dictionary' needs a file, and only it"),
  ],
)
def test_a_method_that_cannot_be_is_refused_before_data(
  test_data, chinese, tmp_path, method, dictionary, words
):
  """A dry run said that all holds, and the run ended behind its tokenizing."""
  with pytest.raises(ValueError, match=words):
    extended(test_data, chinese, (1, 1, 1), method, dictionary)
  output = runs.run(
    *dry_run(test_data, chinese, tmp_path),
    f'--config.new_rows.method={method}',
    f'--config.new_rows.dictionary={dictionary}',
    status=1,
  )
  assert words in output
  assert not (tmp_path / 'run' / 'data').exists()


def test_frozen_new_rows_are_told_before_training(test_data, chinese, tmp_path):
  """Adapters alone left 17,953 new rows as they were made, without a word."""
  command = dry_run(test_data, chinese, tmp_path)
  output = runs.run(*command, '--config.optim.groups.vocabulary.frozen=True')
  assert (
    f'warning: the {chinese.vocab_size - 512:,} new rows of embed_VD never '
    'learn (optim.groups.vocabulary.frozen=True); set it to False, and '
    'optim.groups.old_rows.frozen=True where'
  ) in output
  for changes in (), ('--config.optim.groups.old_rows.frozen=True',):
    assert 'never learn' not in runs.run(*command, *changes)


def test_one_command_writes_an_extended_checkpoint(
  test_data, chinese, tmp_path
):
  """What train makes at its start, for those who share it or look at it."""
  (tmp_path / 'zh.model').write_bytes(chinese.to_bytes())
  source = test_data / 'ckpt_stories260K' / 'hf'
  command = [
    f'--source={source}',
    f'--tokenizer={tmp_path / "zh.model"}',
    f'--target={tmp_path / "extended"}',
  ]
  output = runs.run('extend_model', *command)
  assert f'{chinese.vocab_size - 512:,} new rows' in output
  opened = stored.open_model(tmp_path / 'extended')
  assert opened.tokenizer.fingerprint == chinese.fingerprint
  assert opened.num_old_rows(chinese) == 512
  mesh = sharding.make_mesh(
    dict(data=1, fsdp=1, context=1, tensor=1), devices=jax.devices()[:1]
  )
  expected = extended(test_data, chinese, (1, 1, 1))[2]
  jax.tree.map(
    np.testing.assert_array_equal, opened.load_params(mesh), expected
  )
  output = runs.run('extend_model', *command, status=1)
  assert 'already holds a model or a run' in output
  command[0] = f'--source={tmp_path / "extended"}'
  command[2] = f'--target={tmp_path / "again"}'
  output = runs.run('extend_model', *command, status=1)
  assert 'is no extension of the tokenizer of' in output
