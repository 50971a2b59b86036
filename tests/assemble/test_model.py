"""Models and tokenizers that a config asks for."""

import dataclasses
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
