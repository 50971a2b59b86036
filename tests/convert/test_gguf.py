"""llama.cpp on an export: its own converter and library, where these are."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import lbe
from lbe.convert import certificate

import runs


@pytest.fixture
def converter():
  """convert_hf_to_gguf.py of LBE_LLAMA_CPP, a folder of llama.cpp."""
  found = pathlib.Path(os.environ.get('LBE_LLAMA_CPP', ''))
  path = found / 'convert_hf_to_gguf.py'
  if not path.is_file():
    pytest.skip('LBE_LLAMA_CPP names no folder of llama.cpp')
  return path


def test_a_gguf_of_an_export_answers_as_the_run_does(
  test_data, converter, tmp_path
):
  """Another order of heads, RoPE or vocabulary would show in every logit."""
  llama_cpp = pytest.importorskip(
    'llama_cpp', reason='llama-cpp-python is not installed'
  )
  source, target = tmp_path / 'ours', tmp_path / 'hf'
  stories, quick = test_data / 'ckpt_stories260K' / 'hf', runs.QUICK
  runs.run('import_hf', f'--source={stories}', f'--target={source}', quick)
  runs.run(
    'export_hf',
    f'--source={source}',
    f'--target={target}',
    quick,
    '--dtype=float32',
  )
  gguf = tmp_path / 'model.gguf'
  subprocess.run(
    [sys.executable, converter, target, '--outtype=f32', f'--outfile={gguf}'],
    check=True,
    capture_output=True,
  )
  ours = lbe.load(source)
  theirs = llama_cpp.Llama(
    str(gguf), n_ctx=512, logits_all=True, verbose=False, type_k=0, type_v=0
  )
  text = certificate.TEXT
  ids = [ours.tokenizer.bos_id, *ours.tokenizer.encode(text)]
  assert theirs.tokenize(text.encode(), add_bos=True) == ids
  ids = ids[:500]
  theirs.eval(ids)
  want_TV = np.asarray(ours.model([ids]))[0]
  np.testing.assert_allclose(theirs.scores[: len(ids)], want_TV, atol=1e-3)
