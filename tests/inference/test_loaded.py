"""What a notebook gets of `lbe.load`."""

import re
import subprocess
import sys

import numpy as np
import pytest

import lbe

import conftest
import runs


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """The folder with runs/quickstart, a run of a few steps."""
  folder = tmp_path_factory.mktemp('notebook')
  runs.run(
    'train',
    *runs.TINY,
    f'--workdir={folder}/runs/quickstart',
    '--config.budget.steps=2',
  )
  return folder


def test_the_lines_of_the_readme_run(trained, monkeypatch, capsys):
  """A first page that promises what is not there."""
  text = (conftest.ROOT / 'README.md').read_text(encoding='utf-8')
  (lines,) = re.findall(r'```python\n(.*?)```', text, re.S)
  monkeypatch.chdir(trained)
  names = {}
  exec(lines, names)
  it, logits_BTV = names['it'], names['logits_BTV']
  num = len(it.tokenizer.encode('Hello'))
  assert logits_BTV.shape == (1, num, it.tokenizer.vocab_size)
  (logprob,) = re.findall(r'^\[(-\d+\.\d+)\]$', capsys.readouterr().out, re.M)
  assert -1000 < float(logprob) < 0


def test_the_lines_on_notebooks_run_and_train(trained, monkeypatch):
  """A page on Flax whose step cannot be run, or does not learn."""
  (trained / 'runs' / 'zh').symlink_to(trained / 'runs' / 'quickstart')
  monkeypatch.chdir(trained)
  text = (conftest.ROOT / 'docs/generate.md').read_text(encoding='utf-8')
  names = {}
  for lines in re.findall(r'```python\n(.*?)```', text, re.S):
    exec(lines, names)
  it = names['it']
  before = it.score(['a'], ['b'])
  for _ in range(2):
    loss = names['train_step'](
      it.model, names['optimizer'], np.ones((2, 9), int)
    )
  assert np.isfinite(loss) and it.score(['a'], ['b']) != before


def test_a_score_is_the_sum_of_the_log_probabilities_behind_bos(trained):
  """A continuation that loses its first token, or a context without BOS."""
  it = lbe.load(trained / 'runs' / 'quickstart')
  found = it.score(['The sky is', 'The'], [' blue', ' end.'])
  for value, context, rest in zip(
    found, ['The sky is', 'The'], [' blue', ' end.'], strict=True
  ):
    ids = [it.tokenizer.bos_id, *it.tokenizer.encode(context + rest)]
    logits_TV = np.asarray(it.model([ids])[0], np.float64)
    logprobs_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
    own = range(len(ids) - len(it.tokenizer.encode(rest)), len(ids))
    expected = sum(logprobs_TV[t - 1, ids[t]] for t in own)
    assert value == pytest.approx(expected, abs=1e-4)


def test_generate_gives_the_texts_that_the_program_writes(trained):
  """Another dtype, BOS or end than `python -m lbe.generate` has."""
  folder = trained / 'runs' / 'quickstart'
  it = lbe.load(folder)
  (text,) = it.generate(['Once'], max_new_tokens=8)
  out = runs.run(
    'generate', f'--model={folder}', '--prompt=Once', '--max_new_tokens=8'
  )
  assert f'Once{text}' in out
  several = it.generate(
    ['a', 'b'], max_new_tokens=4, temperature=1.0, num_samples=3, seed=1
  )
  assert len(several) == 6


def test_a_folder_that_is_no_model_says_what_was_looked_for(tmp_path):
  """An error about a file of ours that nobody who calls `load` knows."""
  words = r'no finished step in checkpoints/.*no config.json with a model_type'
  with pytest.raises(ValueError, match=words):
    lbe.load(tmp_path)
  with pytest.raises(ValueError, match='there is no such folder'):
    lbe.load(tmp_path / 'nothing')


def test_one_text_is_not_taken_for_a_list_of_letters(trained):
  """generate('Once') that goes on from O, n, c and e."""
  it = lbe.load(trained / 'runs' / 'quickstart')
  with pytest.raises(ValueError, match="prompts='Once' is one text"):
    it.generate('Once')
  with pytest.raises(ValueError, match="contexts='a' is one text"):
    it.score('a', ['b'])
  with pytest.raises(ValueError, match='1 contexts, but 2 continuations'):
    it.score(['a'], ['b', 'c'])


def test_importing_lbe_starts_no_jax_and_programs_no_flax():
  """Half a second of every start for a library that programs do not use."""
  code = (
    'import sys, lbe; assert "jax" not in sys.modules; '
    'import lbe.train; assert "flax" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=conftest.ROOT)
