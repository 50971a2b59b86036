"""What a model is, as JSON."""

import dataclasses
import json

import pytest

from lbe.models import architecture

import tiny


def test_config_survives_json():
  """A checkpoint that comes back as another architecture."""
  lora = architecture.Lora(('q_LDNH',), 2, 4)
  adapted = dataclasses.replace(tiny.TINY, lora=lora)
  for c in (tiny.TINY, adapted, architecture.PRESETS['llama31_8b']):
    record = json.loads(json.dumps(c.to_json()))
    assert architecture.Config.from_json(record) == c
    # Else a run with adapters is another one than its own config.json says.
    assert record == c.to_json()


def test_config_refuses_a_field_that_it_does_not_know():
  """A field of a newer version that is dropped without a word."""
  with pytest.raises(ValueError, match="'num_experts'.*newer lbe"):
    architecture.Config.from_json({**tiny.TINY.to_json(), 'num_experts': 8})
