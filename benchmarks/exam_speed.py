"""How fast is an exam beside lm-evaluation-harness's own model?

  PYTHONPATH=. python benchmarks/exam_speed.py --data=TEST_DATA

C-Eval with five demonstrations, the same questions and the same weights (about
20M parameters, 4,096 positions, float32). The harness runs its own task files
on transformers, in whichever batch size of 1, 8 and 32 is the fastest, ours in
whichever of 4 and 16. Timed in turns, from texts to scores; ours is compiled
before.
"""

import pathlib
import statistics
import tempfile
import time

import torch
from absl import app
from absl import flags

from benchmarks import harness
from benchmarks import record
from lbe.evals import multiple_choice
from lbe.vocab import load as vocab

_DATA = flags.DEFINE_string('data', None, 'The folder of test data.')
_SUBJECTS = flags.DEFINE_list('subjects', ['law', 'physician'], 'Of C-Eval.')
_PAIRS = flags.DEFINE_integer('pairs', 7, 'Alternating measurements.')


def main(argv):
  del argv
  torch.set_num_threads(2)
  data = pathlib.Path(_DATA.value)
  tokenizer = vocab.load(data / 'tok_llama_32000')
  with tempfile.TemporaryDirectory() as scratch:
    scratch = pathlib.Path(scratch)
    folder = harness.write_model(scratch / 'model', tokenizer)
    ours = {
      size: harness.load_ours(folder, batch_size=size) for size in (4, 16)
    }
    tasks = [harness.ceval_task(scratch, data, s) for s in _SUBJECTS.value]

    def run_ours(model):
      start = time.perf_counter()
      exam = multiple_choice.make(
        path=data / 'bench_ceval',
        protocol='ceval@lmeval',
        subjects=_SUBJECTS.value,
      )
      result = exam.evaluate(model, name='ceval', step=None)
      return time.perf_counter() - start, result

    def run_theirs(model):
      return harness.run(model, scratch, tasks, num_fewshot=5)[1]

    first, result = run_ours(ours[4])
    run_ours(ours[16])
    own = {size: run_ours(model)[0] for size, model in ours.items()}
    models = {
      size: harness.load_theirs(folder, folder, bos=True, batch_size=size)
      for size in (1, 8, 32)
    }
    trials = {size: run_theirs(model) for size, model in models.items()}
    best = min(trials, key=trials.get)
    own_best = min(own, key=own.get)
    seconds = {'ours': [], 'theirs': []}
    for _ in range(_PAIRS.value):
      seconds['ours'].append(run_ours(ours[own_best])[0])
      seconds['theirs'].append(run_theirs(models[best]))
  ratios = [
    b / a for a, b in zip(seconds['ours'], seconds['theirs'], strict=True)
  ]
  record.write(
    'exam_speed',
    {
      'subjects': _SUBJECTS.value,
      'questions': len(result.predictions),
      'pairs': _PAIRS.value,
      'seconds_with_compilation': round(first, 2),
      'seconds': {
        name: round(statistics.median(x), 2) for name, x in seconds.items()
      },
      'our_seconds_by_batch_size': {
        size: round(x, 2) for size, x in own.items()
      },
      'their_seconds_by_batch_size': {
        size: round(x, 2) for size, x in trials.items()
      },
      'times_faster': {
        'median': round(statistics.median(ratios), 2),
        'range': [round(min(ratios), 2), round(max(ratios), 2)],
      },
    },
    packages=('jax', 'lm_eval', 'torch', 'transformers'),
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['data'])
  app.run(main)
