"""Models by their names on the hub, against a stand-in of its API."""

import dataclasses
import json
import shutil
import sys

import huggingface_hub.constants
import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from lbe import export_hf
from lbe import generate
from lbe.assemble import paths
from lbe.configs import common
from lbe.convert import card
from lbe.convert import peft
from lbe.convert import stored
from lbe.models import lora
from lbe.models import weights
from lbe.run import checkpoint
from lbe.text import hub
from lbe.vocab import tokenizers

import hub_server
import runs
import tiny

if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()

REPO = 'me/small'


@pytest.fixture
def server(monkeypatch, tmp_path):
  constants = huggingface_hub.constants
  with hub_server.running() as server:
    for name, value in {
      'HF_HUB_OFFLINE': False,
      'ENDPOINT': server.url,
      'HUGGINGFACE_CO_URL_TEMPLATE': server.url
      + '/{repo_id}/resolve/{revision}/{filename}',
      'HF_HUB_CACHE': str(tmp_path / 'cache'),
      'HF_TOKEN_PATH': str(tmp_path / 'token'),
    }.items():
      monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv('HF_TOKEN', raising=False)
    hub._commit.cache_clear()
    yield server
    hub._commit.cache_clear()


@pytest.fixture
def folder(test_data):
  return test_data / 'ckpt_stories260K' / 'hf'


def offline(monkeypatch):
  monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
  hub._commit.cache_clear()


def test_a_name_is_the_folder_that_it_stands_for(server, folder, monkeypatch):
  """And neither pickles nor code nor models of other folders come with it."""
  commit = server.put(
    REPO,
    folder,
    **{
      'pytorch_model.bin': b'a pickle',
      'modeling_small.py': b'import os',
      'consolidated.safetensors': b'the same again',
      'onnx/config.json': b'{}',
    },
  )
  want = stored.open_model(folder)
  got = stored.open_model(f'hf:{REPO}')
  assert got.path == f'hf:{REPO}@{commit}'
  assert got.fingerprint() == want.fingerprint()
  assert got.tokenizer.fingerprint == want.tokenizer.fingerprint
  fetched = {path.split('/')[-1] for method, path, _ in server.asked}
  assert fetched >= {'model.safetensors', 'config.json', 'tokenizer.model'}
  assert not fetched & {'pytorch_model.bin', 'modeling_small.py', 'onnx'}
  assert not any('consolidated' in path for _, path, _ in server.asked)
  offline(monkeypatch)
  assert stored.open_model(f'hf:{REPO}').path == got.path


def test_a_tokenizer_by_name_brings_no_weights(server, folder, monkeypatch):
  server.put(REPO, folder)
  found = tokenizers.load(f'hf:{REPO}')
  assert found.fingerprint == tokenizers.load(folder).fingerprint
  assert not any('safetensors' in p for m, p, _ in server.asked if m == 'GET')
  offline(monkeypatch)
  with pytest.raises(ValueError, match=f'hf download {REPO}'):
    stored.open_model(f'hf:{REPO}')


def test_a_run_goes_on_with_the_commit_that_it_began_with(server, folder):
  """Else a push to the hub between two calls would change its base."""
  first = server.put(REPO, folder)
  config = common.base()
  config.init_from = f'hf:{REPO}'
  began = paths.pinned(config)
  assert began.init_from == f'hf:{REPO}@{first}'
  assert config.init_from == f'hf:{REPO}'
  second = server.put(REPO, folder, **{'notes.json': b'{}'})
  hub._commit.cache_clear()
  server.asked.clear()
  recorded = {'config': json.loads(began.to_json())}
  assert paths.pinned(config, recorded).init_from == began.init_from
  assert not server.asked
  config.init_from = f'hf:{REPO}@main'
  assert paths.pinned(config, recorded).init_from == f'hf:{REPO}@{second}'
  config.init_from = 'hf:me/other'
  with pytest.raises(ValueError, match='no such repository'):
    paths.pinned(config, recorded)


@pytest.mark.parametrize(
  'name, words',
  [
    ('hf:small', "'hf:small' is no name on the hub; give hf:OWNER/NAME"),
    ('hf:me/../x', 'is no name on the hub'),
    ('hf:me/small@', 'is no name on the hub'),
    ('hf:me/none', 'hf:me/none: http.* has no such repository, or a private'),
    ('hf:me/small@v9', 'no such revision; give a branch, a tag or a commit'),
    ('hf:me/gated', 'hf:me/gated is gated: .*HF_TOKEN='),
    ('hf:me/pickles', 'has no safetensors, .*pickles can run code'),
  ],
)
def test_what_is_not_fetched_is_told_with_the_way_out(
  server, folder, name, words
):
  server.put('me/small', folder)
  server.put('me/gated', folder)
  server.commit('me/pickles', {'config.json': b'{}', 'x.bin': b'a pickle'})
  with pytest.raises(ValueError, match=words):
    stored.open_model(name)


