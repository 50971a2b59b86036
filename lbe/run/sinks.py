"""Trackers that get a run's metrics as well: Weights & Biases, and MLflow.

Where they send them is said by their own environment variables, as
WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME. What
fails there is told once and ends no run: metrics.jsonl has everything.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import sys
import uuid
from collections.abc import Sequence

from lbe.run import identity
from lbe.text import bars
from lbe.text import files

# The runs that an earlier process began there, by sink.
FILE = 'sinks.json'
# A tracker that cannot be reached may hold up the end of a run so long.
_SECONDS = 60
_PARAMS = 100  # MLflow takes no more at a time


class _Wandb:
  def __init__(self, workdir, facts, known):
    import wandb

    self._run = wandb.init(
      id=known or uuid.uuid4().hex[:8],
      resume='allow',
      name=workdir.resolve().name,
      dir=str(workdir),
      config=facts,
      settings=wandb.Settings(
        console='off',  # else it takes stdout over
        silent=True,
        init_timeout=_SECONDS,
        login_timeout=_SECONDS,
        finish_timeout=_SECONDS,
      ),
    )
    self.id = self._run.id
    # Its own counter refuses steps that a resumed run takes again.
    self._run.define_metric('*', step_metric='step')

  def write(self, step, row):
    self._run.log({'step': step, **row})

  def close(self):
    self._run.finish()


class _Mlflow:
  def __init__(self, workdir, facts, known):
    os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')
    # Seven, with pauses that double, would hold up the steps for minutes.
    os.environ.setdefault('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '2')
    import mlflow

    self._mlflow = mlflow
    run = mlflow.start_run(run_id=known, run_name=workdir.resolve().name)
    self.id = run.info.run_id
    if known is None:
      flat = identity.flatten(facts.get('config', {}))
      params = [(name, str(value)[:500]) for name, value in flat.items()]
      for i in range(0, len(params), _PARAMS):
        mlflow.log_params(dict(params[i : i + _PARAMS]))

  def write(self, step, row):
    self._mlflow.log_metrics(
      {re.sub(r'[^\w.\- :/]', '_', name): x for name, x in row.items()},
      step=step,
    )

  def close(self):
    self._mlflow.end_run()


_KINDS = {'wandb': _Wandb, 'mlflow': _Mlflow}


def check(names: Sequence[str]):
  """ValueError for an unknown sink, ImportError for one not installed."""
  for name in names:
    if name not in _KINDS:
      raise ValueError(
        f'sinks={tuple(names)!r}: {name!r} is none; take of '
        f'{", ".join(map(repr, _KINDS))}, as --config.sinks="(\'wandb\',)".'
      )
    if importlib.util.find_spec(name) is None:
      raise ImportError(
        f'sinks={tuple(names)!r}: {name} is not installed: pip install '
        f"'lbe[{name}]'."
      )


class Sinks:
  """Those of a run; each goes on in the run that it began for this workdir."""

  def __init__(self, names: Sequence[str], workdir: pathlib.Path, facts: dict):
    self._workdir, self._open = workdir, {}
    path = workdir / FILE
    known = files.read_json(path) if path.is_file() else {}
    for name in names:
      with self._guarded(name):
        sink = _KINDS[name](workdir, facts, known.get(name))
        self._open[name] = sink
        known[name] = sink.id
    if names:
      files.write_whole(path, json.dumps(known))

  def write(self, step: int, row: dict[str, float]):
    row = {name: float(x) for name, x in row.items() if x is not None}
    for name in list(self._open):
      with self._guarded(name):
        self._open[name].write(step, row)

  def close(self):
    for name in list(self._open):
      with self._guarded(name):
        self._open[name].close()

  @contextlib.contextmanager
  def _guarded(self, name):
    try:
      yield
    except Exception as error:
      self._open.pop(name, None)
      bars.say(
        f'WARNING: the sink {name!r} failed and gets nothing more of this '
        f'process ({type(error).__name__}: {error}). The run goes on, '
        f'{self._workdir}/metrics.jsonl has everything; the same command '
        'tries again.',
        file=sys.stderr,
      )
