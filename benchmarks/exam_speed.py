"""How fast are scores beside lm-evaluation-harness's own model?

  PYTHONPATH=. python benchmarks/exam_speed.py --data=TEST_DATA

C-Eval with five demonstrations, pages of WikiText-2 in windows of all
positions, SIB-200 in 15 languages, asked in English, and BLiMP; the same items
and the same weights (about 20M parameters, 4,096 positions, float32). The
harness runs its own task files on transformers (of SIB-200 ones with our
prompt), in whichever batch size of 1, 8 and 32 is the fastest, ours in
whichever of 4 and 16. Timed in turns, from texts to scores, by the clock and in
processor seconds, which other processes change less; ours is compiled before.
"""

import os
import pathlib
import tempfile
import time

import numpy as np
import torch
from absl import app
from absl import flags

from benchmarks import record
from lbe.evals import multiple_choice
from lbe.evals import pairs
from lbe.evals import perplexity
from lbe.text import lines
from lbe.vocab import tokenizers
from tests import harness

_DATA = flags.DEFINE_string('data', None, 'The folder of test data.')
_WHAT = flags.DEFINE_multi_enum(
  'what',
  ['exam', 'texts', 'sib200', 'blimp'],
  ['exam', 'texts', 'sib200', 'blimp'],
  'What is scored.',
)
_SUBJECTS = flags.DEFINE_list('subjects', ['law', 'physician'], 'Of C-Eval.')
_PAGES = flags.DEFINE_integer('pages', 5, 'Of WikiText-2 test.')
_SENTENCES = flags.DEFINE_integer(
  'sentences', 0, 'Of SIB-200 in each language; 0 is all.'
)
_PARADIGMS = flags.DEFINE_integer(
  'paradigms', 67, 'Of BLiMP, each whole; 67 is all.'
)
_OUR_SIZES = flags.DEFINE_list('our_sizes', ['4', '16'], 'Batch sizes.')
_THEIR_SIZES = flags.DEFINE_list('their_sizes', ['1', '8', '32'], 'Of theirs.')
_PAIRS = flags.DEFINE_integer('pairs', 7, 'Alternating measurements.')


def main(argv):
  del argv
  # As many as taskset leaves, which is what XLA takes, too.
  torch.set_num_threads(len(os.sched_getaffinity(0)))
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
      make = {
        'exam': _exam,
        'texts': _texts,
        'sib200': _sib200,
        'blimp': _blimp,
      }[what]
      task, tasks, num_fewshot, figures = make(data, scratch)

      def run_ours(model, task=task):
        start = _clocks()
        task.evaluate(model, name='own', step=None)
        return _clocks() - start

      def run_theirs(model, tasks=tasks, num_fewshot=num_fewshot):
        start = _clocks()
        harness.run(model, scratch, tasks, num_fewshot=num_fewshot)
        return _clocks() - start

      _compare(figures, ours, run_ours, theirs, run_theirs)


def _clocks():
  """[seconds by the clock, of the processor]."""
  return np.array([time.perf_counter(), time.process_time()])


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


def _blimp(data, scratch):
  every = harness.paradigms(data)
  some = every[:: len(every) // _PARADIGMS.value][: _PARADIGMS.value]
  folder = scratch / 'blimp'
  folder.mkdir()
  for name in some:
    file = f'{name}.jsonl'
    (folder / file).symlink_to(data / 'bench_blimp' / 'data' / file)
  made = pairs.make(
    protocol=pairs.BLIMP,
    path=folder,
    texts=None,
    sides=(),
    parts=(),
    limit=0,
    seed=0,
  )
  tasks = [harness.blimp_task(scratch, data, name) for name in some]
  figures = {
    'setting': f'BLiMP, {len(some)} of {len(every)} paradigms',
    'items': len(made.pairs),
  }
  return made, tasks, 0, figures


def _compare(figures, ours, run_ours, theirs, run_theirs):
  compiling = [run_ours(model) for model in ours.values()][0]
  own = {size: run_ours(model) for size, model in ours.items()}
  trials = {size: run_theirs(model) for size, model in theirs.items()}
  own_best = min(own, key=lambda size: own[size][1])
  best = min(trials, key=lambda size: trials[size][1])
  ours_P2, theirs_P2 = (
    np.array(x)
    for x in zip(
      *(
        (run_ours(ours[own_best]), run_theirs(theirs[best]))
        for _ in range(_PAIRS.value)
      ),
      strict=True,
    )
  )
  (low, cpu_low), (middle, cpu_middle), (high, cpu_high) = np.quantile(
    theirs_P2 / ours_P2, [0, 0.5, 1], axis=0
  ).round(3)
  (our_seconds, our_cpu), (their_seconds, their_cpu) = (
    np.median(x, axis=0).round(2) for x in (ours_P2, theirs_P2)
  )
  record.write(
    'exam_speed',
    {
      **figures,
      'peer': 'lm-evaluation-harness, hf',
      'pairs': _PAIRS.value,
      'load_average': round(os.getloadavg()[1], 1),
      'seconds_with_compilation': round(compiling[0], 2),
      'seconds': {'ours': our_seconds, 'theirs': their_seconds},
      'cpu_seconds': {'ours': our_cpu, 'theirs': their_cpu},
      'our_cpu_seconds_by_batch_size': {
        size: round(x[1], 2) for size, x in own.items()
      },
      'their_cpu_seconds_by_batch_size': {
        size: round(x[1], 2) for size, x in trials.items()
      },
      'ratio_median': middle,
      'ratio_range': [low, high],
      'cpu_time': {'median': cpu_middle, 'range': [cpu_low, cpu_high]},
    },
    packages=('jax', 'lm_eval', 'torch', 'transformers'),
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['data'])
  app.run(main)