def test_a_token_opens_what_is_gated_and_is_told_nobody(
  server, folder, tmp_path, monkeypatch, capfd
):
  server.put('me/gated', folder)
  monkeypatch.setenv('HF_TOKEN', hub_server.SECRET)
  opened = stored.open_model('hf:me/gated')
  assert server.asked[-1][2] == f'Bearer {hub_server.SECRET}'
  with pytest.raises(ValueError) as told:
    stored.open_model('hf:me/none')
  said = f'{opened} {told.value} {told.value.__cause__} {capfd.readouterr()}'
  assert hub_server.SECRET not in said
  for path in tmp_path.rglob('*'):
    if path.is_file():
      assert hub_server.SECRET.encode() not in path.read_bytes()


def test_without_the_extra_the_install_line_is_told(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(ImportError, match=r"pip install 'lbe\[hub\]'"):
    stored.open_model('hf:me/small')


def test_a_push_is_private_and_whole(server, folder, tmp_path, monkeypatch):
  """An older model's other shards would be read beside the new one's."""
  with pytest.raises(ValueError, match='there is no token to write with'):
    hub.check_push('me/new', public=False)
  with pytest.raises(ValueError, match="--push='new' is no name"):
    hub.check_push('new', public=False)
  monkeypatch.setenv('HF_TOKEN', hub_server.SECRET)
  hub.check_push('me/new', public=False)
  assert 'me/new' not in server.repos
  folder = shutil.copytree(folder, tmp_path / 'export')
  (folder / 'README.md').write_text('---\nlibrary_name: transformers\n---')
  assert '(private)' in hub.push(folder, 'me/first', public=False)
  server.commit('me/new', {'model-00001-of-00002.safetensors': b'old'})
  told = hub.push(folder, 'me/new', public=False)
  assert told.endswith(
    f'/me/new (private), commit {server.repos["me/new"]["main_is"]}'
  )
  found = server.repos['me/new']['main']
  assert sorted(found) == sorted(p.name for p in folder.iterdir())
  assert stored.open_model('hf:me/new').tokenizer is not None
  assert '(public)' in hub.push(folder, 'me/open', public=True)
  with pytest.raises(ValueError, match='public already; add --public'):
    hub.check_push('me/open', public=False)


def test_a_push_leaves_nothing_of_an_earlier_model(server, folder, monkeypatch):
  """An adapter's config, or another chat template, would go on being read."""
  monkeypatch.setenv('HF_TOKEN', hub_server.SECRET)
  earlier = (
    *('adapter_config.json', 'adapter_model.safetensors', 'adapter_model.bin'),
    *('chat_template.jinja', 'additional_chat_templates/tools.jinja'),
    *('tokenizer.json', 'added_tokens.json', 'special_tokens_map.json'),
    *('generation_config.json', 'vocab.json', 'merges.txt'),
    *('pytorch_model.bin', 'pytorch_model-00001-of-00002.bin'),
    *('pytorch_model.bin.index.json', 'model.safetensors.index.json'),
    *('certificate.json', 'checksums.json', 'checksums-1.json'),
  )
  others = ('README.md', 'LICENSE', 'onnx/config.json', 'small.gguf')
  written = {p.name: p.read_bytes() for p in folder.iterdir()}
  names = (*earlier, *others, *written)
  server.commit('me/used', dict.fromkeys(names, b'of an earlier model'))
  hub.push(folder, 'me/used', public=False)
  found = server.repos['me/used']['main']
  assert sorted(found) == sorted({*others, *written})
  assert {name: found[name] for name in written} == written


def test_an_adapter_and_a_card_name_their_base_on_the_hub(tmp_path):
  base = f'hf:{REPO}@{40 * "a"}'
  c = dataclasses.replace(
    tiny.TINY, lora=lora.make('layers/q_.*', rank=2, alpha=4)
  )
  shapes = weights.flatten(weights.shapes(c))
  arrays = {name: np.zeros(x.shape) for name, x in shapes.items()}
  peft.write(tmp_path, c, arrays.__getitem__, dtype='float32', base=base)
  record = json.loads((tmp_path / 'adapter_config.json').read_text())
  assert record['base_model_name_or_path'] == REPO
  assert record['revision'] == 40 * 'a'
  text = card.text(
    {'config': None, 'source': {'base': base}, 'step': 0}, [], adapter=True
  )
  assert f'\nbase_model: {REPO}\n' in text
  assert f'[{REPO}](https://huggingface.co/{REPO}/tree/aaaa' in text


@pytest.fixture
def adapted(folder, tmp_path):
  """A run's checkpoint of adapters on the folder's model; (where, flat)."""
  base = stored.open_model(folder)
  flat = weights.flatten(base.hf_weights.load())
  c = dataclasses.replace(
    base.config, lora=lora.make('layers/[qv]_.*', rank=2, alpha=4)
  )
  for name, like in weights.flatten(weights.shapes(c)).items():
    if name.startswith('lora/'):
      drawn = np.random.default_rng(len(name)).normal(0, 0.3, like.shape)
      flat[name] = drawn.astype(np.float32)
  own = folder.parent / 'hf' / 'tokenizer.model'
  kept = {'name_or_path': str(own), 'special_tokens_map_file': str(own)}
  source = {
    'dtype': 'float32',
    'base': str(folder),
    'frozen': [name for name in flat if not name.startswith('lora/')],
    'tokenizer_files': {'tokenizer_config': kept},
  }
  path = tmp_path / 'private' / 'run' / 'checkpoints' / '0'
  checkpoint.save_model(
    path.parent.parent,
    weights.unflatten(flat),
    meta={
      'model': c.to_json(),
      'tokenizer': stored.tokenizer_meta(base.tokenizer),
      'config': None,
      'source': source,
    },
  )
  return path, flat


def export(source, target, **changes):
  flagged = {'source': str(source), 'target': str(target), 'verify': 'digests'}
  with flagsaver.flagsaver(**flagged | changes):
    export_hf.main([])


def test_an_adapter_comes_back_from_the_hub(
  server, folder, adapted, tmp_path, monkeypatch, capsys
):
  """It was pushed, and only a folder of it was ever read."""
  monkeypatch.setenv('HF_TOKEN', hub_server.SECRET)
  path, flat = adapted
  export(path, tmp_path / 'out', adapter_only=True, push='me/adapter')
  commit = server.repos['me/adapter']['main_is']
  # In a process of its own, as a person would.
  process = runs.start(
    'import_hf',
    f'--source={folder}',
    '--adapter=hf:me/adapter',
    f'--target={tmp_path / "back"}',
    runs.QUICK,
    HF_ENDPOINT=server.url,
    HF_HUB_OFFLINE='0',
    HF_HUB_CACHE=str(tmp_path / 'other'),
  )
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  for name, array in flat.items():
    got = checkpoint.load_array(tmp_path / 'back', name)
    np.testing.assert_array_equal(got[: len(array)], array, err_msg=name)
  capsys.readouterr()
  said = []
  for model in (
    dict(model=str(path)),
    dict(model=str(folder), adapter='hf:me/adapter'),
    dict(model=str(folder), adapter=f'hf:me/adapter@{commit}'),
    dict(model=str(folder)),
  ):
    with flagsaver.flagsaver(prompt='Once', max_new_tokens=12, **model):
      generate.main([])
    said.append(capsys.readouterr().out.splitlines()[-1])
  assert said[0] == said[1] == said[2] != said[3]
  with pytest.raises(ValueError, match='has adapters already'):
    with flagsaver.flagsaver(
      prompt='Once', model=str(path), adapter='hf:me/adapter'
    ):
      generate.main([])
  server.put('me/none', folder)
  with pytest.raises(ValueError, match='has no adapter_config.json'):
    with flagsaver.flagsaver(
      prompt='Once', model=str(folder), adapter='hf:me/none'
    ):
      generate.main([])


def test_what_is_pushed_says_nothing_of_this_machine(
  server, folder, adapted, tmp_path, monkeypatch, capsys
):
  """The names of users and of their projects, in a public repository."""
  monkeypatch.setenv('HF_TOKEN', hub_server.SECRET)
  path, _ = adapted
  export(path, tmp_path / 'one', adapter_only=True, push='me/adapter')
  assert "base 'hf', which nobody else has" in capsys.readouterr().out
  export(path, tmp_path / 'two', push='me/whole')
  for repo in ('me/adapter', 'me/whole'):
    found = server.repos[repo]['main']
    for name, data in found.items():
      for place in (tmp_path, folder, folder.parent, jax.__file__):
        assert str(place).encode() not in data, (repo, name)
    record = json.loads(found['certificate.json'])
    assert record['source'] == 'run/0'
  named = json.loads(server.repos['me/adapter']['main']['adapter_config.json'])
  assert named['base_model_name_or_path'] == 'hf'
  # What stays here is loaded by PEFT from where its base lies.
  export(path, tmp_path / 'three', adapter_only=True)
  named = json.loads((tmp_path / 'three/adapter_config.json').read_text())
  assert named['base_model_name_or_path'] == str(folder)
