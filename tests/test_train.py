"""The train program, from the command line to its files."""

import json
import re
import shutil

import numpy as np
import pytest

from lbe.convert import stored
from lbe.run import checkpoint

import runs

STEPS = '--config.budget.steps=4'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(workdir, what it printed) of one tiny run with scores and samples."""
  workdir = tmp_path_factory.mktemp('run')
  output = runs.run(
    'train',
    *runs.TINY,
    STEPS,
    '--config.evals.en.every=2',
    '--config.evals.zh.at_start=True',
    "--config.sample_prompts=('The ',)",
    '--config.sample_max_new_tokens=8',
    '--config.export_hf=True',
    '--profile=2:3',
    f'--workdir={workdir}',
  )
  return workdir, output


def test_a_run_says_first_what_it_will_do(trained):
  """Data table, a decoded row, parameters, tokens, mesh, memory."""
  _, output = trained
  for words in (
    'source  documents',
    'held out of zh:',
    'row 0 of step 0:\n┃',
    'parameters, 259 pieces in 384 rows',
    'run: 4 steps of 512 tokens = 2,048 tokens',
    "mesh: {'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 1}",
    'memory per device: about',
    'starting from random weights',
    'compiled the step in',
    'step 4/4  loss',
    'ETA 0:00:00',
    'saving checkpoint 4',
    'saved checkpoint 4',
    "'The ' goes on\n  at step 0: ",
    '\n  at step 4: ',
    'checkpoints, scores (results.json), samples and train.log are in ',
    '\nnext: lbe generate --model=',
    'certificate (',
  ):
    assert words in output, words


def test_a_profile_names_what_is_heavy(trained):
  """A trace where the tools look for it; shares of known operations."""
  workdir, output = trained
  assert list(workdir.glob('profile/plugins/profile/*/*.xplane.pb'))
  told = re.findall(r'^ +([\d.]+)%  (\S+)  \(\S+.*\)$', output, re.M)
  assert len(told) == 5
  shares = [float(share) for share, _ in told]
  assert shares == sorted(shares, reverse=True) and 20 < sum(shares) < 100
  assert any(re.match('(for|back)ward/', name) for _, name in told)


def test_metrics_and_results_have_a_row_for_each_step_and_score(trained):
  """metrics.jsonl by step; results.jsonl with protocol, N, and interval."""
  workdir, _ = trained
  rows = runs.lines(workdir)
  assert [row['step'] for row in rows] == [0, 1, 2, 3, 4]
  assert all('train/loss' in row for row in rows[1:])
  last = rows[-1]
  seen = sum(last[f'seen/{name}/tokens'] for name in ('en', 'zh'))
  assert seen == pytest.approx(4 * 8 * 64, rel=0.02)
  assert last['seen/zh/bytes'] > 0 < last['seconds/compile']
  assert last['seconds/train'] >= rows[1]['seconds/train'] > 0
  scored = [r['step'] for r in rows if 'eval/en/bits_per_byte' in r]
  assert scored == [2, 4]
  assert [r['step'] for r in rows if 'eval/zh/bits_per_byte' in r] == [0, 4]
  results = [
    json.loads(line)
    for line in (workdir / 'results.jsonl').read_text().splitlines()
  ]
  row = next(
    r for r in results if r['name'] == 'bits_per_byte' and r['step'] == 4
  )
  assert row['protocol'] == 'perplexity@rolling'
  # Of so few documents there is no interval.
  assert 'interval95' not in row and row['unit'] == 'documents'
  assert row['num_units'] == 4 and len(row['data_hash']) == 16


def test_the_resolved_config_is_saved(trained):
  """What ran can be read without the code that ran."""
  record = json.loads((trained[0] / 'config.json').read_text())
  assert record['config']['budget']['steps'] == 4
  assert record['config']['optim']['b2'] == 0.95
  assert record['model']['dim'] == 32
  assert record['num_steps'] == 4


def test_every_file_of_a_run_is_in_the_page(trained):
  """Catches a file that is written and of which docs/workdir.md says nothing.

  A run of quickstart's kind with scores, samples, profile and export; what it
  holds below a folder of the page is that folder's."""
  workdir, _ = trained
  page = (runs.ROOT / 'docs' / 'workdir.md').read_text(encoding='utf-8')
  cells = ' '.join(re.findall(r'^\| (`.*?`) \|', page, re.M))
  names = re.findall('`(.+?)`', cells)
  known = [re.sub('[A-Z]+', '[^/]+', re.escape(name)) for name in names]
  inside = [x + '.+' for x in known if x.endswith('/')]
  # Of these two folders each entry has a line of its own.
  inside = [x for x in inside if x not in ('checkpoints/[^/]+/.+', 'data/.+')]
  sidecars = r'checkpoints/[^/]+/(_CHECKPOINT_METADATA|commit_success\.txt)'
  files = [
    str(path.relative_to(workdir))
    for path in workdir.rglob('*')
    if path.is_file()
  ]
  assert len(files) > 20
  for file in files:
    assert re.fullmatch('|'.join([*known, *inside, sidecars]), file), file


