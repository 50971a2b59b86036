"""Did anything get slower since another commit? Both trees, in turns.

  PYTHONPATH=. python benchmarks/trees.py --before=COMMIT \
    --tokenizer=llama/tokenizer.model --texts=en/

What a user does with a LLaMA of 58 million parameters, each in processes of its
own that find the code of one tree or of the other: pretraining and scores in
it, a start with nothing kept and again, instruction tuning on examples of many
lengths, export, import, scores and answers of what was exported, and
tokenizing. A ratio is the time before over the time now; below 1 is slower.
"""

import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app
from absl import flags

from benchmarks import record
from lbe.text import lines

_BEFORE = flags.DEFINE_string('before', None, 'The other commit.')
_TOKENIZER = flags.DEFINE_string('tokenizer', None, 'Of 32,000 pieces.')
_TEXTS = flags.DEFINE_string('texts', None, 'A folder of text.')
_ROUNDS = flags.DEFINE_integer('rounds', 4, 'Of both trees.')
_ROOT = pathlib.Path(__file__).resolve().parent.parent

_SHAPE = dict(dim=512, num_layers=8, num_heads=8, num_kv_heads=8, mlp_dim=1376)
_QUIET = (
  *('--config.export_hf=False', '--config.sample_prompts=()'),
  '--config.checkpoint.every=1000',
)
_NO_SCORES = tuple(
  f'--config.evals.{name}.{when}'
  for name in ('en', 'zh')
  for when in ('every=0', 'at_start=False', 'at_end=False')
)
_TUNING = """
from lbe.configs import common
from lbe.configs import instruct


def get_config():
  config = common.base()
  config.data.sources.sft = instruct.source('alpaca', path='{}', proportion=1.0)
  config.data.seq_len, config.data.batch_size = 512, 4
  config.execution.compute_dtype, config.execution.scan = 'float32', False
  return config
"""
# In a process of its tree: the second call of each, whose programs are there.
_LOADED = """
import sys, time
import lbe
model = lbe.load(sys.argv[1])
texts = ['Once upon a time, in a town by the sea. ' * n for n in range(1, 33)]
prompts = [f'{n} {text[:30]}' for n, text in enumerate(texts)]
for name, call in (
  ('scores', lambda: model.score(prompts, texts)),
  ('one answer', lambda: model.generate(prompts[:1], max_new_tokens=64)),
  ('32 answers', lambda: model.generate(prompts, max_new_tokens=64)),
):
  call()
  start = time.perf_counter()
  call()
  print(f'{name}\\t{time.perf_counter() - start}')
"""


def _run(tree, *command):
  """(seconds, what it printed) of a Python command in the tree."""
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, *command],
    cwd=tree,
    env={**os.environ, 'PYTHONPATH': str(tree)},
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise RuntimeError(f'{command} in {tree}: {done.stderr[-2000:]}')
  return time.perf_counter() - start, done.stdout


def _median(rows, name):
  """Of the lines behind the first with it, which waits for compilation."""
  return statistics.median([r[name] for r in rows if name in r][1:])


def _examples(path):
  """Alpaca's fields, with responses from a few words to hundreds."""
  words = (_ROOT / 'lbe' / 'data' / 'sample' / 'en.txt').read_text().split()
  draw = random.Random(0)

  def some(most):
    at, n = draw.randrange(len(words)), draw.randint(3, most)
    return ' '.join(words[at : at + n])

  found = [
    {'instruction': some(20), 'input': '', 'output': some(250)}
    for _ in range(600)
  ]
  path.write_text(json.dumps(found))


