"""Scores of many cells in one process: models of one shape compile once."""

import collections
import pathlib
import time
from collections.abc import Callable

import jax
import ml_collections

from lbe.assemble import evaluators as evaluators_lib
from lbe.assemble import model as model_lib
from lbe.evals import schedule
from lbe.judging import scores
from lbe.mesh import sharding
from lbe.studies import folder
from lbe.studies import grid
from lbe.studies import verdicts
from lbe.studies import work


def unscored(study: pathlib.Path, record: dict, name: str) -> list[str]:
  """Names of the evaluators that have not scored the cell as it is.

  A judge that did not answer all is asked again.
  """
  by_name = {cell['name']: cell for cell in record['cells']}
  cell = by_name[name]
  if cell['kind'] == 'tokenizer':
    return []
  result = []
  for evaluator, of in record['evals'].items():
    if not verdicts.cells_of([cell], of.get('cells', {})):
      continue
    score = folder.read_score(study, name, evaluator)
    theirs = (score.get('identity'), score.get('cell'))
    mine = (of['identity'], cell['identity'])
    if theirs != mine or _is_unanswered(score):
      result.append(evaluator)
  return result


def _is_unanswered(score):
  name = scores.FAILURES['unanswered']
  return any(row['name'] == name and row['value'] for row in score['rows'])


def groups(study: pathlib.Path, record: dict, names) -> list[list[str]]:
  """The cells that are done and not scored, those of one shape together."""
  result = {}
  for cell in record['cells']:
    name = cell['name']
    if name not in names or not folder.is_done(study, cell):
      continue
    if unscored(study, record, name):
      shape = str(folder.read_cell(study, name).get('model') or name)
      result.setdefault(shape, []).append(name)
  return list(result.values())


# What a user can cause; the device's own errors are mostly of memory.
_TOLD = (ValueError, OSError, ImportError, jax.errors.JaxRuntimeError)


def score(
  study: pathlib.Path,
  record: dict,
  names: list[str],
  config: ml_collections.ConfigDict,
  *,
  say: Callable[[str], None],
):
  """Scores each of the cells by what has not, each behind its lock.

  `config` has no evaluators of its own, and says how they compute. Raises
  ValueError behind the last where some could not be scored, with their names.
  """
  facts, failed, refused = work.facts(), [], collections.Counter()
  for name in names:
    with folder.locked(study, name) as lock:
      left = unscored(study, record, name) if lock is not None else []
      if not left:
        continue
      how = dict(refused=refused, say=say)
      try:
        whole = _score_cell(study, record, name, left, config, facts, **how)
      except _TOLD as error:
        say(f'{name}: not scored: {error}')
        whole = False
      if not whole:
        failed.append(name)
  if failed:
    raise ValueError(
      f'{len(failed)} of {len(names)} cells are not scored: '
      f'{", ".join(failed)}; why is said above.'
    )


def _score_cell(study, record, name, left, config, facts, *, refused, say):
  """Writes the scores of one cell by the evaluators of the names `left`.

  Returns whether all have scored it: none keeps another from it. `refused`
  counts the errors of each, and whoever had two is not asked any more: the
  responses of every cell would be written for nothing.
  """
  cell = next(cell for cell in record['cells'] if cell['name'] == name)
  texts = str((study / 'files').absolute())
  asked = config.copy_and_resolve_references()
  with asked.unlocked():
    asked.init_from = work.location(study, cell)
    for evaluator in left:
      fields = record['evals'][evaluator]['fields']
      asked.evals[evaluator] = grid.placed(fields, texts)
  opened = model_lib.open_weights(asked)
  tokenizer = model_lib.make_tokenizer(asked, opened, study)
  evaluators = evaluators_lib.make(
    asked,
    None,
    tokenizer,
    max_positions=opened.config.max_positions,
    num_old=opened.num_old_rows(tokenizer),
  )
  mesh = sharding.make_mesh(asked.mesh.to_dict())
  model = model_lib.as_evaluated(
    opened.load_params(mesh), opened.config, tokenizer, mesh, asked
  )
  whole = True
  for it in evaluators:
    if refused[it.name] > 1:
      say(f'{name}: not scored by {it.name}, which two cells had an error with')
      whole = False
      continue
    start = time.monotonic()
    try:
      found = schedule.evaluate(it, model, step=None)
    except _TOLD as error:
      say(f'{name}: not scored by {it.name}: {error}')
      refused[it.name] += 1
      whole = False
      continue
    seconds = time.monotonic() - start
    told = {
      'identity': record['evals'][it.name]['identity'],
      'cell': cell['identity'],
      'seconds': seconds,
      'time': work.now(),
      **facts,
      'rows': found.rows,
    }
    folder.write_score(study, name, it.name, told, found.predictions)
    say(f'{name}: scored by {it.name} in {seconds:.1f} s')
  return whole
