"""Where a run's time goes, over all processes that worked on it."""

import os
import pathlib
import shlex
import time

import psutil

from lbe.text import lines
from lbe.text import tables

# Rows of metrics have 'seconds/PHASE' of each.
_PHASES = {
  'start': 'starting: imports, hosts, tokenizer, first weights',
  'data': 'preparing data',
  'load': 'loading a checkpoint',
  'compile': 'compiling',
  'train': 'training',
  'score': 'scoring',
  'save': 'saving and exporting',
  'redone': 'done by processes that failed, and done again',
  'waited': 'between the last line of one process and the next process',
}


class Phases:
  """The seconds of each phase, from the start of the first process on.

  Each lap is the phase's that it ends with.
  """

  def __init__(self):
    self._seconds = dict.fromkeys(_PHASES, 0.0)
    self._before = dict(self._seconds)  # of earlier processes
    self._left, self._left_at = {}, None
    # The launcher's process, which becomes ours, may have installed before.
    entered = float(os.environ.get('LBE_ENTERED') or 0)
    self._start = max(psutil.Process().create_time(), entered)
    self._at = self._start

  def look(self, metrics: pathlib.Path):
    """Reads how far an earlier process came; before its lines are cut."""
    if metrics.exists():
      self._left_at = os.path.getmtime(metrics)
      self._left = lines.last(metrics)

  def goes_on_from(self, row: dict):
    """Adds those of a row of metrics, behind which steps are done again."""
    before = self._of(row)
    if self._left_at is not None:
      left = self._of(self._left)
      lost = sum(left.values()) - sum(before.values())
      waited = max(0.0, left['waited'] - before['waited'])
      before['redone'] += max(0.0, lost - waited)
      before['waited'] += waited + max(0.0, self._start - self._left_at)
    self._before = before

  def _of(self, row):
    return {phase: row.get(f'seconds/{phase}', 0.0) for phase in _PHASES}

  def lap(self, phase: str):
    now = time.time()
    self._seconds[phase] += now - self._at
    self._at = now

  def row(self) -> dict[str, float]:
    return {
      f'seconds/{phase}': self._before[phase] + seconds
      for phase, seconds in self._seconds.items()
    }

  def told(self) -> str:
    """The goodput, and a table of the phases that took time."""
    whole = self._of(self.row())
    total = sum(whole.values())
    rows = [
      [what, f'{own:,.1f}', f'{all_:,.1f}', f'{all_ / total:.1%}']
      for phase, what in _PHASES.items()
      if (own := self._seconds[phase]) + (all_ := whole[phase]) >= 0.05
    ]
    rows.append(
      ['all', f'{sum(self._seconds.values()):,.1f}', f'{total:,.1f}', '100%']
    )
    heads = ['seconds', 'this process', 'the whole run', 'share']
    return (
      f'goodput: {whole["train"] / total:.1%} of the time was training that '
      f'counts\n{tables.markdown(heads, "lrrr", rows)}'
    )


def end(workdir: str, phases: Phases, prompt: str = 'Once') -> str:
  """A run's last lines: how long it took, where things are, what comes next."""
  minutes, seconds = divmod(round(sum(phases.row().values())), 60)
  model = shlex.quote(workdir)
  return (
    f'\n{phases.told()}\n\ndone in {minutes:,} min {seconds} s; '
    f'checkpoints, scores (results.json), samples and train.log are in '
    f'{workdir}\nnext: lbe generate --model={model} '
    f'--prompt={shlex.quote(prompt)}'
  )
