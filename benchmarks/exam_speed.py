"""How fast are scores beside lm-evaluation-harness's own model?

  PYTHONPATH=. python benchmarks/exam_speed.py --data=TEST_DATA

C-Eval with five demonstrations, pages of WikiText-2 in windows of all
positions, and SIB-200 in 15 languages, asked in English; the same items and the
same weights (about 20M parameters, 4,096 positions, float32). The harness runs
its own task files on transformers (of SIB-200 ones with our prompt), in
whichever batch size of 1, 8 and 32 is the fastest, ours in whichever of 4 and
16. Timed in turns, from texts to scores; ours is compiled before.
"""

import pathlib
import statistics
import tempfile
import time

import torch
from absl import app
from absl import flags

from benchmarks import record
from lbe.evals import multiple_choice
from lbe.evals import perplexity
from lbe.text import lines
from lbe.vocab import tokenizers
from tests import harness

_DATA = flags.DEFINE_string('data', None, 'The folder of test data.')
_WHAT = flags.DEFINE_multi_enum(
  'what',
  ['exam', 'texts', 'sib200'],
  ['exam', 'texts', 'sib200'],
  'What is scored.',
)
_SUBJECTS = flags.DEFINE_list('subjects', ['law', 'physician'], 'Of C-Eval.')
_PAGES = flags.DEFINE_integer('pages', 5, 'Of WikiText-2 test.')
_SENTENCES = flags.DEFINE_integer(
  'sentences', 0, 'Of SIB-200 in each language; 0 is all.'
)
_OUR_SIZES = flags.DEFINE_list('our_sizes', ['4', '16'], 'Batch sizes.')
_THEIR_SIZES = flags.DEFINE_list('their_sizes', ['1', '8', '32'], 'Of theirs.')
_PAIRS = flags.DEFINE_integer('pairs', 7, 'Alternating measurements.')


def main(argv):
  del argv
  torch.set_num_threads(2)
  data = pathlib.Path(_DATA.value)
  tokenizer = tokenizers.load(data / 'tok_llama_32000')
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    folder = harness.write_model(scratch / 'model', tokenizer)
    ours = {
      size: harness.load_ours(folder, batch_size=size)
      for size in map(int, _OUR_SIZES.value)
    }
    theirs = {
      size: harness.load_theirs(folder, folder, bos=True, batch_size=size)
      for size in map(int, _THEIR_SIZES.value)
    }
    for what in _WHAT.value:
      make = {'exam': _exam, 'texts': _texts, 'sib200': _sib200}[what]
      task, tasks, num_fewshot, figures = make(data, scratch)

      def run_ours(model, task=task):
        start = time.perf_counter()
        task.evaluate(model, name='own', step=None)
        return time.perf_counter() - start

      def run_theirs(model, tasks=tasks, num_fewshot=num_fewshot):
        return harness.run(model, scratch, tasks, num_fewshot=num_fewshot)[1]

      _compare(figures, ours, run_ours, theirs, run_theirs)


def _exam(data, scratch):
  """(our evaluator, the harness's tasks, demonstrations, facts)."""
  made = multiple_choice.make(
    path=data / 'bench_ceval',
    protocol='ceval@lmeval',
    subjects=_SUBJECTS.value,
    split='',
    num_shots=None,
    limit=0,
    bos=True,
    cut='',
  )
  tasks = [harness.ceval_task(scratch, data, s) for s in _SUBJECTS.value]
  return made, tasks, 5, {'setting': 'C-Eval, 5-shot', 'items': len(made.items)}


def _texts(data, scratch):
  task = harness.wikitext_task(scratch, data, limit=_PAGES.value)
  pages = [row['page'] for row in lines.rows(scratch / f'{task}_test.jsonl')]
  made = perplexity.Documents(
    pages,
    [str(i) for i in range(len(pages))],
    max_len=harness.SHAPE['max_positions'],
  )
  return made, [task], 0, {'setting': 'WikiText-2 pages', 'items': len(pages)}


def _sib200(data, scratch):
  limit = _SENTENCES.value
  made = multiple_choice.make(
    path=data / 'bench_sib200',
    protocol='sib200@labels',
    subjects=(),
    split='',
    num_shots=None,
    limit=limit,
    bos=True,
    cut='harness',
  )
  tasks = [
    harness.sib200_task(scratch, data, code, 'labels', limit=limit)
    for code in dict.fromkeys(item.group for item in made.items)
  ]
  figures = {
    'setting': f'SIB-200, {len(tasks)} languages',
    'items': len(made.items),
  }
  return made, tasks, 0, figures


def _compare(figures, ours, run_ours, theirs, run_theirs):
  compiling = [run_ours(model) for model in ours.values()][0]
  own = {size: run_ours(model) for size, model in ours.items()}
  trials = {size: run_theirs(model) for size, model in theirs.items()}
  own_best, best = min(own, key=own.get), min(trials, key=trials.get)
  seconds = {'ours': [], 'theirs': []}
  for _ in range(_PAIRS.value):
    seconds['ours'].append(run_ours(ours[own_best]))
    seconds['theirs'].append(run_theirs(theirs[best]))
  ratios = [
    b / a for a, b in zip(seconds['ours'], seconds['theirs'], strict=True)
  ]
  record.write(
    'exam_speed',
    {
      **figures,
      'peer': 'lm-evaluation-harness, hf',
      'pairs': _PAIRS.value,
      'seconds_with_compilation': round(compiling, 2),
      'seconds': {
        name: round(statistics.median(x), 2) for name, x in seconds.items()
      },
      'our_seconds_by_batch_size': {
        size: round(x, 2) for size, x in own.items()
      },
      'their_seconds_by_batch_size': {
        size: round(x, 2) for size, x in trials.items()
      },
      'ratio_median': round(statistics.median(ratios), 3),
      'ratio_range': [round(min(ratios), 3), round(max(ratios), 3)],
    },
    packages=('jax', 'lm_eval', 'torch', 'transformers'),
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['data'])
  app.run(main)
