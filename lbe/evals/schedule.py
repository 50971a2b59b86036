"""Evaluations on schedule: what is due, what came of it, what is left."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from collections.abc import Sequence

import jax

from lbe.evals import core
from lbe.inference import model as model_lib
from lbe.mesh import hosts
from lbe.run import metrics
from lbe.run import progress
from lbe.text import lines


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """What is evaluated, and the steps at which it is."""

  name: str
  task: object  # what a module of lbe.evals made
  every: int
  at_start: bool
  at_end: bool

  def is_due(self, step: int, *, last: int) -> bool:
    """Whether it runs after `step` of a run of `last` steps."""
    if step == 0:
      return self.at_start
    if step == last:
      return self.at_end
    return bool(self.every) and step % self.every == 0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of evaluators that were due.

  `scores`, 'eval/NAME/SCORE' → number, are metrics of the step, with the
  seconds that they took; `told` is a line of those that have room in it, and
  what rows warn of, a line each. The turn of the `unscored` comes again: the
  run had to stop, or the first of them failed with `error`.
  """

  scores: dict = dataclasses.field(default_factory=dict)
  told: Sequence[str] = ()
  unscored: Sequence[Evaluator] = ()
  error: Exception | None = None


def evaluate(
  evaluator: Evaluator, model: model_lib.Model, *, step: int | None
) -> core.Result:
  """What it says of a model.

  Raises ValueError where the device's memory does not do for it.
  """
  quiet = jax.process_index() != 0
  try:
    with progress.doing(f'scoring {evaluator.name}', quiet=quiet):
      return evaluator.task.evaluate(model, name=evaluator.name, step=step)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise ValueError(
      f'evals.{evaluator.name}: not enough memory beside the model for '
      f'eval_batch_size={model.batch_size} ({str(error).splitlines()[0]}); '
      'lower --config.eval_batch_size.'
    ) from error


def run(
  due: Sequence[Evaluator],
  model: model_lib.Model,
  *,
  step: int,
  workdir: pathlib.Path,
  stop: progress.StopFlag,
  watch: Callable[[str], contextlib.AbstractContextManager],
  facts: dict,
  samples: Callable[[model_lib.Model, int], list[dict]] = lambda *unused: [],
) -> Outcome:
  """Scores one after the other, and records each, until one fails or SIGTERM.

  Rows get the `facts` of the run: which one, and what it has read so far.
  Behind the last the model writes its `samples`, into samples.jsonl.
  Of several processes one that fails raises: the others would not come to
  save with it. `watch` is a compilation.Watch.
  """
  # Steps that the device still works on are not the evaluators' time.
  jax.block_until_ready(model.params)
  start, scores, num_scored, failure = time.perf_counter(), {}, 0, None
  scored = []  # rows of all
  for evaluator in due:
    name = evaluator.name
    try:
      with watch(name), stop.interrupting():
        result = evaluate(evaluator, model, step=step)
      # Not to be interrupted: rows are written whole.
      rows = [row | facts for row in result.rows]
      record(workdir, dataclasses.replace(result, rows=rows))
    except progress.Stopped:
      break
    except Exception as error:
      if not hosts.alone():
        raise
      failure = error
      break
    scores |= {f'eval/{name}/{k}': v for k, v in result.metrics.items()}
    scored += result.rows
    num_scored += 1
  if num_scored == len(due):
    # Not to be interrupted: nobody would write them again, and they are few.
    with (
      watch('samples'),
      progress.doing('writing samples', quiet=jax.process_index() != 0),
    ):
      written = samples(model, step)
    if jax.process_index() == 0:
      lines.append(workdir / 'samples.jsonl', written)
  scores['speed/evaluation_seconds'] = time.perf_counter() - start
  told = [f'step {step:,}: {headline(scored)}', *core.warnings(scored)]
  return Outcome(scores, told, due[num_scored:], failure)


# Scores that a line in the terminal has room for.
_HEADLINES = (
  *('bits_per_byte', '/acc', '/score_rate', '/overall', '/switched'),
  *('/copy', '/lookup', '/labels'),
)


def headline(rows: list[dict]) -> str:
  """What a line has room for, as 'zh/bits_per_byte ↓ 2.3456'."""
  named = [(f'{r["evaluator"]}/{r["name"]}', r) for r in rows]
  return '  '.join(
    f'{name} {core.MARKS[core.better(row)]} {core.short(row["value"])}'
    for name, row in named
    if name.endswith(_HEADLINES) and not row.get('of_subject')
  )


# ---------------------------------------------------------------------- files


def record(workdir: pathlib.Path, result: core.Result):
  """Process 0 adds a Result to predictions.jsonl, then to results.jsonl.

  So whoever has rows there is done.
  """
  if jax.process_index() == 0:
    lines.append(workdir / 'predictions.jsonl', result.predictions)
    lines.append(workdir / 'results.jsonl', result.rows)


def to_come(unscored: Sequence[Evaluator], row: dict) -> dict:
  """What a checkpoint says of evaluators that did not run before it was saved.

  With the metrics of its step: nobody may live to write them.
  """
  names = [e.name for e in unscored]
  return {'unscored': names, 'row': row if names else {}}


def unscored(
  workdir: pathlib.Path, step: int, meta: dict
) -> tuple[list[str], dict]:
  """(names of evaluators whose turn comes at a restored step, its metrics).

  `meta` is what `to_come` gave its checkpoint. Who has scores in metrics.jsonl
  was done behind it; process 0 looks, and all processes hear.
  """
  if not meta.get('unscored'):
    return [], {}
  told = None
  if jax.process_index() == 0:
    metrics.truncate_lines(workdir / 'metrics.jsonl', step)
    row = meta.get('row', {})
    for written in lines.rows(workdir / 'metrics.jsonl'):
      row = row | written if written['step'] == step else row
    told = json.dumps(row)
  row = json.loads(hosts.share('the restored row', told))
  scored = {key.split('/')[1] for key in row if key.startswith('eval/')}
  return [name for name in meta['unscored'] if name not in scored], row


def values(workdir: pathlib.Path, name: str) -> dict[int, float]:
  """{step: value} of a score in metrics.jsonl; process 0 looks, all hear."""
  told = None
  if jax.process_index() == 0:
    rows = lines.rows(workdir / 'metrics.jsonl')
    told = json.dumps([(r['step'], r[name]) for r in rows if name in r])
  return dict(json.loads(hosts.share('scores of steps', told)))


def cut_behind(workdir: pathlib.Path, step: int, *, unscored: Sequence[str]):
  """Rows that an earlier process wrote behind `step` go.

  So do those of `step` itself by the evaluators of these names, whose turn
  comes again.
  """
  for file in ('results.jsonl', 'predictions.jsonl'):
    metrics.truncate_lines(workdir / file, step, unscored=unscored)
  metrics.truncate_lines(workdir / 'skipped.jsonl', step)
  # The model writes behind the last of them.
  again = ['samples'] if unscored else []
  metrics.truncate_lines(workdir / 'samples.jsonl', step, unscored=again)


def names_scored(workdir: pathlib.Path, *, goes_on: bool) -> list[str]:
  """Names of what an interrupted call has scored; all other rows go.

  Where this call does not go on with it, all go.
  """
  rows = lines.keep(workdir / 'results.jsonl', lambda row: goes_on)
  names = list(dict.fromkeys(row['evaluator'] for row in rows))
  lines.keep(
    workdir / 'predictions.jsonl', lambda row: row['evaluator'] in names
  )
  return names
