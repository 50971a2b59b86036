"""Metrics in W&B and MLflow, offline, and what happens where these fail."""

import importlib.util
import json
import time

import mlflow
import pytest
import wandb
from tensorboard.backend.event_processing import event_accumulator

from lbe.run import metrics
from lbe.run import sinks
from lbe.text import lines

FACTS = {'config': {'seed': 7, 'optim': {'peak_lr': 0.1}}}


def written(workdir, names, step, resume_step):
  writer = metrics.Writer(workdir, resume_step=resume_step, sinks=names)
  writer.write(step, {'train/loss': 1.5 * step, 'eval/a@b': 0.25, 'no': None})
  writer.close()


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(FACTS))
  return tmp_path


def test_mlflow_gets_config_and_rows_and_a_resumed_run_is_the_same(
  workdir, monkeypatch
):
  monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'file://{workdir}/kept')
  written(workdir, ['mlflow'], 1, -1)
  written(workdir, ['mlflow'], 2, 1)
  (run,) = (workdir / 'kept' / '0').glob('*/metrics')
  values = (run / 'train' / 'loss').read_text().split('\n')[:-1]
  assert [x.split()[1:] for x in values] == [['1.5', '1'], ['3.0', '2']]
  assert (run / 'eval' / 'a_b').is_file()
  assert (run.parent / 'params' / 'optim.peak_lr').read_text() == '0.1'
  known = json.loads((workdir / sinks.FILE).read_text())
  assert known == {'mlflow': run.parent.name}


def test_wandb_goes_on_in_the_run_that_it_began(workdir, monkeypatch):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  written(workdir, ['wandb'], 1, -1)
  known = json.loads((workdir / sinks.FILE).read_text())['wandb']
  began = int(time.time())
  while int(time.time()) == began:  # wandb's folders have the second's name
    time.sleep(0.01)
  written(workdir, ['wandb'], 2, 1)
  wandb.teardown()  # its process writes behind
  files = list((workdir / 'wandb').glob(f'offline-run-*-{known}/*.wandb'))
  assert len(files) == 2
  assert all(b'train/loss' in file.read_bytes() for file in files)
  assert any(b'peak_lr' in file.read_bytes() for file in files)


def test_a_sink_that_fails_ends_no_run_and_says_so_once(
  workdir, monkeypatch, capsys
):
  monkeypatch.setenv('MLFLOW_TRACKING_URI', 'nowhere://at.all')
  writer = metrics.Writer(workdir, resume_step=-1, sinks=['mlflow'])
  for step in (1, 2):
    writer.write(step, {'train/loss': 1.0})
  writer.close()
  told = capsys.readouterr().err
  assert told.count("WARNING: the sink 'mlflow' failed") == 1
  assert 'nowhere' in told
  assert len((workdir / 'metrics.jsonl').read_text().splitlines()) == 2


def test_a_sink_that_fails_later_ends_no_run_either(
  workdir, monkeypatch, capsys
):
  """The disk or the server of a tracker that goes away in the night."""
  monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'file://{workdir}/kept')
  writer = metrics.Writer(workdir, resume_step=-1, sinks=['mlflow'])
  writer.write(1, {'train/loss': 1.5})
  gone = workdir / 'kept'
  gone.rename(workdir / 'elsewhere')
  gone.write_text('no folder')
  for step in (2, 3):
    writer.write(step, {'train/loss': 1.5 * step})
  writer.close()
  told = capsys.readouterr().err
  assert told.count("WARNING: the sink 'mlflow' failed") == 1
  rows = lines.rows(workdir / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3]
  board = event_accumulator.EventAccumulator(str(workdir / 'tensorboard'))
  steps = [x.step for x in board.Reload().Scalars('train/loss')]
  assert steps == [1, 2, 3]
  # It is there again: the same run of the tracker goes on.
  gone.unlink()
  (workdir / 'elsewhere').rename(gone)
  mlflow.end_run()  # as the end of a process does
  written(workdir, ['mlflow'], 4, 3)
  (run,) = (workdir / 'kept' / '0').glob('*/metrics')
  values = (run / 'train' / 'loss').read_text().split('\n')[:-1]
  assert [x.split()[2] for x in values] == ['1', '4']
  assert "sink 'mlflow' failed" not in capsys.readouterr().err


def test_an_error_in_the_middle_of_wandb_ends_no_run(
  workdir, monkeypatch, capsys
):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  writer = metrics.Writer(workdir, resume_step=-1, sinks=['wandb'])
  writer.write(1, {'train/loss': 1.5})
  wandb.teardown()  # its process is gone
  for step in (2, 3):
    writer.write(step, {'train/loss': 1.5 * step})
  writer.close()
  rows = lines.rows(workdir / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [1, 2, 3]
  assert capsys.readouterr().err.count("sink 'wandb' failed") <= 1


def test_a_sink_that_is_none_or_not_installed_is_refused(monkeypatch):
  with pytest.raises(ValueError, match="'neptune' is none; take of 'wandb'"):
    sinks.check(('wandb', 'neptune'))
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r"pip install 'lbe\[mlflow\]'"):
    sinks.check(('mlflow',))
