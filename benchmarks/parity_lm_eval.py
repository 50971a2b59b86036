"""Are our scores those of lm-evaluation-harness, to the last digit?

  PYTHONPATH=. python benchmarks/parity_lm_eval.py --data=TEST_DATA

The harness runs its own task files, of which only the place of the data is
replaced, on transformers with the same weights in float32. Beside it the same
requests go through our adapter, and the exams through our own evaluators;
SIB-200, XCOPA and BLiMP through these alone. Compared are log-probabilities of
each request, argmax and greediness, and every metric.
"""

import json
import pathlib
import tempfile
import time

from absl import app
from absl import flags

from benchmarks import record
from lbe.convert import hf_config
from lbe.evals import lm_eval as adapter
from lbe.evals import pairs
from lbe.exams import sib200_prompts
from lbe.text import language_table
from lbe.vocab import export as vocab_export
from lbe.vocab import extend
from lbe.vocab import tokenizers
from tests import harness

_DATA = flags.DEFINE_string('data', None, 'The folder of test data.')
_MODELS = flags.DEFINE_multi_enum(
  'model',
  ['stories', 'base', 'extended'],
  ['stories', 'base', 'extended'],
  'A trained model of 512 positions; random ones with 32,000 and 49,953 '
  'pieces.',
)
_CEVAL = flags.DEFINE_integer('ceval_subjects', 52, 'Of 52.')
_MMLU = flags.DEFINE_integer('mmlu_subjects', 10, 'Of 57.')
_BOS = flags.DEFINE_multi_enum(
  'bos', ['yes', 'no'], ['yes', 'no'], 'Whether contexts begin with BOS.'
)
_WHAT = flags.DEFINE_multi_enum(
  'what',
  ['exams', 'sib200', 'xcopa', 'blimp'],
  ['exams', 'sib200', 'xcopa', 'blimp'],
  'What is compared.',
)
_SENTENCES = flags.DEFINE_integer(
  'sentences', 0, 'Of SIB-200 in each language; 0 is all.'
)
_VARIANTS = flags.DEFINE_multi_enum(
  'sib200',
  ['labels', 'labels_native', *sib200_prompts.HARNESS],
  ['labels', 'labels_native', *sib200_prompts.HARNESS],
  'Protocols of SIB-200.',
)
_LIMIT = flags.DEFINE_integer(
  'limit', 0, 'Questions a subject, language or paradigm; 0 is all.'
)
_PAGES = flags.DEFINE_integer('pages', 0, 'Of WikiText-2; 0 is all.')
# Many rows of 4,096 positions cost both sides more memory than they win; short
# ones want more.
_OUR_SIZE = flags.DEFINE_integer('our_batch_size', 4, 'Rows of ours.')
_THEIR_SIZE = flags.DEFINE_integer('their_batch_size', 1, "The harness's.")

AGIEVAL = ('gaokao-history', 'sat-math')


def main(argv):
  del argv
  data = pathlib.Path(_DATA.value)
  limit = _LIMIT.value
  exams = {
    'ceval': harness.subjects('ceval', _CEVAL.value),
    'mmlu': harness.subjects('mmlu', _MMLU.value),
  }
  make = {'ceval': harness.ceval_task, 'mmlu': harness.mmlu_task}
  for name in _MODELS.value:
    with tempfile.TemporaryDirectory() as scratch:
      scratch = pathlib.Path(scratch)
      folder, tokenizer, tokenizer_folder = _model(name, data, scratch)
      ours = harness.load_ours(
        folder, tokenizer=tokenizer, batch_size=_OUR_SIZE.value
      )
      few = [
        make[exam](scratch, data, subject, limit=limit)
        for exam, names in exams.items()
        for subject in names
      ]
      zero = [
        harness.agieval_task(scratch, data, x, limit=limit) for x in AGIEVAL
      ]
      zero.append(harness.wikitext_task(scratch, data, limit=_PAGES.value))
      for bos in (x == 'yes' for x in _BOS.value):
        theirs = harness.load_theirs(
          folder,
          tokenizer_folder,
          bos=bos,
          ids_of=tokenizer if name == 'extended' else None,
          batch_size=_THEIR_SIZE.value,
        )
        for what, compare in (
          ('sib200', _sib200),
          ('xcopa', _xcopa),
          ('blimp', _blimp),
        ):
          if what in _WHAT.value:
            _record(name, bos, compare(ours, theirs, data, scratch, bos))
        if 'exams' not in _WHAT.value:
          continue
        adapted = adapter.adapt(
          ours, bos=bos, cut='harness', max_new_tokens=256
        )
        figures = {}
        for label, tasks, shots in (('5_shot', few, 5), ('0_shot', zero, 0)):
          expected, their_seconds = harness.run(
            theirs, scratch, tasks, num_fewshot=shots
          )
          found, our_seconds = harness.run(
            adapted, scratch, tasks, num_fewshot=shots
          )
          figures[label] = {
            **harness.compare(found, expected),
            'seconds': [round(our_seconds, 1), round(their_seconds, 1)],
            **{
              f'own_{exam}': harness.own_equals(
                ours, data, exam, names, expected, limit=limit, bos=bos
              )
              for exam, names in exams.items()
              if shots and names
            },
          }
          print(json.dumps(figures, indent=1))
        _record(
          name,
          bos,
          {
            'ceval_subjects': len(exams['ceval']),
            'mmlu_subjects': len(exams['mmlu']),
            'limit': limit,
            'pages': _PAGES.value,
            **figures,
          },
        )


