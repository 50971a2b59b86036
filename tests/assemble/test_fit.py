"""A train step that a config asks for."""

import jax
import numpy as np
import pytest

from lbe.assemble import model as model_lib
from lbe.assemble import step
from lbe.configs import common
from lbe.mesh import sharding
from lbe.training import memory
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


def test_a_step_computed_twice_needs_the_memory_of_a_second_state(tmp_path):
  """Out of memory at step 100, hours behind the first."""
  config = tiny.config(tmp_path, a={})
  model = model_lib.make_config(config, tokenizers.load('bytes'))
  mesh = sharding.make_mesh(dict(data=1, fsdp=-1, context=1, tensor=1))
  partition = step.make_partition(config, model)
  once = step.memory_estimate(config, model, mesh, partition)
  config.replay_every = 100
  twice = step.memory_estimate(config, model, mesh, partition)
  assert twice.pop('replayed') == pytest.approx(
    once['parameters'] + once['optimizer'], rel=1e-3
  )
  assert once == twice
  known = ('parameters', 'optimizer', 'gradients')
  limit = 1.1 * sum(once[name] for name in known)
  memory.check(once, limit)
  again = step.memory_estimate(config, model, mesh, partition)
  with pytest.raises(ValueError, match='replay_every=0'):
    memory.check(again, limit)


def test_runs_of_any_length_and_rate_have_one_step():
  """Catches a rate or a length that every cell of a study compiles anew."""

  def lowered(num_steps, **changes):
    config = common.base()
    config.model.update(dim=16, num_layers=1, num_heads=2, mlp_dim=16)
    config.data.update(seq_len=16, batch_size=2)
    config.optim.update(changes)
    config.optim.groups.vocabulary.peak_lr = changes['peak_lr'] / 3
    model = model_lib.make_config(config, tokenizers.load('bytes'))
    mesh = sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])
    partition = step.make_partition(config, model)
    made = step.make_training(config, model, mesh, partition, num_steps)
    rates = made.rates(np.int32(3))
    text = made.step.lower(
      made.abstract_state, made.abstract_batch, made.abstract_rates
    ).as_text()
    return text, {name: float(rate) for name, rate in rates.items()}

  text, rates = lowered(10, peak_lr=3e-3, schedule='constant')
  other, others = lowered(99, peak_lr=3e-4, schedule='wsd', final_fraction=0.5)
  assert text == other
  assert rates == pytest.approx({'vocabulary': 1e-3, 'rest': 3e-3})
  assert others != rates
