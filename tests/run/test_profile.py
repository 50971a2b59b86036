"""Profiles: the time of an operation is its own, under the model's name."""

import jax
import jax.numpy as jnp
import pytest

from lbe.run import profile


def test_the_heaviest_is_found_by_the_name_of_its_origin(tmp_path):
  """A loop's time counted twice, or a name that only the compiler knows."""

  @jax.jit
  def run(x_DD):
    def body(i, x_DD):
      with jax.named_scope('BD,DE->BE'):
        return x_DD @ x_DD + i

    return jnp.sum(jax.lax.fori_loop(0, 5, body, x_DD))

  x_DD = jnp.zeros((512, 512))
  program = run.lower(x_DD).compile()
  program(x_DD)
  trace = profile.Trace(tmp_path, 2, 3, steps=range(1, 4), say=print)
  told = []
  for step in (1, 2, 3):
    trace.before(step, x_DD)
    told.append(trace.after(step, program(x_DD), program))
  assert told[:2] == ['', '']
  first = told[2].splitlines()[1]
  assert 'BD,DE->BE/dot_general' in first
  times = profile.self_times(tmp_path)
  (loop,) = (n for n in times if n.startswith('while'))
  assert times[loop] < 0.5 * sum(times.values())


@pytest.mark.parametrize('text', ['3', '0:2', '4:3', 'a:b'])
def test_what_is_no_span_of_steps_is_refused(text):
  with pytest.raises(ValueError, match='give FROM:TO'):
    profile.parse_steps(text)


def test_a_span_that_never_comes_is_refused_or_told(tmp_path):
  """The same command, started again behind an interruption, was refused."""
  told = []
  how = dict(steps=range(101, 201), say=told.append)
  with pytest.raises(ValueError, match='the run ends with step 200'):
    profile.Trace(tmp_path, 199, 201, **how)
  trace = profile.Trace(tmp_path, 100, 102, **how)
  assert told == [
    'warning: profile=100:102 records nothing: the run goes on with step 101.'
  ]
  for step in range(101, 104):
    trace.before(step, {})
    assert trace.after(step, {}, None) == ''