def kept(workdir):
  """{name: bytes} of what a run keeps at the top of its folder."""
  return {
    path.name: path.read_bytes()
    for path in workdir.iterdir()
    if path.is_file() and path.name != 'in_use'
  }


def test_the_scores_of_training_are_those_of_evaluate(trained):
  """The same evaluator on the same held-out texts of the stored model.

  In the run's own workdir, of which nothing is written over: its scores and its
  config were gone, and the run was not resumed any more."""
  workdir, _ = trained
  before = kept(workdir)
  # Its config, with a field that is changed.
  output = runs.run(
    *('evaluate', '--config.eval_batch_size=16', f'--run={workdir}'),
    num_devices=2,
  )
  assert kept(workdir) == before
  (scores,) = workdir.glob('evaluations/*')
  assert re.fullmatch(rf'{workdir.name}-4-[0-9a-f]{{8}}', scores.name)
  assert output.rstrip().endswith(f'scores are in {scores}')
  last = runs.lines(workdir)[-1]
  for name in ('en', 'zh'):
    score = f'{last[f"eval/{name}/bits_per_byte"]:.4f}'
    assert (
      f'| {name} | perplexity@rolling | bits_per_byte ↓ | {score} |' in output
    )
  rows = [
    json.loads(line)
    for line in (scores / 'results.jsonl').read_text().splitlines()
  ]
  assert all(row['model'] == f'{workdir}/checkpoints/4' for row in rows)


def test_an_interrupted_evaluation_goes_on_behind_what_is_scored(
  trained, tmp_path
):
  """Hours of an exam, because a later evaluator had no memory."""
  workdir, _ = trained
  command = (
    *runs.TINY,
    '--config.tokenizer=',
    f'--config.init_from={workdir}',
    f'--config.data.cache_dir={workdir}/data',
    f'--workdir={tmp_path}',
  )
  whole = runs.run('evaluate', *command)
  files = [tmp_path / f'{name}.jsonl' for name in ('results', 'predictions')]
  expected = [path.read_text() for path in files]
  # As if it had been killed while zh was scored.
  (tmp_path / 'results.json').unlink()
  results, predictions = (text.splitlines(True) for text in expected)
  first = [line for line in results if '"en"' in line]
  assert 0 < len(first) < len(results)
  files[0].write_text(''.join(first) + '{"torn')
  files[1].write_text(''.join(predictions[:-2]))

  output = runs.run('evaluate', *command)
  assert 'en: scored before the last call was interrupted' in output
  assert [path.read_text() for path in files] == expected
  assert output[output.index('| evaluator') :] == whole[whole.index('| eval') :]
  # What has ended is scored anew, and so is another config.
  assert 'scored before' not in runs.run('evaluate', *command)
  (tmp_path / 'results.json').unlink()
  other = '--config.eval_batch_size=3'
  before = kept(tmp_path)
  assert 'scored before' not in runs.run('evaluate', *command, other)
  # Scores of another config, as those of another model, have their own folder.
  assert kept(tmp_path) == before
  assert len(list(tmp_path.glob('evaluations/*/predictions.jsonl'))) == 1


def test_scores_do_not_go_on_with_another_model_at_the_same_path(
  trained, tmp_path
):
  """One table had the scores of two models under one name."""
  workdir, _ = trained
  step = tmp_path / 'model' / 'checkpoints' / '4'
  shutil.copytree(workdir / 'checkpoints' / '4', step)
  scores = tmp_path / 'scores'
  command = (
    *runs.TINY,
    '--config.tokenizer=',
    f'--config.init_from={step}',
    f'--config.data.cache_dir={workdir}/data',
    f'--workdir={scores}',
  )
  runs.run('evaluate', *command)
  (scores / 'results.json').unlink()  # as if it had been interrupted
  opened = stored.open_model(step)
  shutil.rmtree(step)
  runs.save_random(tmp_path / 'other', opened.config, opened.tokenizer)
  (tmp_path / 'other' / 'checkpoints' / '0').rename(step)
  before = kept(scores)
  assert 'scored before' not in runs.run('evaluate', *command)
  assert kept(scores) == before
  assert len(list(scores.glob('evaluations/*/results.jsonl'))) == 1


