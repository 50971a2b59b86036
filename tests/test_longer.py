"""A run that is made longer, or branched off, is the one planned so before."""

import jax
import numpy as np
import pytest

from lbe.assemble import longer
from lbe.configs import common

import runs

# 8 rows a step of a source that ends within the first steps: an epoch's end
# lies before the branch and behind it.
COMMON = (
  *runs.TINY,
  '--config.optim.warmup_fraction=0',
  '--config.checkpoint.every=2',
  '--config.checkpoint.keep=9',
  '--config.evals.zh.at_start=True',
  '--log_batches',
)


def train(workdir, *flags, status=0):
  return runs.run(
    'train', *COMMON, *flags, f'--workdir={workdir}', status=status
  )


def steps(n, schedule='wsd'):
  return (f'--config.budget.steps={n}', f'--config.optim.schedule={schedule}')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """With runs of one plan, of 6, 12 and 20 steps, and a text of few rows."""
  folder = tmp_path_factory.mktemp('longer')
  text = '\n\n'.join(f'{i} ' * 20 for i in range(20))
  for name in ('zh', 'en'):
    (folder / f'{name}.txt').write_text(text)
  return folder


@pytest.fixture(scope='module')
def flags(folder):
  return (
    f'--config.data.sources.zh.path={folder}/zh.txt',
    f'--config.data.sources.en.path={folder}/en.txt',
    '--config.data.sources.zh.holdout=0.3',
    '--config.data.sources.en.holdout=0.3',
    f'--config.data.cache_dir={folder}/data',
  )


def same(a, b):
  """Every loss, score, weight and moment."""
  assert runs.losses(a) == runs.losses(b)
  jax.tree.map(np.testing.assert_array_equal, runs.load(a), runs.load(b))
  assert (a / 'results.jsonl').exists() == (b / 'results.jsonl').exists()


def test_a_constant_run_made_longer_is_the_long_one(folder, flags):
  """Another warm-up, another place in the data, an export of the old step."""
  whole, longer_run = folder / 'constant', folder / 'constant_longer'
  output = train(whole, *flags, *steps(8, 'constant'))
  digests = runs.digests(output)
  first = runs.digests(
    train(longer_run, *flags, *steps(4, 'constant'), '--config.export_hf=True')
  )
  exported = (longer_run / 'hf' / 'model.safetensors').read_bytes()
  output = train(
    longer_run, *flags, *steps(8, 'constant'), '--config.export_hf=True'
  )
  assert 'changed since the run began: budget.steps: 4 → 8' in output
  assert 'resuming at step 4' in output
  assert first | runs.digests(output) == digests
  assert len(digests) == 8 * 8 and 'epochs' in output
  same(longer_run, whole)
  assert (longer_run / 'hf' / 'model.safetensors').read_bytes() != exported
  output = train(longer_run, *flags, *steps(2, 'constant'), status=1)
  assert 'has 8 steps behind it, and the budget is 2' in output


def test_wsd_branches_off_before_its_decay(folder, flags):
  """Moments that begin anew, rows seen twice or never, a decay in the past."""
  decay = '--config.optim.decay_fraction=0.5'
  short, whole, branch = (folder / x for x in ('short', 'whole', 'branch'))
  train(short, *flags, *steps(8), decay)  # decays from step 5 on
  digests = runs.digests(train(whole, *flags, *steps(12), decay))
  long = (*flags, *steps(12), decay)

  output = train(short, *long, status=1)
  assert 'its decay began at step 5' in output
  assert f'--config.branch_from={short}/checkpoints/STEP' in output
  assert '(there is 2, 4)' in output
  output = train(
    branch, *long, f'--config.branch_from={short}/checkpoints/8', status=1
  )
  assert 'its decay began at step 5' in output

  command = (*long, f'--config.branch_from={short}/checkpoints/4')
  output = train(branch, *command)
  assert f'branching off {short}/checkpoints/4 at step 4' in output
  own = runs.digests(output)
  assert own == {k: v for k, v in digests.items() if k[0] > 4}
  same(branch, whole)
  # From here on it needs no other run.
  short.rename(folder / 'moved')
  output = train(branch, *command)
  assert 'resuming at step 12' in output
  moved = f'--config.branch_from={folder}/moved/checkpoints/4'
  output = train(branch, *long, moved)
  assert 'changed since the run began: branch_from' in output
  output = train(branch, *long, moved[:-1] + '2', status=1)
  assert 'belongs to another run' in output


def facts(num_steps, **optim):
  config = common.base()
  config.optim.update(optim)
  return {'config': config.to_dict(), 'num_steps': num_steps}


@pytest.mark.parametrize(
  'old, new, step, words',
  [
    (facts(100), facts(200), 50, "'cosine' falls from the warm-up"),
    (
      facts(100, schedule='wsd'),
      facts(200, schedule='wsd'),
      50,
      'keep it with --config.optim.warmup_fraction=0.015',
    ),
    (
      facts(100, schedule='constant', warmup_fraction=0.0),
      facts(40, schedule='constant', warmup_fraction=0.0),
      50,
      'has 50 steps behind it, and the budget is 40',
    ),
    (
      facts(100, schedule='wsd', warmup_fraction=0.0),
      facts(200, schedule='wsd', warmup_fraction=0.0),
      95,
      'its decay began at step 91',
    ),
  ],
)
def test_a_plan_under_which_the_past_were_another_is_refused(
  old, new, step, words
):
  with pytest.raises(ValueError, match=words):
    longer.check(old, new, step, 'run')


def test_what_keeps_the_past_is_taken():
  """Also a constant run that is to decay, and a rounded warm-up."""
  old = facts(100, schedule='constant')
  new = facts(200, schedule='wsd', warmup_fraction=0.015)
  longer.check(old, new, 100, 'run')
  longer.check(facts(100), facts(200), 0, 'run')
