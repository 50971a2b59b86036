"""Scores a stored model with the evaluators of a config, without training.

  python -m lbe.evaluate --run=runs/zh
  python -m lbe.evaluate --config=configs/eval_zh.py --workdir=runs/eval \
    --config.init_from=CKPT_OR_HF --config.evals.zh.path=zh.txt

A workdir of a training run, or of other scores, keeps what it has: these get a
folder of their own in WORKDIR/evaluations.
"""

import hashlib
import json
import pathlib
import time

import jax
from absl import flags

from lbe.assemble import config_flag
from lbe.assemble import data
from lbe.assemble import evaluators as evaluators_lib
from lbe.assemble import model as model_lib
from lbe.assemble import paths
from lbe.evals import by_language
from lbe.evals import core
from lbe.evals import schedule
from lbe.mesh import hosts
from lbe.mesh import sharding
from lbe.models import int8
from lbe.run import arguments
from lbe.run import checkpoint
from lbe.run import program
from lbe.run import progress
from lbe.run import workdir as workdir_lib
from lbe.text import files as files_lib

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where results.jsonl goes.')
_RUN = flags.DEFINE_string(
  'run',
  None,
  'RUN or RUN/checkpoints/STEP of lbe.train: its model with its own config, '
  'data and cache, where --config and --workdir say nothing else.',
)
_INT8 = flags.DEFINE_bool(
  'int8', False, 'As generate --int8 has it: weights of layers in 8 bits.'
)


def main(argv):
  del argv
  program.join_hosts()
  config, place = _CONFIG.value, _WORKDIR.value
  if _RUN.value:
    config = _of_run(config, _RUN.value)
    place = place or arguments.run_folder(_RUN.value)
  files = workdir_lib.open_workdir(place)
  files.fetch()
  workdir = files.here
  program.keep_compiled(files.path)
  config = paths.pinned(config)
  paths.check_scored(config)
  opened = model_lib.open_weights(config)
  if opened is None:
    raise ValueError(
      "init_from='': give the model, --config.init_from=CKPT_OR_HF."
    )
  mesh = sharding.make_mesh(config.mesh.to_dict())
  facts = json.loads(config.to_json_best_effort())
  # What lies at a path may be another model tomorrow.
  facts |= {'scored': opened.path, 'weights': opened.fingerprint()[:16]}
  if _INT8.value:
    int8.check(mesh)  # before texts and weights are read
    facts['int8'] = True
  folder = _own_folder(files, facts)
  files.lock(folder)
  tokenizer = model_lib.make_tokenizer(config, opened, workdir)
  prepared = None
  if any(e.get('source') for e in config.evals.values()):
    prepared = data.prepare(config, tokenizer, workdir, compare=False)
  quiet = jax.process_index() != 0
  with progress.doing('reading what is scored', quiet=quiet):
    evaluators = evaluators_lib.make(
      config,
      prepared,
      tokenizer,
      max_positions=opened.config.max_positions,
      num_old=opened.num_old_rows(tokenizer),
    )
  if not evaluators:
    raise ValueError(
      'evals is empty: there is nothing to score; add one in the config: '
      "config.evals.zh = common.perplexity(path='zh.txt')."
    )
  with progress.doing('reading the weights', quiet=quiet):
    params = opened.load_params(mesh)
  if _INT8.value:
    params = int8.quantized(params, mesh)
  done = None
  if jax.process_index() == 0:
    done = json.dumps(_begin(folder, facts))
  done = json.loads(hosts.share('scored', done))
  model = model_lib.as_evaluated(params, opened.config, tokenizer, mesh, config)
  for evaluator in evaluators:
    if evaluator.name in done:
      if jax.process_index() == 0:
        print(f'{evaluator.name}: scored before the last call was interrupted')
      continue
    start = time.perf_counter()
    result = schedule.evaluate(evaluator, model, step=None)
    for row in result.rows:
      row['model'] = opened.path
    schedule.record(folder, result)
    if jax.process_index() == 0:
      print(f'{evaluator.name}: {time.perf_counter() - start:.1f} s')
  if jax.process_index() == 0:
    print(core.write_summary(folder))
    if languages := by_language.write(folder):
      print(f'\n{languages}')
    print(f'scores are in {folder}')
  files.send(now=True)


def _of_run(config, run):
  """The config with a run's model, which has its tokenizer, and its data."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.init_from, config.tokenizer = run, ''
    if not config.data.cache_dir:
      config.data.cache_dir = str(arguments.run_folder(run) / 'data')
  return config


def _own_folder(files, facts):
  """Where these scores go: to the workdir, unless it is somebody else's."""
  config = files.here / 'config.json'
  if config.exists():
    mine = _is_same(config, facts)
  else:
    mine = not checkpoint.is_checkpoint(files.path)
  if mine:
    return files.here
  path = pathlib.PurePath(facts['scored'])
  # Of a run RUN/checkpoints/STEP it is RUN-STEP.
  name = (
    [*path.parts[-3:-2], path.name]
    if path.parent.name == 'checkpoints'
    else [path.name]
  )
  told = json.dumps(facts, sort_keys=True).encode()
  name.append(hashlib.sha256(told).hexdigest()[:8])
  return files.here / 'evaluations' / '-'.join(name)


def _is_same(config, facts):
  """Whether a call wrote these; an older lbe did not tell the weights."""
  return {'weights': facts['weights']} | files_lib.read_json(config) == facts


def _begin(workdir, facts):
  """Names of what was scored by a call with these facts that did not end.

  Of everything else the rows go.
  """
  config = workdir / 'config.json'
  goes_on = (
    config.exists()
    and _is_same(config, facts)
    and not (workdir / 'results.json').exists()  # written last
  )
  done = schedule.names_scored(workdir, goes_on=goes_on)
  (workdir / 'results.json').unlink(missing_ok=True)
  files_lib.write_whole(config, json.dumps(facts, indent=2))
  return done


if __name__ == '__main__':
  flags.mark_flags_as_required(['config'])
  program.run(main)
