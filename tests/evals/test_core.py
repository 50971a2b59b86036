"""Hashes; rows."""

import json

from lbe.evals import core
from lbe.evals import schedule
from lbe.run import metrics


def test_the_data_hash_knows_borders():
  """The same characters cut otherwise are other data."""
  assert core.data_hash(['ab', 'c']) != core.data_hash(['a', 'bc'])
  assert core.data_hash(['ab', 'c']) == core.data_hash(['ab', 'c'])


def test_rows_are_appended(tmp_path):
  result = core.Result([{'name': '分', 'value': 1.5}], {})
  schedule.record(tmp_path, result)
  schedule.record(tmp_path, core.Result([{'name': 'b', 'value': 2}], {}))
  lines = (tmp_path / 'results.jsonl').read_text().splitlines()
  assert [json.loads(line)['name'] for line in lines] == ['分', 'b']


def test_no_json_has_a_number_that_json_has_not(tmp_path):
  """NaN and Infinity as Python writes them end every strict reader."""
  nan, infinite = float('nan'), float('inf')
  row = {'evaluator': 'e', 'name': 's', 'step': 1, 'protocol': 'p', 'count': 2}
  rows = [{**row, 'value': nan, 'interval95': [-infinite, 1.0]}]
  schedule.record(tmp_path, core.Result(rows, {}, [{'scores': (nan, 2.0)}]))
  writer = metrics.Writer(tmp_path, resume_step=-1)
  writer.write(1, {'train/loss': nan})
  writer.close()
  text = core.write_summary(tmp_path)
  assert '| e | p | s | – | – to 1.0000 | 2 |' in text

  def strict(name):
    raise AssertionError(name)

  def read(name):
    path = tmp_path / name
    return json.loads(path.read_text('utf-8'), parse_constant=strict)

  assert read('results.jsonl')['interval95'] == [None, 1.0]
  assert read('predictions.jsonl')['scores'] == [None, 2.0]
  assert read('metrics.jsonl')['train/loss'] is None
  assert read('results.json')['e']['s']['value'] is None


def test_the_table_says_which_way_is_better_and_what_was_drawn():
  """Bytes as N beside an interval over documents; a score without its start."""
  row = {'evaluator': 'zh', 'protocol': 'perplexity@rolling', 'count': 9_000}
  row |= {'name': 'bits_per_byte', 'num_units': 20, 'unit': 'documents'}
  row |= {'step': 0, 'value': 3.0}
  exam = {'evaluator': 'exam', 'protocol': 'ceval@official', 'count': 50}
  exam |= {'name': 'acc/stem', 'unit': 'questions', 'step': 8, 'value': 0.25}
  tokens = exam | {'name': 'tokens', 'unit': 'responses'}
  text = core.table([row, row | {'step': 8, 'value': 2.0}, exam, tokens])
  assert text.splitlines() == [
    '| evaluator | protocol | score | before | value | 95% | N |',
    '| --- | --- | --- | ---: | ---: | --- | ---: |',
    '| zh | perplexity@rolling | bits_per_byte ↓ | 3.0000 | 2.0000 |  | '
    '20 documents |',
    '| exam | ceval@official | acc/stem ↑ |  | 0.2500 |  | 50 questions |',
    '| exam | ceval@official | tokens |  | 0.2500 |  | 50 responses |',
    core.LEGEND,
  ]
  # Of a stored model nothing is before, nor of a run that has only begun.
  for alone in (row, row | {'step': None}):
    assert 'before' not in core.table([alone])


def test_which_way_is_better_is_said_of_parts_and_averages():
  def better(name, protocol='p', **more):
    return core.better({'name': name, 'protocol': protocol, **more})

  assert better('acc_macro') == better('chrf/zh') == 'higher'
  assert better('perplexity_per_word') == 'lower' and better('tokens') == ''
  judged = 'response_quality@paper'
  assert better('accuracy', judged) == 'higher'
  assert better('parse_failures', judged) == 'lower'
  assert better('task/ter', 'task@lm_eval', better='lower') == 'lower'


def test_one_answer_to_everything_is_told():
  """Catches a score that is the share of A among the right answers."""
  golds = [['A'], ['B'], ['B'], ['A'], ['A']]
  found = core.one_answer(['A'] * 5, golds)
  assert found['most_chosen'] == 'A' and found['most_chosen_share'] == 1.0
  assert 'answers A to 5 of 5 questions, of which 3' in found['warning']
  row = {'evaluator': 'e', 'name': 's', 'protocol': 'p', 'value': 0.6}
  table = core.table([{**row, 'count': 5, **found}])
  assert table.endswith(f'warning: e: {found["warning"]}')
  assert 'warning' not in core.one_answer(['A'] * 4, golds[:4])  # by chance
  assert 'warning' not in core.one_answer(['A'] * 5, [['A', 'B']] * 5)
  assert 'warning' not in core.one_answer([*'AAAAB'], golds)
  assert 'warning' in core.one_answer([*'A' * 49, 'B'], [['B']] * 50)
