"""What a model is, as JSON."""

import json

import pytest

from lbe.models import architecture

import tiny


def test_config_survives_json():
  """A checkpoint that comes back as another architecture."""
  for c in (tiny.TINY, architecture.PRESETS['llama31_8b']):
    record = json.loads(json.dumps(c.to_json()))
    assert architecture.Config.from_json(record) == c


def test_config_refuses_a_field_that_it_does_not_know():
  """A field of a newer version that is dropped without a word."""
  with pytest.raises(ValueError, match="'num_experts'.*newer lbe"):
    architecture.Config.from_json({**tiny.TINY.to_json(), 'num_experts': 8})
