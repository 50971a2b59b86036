"""Which score the best checkpoint is chosen by, and which way it is better."""

import pytest

from lbe.assemble import evaluators
from lbe.evals import schedule

import tiny


class Rubric:
  criteria = ('accuracy',)


class Task:
  rubric = Rubric()

  def better(self):
    return {'TASK/acc': 'higher', 'TASK/ter': 'lower'}


@pytest.fixture
def best_is(tmp_path):
  config = tiny.config(tmp_path, a={})
  kinds = {
    'zh': 'perplexity',
    'ceval': 'multiple_choice',
    'gaokao': 'exam',
    'talk': 'code_switching',
    'own': 'generation',
    'judged': 'response_quality',
    'harness': 'lm_eval',
  }
  for name, kind in kinds.items():
    config.evals[name] = dict(evaluator=kind)
  made = [
    schedule.Evaluator(name, Task(), every=1, at_start=True, at_end=True)
    for name in kinds
  ]

  def best_is(name):
    config.checkpoint.keep_best = name
    return evaluators.best_is(config, made)

  return best_is


@pytest.mark.parametrize(
  'name, way',
  [
    ('zh/bits_per_byte', 'lower'),
    ('zh/perplexity_per_word', 'lower'),
    ('ceval/acc', 'higher'),
    ('ceval/acc_macro', 'higher'),
    ('ceval/acc/stem', 'higher'),
    ('gaokao/score_rate', 'higher'),
    ('talk/switched', 'lower'),
    ('talk/line_pass/zh', 'higher'),
    ('own/chrf/zh', 'higher'),
    ('own/repetition', 'lower'),
    ('judged/accuracy', 'higher'),
    ('judged/judge_failures', 'lower'),
    ('harness/hellaswag/acc', 'higher'),
    ('harness/wmt/ter', 'lower'),
  ],
)
def test_a_score_is_better_one_way(name, way, best_is):
  """Of an accuracy the lowest was kept."""
  assert best_is(f'eval/{name}') == way


@pytest.mark.parametrize(
  'name',
  [
    'eval/zh/bits',
    'zh/bits_per_byte',
    'eval/fr/acc',
    'eval/zh/acc',
    'eval/own/tokens',
    'train/loss',
    'loss',
  ],
)
def test_what_is_no_score_is_refused_with_those_that_are(name, best_is):
  """A misspelt name kept nothing, silently."""
  with pytest.raises(ValueError, match=f'{name!r} is no score of this run'):
    best_is(name)
  with pytest.raises(ValueError, match='eval/zh/bits_per_byte, eval/zh/perp'):
    best_is(name)


def test_without_a_name_nothing_is_best(best_is):
  assert best_is('') is None
