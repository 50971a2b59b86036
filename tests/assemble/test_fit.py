"""A train step that a config asks for."""

import pytest

from lbe.assemble import model as model_lib
from lbe.assemble import step
from lbe.mesh import sharding
from lbe.vocab import tokenizers

import tiny


def test_a_sequence_longer_than_the_positions_is_refused(tmp_path):
  """RoPE would extrapolate silently."""
  config = tiny.config(tmp_path, a={})
  config.data.seq_len = 4096
  model = model_lib.make_config(config, tokenizers.load('bytes'))
  mesh = sharding.make_mesh(dict(data=1, fsdp=-1, context=1, tensor=1))
  with pytest.raises(ValueError, match='seq_len=4096 is longer'):
    step.check_fit(config, model, mesh)


@pytest.mark.parametrize(
  'field, value',
  [
    ('kind', 'adam'),
    ('schedule', 'cosin'),
    ('warmup_fraction', 1.5),
    ('gradient_dtype', 'float16'),
    ('first_moment_dtype', 'float16'),
    ('frozen_dtype', 'float16'),
  ],
)
def test_a_typo_is_said_before_the_length_of_the_run_is_known(
  tmp_path, field, value
):
  """Hours of tokenizing, and then a word that nobody knows."""
  config = tiny.config(tmp_path, a={})
  model = model_lib.make_config(config, tokenizers.load('bytes'))
  mesh = sharding.make_mesh(dict(data=1, fsdp=-1, context=1, tensor=1))

  def check():
    step.check_fit(config, model, mesh)
    partition = step.make_partition(config, model)
    step.check_memory(
      step.memory_estimate(config, model, mesh, partition), mesh
    )

  config.data.batch_size = mesh.size
  check()
  config.optim[field] = value
  with pytest.raises(ValueError, match=f'optim.{field}={value!r}'):
    check()
