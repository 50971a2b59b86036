"""Metrics in W&B and MLflow, offline, and what happens where these fail."""

import importlib.util
import json

import pytest
import wandb

from lbe.run import metrics
from lbe.run import sinks

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


def test_a_sink_that_is_none_or_not_installed_is_refused(monkeypatch):
  with pytest.raises(ValueError, match="'neptune' is none; take of 'wandb'"):
    sinks.check(('wandb', 'neptune'))
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r"pip install 'lbe\[mlflow\]'"):
    sinks.check(('mlflow',))
