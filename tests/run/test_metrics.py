"""Sums divided once; files that a kill or a resume leaves whole."""

import json
import math

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.summary.writer import event_file_writer

from lbe.run import metrics


def sums(loss_sum, weight_sum, num_bytes=10.0):
  return dict(
    loss_sum=loss_sum,
    weight_sum=weight_sum,
    num_bytes=num_bytes,
    grad_norm=1.0,
    param_norm=2.0,
    learning_rates={'rest': 0.5},
  )


def test_a_row_over_several_steps_weights_them_by_tokens():
  """A mean of means would count a short batch as much as a full one."""
  row = metrics.reduce([sums(10.0, 10.0), sums(90.0, 30.0)])
  assert row['train/loss'] == 100 / 40
  assert row['train/perplexity'] == pytest.approx(math.exp(2.5))
  assert row['train/bits_per_byte'] == pytest.approx(100 / math.log(2) / 20)
  assert row['train/tokens'] == 40


def test_skipped_steps_are_counted_and_no_part_of_the_loss():
  bad = sums(math.nan, 10.0) | {'grad_norm': math.inf}
  row = metrics.reduce([sums(10.0, 10.0), bad, bad])
  assert row['train/loss'] == 1.0
  assert row['train/tokens'] == 10
  assert row['train/skipped_steps'] == 2
  assert 'train/skipped_steps' not in metrics.reduce([sums(10.0, 10.0)])
  assert math.isnan(metrics.reduce([bad])['train/loss'])


def test_a_diverged_loss_is_written_as_it_is():
  """An overflow in exp may not end the run that shows the divergence."""
  assert metrics.reduce([sums(1e6, 10.0)])['train/perplexity'] > 1e300
  assert math.isnan(metrics.reduce([sums(math.nan, 1.0)])['train/loss'])


def steps(path):
  return [json.loads(line)['step'] for line in path.read_text().splitlines()]


def test_resuming_cuts_what_lies_behind_the_restored_step(tmp_path):
  """No step stands twice, and a torn line does not break the file."""
  path = tmp_path / 'metrics.jsonl'
  writer = metrics.Writer(tmp_path, resume_step=-1)
  for step in range(1, 8):
    writer.write(step, {'train/loss': 1.0 / step})
  writer.close()
  with open(path, 'a') as f:
    f.write('{"step": 8, "tr')
  writer = metrics.Writer(tmp_path, resume_step=4)
  assert writer.last == {'step': 4, 'train/loss': 0.25}
  writer.write(5, {'train/loss': 0.5})
  writer.close()
  assert steps(path) == [1, 2, 3, 4, 5]
  board = event_accumulator.EventAccumulator(str(tmp_path / 'tensorboard'))
  board.Reload()
  assert [x.step for x in board.Scalars('train/loss')] == [1, 2, 3, 4, 5]


def test_scores_that_come_after_a_resume_stand_where_others_do(tmp_path):
  """A run that was interrupted in an evaluation, whose files differ."""
  scores = {'eval/en/loss': 2.0, 'speed/evaluation_seconds': 3.0}
  row = {'train/loss': 1.0, 'speed/seconds_per_step': 0.5}
  more = {'seconds/train': 9.0, 'seen/en/bytes': 7}
  writer = metrics.Writer(tmp_path, resume_step=-1)
  writer.write(1, row | scores | more)
  writer.write(1, row | more | scores)
  writer.close()
  first, second = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert first == second
  assert list(json.loads(first)) == [
    *('step', 'train/loss', 'eval/en/loss', 'seen/en/bytes'),
    *('speed/seconds_per_step', 'speed/evaluation_seconds', 'seconds/train'),
  ]


def test_a_new_run_starts_an_empty_file(tmp_path):
  """Lines of a run that never saved are not this one's."""
  (tmp_path / 'metrics.jsonl').write_text('{"step": 0}\n{"step": 3}\n')
  metrics.Writer(tmp_path, resume_step=-1).close()
  assert steps(tmp_path / 'metrics.jsonl') == []
  metrics.truncate_lines(tmp_path / 'absent.jsonl', 3)


