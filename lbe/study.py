"""Runs that belong together: trained, scored, and told in one table.

  python -m lbe.study --config=configs/studies/micro.py --workdir=STUDY

The same command goes on; on a shared folder any number of them work together
(--worker). What the folder holds is in docs/study.md.
"""

import datetime
import json
import pathlib
import runpy
import signal
import subprocess
import sys
import time
from concurrent import futures

import ml_collections
from absl import flags

from lbe.assemble import config_flag
from lbe.run import program
from lbe.run import progress
from lbe.studies import begin
from lbe.studies import estimate
from lbe.studies import folder
from lbe.studies import grid
from lbe.studies import scoring
from lbe.studies import work
from lbe.text import bars
from lbe.text import tables

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'The folder of the study, which all of its workers see.'
)
_ONLY = flags.DEFINE_list(
  'only',
  [],
  'Cells by their names or patterns, as zh-ext-*, and what they begin from.',
)
_JOBS = flags.DEFINE_integer(
  'jobs',
  1,
  'Cells that are trained, and shapes scored, at a time here.',
  lower_bound=1,
)
_WORKER = flags.DEFINE_bool(
  'worker', False, 'Train cells beside other workers, and leave the table.'
)
_BUDGET = flags.DEFINE_string(
  'budget', '', 'As 90m or 8h: no cell is begun behind it.'
)
_ACCEPT = flags.DEFINE_bool(
  'accept',
  False,
  'Let results by another version of the study count as they are.',
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run',
  False,
  'Say what the cells will take, and stop; nothing is written.',
)
_TOPOLOGY = flags.DEFINE_list(
  'topology',
  [],
  "With --dry_run: on these, as 'v5p-128' or 'h100:8', in place of here; with "
  'the price of a chip-hour as v5p-128=4.2.',
)
_MFU = flags.DEFINE_float(
  'mfu', estimate.MFU, 'The share of the peak that is assumed there.'
)
_SCORE = flags.DEFINE_list('score', [], 'Score these cells in this process.')


def main(argv):
  del argv
  study = pathlib.Path(_WORKDIR.value)
  if _SCORE.value:
    _score_here(study)
    return
  if _DRY_RUN.value:
    _estimate()
    return
  budget = _seconds(_BUDGET.value)
  asked = _asked()
  wanted = grid.chosen(asked['cells'], _ONLY.value)
  with progress.doing('keeping the files of the study, and hashing them'):
    record = begin.begin(
      study, asked, wanted=wanted, accept=_ACCEPT.value, say=bars.say
    )
  line = _Line(study, [c for c in record['cells'] if c['name'] in wanted])
  worker = work.Worker(study, record, say=line.say)
  before = signal.signal(signal.SIGTERM, lambda *_: worker.stop())
  try:
    worker.work(wanted, jobs=_JOBS.value, budget=budget, tick=line.refresh)
  except KeyboardInterrupt:
    worker.stop()
    raise
  finally:
    line.close()
  signal.signal(signal.SIGTERM, before)
  if worker.stopped():
    bars.say('stopped; the same command goes on from here.')
    return
  # A later call may have changed or added cells: what it says counts.
  record = folder.read(study)
  unscored = _score(study, record, wanted)
  with progress.doing('deriving the rows'):
    rows = folder.derive(study, record)
  if not _WORKER.value:
    print(_table(study, record, wanted))
    print(f'{len(rows):,} rows in {study / "results.jsonl"}')
  failed = [
    name
    for name, state in folder.states(study, record).items()
    if state == folder.FAILED and name in wanted
  ]
  told = []
  if failed:
    told.append(
      f'{len(failed)} of {len(wanted)} cells failed: {", ".join(failed)}; '
      f"each one's log.txt in {study}/cells says why."
    )
  if unscored:
    told.append(
      f'{len(unscored)} of {len(wanted)} cells are not scored by all: '
      f'{", ".join(unscored)}; why is said above.'
    )
  if told:
    raise ValueError(' '.join([*told, 'The same command tries them again.']))


