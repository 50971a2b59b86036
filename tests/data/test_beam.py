"""Apache Beam writes what a process here writes.

The test with a runner is for an environment that has Beam: .ci/run makes one.
"""

import sys

import pytest

from lbe.data import beam
from lbe.data import build
from lbe.data import shards
from lbe.data import sources
from lbe.vocab import tokenizers


def prepare(path, cache, elsewhere=None):
  build.prepare(
    sources.Source(name='zh', path=str(path), holdout=0.1),
    tokenizers.Bytes(),
    cache_dir=cache,
    num_workers=1,
    progress=False,
    elsewhere=elsewhere,
  )
  files = [p for p in cache.rglob('*') if p.is_file()]
  return {str(p.relative_to(cache)): p.read_bytes() for p in files}


def test_beam_writes_the_same_bytes(tmp_path, monkeypatch):
  """A corpus tokenized on a cluster is found by a run anywhere."""
  pytest.importorskip('apache_beam')
  monkeypatch.setattr(shards, 'SHARD_BYTES', 2000)
  path = tmp_path / 'zh.txt'
  path.write_text('\n\n'.join(f'第{i}个文件 ' + 'ab ' * i for i in range(60)))
  here = prepare(path, tmp_path / 'here')
  there = prepare(path, tmp_path / 'there', beam.runner('DirectRunner'))
  assert len(here) > 10
  assert here == there


def test_without_beam_the_error_says_what_to_install(monkeypatch):
  """And where: it would downgrade protobuf beneath everything else."""
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  words = r"--beam_runner=FlinkRunner needs .* 'lbe\[beam\]' in an environment"
  with pytest.raises(ImportError, match=words):
    beam.runner('FlinkRunner')