def test_samples_that_cannot_be_are_refused_first(tmp_path):
  """It was said behind the first evaluation, whose steps were lost."""
  output = runs.run(
    'train',
    *runs.TINY,
    "--config.sample_prompts=('The ',)",
    '--config.sample_max_new_tokens=256',
    f'--workdir={tmp_path}',
    status=1,
  )
  told = 'sample_prompts[0] has 5 tokens, and with sample_max_new_tokens=256'
  assert told in output
  assert not (tmp_path / 'data').exists()


def test_a_refused_command_writes_nothing(trained):
  """A data.txt of what was never trained on."""
  workdir, _ = trained
  before = kept(workdir)
  output = runs.run(
    'train',
    *runs.TINY,
    STEPS,
    '--config.data.sources.zh.path=README.md',
    '--dry_run',
    f'--workdir={workdir}',
    status=1,
  )
  assert 'belongs to another run' in output and '\n  data: ' in output
  assert kept(workdir) == before


def test_generate_goes_on_from_a_prompt(trained, tmp_path):
  """Greedy; samples as JSONL; from the folder that was exported."""
  workdir, _ = trained
  flags = ('--max_new_tokens=12', '--prompt=今天')
  # What it waits for may stand before it.
  shown = runs.run('generate', f'--model={workdir}', *flags)
  assert '\n今天' in f'\n{shown}'
  assert runs.run('generate', f'--model={workdir}/hf', *flags).strip()
  samples = tmp_path / 'samples.jsonl'
  runs.run(
    'generate',
    f'--model={workdir}',
    '--num_samples=5',
    '--batch_size=2',
    '--temperature=1',
    '--max_new_tokens=12',
    f'--output={samples}',
  )
  texts = [json.loads(x)['text'] for x in samples.read_text().splitlines()]
  assert len(texts) == 5 and len(set(texts)) > 1


def test_init_from_starts_a_new_run_from_the_weights(trained, tmp_path):
  """Step 0 of the new run scores as the last step of the old one."""
  workdir, _ = trained
  output = runs.run(
    'train',
    *runs.TINY,
    '--config.tokenizer=',
    f'--config.init_from={workdir}',
    '--config.budget.steps=1',
    '--config.evals.zh.at_start=True',
    f'--config.data.cache_dir={workdir}/data',
    f'--workdir={tmp_path}',
    num_devices=4,
  )
  assert f'starting from the weights of {workdir}/checkpoints/4' in output
  old, new = runs.lines(workdir)[-1], runs.lines(tmp_path)[0]
  assert new['step'] == 0
  assert new['eval/zh/bits_per_byte'] == pytest.approx(
    old['eval/zh/bits_per_byte'], abs=1e-5
  )


def test_a_dry_run_checks_everything_and_trains_nothing(tmp_path):
  output = runs.run(
    'train', *runs.TINY, STEPS, '--dry_run', f'--workdir={tmp_path}'
  )
  for words in (
    'row 0 of step 0:',
    'memory per device: about',
    'dry run: everything above holds; nothing was trained.',
  ):
    assert words in output
  assert 'compiled' not in output
  assert not (tmp_path / 'checkpoints').exists()
  assert not (tmp_path / 'metrics.jsonl').exists()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (
      ('--config.mesh.tensor=3', '--config.mesh.fsdp=1'),
      "error: mesh={'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 3} asks",
    ),
    (
      ('config.optim.peak_lr=7',),
      "error: 'config.optim.peak_lr=7' is no flag; write --config.optim.pea",
    ),
    (
      ('--profile=3',),
      "error: profile='3' is no span of steps; give FROM:TO",
    ),
    (
      ('--config.data.seq_len=512',),
      "error: data.seq_len=512 is longer than the model's 256 positions",
    ),
    (
      ('--config.data.sources.zh.path=/nowhere',),
      'error: data.sources.zh.path: there is nothing at /nowhere; give a',
    ),
  ],
)
def test_mistakes_end_a_run_with_one_line(tmp_path, changes, words):
  """No traceback, no compilation, nothing half made."""
  output = runs.run(
    'train', *runs.TINY, STEPS, *changes, f'--workdir={tmp_path}', status=1
  )
  assert words in output
  assert 'Traceback' not in output
  assert not list(tmp_path.glob('data/*-*')), 'text was tokenized first'