def _measured(tree, tuning, root):
  """{what: seconds} of one tree; `root` is an empty folder."""
  found, run = {}, root / 'run'
  pretraining = (
    *('-m', 'lbe.train', '--config=configs/quickstart.py', *_QUIET),
    *(f'--config.model.{k}={v}' for k, v in _SHAPE.items()),
    f'--config.tokenizer={_TOKENIZER.value}',
    *('--config.data.seq_len=512', '--config.data.batch_size=4'),
    '--config.model.max_positions=512',
  )
  _run(
    tree,
    *pretraining,
    *('--config.budget.steps=9', '--config.log_every=1'),
    *('--config.evals.zh.every=0', '--config.evals.en.every=3'),
    '--config.evals.en.limit=8',
    f'--workdir={run}',
  )
  rows = lines.rows(run / 'metrics.jsonl')
  found['pretraining step'] = _median(rows, 'speed/seconds_per_step')
  found['scores in a run'] = _median(rows, 'speed/evaluation_seconds')
  start = (
    *('-m', 'lbe.train', '--config=configs/quickstart.py', *_QUIET),
    *('--config.tokenizer=bytes', '--config.budget.steps=1', *_NO_SCORES),
    f'--compilation_cache={root}/compiled',
    f'--config.data.cache_dir={root}/data',
  )
  for name in ('cold start', 'warm start'):
    found[name], _ = _run(tree, *start, f'--workdir={root}/{name.split()[0]}')
  tuned = root / 'tuned'
  _run(
    tree,
    *('-m', 'lbe.train', f'--config={tuning}', *_QUIET),
    *(f'--config.init_from={run}', '--config.log_every=1'),
    *('--config.budget.steps=6', f'--workdir={tuned}'),
  )
  rows = lines.rows(tuned / 'metrics.jsonl')
  found['instruction step'] = _median(rows, 'speed/seconds_per_step')
  found['export'], _ = _run(
    tree, '-m', 'lbe.export_hf', f'--source={run}', f'--target={root}/hf'
  )
  found['import'], _ = _run(
    tree, '-m', 'lbe.import_hf', f'--source={root}/hf', f'--target={root}/in'
  )
  _, told = _run(tree, '-c', _LOADED, str(root / 'hf'))
  for line in told.splitlines():
    if '\t' in line:
      name, seconds = line.split('\t')
      found[name] = float(seconds)
  found['tokenizing'], _ = _run(
    tree,
    *('-m', 'lbe.prepare', '--config=configs/quickstart.py'),
    f'--config.tokenizer={_TOKENIZER.value}',
    f'--config.data.sources.en.path={_TEXTS.value}',
    f'--config.data.cache_dir={root}/prepared',
    f'--workdir={root}/prepare',
  )
  return found


def main(argv):
  del argv
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    before = folder / 'before'
    git = ['git', '-C', str(_ROOT)]
    subprocess.run(
      [*git, 'worktree', 'add', '--detach', str(before), _BEFORE.value],
      check=True,
    )
    try:
      _compare(folder, {'before': before, 'now': _ROOT})
    finally:
      subprocess.run([*git, 'worktree', 'remove', '--force', str(before)])


def _compare(folder, trees):
  tuning = folder / 'tuning.py'
  _examples(folder / 'sft.json')
  tuning.write_text(_TUNING.format(folder / 'sft.json'))
  times = {name: [] for name in trees}
  for i in range(_ROUNDS.value):
    # A machine that gets slower all the while is not to be held against one.
    for name in sorted(trees, reverse=i % 2 == 1):
      root = folder / f'{name}{i}'
      root.mkdir()
      times[name].append(_measured(trees[name], tuning, root))
      told = (f'{k} {v:.2f}' for k, v in times[name][-1].items())
      print(f'{name}: {"  ".join(told)}', flush=True)
  ratios = {
    what: [
      before[what] / now[what]
      for before, now in zip(times['before'], times['now'], strict=True)
    ]
    for what in times['now'][0]
  }
  record.write(
    'trees',
    {
      'setting': f'before is {_BEFORE.value}',
      'rounds': _ROUNDS.value,
      **{
        what: {
          'median': round(statistics.median(found), 3),
          'range': [round(min(found), 3), round(max(found), 3)],
          'seconds_before': round(
            statistics.median(x[what] for x in times['before']), 3
          ),
          'seconds': round(statistics.median(x[what] for x in times['now']), 3),
        }
        for what, found in ratios.items()
      },
    },
  )


if __name__ == '__main__':
  app.run(main)