def _record(name, bos, figures):
  record.write(
    'parity_lm_eval',
    {'model': name, 'bos': bos, **figures},
    packages=('jax', 'lm_eval', 'torch', 'transformers'),
  )


def _sib200(ours, theirs, data, scratch, bos):
  """Our evaluator beside the harness: its five prompts, ours as task files."""
  limit = _SENTENCES.value
  every = language_table.there('sib200', data / 'bench_sib200')
  figures = {'sentences': limit}
  for variant in _VARIANTS.value:
    own = variant not in sib200_prompts.HARNESS
    codes = every if own else sib200_prompts.HARNESS_LANGUAGES
    tasks = [
      harness.sib200_task(scratch, data, code, variant, limit=limit)
      for code in codes
    ]
    expected, seconds = harness.run(theirs, scratch, tasks, num_fewshot=0)
    start = time.perf_counter()
    figures[f'own_sib200_{variant}'] = {
      'languages': len(codes),
      'requests': 7 * sum(map(len, expected['samples'].values())),
      **harness.own_equals(
        ours,
        data,
        'sib200',
        codes,
        expected,
        limit=limit,
        bos=bos,
        variant=variant,
      ),
      'seconds': [
        round(time.perf_counter() - start, 1),
        round(seconds, 1),
      ],
    }
    print(json.dumps(figures, indent=1))
  return figures


def _xcopa(ours, theirs, data, scratch, bos):
  """Our evaluator beside the harness, in the languages that are there."""
  limit = _LIMIT.value
  codes = language_table.there('xcopa', data / 'bench_xcopa', split='test')
  tasks = [harness.xcopa_task(scratch, data, x, limit=limit) for x in codes]
  expected, seconds = harness.run(theirs, scratch, tasks, num_fewshot=0)
  start = time.perf_counter()
  found = harness.own_equals(
    ours, data, 'xcopa', codes, expected, limit=limit, bos=bos
  )
  return {
    'limit': limit,
    'own_xcopa': {
      'languages': codes,
      'requests': 2 * sum(map(len, expected['samples'].values())),
      **found,
      'seconds': [round(time.perf_counter() - start, 1), round(seconds, 1)],
    },
  }


def _blimp(ours, theirs, data, scratch, bos):
  """Our pairs beside the harness's `blimp`, every paradigm."""
  # A sentence has no context, and without one both begin with BOS.
  del bos
  limit = _LIMIT.value
  paradigms = harness.paradigms(data)
  tasks = [harness.blimp_task(scratch, data, x, limit=limit) for x in paradigms]
  made = pairs.make(
    protocol=pairs.BLIMP,
    path=data / 'bench_blimp',
    texts=None,
    sides=(),
    parts=(),
    limit=limit,
    seed=0,
  )
  start = time.perf_counter()
  result = made.evaluate(ours, name='own', step=None)
  own_seconds = time.perf_counter() - start
  expected, seconds = harness.run(theirs, scratch, tasks, num_fewshot=0)
  return {
    'limit': limit,
    'own_blimp': {
      'paradigms': len(paradigms),
      **harness.own_pairs_equal(result, expected),
      'acc': result.rows[0]['value'],
      'seconds': [round(own_seconds, 1), round(seconds, 1)],
    },
  }


def _model(name, data, scratch):
  """(folder, our tokenizer, folder of the same one for transformers)."""
  if name == 'stories':
    folder = data / 'ckpt_stories260K' / 'hf'
    tokenizer = tokenizers.load(folder)
    c, _ = hf_config.read_config(folder)
    target = scratch / 'tokenizer'
    target.mkdir()
    vocab_export.write(tokenizer, target, max_positions=c.max_positions)
    return folder, tokenizer, target
  tokenizer = tokenizers.load(data / 'tok_llama_32000')
  if name == 'extended':
    added = tokenizers.load(data / 'tok_chinese_sp_20000' / 'chinese_sp.model')
    tokenizer = extend.extend(tokenizer, added, score_mode='zero').tokenizer
  folder = harness.write_model(scratch / 'model', tokenizer)
  return folder, tokenizer, folder


if __name__ == '__main__':
  flags.mark_flags_as_required(['data'])
  app.run(main)
