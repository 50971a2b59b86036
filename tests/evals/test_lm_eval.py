"""Tasks of the harness that generate: names of scores, settings, limits."""

import dataclasses
import json

import pytest

from lbe.assemble import evaluators as evaluators_lib
from lbe.evals import lm_eval as adapter
from lbe.evals import schedule
from lbe.studies import compared
from lbe.text import lines

import evaluators
import harness
import tiny

ADAPT = dict(bos=True, cut='harness', max_new_tokens=6)


@pytest.fixture(scope='module')
def folder(test_data):
  return test_data / 'ckpt_stories260K' / 'hf'


@pytest.fixture(scope='module')
def model(folder):
  return harness.load_ours(folder)


def ask(adapted, *settings):
  """Texts that go on from one beginning, each by its own settings."""
  from lm_eval.api.instance import Instance

  return adapted.generate_until(
    [
      Instance(
        'generate_until', {}, ('Once upon a time', s), 0, ('own_task', 0, 1)
      )
      for s in settings
    ]
  )


def write_task(folder, *filters):
  """A task of two questions, whose answers are read by regular expressions."""
  asked = {'q': 'Once upon a time', 'a': 'there'}
  data = folder / 'stories.jsonl'
  data.write_text('\n'.join([json.dumps(asked)] * 2))
  task = {
    'task': 'own_stories',
    'dataset_path': 'json',
    'dataset_kwargs': {'data_files': str(data)},
    'test_split': 'train',
    'output_type': 'generate_until',
    'doc_to_text': 'q',
    'doc_to_target': 'a',
    'generation_kwargs': {'until': ['.']},
    'filter_list': [
      {
        'name': name,
        'filter': [
          {'function': 'regex', 'regex_pattern': pattern},
          {'function': 'take_first'},
        ],
      }
      for name, pattern in filters
    ],
    'metric_list': [{'metric': 'exact_match'}],
  }
  (folder / 'own_stories.yaml').write_text(json.dumps(task))
  made = evaluators.make(
    adapter, tasks=('own_stories',), include_path=str(folder), max_new_tokens=6
  )
  return made


def test_each_filter_of_a_task_has_a_score_of_its_own(model, tmp_path):
  """Catches two rows of one name, of which tables and metrics lose one."""
  made = write_task(
    tmp_path, ('strict-match', '^(there)'), ('flexible-extract', '(there)')
  )
  result = made.evaluate(model, name='extra', step=5)
  strict = 'own_stories/exact_match/strict-match'
  flexible = 'own_stories/exact_match/flexible-extract'
  # The text begins with a comma.
  assert result.metrics == {strict: 0.0, flexible: 1.0}
  assert {r['name']: r['filter'] for r in result.rows} == {
    strict: 'strict-match',
    flexible: 'flexible-extract',
  }
  assert [r['count'] for r in result.rows] == [2, 2]
  read = [(p['id'], p['filter'], p['responses']) for p in result.predictions]
  assert sorted(read) == [
    ('own_stories/0', 'flexible-extract', ['there']),
    ('own_stories/0', 'strict-match', ['[invalid]']),
    ('own_stories/1', 'flexible-extract', ['there']),
    ('own_stories/1', 'strict-match', ['[invalid]']),
  ]
  # The best checkpoint is chosen by either, and two runs are compared by both.
  config = tiny.config(tmp_path, a={})
  config.evals.extra = dict(evaluator='lm_eval')
  run = schedule.Evaluator('extra', made, every=1, at_start=True, at_end=True)
  for name in result.metrics:
    config.checkpoint.keep_best = f'eval/extra/{name}'
    assert evaluators_lib.best_is(config, [run]) == 'higher'
  lines.write(tmp_path / 'results.jsonl', result.rows)
  lines.write(tmp_path / 'predictions.jsonl', result.predictions)
  table = compared.tell(tmp_path, tmp_path)
  assert f'| extra | {strict} ↑ | 0.0000 | 0.0000 |' in table
  assert f'| extra | {flexible} ↑ | 1.0000 | 1.0000 |' in table


def test_one_filter_is_in_no_name(model, tmp_path):
  """Scores that older runs have keep their names."""
  made = write_task(tmp_path, ('flexible-extract', '(there)'))
  result = made.evaluate(model, name='extra', step=5)
  assert result.metrics == {'own_stories/exact_match': 1.0}
  assert {p['filter'] for p in result.predictions} == {'flexible-extract'}


def test_a_limit_of_tokens_is_read_by_each_of_its_names(
  folder, model, tmp_path
):
  """Catches an answer of the default length where a task gives another."""
  harness.vocab_export.write(model.tokenizer, tmp_path, max_positions=512)
  theirs = harness.load_theirs(folder, tmp_path, bos=True)
  settings = [
    {'until': [], 'max_gen_toks': 3},
    {'until': [], 'max_new_tokens': 4},
    {'until': '.', 'max_tokens': 30},
    {'until': [], 'max_completion_tokens': 5},
    # The first of several by the harness's order, not by ours.
    {'until': [], 'max_completion_tokens': 9, 'max_new_tokens': 2},
    {'until': [], 'do_sample': False, 'temperature': 0.7, 'max_tokens': 7},
  ]
  found = ask(adapter.adapt(model, **ADAPT), *settings)
  assert found == [ask(theirs, s)[0] for s in settings]
  assert len(set(found)) == len(settings)


def test_a_temperature_alone_is_sampled_with(model):
  """Catches equal greedy answers where a task asks for several drawn ones."""
  adapted = adapter.adapt(model, **{**ADAPT, 'max_new_tokens': 40})
  (greedy,) = ask(adapted, {'until': []})
  hot = {'until': [], 'temperature': 1.5}
  assert len({greedy, *ask(adapted, hot, hot)}) == 3
  cold = [{**hot, 'do_sample': False}, {'until': None, 'temperature': 0.0}]
  assert ask(adapted, *cold) == [greedy, greedy]


class Seen:
  """The harness's hook, which is told of every text."""

  def __init__(self):
    self.texts = []

  def add_partial(self, kind, arguments, text):
    del kind, arguments
    self.texts.append(text)


@pytest.mark.parametrize('size', [512, 600])
def test_a_limit_without_place_for_a_prompt_is_refused(model, size):
  """Before others are answered; it was an IndexError, or cut no prompt."""
  adapted = adapter.adapt(model, **ADAPT)
  seen = Seen()
  adapted.set_cache_hook(seen)
  right = f'own_task asks for {size} new tokens, .* the 512 positions .*; ask'
  with pytest.raises(ValueError, match=right):
    ask(adapted, {'until': []}, {'until': [], 'max_gen_toks': size})
  assert not seen.texts
  # What the run's own field says, where the task says nothing.
  short = dataclasses.replace(model, max_len=6)
  with pytest.raises(ValueError, match='asks for 6 new .* by max_new_tokens'):
    ask(adapter.adapt(short, **ADAPT), {'until': []})
