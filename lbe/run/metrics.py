"""What a run says of itself: metrics.jsonl, TensorBoard, and trackers."""

import math
import pathlib
from collections.abc import Sequence

import jax

from lbe.run import sinks as sinks_lib
from lbe.text import files
from lbe.text import lines

# Groups of a row's metrics as they stand in it: also where an interrupted
# evaluation was gone on with, so that its scores came to a row that was there.
_GROUPS = ('train', 'eval', 'seen', 'speed', 'hosts', 'seconds')


def is_skipped(step: dict) -> bool:
  """Whether a step, by its sums, changed nothing."""
  is_spike = 'is_spike' in step and bool(step['is_spike'])
  return is_spike or not math.isfinite(step['grad_norm'])


def reduce(steps: list[dict]) -> dict[str, float]:
  """The metrics of several steps' sums as one row, divided once.

  `train/loss` in nats a token, `train/perplexity`, `train/bits_per_byte`
  (bytes by the tokenizer's pieces); norms and rates are the last step's.
  `train/learning_rate` is the highest of the groups'. Steps whose gradient was
  not finite, or a spike, changed nothing: they are counted in
  `train/skipped_steps`, where there are any, and in nothing else, unless there
  is no other.
  """
  taken = [s for s in steps if not is_skipped(s)]
  num_skipped = len(steps) - len(taken)
  steps = taken or steps
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


def seen(sources: dict[str, dict[str, int]]) -> dict[str, int]:
  """What was read of each source so far, as metrics: 'seen/SOURCE/UNIT'."""
  return {
    f'seen/{name}/{unit}': number
    for name, units in sources.items()
    for unit, number in units.items()
  }


def truncate_lines(path, step, *, unscored=()):
  """Keeps the lines of a .jsonl file whose step is at most `step`.

  Not those of `step` itself by the evaluators in `unscored`, whose turn comes
  again.
  """

  def wanted(row):
    again = row['step'] == step and row.get('evaluator') in unscored
    return row['step'] <= step and not again

  lines.keep(path, wanted)


def _place(name):
  group = name.split('/')[0]
  return _GROUPS.index(group) if group in _GROUPS else len(_GROUPS)


class Writer:
  """metrics.jsonl (a line a step), TensorBoard and `sinks`, on process 0.

  `resume_step` is the step that the run goes on from, -1 for a new run: what
  an earlier process wrote behind it is cut, so that no step stands twice.
  (Of trackers it is not.) TensorBoard has config, data and samples as texts.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    resume_step: int,
    sinks: Sequence[str] = (),
  ):
    self._workdir = pathlib.Path(workdir)
    self._resume_step = resume_step
    self._names, self._sinks = sinks, None
    self._file = self._board = None
    self.last = {}  # of what an earlier process wrote, its last row
    if jax.process_index() != 0:
      return
    path = self._workdir / 'metrics.jsonl'
    truncate_lines(path, resume_step)
    rows = lines.rows(path)
    self.last = rows[-1] if rows else {}
    self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115

  def write(self, step: int, row: dict[str, float]):
    """One line; it is in the file when this returns.

    Raises OSError where it cannot be written.
    """
    if self._file is None:
      return
    try:
      self._write(step, row)
    except OSError as error:
      raise OSError(
        f'the metrics of step {step:,} could not be written into '
        f'{self._workdir} ({error.strerror or error}). Make room (or mend the '
        'folder) and start the same command again: it resumes from the last '
        'checkpoint.'
      ) from error

  def _write(self, step, row):
    row = dict(sorted(row.items(), key=lambda item: _place(item[0])))
    self._file.write(lines.line({'step': step, **row}))
    self._file.flush()
    if self._board is None:
      self._open()
    self._board.write(step, row)
    if 'speed/evaluation_seconds' in row:
      self._board_samples(step)
    self._sinks.write(step, row)

  def _open(self):
    # Not at the start: the first step need not wait for its imports.
    from lbe.run import board

    first, here = self._resume_step + 1, self._workdir
    self._board = board.Board(
      here / 'tensorboard', first_step=first, last=self.last
    )
    for name in ('config.json', 'data.txt'):
      if (here / name).is_file():
        self._board.text(first, name, files.text(here / name))
    facts = here / 'config.json'
    self._sinks = sinks_lib.Sinks(
      self._names, here, files.read_json(facts) if facts.is_file() else {}
    )

  def _board_samples(self, step):
    path = self._workdir / 'samples.jsonl'
    for record in lines.rows(path) if path.is_file() else ():
      if record['step'] == step:
        text = f'{record["prompt"]} →\n{record["response"]}'
        self._board.text(step, f'samples/{record["id"]}', text)

  def close(self):
    if self._file is not None:
      self._file.close()
    if self._board is not None:
      self._board.close()
      self._sinks.close()


def add_pictures(workdir: pathlib.Path, step: int):
  """The plots of a run that ended, for TensorBoard."""
  paths = sorted(workdir.glob('*.png'))
  if paths:
    from lbe.run import board

    board.add_pictures(workdir / 'tensorboard', step, paths)
