"""docs/lbe.ipynb runs from its first cell to its last."""

import json

import pytest

from lbe.models import architecture
from lbe.vocab import tokenizers

import conftest
import runs

PATH = conftest.ROOT / 'docs' / 'lbe.ipynb'
SHAPE = architecture.Config(
  vocab_size=259,
  dim=15,  # odd: on one of the devices, which compiles faster
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_dim=32,
  max_positions=64,
)


def test_the_notebook_runs(tmp_path, monkeypatch):
  """Catches a cell that an API has left behind, and outputs that were kept.

  On a model of one layer in the place of the quickstart's."""
  pyplot = pytest.importorskip('matplotlib.pyplot')
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / 'runs' / 'quickstart'
  runs.save_random(folder, SHAPE, tokenizers.Bytes())
  (folder / 'metrics.jsonl').write_text(
    '{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": 1.5}\n'
  )
  pyplot.switch_backend('agg')
  cells = json.loads(PATH.read_text(encoding='utf-8'))['cells']
  code = [x for x in cells if x['cell_type'] == 'code']
  assert len(code) > 5 and not any(x['outputs'] for x in code)
  names = {}
  for cell in code:
    exec(compile(''.join(cell['source']), cell['id'], 'exec'), names)
  pyplot.close('all')
  assert names['losses'][-1] < names['losses'][0]
  assert names['rows'][-1]['train/loss'] == 1.5
