"""Models and tokenizers that a config asks for."""

import dataclasses
import itertools
import json

import pytest

from lbe.assemble import model as model_lib
from lbe.convert import stored
from lbe.vocab import tokenizers

import tiny


def test_a_run_from_scratch_needs_a_tokenizer_and_a_shape(tmp_path):
  """Defaults of zero must not build an empty model."""
  config = tiny.config(tmp_path, a={})
  config.tokenizer = ''
  with pytest.raises(ValueError, match="'train'"):
    model_lib.make_tokenizer(config, None, tmp_path)
  config.model.dim = 0
  with pytest.raises(ValueError, match='model.dim=0'):
    model_lib.make_config(config, tokenizers.load('bytes'))
  config.model.preset = 'llama_8b'
  with pytest.raises(ValueError, match="'llama_8b' is unknown"):
    model_lib.make_config(config, tokenizers.load('bytes'))


def test_a_folder_that_is_no_model_is_refused(tmp_path):
  """A typo in a path must be said before data is tokenized."""
  with pytest.raises(ValueError, match='neither a checkpoint'):
    stored.open_model(str(tmp_path))


def test_a_resumed_runs_tokenizer_is_that_of_its_weights(tmp_path):
  """Its path may be gone with the base; of another run it is asked for."""
  config = tiny.config(tmp_path, a={})
  config.tokenizer = 'gone.model'
  tokenizer = tokenizers.load('bytes')
  c = dataclasses.replace(tiny.TINY, vocab_size=tokenizer.vocab_size)
  opened = stored.Opened('run', 'checkpoint', c, tokenizer, {})
  with pytest.raises(ValueError, match='no tokenizer at gone.model'):
    model_lib.make_tokenizer(config, opened, tmp_path)
  facts = {
    'config': {'tokenizer': 'gone.model'},
    'tokenizer': tokenizer.fingerprint,
  }
  (tmp_path / 'config.json').write_text(json.dumps(facts))
  assert model_lib.make_tokenizer(config, opened, tmp_path) is tokenizer
  facts['tokenizer'] = 'another'
  (tmp_path / 'config.json').write_text(json.dumps(facts))
  with pytest.raises(ValueError, match='no tokenizer at gone.model'):
    model_lib.make_tokenizer(config, opened, tmp_path)


def train_tokenizer(folder, text, *, size=300, path=None):
  """The tokenizer of a run on a text, in the workdir `folder`/run."""
  config = tiny.config(folder, a={})
  config.tokenizer, config.tokenizer_vocab_size = 'train', size
  path = path or folder / 'a.txt'
  path.write_text(text)
  config.data.sources.a.path = str(path)
  made = model_lib.make_tokenizer(config, None, folder / 'run')
  return made.vocab_size, made.fingerprint


# Words enough for some pieces beside the bytes.
TEXT, OTHER = (
  ' '.join(map(''.join, itertools.product(letters, repeat=3)))
  for letters in ('abcdef', 'ghijkl')
)


def test_a_trained_tokenizer_is_of_the_texts_and_the_size_that_are_asked(
  tmp_path,
):
  """One of a dry run was kept, of another size and other texts."""
  size, first = train_tokenizer(tmp_path, TEXT)
  model = tmp_path / 'run' / 'tokenizer' / 'tokenizer.model'
  made = model.stat().st_mtime_ns
  moved = tmp_path / 'moved.txt'
  assert train_tokenizer(tmp_path, TEXT, path=moved) == (300, first)
  assert model.stat().st_mtime_ns == made
  assert train_tokenizer(tmp_path, TEXT, size=310)[0] == 310
  other = train_tokenizer(tmp_path, OTHER, size=310)[1]
  assert other != first
  # One that an earlier version trained, of another size.
  (model.parent / 'trained_on.json').unlink()
  assert train_tokenizer(tmp_path, OTHER, size=310) == (310, other)
  assert train_tokenizer(tmp_path, TEXT) == (size, first)


def test_a_tokenizer_learns_what_is_said_and_not_its_json(tmp_path):
  """Pieces went to quotes and names of fields, none to line breaks."""
  config = tiny.config(tmp_path, a=dict(template='plain'))
  config.tokenizer, config.tokenizer_vocab_size = 'train', 300
  path = tmp_path / 'talks.jsonl'
  words = TEXT.split()
  path.write_text(
    ''.join(
      json.dumps({'instruction': a, 'output': b}) + '\n'
      for a, b in zip(words[::2], words[1::2], strict=True)
    )
  )
  config.data.sources.a.path = str(path)
  made = model_lib.make_tokenizer(config, None, tmp_path / 'run')
  pieces = {made.decode([i]) for i in range(3, made.vocab_size)}
  assert not [p for p in pieces if 'instruction' in p or '":' in p]


def test_the_tokenizer_of_a_run_that_has_begun_is_kept_or_refused(tmp_path):
  """It would be trained anew under the run's weights."""
  _, first = train_tokenizer(tmp_path, TEXT)
  (tmp_path / 'run' / 'config.json').write_text('{"config": {}}')
  assert train_tokenizer(tmp_path, TEXT) == (300, first)
  with pytest.raises(
    ValueError, match='tokenizer_vocab_size=310 is asked for, and it has 300'
  ):
    train_tokenizer(tmp_path, TEXT, size=310)
  with pytest.raises(
    ValueError, match='other texts .data.sources.a.. Set thes'
  ):
    train_tokenizer(tmp_path, OTHER)
  assert train_tokenizer(tmp_path, TEXT) == (300, first)
  (tmp_path / 'run' / 'tokenizer' / 'trained_on.json').unlink()
  assert train_tokenizer(tmp_path, TEXT) == (300, first)
  with pytest.raises(ValueError, match='it has 300 pieces. Set these back, or'):
    train_tokenizer(tmp_path, TEXT, size=310)