def test_a_run_that_diverges_ends_and_saves_nothing_that_is_spoilt(tmp_path):
  """A night of steps with NaN, and all checkpoints that were kept of it."""
  command = (
    *runs.TINY,
    '--config.budget.steps=40',
    '--config.checkpoint.every=4',
    '--config.log_every=4',
    f'--workdir={tmp_path}',
  )
  wild = ('--config.optim.peak_lr=1e30', '--config.optim.warmup_fraction=0')
  output = runs.run('train', *command, *wild, status=1)
  assert 'step 8: 4 steps since the last line had no finite' in output
  assert 'error: the last 10 steps had no finite gradient' in output
  assert 'Traceback' not in output
  assert checkpoint.find(tmp_path).name == '8'
  table = checkpoint.load_array(tmp_path, 'embed_VD')
  assert np.isfinite(table).all()


EXAM = """
from lbe.configs import common
from lbe.configs import quickstart


def get_config():
  config = quickstart.get_config()
  config.evals.exam = common.multiple_choice(
    protocol='choices@letters', path={exam!r}, every=2, at_start=True
  )
  config.evals.samples = common.generation(
    path={prompts!r}, max_new_tokens=8, every=2
  )
  config.evals.en.update(at_start=True, every=2)
  config.forgetting.source = ('en/bits_per_byte',)
  config.forgetting.target = ('exam/acc',)
  return config
"""


def test_an_exam_runs_inside_training(tmp_path, monkeypatch):
  """On schedule, with rows, predictions and tables; compiled once.

  Its time is not that of steps, and none of them is left out of a row.
  """
  exam, config = tmp_path / 'exam.jsonl', tmp_path / 'config.py'
  prompts = tmp_path / 'prompts.jsonl'
  prompts.write_text('{"prompt": "One"}\n{"prompt": "and two"}')
  lines = (
    json.dumps({'question': f'{i}?', 'choices': ['a', 'b'], 'answer': i % 2})
    for i in range(6)
  )
  exam.write_text('\n'.join(lines))
  config.write_text(EXAM.format(exam=str(exam), prompts=str(prompts)))
  monkeypatch.setenv('JAX_LOG_COMPILES', '1')
  changes = [
    x for x in runs.TINY if not x.startswith(('--config=', '--config.evals.en'))
  ]
  output = runs.run(
    'train',
    f'--config={config}',
    *changes,
    '--config.evals.en.limit=4',
    '--config.evals.zh.at_start=True',  # its documents have other lengths
    '--config.budget.steps=4',
    '--config.log_every=4',
    f'--workdir={tmp_path / "run"}',
  )
  scorings = [
    m.start() for m in re.finditer(r'Compiling jit\(score_rows', output)
  ]
  assert scorings and max(scorings) < output.index('step 0: ')
  first_samples = output.index('step 2: ')
  assert 'Compiling jit(begin)' in output[:first_samples]
  assert 'Compiling' not in output[first_samples:]
  last = runs.lines(tmp_path / 'run')[-1]
  assert last['speed/evaluation_seconds'] > 0
  assert last['train/tokens'] > 3.5 * 512  # of all four steps
  run = tmp_path / 'run'
  rows = [
    json.loads(x) for x in (run / 'results.jsonl').read_text().split('\n')[:-1]
  ]
  accuracies = {r['step']: r['value'] for r in rows if r['name'] == 'acc'}
  assert sorted(accuracies) == [0, 2, 4]
  items = [
    json.loads(x) for x in (run / 'predictions.jsonl').read_text().splitlines()
  ]
  for step, value in accuracies.items():
    mine = [
      r['acc'] for r in items if (r['step'], r['evaluator']) == (step, 'exam')
    ]
    assert len(mine) == 6 and sum(mine) / 6 == value
  summary = json.loads((run / 'results.json').read_text())
  assert summary['exam']['acc']['value'] == accuracies[4]
  assert runs.lines(run)[-1]['eval/exam/acc'] == accuracies[4]
  assert '| 4 | ' in (run / 'forgetting.md').read_text()
  assert '| exam | choices@letters | acc ↑ |' in output


def test_the_best_is_saved_as_soon_as_it_is_scored(tmp_path):
  """Kept was the best of those that happened to be saved."""
  output = runs.run(
    'train',
    *runs.UP_AND_DOWN,
    f'--workdir={tmp_path}',
  )
  scored = {
    row['step']: row['eval/zh/bits_per_byte'] for row in runs.lines(tmp_path)
  }
  best = min(scored, key=scored.get)
  assert best < 6 == max(scored)
  assert checkpoint.steps(tmp_path) == [best, 6]
  assert 'no step had' not in output
