"""What a run says of itself: metrics.jsonl, TensorBoard, a progress line."""

import json
import math
import os
import pathlib
import sys
import time

import jax
import tqdm
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer import event_file_writer


def reduce(steps):
  """The metrics of several steps' sums as one row, divided once.

  `train/loss` in nats a token, `train/perplexity`, `train/bits_per_byte`
  (bytes by the tokenizer's pieces); norms and rates are the last step's.
  `train/learning_rate` is the highest of the groups'. Steps whose gradient was
  not finite changed nothing: they are counted in `train/skipped_steps`, where
  there are any, and in nothing else, unless there is no other.
  """
  finite = [s for s in steps if math.isfinite(s['grad_norm'])]
  num_skipped = len(steps) - len(finite)
  steps = finite or steps
  loss_sum = sum(float(s['loss_sum']) for s in steps)
  weight_sum = sum(float(s['weight_sum']) for s in steps)
  num_bytes = sum(float(s['num_bytes']) for s in steps)
  loss = loss_sum / max(weight_sum, 1.0)
  last = steps[-1]
  rates = {name: float(x) for name, x in last['learning_rates'].items()}
  row = {
    'train/loss': loss,
    'train/perplexity': math.exp(min(loss, 700.0)),
    'train/bits_per_byte': loss_sum / math.log(2) / max(num_bytes, 1.0),
    'train/grad_norm': float(last['grad_norm']),
    'train/param_norm': float(last['param_norm']),
    'train/learning_rate': max(rates.values()),
    'train/tokens': weight_sum,
  }
  if num_skipped:
    row['train/skipped_steps'] = num_skipped
  if len(rates) > 1:
    row |= {f'train/learning_rate/{name}': x for name, x in rates.items()}
  return row


def truncate_lines(path, step, *, unscored=()):
  """Keeps the lines of a .jsonl file whose step is at most `step`.

  Not those of `step` itself by the evaluators in `unscored`, whose turn comes
  again.
  """

  def keep(row):
    again = row['step'] == step and row.get('evaluator') in unscored
    return row['step'] <= step and not again

  keep_lines(path, keep)


def keep_lines(path, keep):
  """Keeps the lines of a .jsonl file that `keep(row)` is true of; their rows.

  A torn last line goes too. The file is replaced whole, or not at all.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  lines, rows = [], []
  # Texts may hold what str.splitlines takes for the end of a line.
  for line in path.read_text(encoding='utf-8').split('\n'):
    try:
      row = json.loads(line)
    except ValueError:
      break
    if keep(row):
      lines.append(line + '\n')
      rows.append(row)
  temporary = path.with_suffix('.tmp')
  temporary.write_text(''.join(lines), encoding='utf-8')
  os.replace(temporary, path)
  return rows


class Writer:
  """metrics.jsonl (a line a step) and TensorBoard files, on process 0.

  `resume_step` is the step that the run goes on from, -1 for a new run: what
  an earlier process wrote behind it is cut, so that no step stands twice.
  """

  def __init__(self, workdir, *, resume_step):
    self._file = self._board = None
    if jax.process_index() != 0:
      return
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    truncate_lines(path, resume_step)
    self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115
    self._board = event_file_writer.EventFileWriter(
      str(pathlib.Path(workdir) / 'tensorboard')
    )
    # TensorBoard leaves out what earlier files have from this step on.
    self._add_event(
      resume_step + 1, session_log=SessionLog(status=SessionLog.START)
    )

  def _add_event(self, step, **what):
    self._board.add_event(Event(wall_time=time.time(), step=step, **what))

  def write(self, step, row):
    """One line; it is in the file when this returns."""
    if self._file is None:
      return
    self._file.write(json.dumps({'step': step, **row}) + '\n')
    self._file.flush()
    values = [
      Summary.Value(tag=name, simple_value=value) for name, value in row.items()
    ]
    self._add_event(step, summary=Summary(value=values))

  def close(self):
    if self._file is not None:
      self._file.close()
      self._board.close()


class Progress:
  """A bar with ETA on a terminal, plain lines elsewhere, on process 0."""

  def __init__(self, num_steps, *, first_step):
    self._quiet = jax.process_index() != 0
    self._bar = tqdm.tqdm(
      total=num_steps,
      initial=first_step,
      unit='step',
      dynamic_ncols=True,
      file=sys.stderr,
      disable=self._quiet or not sys.stderr.isatty(),
    )
    self._num_steps = num_steps
    self._first_step = first_step

  def update(self, step, row):
    """Shows `step`; `row` are new metrics, or None."""
    if self._quiet:
      return
    self._bar.update(step - self._bar.n)
    if row is None:
      return
    parts = [f'loss {row["train/loss"]:.4f}']
    parts.append(f'lr {row["train/learning_rate"]:.2e}')
    speed = row['speed/tokens_per_second_per_chip']
    parts.append(f'{speed:,.0f} tokens/s/chip')
    if 'speed/mfu' in row:
      parts.append(f'MFU {row["speed/mfu"]:.1%}')
    parts.append(f'data wait {row["speed/data_wait_share"]:.0%}')
    if not self._bar.disable:
      self._bar.set_postfix_str('  '.join(parts))
      return
    left = (self._num_steps - step) * row['speed/seconds_per_step']
    hours, rest = divmod(int(left), 3600)
    eta = f'{hours}:{rest // 60:02}:{rest % 60:02}'
    print(
      f'step {step:,}/{self._num_steps:,}  {"  ".join(parts)}  ETA {eta}',
      flush=True,
    )

  def say(self, text):
    """A line above the bar."""
    if not self._quiet:
      tqdm.tqdm.write(text, file=sys.stdout)
      sys.stdout.flush()

  def close(self):
    self._bar.close()