def test_scores_whose_turn_comes_again_are_cut(tmp_path):
  """A score that stands twice."""
  path = tmp_path / 'results.jsonl'
  rows = [
    {'step': step, 'evaluator': name} for step in (2, 4) for name in 'abc'
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  metrics.truncate_lines(path, 4, unscored=('b', 'c'))
  assert [json.loads(x) for x in path.read_text().splitlines()] == rows[:4]


def test_a_line_separator_in_a_text_is_no_end_of_a_line(tmp_path):
  """A model that writes U+2028: what stood behind it was cut on resume."""
  path = tmp_path / 'predictions.jsonl'
  rows = [{'step': i, 'text': 'a\u2028b\x85c'} for i in range(3)]
  path.write_text(
    ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), 'utf-8'
  )
  metrics.truncate_lines(path, 1)
  kept = path.read_text('utf-8').split('\n')[:-1]
  assert [json.loads(line) for line in kept] == rows[:2]


def test_tensorboard_has_texts_pictures_and_other_axes(tmp_path, monkeypatch):
  """A run that goes on leaves no step on any axis twice."""
  # Files of one second are read in the order of a count, in which 10 is before
  # 9: a process of its own has three or four.
  count = event_file_writer.AtomicCounter(0)
  monkeypatch.setattr(event_file_writer, '_global_uid', count)
  (tmp_path / 'config.json').write_text('{"seed": 7}')
  (tmp_path / 'data.txt').write_text('source  documents')
  sample = {'step': 2, 'id': '0', 'prompt': 'Once', 'response': ' upon a time'}
  (tmp_path / 'samples.jsonl').write_text(json.dumps(sample) + '\n')

  def row(step):
    seen = {f'seen/{x}/tokens': 50 * step for x in ('en', 'zh')}
    more = {'speed/evaluation_seconds': 1.0} if step == 2 else {}
    seen |= {'seen/en/bytes': 9 * step, 'speed/mfu': 0.5}
    return {'train/loss': 1.0 / step, **seen, **more}

  for steps_of_process, resume_step in ([(1, 2, 3), -1], [(3, 4), 2]):
    writer = metrics.Writer(tmp_path, resume_step=resume_step)
    for step in steps_of_process:
      writer.write(step, row(step))
    writer.close()
  png = b'\x89PNG\r\n\x1a\n' + bytes(8) + b'\0\0\0\x04\0\0\0\x03'
  (tmp_path / 'forgetting.png').write_bytes(png)
  metrics.add_pictures(tmp_path, 4)

  def loaded(folder):
    found = event_accumulator.EventAccumulator(str(folder))
    return found.Reload()

  board = loaded(tmp_path / 'tensorboard')
  assert [x.step for x in board.Scalars('train/loss')] == [1, 2, 3, 4]

  def text(tag):
    return board.Tensors(tag)[-1].tensor_proto.string_val[0].decode()

  assert text('config.json') == '    {"seed": 7}'
  assert text('data.txt') == '    source  documents'
  assert text('samples/0') == '    Once →\n     upon a time'
  assert board.Images('forgetting')[0].width == 4
  by_tokens = loaded(tmp_path / 'tensorboard' / 'by_tokens')
  along = by_tokens.Scalars('vs_tokens/train/loss')
  assert [x.step for x in along] == [100, 200, 300, 400]
  # A name of its own: in one chart the steps were a line on the left edge.
  assert by_tokens.Tags()['scalars'] == ['vs_tokens/train/loss']
  by_bytes = loaded(tmp_path / 'tensorboard' / 'by_bytes')
  along = by_bytes.Scalars('vs_bytes/train/loss')
  assert [x.step for x in along] == [9, 18, 27, 36]
