"""Scores of many cells in one process: models of one shape compile once."""

import pathlib
import time
from collections.abc import Callable

import ml_collections

from lbe.assemble import evaluators as evaluators_lib
from lbe.assemble import model as model_lib
from lbe.evals import schedule
from lbe.mesh import sharding
from lbe.studies import folder
from lbe.studies import grid
from lbe.studies import verdicts
from lbe.studies import work


def unscored(study: pathlib.Path, record: dict, name: str) -> list[str]:
  """Names of the evaluators that have not scored the cell as it is."""
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
    if theirs != (of['identity'], cell['identity']):
      result.append(evaluator)
  return result


def groups(study: pathlib.Path, record: dict, names) -> list[list[str]]:
  """The cells that are done and not scored, those of one shape together."""
  result = {}
  for cell in record['cells']:
    name = cell['name']
    done = folder.read_cell(study, name)
    if name not in names or done.get('state') != folder.DONE:
      continue
    if unscored(study, record, name):
      shape = str(done.get('model') or name)
      result.setdefault(shape, []).append(name)
  return list(result.values())


def score(
  study: pathlib.Path,
  record: dict,
  names: list[str],
  config: ml_collections.ConfigDict,
  *,
  say: Callable[[str], None],
):
  """Scores each of the cells by what has not, each behind its lock.

  `config` has no evaluators of its own, and says how they compute.
  """
  facts = work.facts()
  by_name = {cell['name']: cell for cell in record['cells']}
  texts = str((study / 'files').absolute())
  for name in names:
    with folder.locked(study, name) as lock:
      left = unscored(study, record, name) if lock is not None else []
      if not left:
        continue
      asked = config.copy_and_resolve_references()
      with asked.unlocked():
        asked.init_from = work.location(study, by_name[name])
        for evaluator in left:
          fields = record['evals'][evaluator]['fields']
          asked.evals[evaluator] = grid.placed(fields, texts)
      opened = model_lib.open_weights(asked)
      tokenizer = model_lib.make_tokenizer(asked, opened, study)
      mesh = sharding.make_mesh(asked.mesh.to_dict())
      model = model_lib.as_evaluated(
        opened.load_params(mesh), opened.config, tokenizer, mesh, asked
      )
      for it in evaluators_lib.make(
        asked,
        None,
        tokenizer,
        max_positions=opened.config.max_positions,
        num_old=opened.num_old_rows(tokenizer),
      ):
        start = time.monotonic()
        found = schedule.evaluate(it, model, step=None)
        seconds = time.monotonic() - start
        told = {
          'identity': record['evals'][it.name]['identity'],
          'cell': by_name[name]['identity'],
          'seconds': seconds,
          'time': work.now(),
          **facts,
          'rows': found.rows,
        }
        folder.write_score(study, name, it.name, told, found.predictions)
        say(f'{name}: scored by {it.name} in {seconds:.1f} s')
