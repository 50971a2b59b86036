"""When evaluators run, and what becomes of those that did not come to it."""

import contextlib
import os
import signal

import jax.numpy as jnp
import pytest

from lbe.evals import core
from lbe.evals import samples
from lbe.evals import schedule
from lbe.inference import model as model_lib
from lbe.run import progress
from lbe.text import lines

MODEL = model_lib.Model({'x': jnp.zeros(3)}, None, None, None, None, 2, 8)


def test_evaluators_run_when_they_are_due():
  """A run that ends between two evaluations still ends with one."""

  def steps(**changes):
    settings = dict(every=4, at_start=True, at_end=True) | changes
    e = schedule.Evaluator('en', None, **settings)
    return [s for s in range(11) if e.is_due(s, last=10)]

  assert steps() == [0, 4, 8, 10]
  assert steps(at_start=False, at_end=False) == [4, 8]
  assert steps(every=0) == [0, 10]
  assert steps(every=0, at_start=False) == [10]


class Task:
  """Scores 1, after what happens."""

  def __init__(self, happens=lambda: None):
    self.happens = happens

  def evaluate(self, model, *, name, step):
    self.happens()
    row = {'step': step, 'evaluator': name, 'name': 'acc', 'value': 1.0}
    return core.Result([row], {'acc': 1.0}, [{'step': step, 'evaluator': name}])


@pytest.fixture
def stop():
  flag = progress.StopFlag()
  yield flag
  flag.close()


def run(due, workdir, stop, step=4, **more):
  return schedule.run(
    due,
    MODEL,
    step=step,
    workdir=workdir,
    stop=stop,
    watch=lambda part: contextlib.nullcontext(),
    facts={'run': 'mine', 'bytes_seen': 10 * step},
    **more,
  )


def evaluators(**happens):
  return [
    schedule.Evaluator(name, Task(it), every=1, at_start=True, at_end=True)
    for name, it in happens.items()
  ]


def names(workdir, file='results.jsonl'):
  rows = lines.keep(workdir / file, lambda row: True)
  return [(row['step'], row['evaluator']) for row in rows]


def fail():
  raise KeyError('mine')


def terminate():
  os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize('happens', [fail, terminate])
def test_what_stops_an_evaluation_leaves_it_and_the_rest_unscored(
  happens, stop, tmp_path
):
  """Scores that are lost, or that stand twice when their turn comes again."""
  due = evaluators(a=lambda: None, b=happens, c=lambda: None)
  outcome = run(due, tmp_path, stop)
  assert [e.name for e in outcome.unscored] == ['b', 'c']
  assert isinstance(outcome.error, KeyError) == (happens is fail)
  assert outcome.scores.keys() == {'eval/a/acc', 'speed/evaluation_seconds'}
  assert names(tmp_path) == names(tmp_path, 'predictions.jsonl') == [(4, 'a')]
  # The notice holds for what comes after it, too.
  assert stop.agreed(4) == (happens is terminate)
  if happens is terminate:
    assert len(run(due[:1], tmp_path, stop).unscored) == 1


def test_a_row_says_which_run_it_is_of_and_what_that_had_read(stop, tmp_path):
  """Catches rows that cannot be told apart once they lie in one table."""
  run(evaluators(a=lambda: None), tmp_path, stop)
  (row,) = lines.rows(tmp_path / 'results.jsonl')
  assert row['run'] == 'mine' and row['bytes_seen'] == 40
  assert row['evaluator'] == 'a' and row['value'] == 1.0


def test_the_next_process_has_no_rows_of_what_comes_again(stop, tmp_path):
  """A score that stands twice, or one behind the restored step."""
  due = evaluators(a=lambda: None, b=lambda: None)
  for step in (4, 6, 8):
    assert not run(due, tmp_path, stop, step).unscored
  schedule.cut_behind(tmp_path, 6, unscored=['b'])
  left = [(4, 'a'), (4, 'b'), (6, 'a')]
  assert names(tmp_path) == names(tmp_path, 'predictions.jsonl') == left


def test_samples_are_kept_at_every_step_that_is_scored(stop, tmp_path):
  """Texts of the end alone do not say when they became readable."""

  def write(model, step):
    return [
      {
        'step': step,
        'evaluator': 'samples',
        'prompt': 'a',
        'response': f'b{step}',
      }
    ]

  due = evaluators(a=lambda: None)
  for step in (0, 4, 8):
    run(due, tmp_path, stop, step, samples=write)
  # What fails is scored again, and then the model writes.
  run(evaluators(a=fail), tmp_path, stop, 9, samples=write)
  found = lines.rows(tmp_path / 'samples.jsonl')
  assert [r['step'] for r in found] == [0, 4, 8]
  assert samples.told(tmp_path).splitlines() == [
    "'a' goes on",
    "  at step 0: 'b0'",
    "  at step 8: 'b8'",
  ]
  for unscored, left in (((), [0, 4]), (['a'], [0])):
    schedule.cut_behind(tmp_path, 4, unscored=unscored)
    found = lines.rows(tmp_path / 'samples.jsonl')
    assert [r['step'] for r in found] == left


@pytest.mark.parametrize('when', ['before', 'inside'])
def test_a_notice_to_stop_loses_no_samples(when, stop, tmp_path):
  """It comes behind the last score: nobody would write them again."""

  def write(model, step):
    if when == 'inside':
      terminate()
    return [{'step': step, 'evaluator': 'samples'}]

  if when == 'before':
    due = []
    terminate()
  else:
    due = evaluators(a=lambda: None)
  assert not run(due, tmp_path, stop, samples=write).unscored
  assert names(tmp_path, 'samples.jsonl') == [(4, 'samples')]
  assert stop.agreed(4)


def test_a_line_has_the_scores_with_their_marks():
  rows = [
    {'evaluator': 'zh', 'name': name, 'value': value}
    for name, value in (('bits_per_byte', 2.5), ('perplexity', 9.0))
  ]
  rows.append({'evaluator': 'ceval', 'name': 'acc', 'value': 0.25})
  assert schedule.headline(rows) == (
    'zh/bits_per_byte ↓ 2.5000  ceval/acc ↑ 0.2500'
  )


def test_an_interrupted_call_goes_on_behind_what_it_scored(stop, tmp_path):
  """Predictions without rows are of one that was broken off."""
  a, b = evaluators(a=lambda: None, b=lambda: None)
  run([a], tmp_path, stop)
  result = schedule.evaluate(b, MODEL, step=4)
  lines.append(tmp_path / 'predictions.jsonl', result.predictions)
  assert schedule.names_scored(tmp_path, goes_on=True) == ['a']
  assert names(tmp_path, 'predictions.jsonl') == [(4, 'a')]
  assert schedule.names_scored(tmp_path, goes_on=False) == []
  assert names(tmp_path) == names(tmp_path, 'predictions.jsonl') == []