class _Line:
  """How many cells are done, and how long the others take: on a terminal as a
  bar, elsewhere before what is said."""

  def __init__(self, study, cells):
    self._study = study
    self._cells = cells
    self._looked = 0.0
    self._told = ''
    self._bar = bars.make(
      total=len(cells),
      bar_format='{desc} |{bar}| {elapsed}{postfix}',
      dynamic_ncols=True,
      file=sys.stderr,
      disable=not sys.stderr.isatty(),
    )

  def _look(self):
    done, seconds = folder.pace(self._study, self._cells)
    self._looked = time.monotonic()
    self._told = f'{done}/{len(self._cells)} cells'
    if seconds:
      seconds = datetime.timedelta(seconds=round(seconds / _JOBS.value))
      self._told += f', ETA {seconds}'
    self._bar.n = done

  def refresh(self):
    if not self._bar.disable and time.monotonic() - self._looked > 2:
      self._look()
      self._bar.set_description_str(self._told)

  def say(self, text):
    self._look()
    bars.say(f'[{self._told}] {text}')

  def close(self):
    self._bar.close()


def _asked():
  """What the study's file asks for: its `make` of the config."""
  config = _CONFIG.value
  path, *_ = flags.FLAGS['config'].config_filename.split(':')
  asked = runpy.run_path(path)['make'](config)
  plain = {}
  for name, value in asked['evals'].items():
    plain[name] = json.loads(value.to_json_best_effort())
  asked['evals'] = plain
  for cell in asked['cells']:
    if hasattr(cell['config'], 'to_json_best_effort'):
      cell['config'] = json.loads(cell['config'].to_json_best_effort())
  return json.loads(json.dumps(asked))


def _estimate():
  """What the study will take, and what it can tell."""
  asked = _asked()
  asked['cells'] = grid.order(asked['cells'])
  wanted = grid.chosen(asked['cells'], _ONLY.value)
  rows = estimate.cells(asked, ml_collections.ConfigDict, wanted)
  seconds = None
  if not _TOPOLOGY.value:
    seconds = estimate.here(rows, bars.say)
  print(estimate.table(rows))
  if seconds is not None:
    print(f'here, one cell after the other: {seconds / 60:,.0f} minutes')
  for name in _TOPOLOGY.value:
    name, _, price = name.partition('=')
    try:
      price = float(price or 0)
    except ValueError:
      raise ValueError(
        f'--topology={name}={price}: write NAME=PRICE, as v5p-128=4.2.'
      ) from None
    print(estimate.elsewhere(rows, name, price, _MFU.value))
  for cell in asked['cells']:
    path = cell['config'].get('path', '')
    if cell['kind'] == 'model' and not pathlib.Path(path).exists():
      print(f'{cell["name"]}: there is no model yet at {path!r}')
  for claim in asked['claims']:
    least = estimate.detectable(claim, asked['cells'])
    print(f'{claim["name"]}: the smallest difference that is seen: {least}')


def _score(study, record, wanted):
  """Scores what is left; the names that a failed process leaves unscored."""
  with futures.ThreadPoolExecutor(_JOBS.value) as pool:
    groups = scoring.groups(study, record, wanted)
    ended = pool.map(
      lambda names: subprocess.run(_scoring(study, names), check=False), groups
    )
    failed = [
      names
      for names, process in zip(groups, ended, strict=True)
      if process.returncode
    ]
  return [
    name for name in sum(failed, []) if scoring.unscored(study, record, name)
  ]


def _scoring(study, names):
  """The command that scores these cells in one process."""
  return [
    *(sys.executable, '-m', 'lbe.study', f'--score={",".join(names)}'),
    # Its `config` says how evaluators compute.
    f'--config=lbe:stored:{study / "study.json"}',
    f'--workdir={study}',
  ]


def _score_here(study):
  program.keep_compiled(str(study))
  record = folder.read(study)
  scoring.score(study, record, _SCORE.value, _CONFIG.value, say=bars.say)


def _seconds(text):
  """Of '90m', '8h', '45s'; None where nothing is given."""
  if not text:
    return None
  unit = {'s': 1, 'm': 60, 'h': 3600}.get(text[-1])
  try:
    if unit:
      return float(text[:-1]) * unit
  except ValueError:
    pass
  raise ValueError(f'--budget={text}: give a time, as 90m, 8h or 45s.')


def _table(study, record, wanted):
  states = folder.states(study, record)
  rows = []
  for cell in record['cells']:
    name = cell['name']
    if name not in wanted:
      continue
    done = folder.read_cell(study, name)
    seen = done.get('seen', {}).values()
    rows.append(
      [
        name,
        states[name],
        f'{sum(s["bytes"] for s in seen):,}',
        f'{sum(s["tokens"] for s in seen):,}',
        f'{done.get("updates", 0):,}',
        f'{done.get("seconds", {}).get("wall", 0):.0f}',
      ]
    )
  heads = ['cell', 'state', 'bytes', 'tokens', 'updates', 'seconds']
  return tables.markdown(heads, 'llrrrr', rows)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  program.run(main)
