"""Are our scores those of lm-evaluation-harness, to the last digit?

  PYTHONPATH=. python benchmarks/parity_lm_eval.py --data=TEST_DATA

The harness runs its own task files, of which only the place of the data is
replaced, on transformers with the same weights in float32. Beside it the same
requests go through our adapter, and the exams through our own evaluators.
Compared are log-probabilities of each request, argmax and greediness, and
every metric.
"""

import json
import pathlib
import tempfile
import time

import jax
import numpy as np
import torch
import transformers
import yaml
from absl import app
from absl import flags

from benchmarks import record
from lbe import sharding
from lbe.evals import core
from lbe.evals import lm_eval as adapter
from lbe.evals import multiple_choice
from lbe.exams import agieval
from lbe.exams import ceval
from lbe.exams import item
from lbe.exams import mmlu
from lbe.models import hf
from lbe.models import llama
from lbe.vocab import export as vocab_export
from lbe.vocab import extend
from lbe.vocab import load as vocab

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
_LIMIT = flags.DEFINE_integer('limit', 0, 'Questions a subject; 0 is all.')

# About 20M parameters with 32,000 pieces, two matrices of them.
SHAPE = dict(
  dim=256,
  num_layers=4,
  num_heads=8,
  num_kv_heads=4,
  head_dim=32,
  mlp_dim=688,
  max_positions=4096,
  init_std=0.05,
)
AGIEVAL = {'gaokao-history': 'gaokao_history', 'sat-math': 'sat_math'}


def write_model(folder, tokenizer, *, seed=0, **shape):
  """A random LLaMA of SHAPE as a Hugging Face folder with its tokenizer."""
  c = llama.Config(vocab_size=tokenizer.vocab_size, **{**SHAPE, **shape})
  params = llama.init(c, jax.random.key(seed))
  folder.mkdir()
  flat = {name: np.asarray(x) for name, x in hf.flatten(params).items()}
  hf.write_safetensors(folder, c, flat.__getitem__, dtype='float32')
  ids = {
    f'{r}_id': getattr(tokenizer, f'{r}_id') for r in ('bos', 'eos', 'pad')
  }
  (folder / 'config.json').write_text(
    json.dumps(hf.config_json(c, dtype='float32', **ids))
  )
  vocab_export.write(tokenizer, folder, max_positions=c.max_positions)
  return folder


def load_ours(folder, *, tokenizer=None, batch_size=32):
  """The folder as a core.Model on one device."""
  c, _ = hf.read_config(folder)
  return core.Model(
    params=jax.tree.map(
      jax.numpy.asarray, hf.load_params(folder, c, dtype='float32')
    ),
    config=c,
    tokenizer=tokenizer or vocab.load(folder),
    mesh=sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1]),
    execution=llama.Execution(compute_dtype='float32', scan=False),
    batch_size=batch_size,
    max_len=c.max_positions,
  )


def load_theirs(folder, tokenizer_folder, *, bos, ids_of=None, batch_size=8):
  """The folder as the harness's own model of transformers.

  `ids_of` is a tokenizer of ours that it takes its ids from: with the scores
  of the published 49,953 pieces no tokenizer.json can say the same.
  """
  from lm_eval.models.huggingface import HFLM

  class Model(HFLM):
    def tok_encode(self, string, add_special_tokens=None, **more):
      if ids_of is None:
        return super().tok_encode(
          string, add_special_tokens=add_special_tokens, **more
        )
      special = bos if add_special_tokens is None else add_special_tokens
      return [ids_of.bos_id] * bool(special) + ids_of.encode(string)

  return Model(
    pretrained=transformers.AutoModelForCausalLM.from_pretrained(
      folder, dtype=torch.float32
    ),
    tokenizer=transformers.AutoTokenizer.from_pretrained(tokenizer_folder),
    add_bos_token=bos,
    batch_size=batch_size,
    device='cpu',
  )


# ------------------------------------------------------------------- tasks


def _task_files():
  import lm_eval

  return pathlib.Path(lm_eval.__file__).parent / 'tasks'


def _put(folder, name, source, splits, **changes):
  """A task that is the harness's own but for where its data lies."""
  files = {}
  for split, records in splits.items():
    path = folder / f'{name}_{split}.jsonl'
    lines = (json.dumps(r, ensure_ascii=False) for r in records)
    path.write_text('\n'.join(lines), encoding='utf-8')
    files[split] = str(path)
  (folder / f'{name}.yaml').write_text(
    yaml.safe_dump(
      {
        'include': str(_task_files() / source),
        'task': name,
        'dataset_path': 'json',
        'dataset_name': None,
        'dataset_kwargs': {'data_files': files},
        'tag': None,
        **changes,
      },
      allow_unicode=True,
    )
  )
  return name


def ceval_task(folder, data, subject, *, limit=0):
  columns = ('question', *item.LETTERS, 'answer')

  def rows(split):
    path = data / 'bench_ceval' / split / f'{subject}_{split}.csv'
    return item.read_csv(path, columns)

  return _put(
    folder,
    f'own_ceval_{subject}',
    f'ceval/ceval-valid_{subject}.yaml',
    {'val': rows('val')[: limit or None], 'dev': rows('dev')},
  )


def mmlu_task(folder, data, subject, *, limit=0):
  def rows(split):
    path = data / 'bench_mmlu_2020' / split / f'{subject}_{split}.csv'
    return [
      {
        'question': r['question'],
        'choices': [r[x] for x in item.LETTERS],
        'answer': item.LETTERS.index(r['answer']),
      }
      for r in item.read_csv(path, mmlu.COLUMNS, header=False)
    ]

  return _put(
    folder,
    f'own_mmlu_{subject}',
    f'mmlu/default/mmlu_{subject}.yaml',
    {'test': rows('test')[: limit or None], 'dev': rows('dev')},
  )


def agieval_task(folder, data, name, *, limit=0):
  """A file of AGIEval's v1 in the form that the harness reads."""
  records = agieval.harness_records(data / 'bench_agieval', name, limit=limit)
  return _put(
    folder, f'own_agieval_{name}', f'agieval/{name}.yaml', {'test': records}
  )


def wikitext_task(folder, data, *, limit=0):
  text = (data / 'text_en_wikitext2' / 'wiki.test.raw.txt').read_text()
  pages, held = [], []
  for line in text.splitlines(keepends=True):
    heading = line.startswith(' = ') and not line.startswith(' = =')
    if heading and held:
      pages.append(''.join(held))
      held = []
    held.append(line)
  pages.append(''.join(held))
  return _put(
    folder,
    'own_wikitext',
    'wikitext/wikitext.yaml',
    {'test': [{'page': page} for page in pages[: limit or None]]},
    training_split=None,
    validation_split=None,
    # The file whose function the included one names by its own place.
    should_decontaminate=False,
  )


# -------------------------------------------------------------- comparison


def run(model, folder, tasks, *, num_fewshot):
  """The harness's results of its own task files under `folder`."""
  import lm_eval
  from lm_eval.tasks import TaskManager

  start = time.perf_counter()
  found = lm_eval.simple_evaluate(
    model=model,
    tasks=tasks,
    num_fewshot=num_fewshot,
    task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    log_samples=True,
    bootstrap_iters=0,
  )
  return found, time.perf_counter() - start


def compare(ours, theirs):
  """The largest differences over all requests and metrics."""
  worst, rolling, greedy, requests, metrics = 0.0, 0.0, 0, 0, {}
  for task, samples in theirs['samples'].items():
    mine = {s['doc_id']: s for s in ours['samples'][task]}
    for sample in samples:
      a, b = sample['resps'], mine[sample['doc_id']]['resps']
      for (x,), (y,) in zip(a, b, strict=True):
        requests += 1
        if isinstance(x, tuple | list):
          greedy += bool(x[1]) != bool(y[1])
          x, y = x[0], y[0]
          worst = max(worst, abs(x - y))
        else:
          rolling = max(rolling, abs(x - y) / abs(x))
    for key, value in theirs['results'][task].items():
      if isinstance(value, float) and 'stderr' not in key:
        difference = abs(value - ours['results'][task][key])
        relative = difference / abs(value) if 'per' in key else difference
        name = key.partition(',')[0]
        metrics[name] = max(metrics.get(name, 0.0), relative)
  return {
    'requests': requests,
    'largest_logprob_difference': worst,
    'largest_rolling_difference_relative': rolling,
    'greedy_differ': greedy,
    'metric_differences': metrics,
  }


def subjects(exam, count):
  names = {
    'ceval': [s for t in ceval.tables.CEVAL.values() for s in t],
    'mmlu': sorted(s for t in mmlu.tables.MMLU.values() for s in t),
  }[exam]
  return names[:: max(1, len(names) // count)][:count] if count else []


def own_equals(model, data, exam, names, theirs, *, limit, bos):
  """How many answers of our own evaluator differ from the harness's."""
  folder = {'ceval': 'bench_ceval', 'mmlu': 'bench_mmlu_2020'}[exam]
  made = multiple_choice.make(
    path=data / folder,
    protocol=f'{exam}@lmeval',
    subjects=names,
    limit=limit,
    bos=bos,
  )
  found = made.evaluate(model, name=exam, step=None)
  differ, worst = 0, 0.0
  for prediction in found.predictions:
    subject, number = prediction['id'].split('/')
    sample = next(
      s
      for s in theirs['samples'][f'own_{exam}_{subject}']
      if s['doc_id'] == int(number)
    )
    values = [r[0][0] for r in sample['resps']]
    differ += int(np.argmax(values)) != prediction['chosen']
    worst = max(worst, *np.abs(np.subtract(values, prediction['scores'])))
  return {'answers_differ': differ, 'largest_logprob_difference': float(worst)}


def main(argv):
  del argv
  data = pathlib.Path(_DATA.value)
  limit = _LIMIT.value
  figures = {}
  for name in _MODELS.value:
    with tempfile.TemporaryDirectory() as scratch:
      scratch = pathlib.Path(scratch)
      folder, tokenizer, tokenizer_folder = _model(name, data, scratch)
      ours = load_ours(folder, tokenizer=tokenizer)
      exams = {
        'ceval': subjects('ceval', _CEVAL.value),
        'mmlu': subjects('mmlu', _MMLU.value),
      }
      make = {'ceval': ceval_task, 'mmlu': mmlu_task}
      few = [
        make[exam](scratch, data, subject, limit=limit)
        for exam, names in exams.items()
        for subject in names
      ]
      zero = [agieval_task(scratch, data, x, limit=limit) for x in AGIEVAL]
      zero.append(wikitext_task(scratch, data, limit=limit))
      for bos in (True, False):
        theirs = load_theirs(
          folder,
          tokenizer_folder,
          bos=bos,
          ids_of=tokenizer if name == 'extended' else None,
        )
        adapted = adapter.adapt(ours, bos=bos)
        for label, tasks, shots in (('5_shot', few, 5), ('0_shot', zero, 0)):
          expected, their_seconds = run(
            theirs, scratch, tasks, num_fewshot=shots
          )
          found, our_seconds = run(adapted, scratch, tasks, num_fewshot=shots)
          figures[f'{name}_{"bos" if bos else "no_bos"}_{label}'] = {
            **compare(found, expected),
            'seconds': [round(our_seconds, 1), round(their_seconds, 1)],
            **{
              f'own_{exam}': own_equals(
                ours, data, exam, names, expected, limit=limit, bos=bos
              )
              for exam, names in exams.items()
              if shots and names
            },
          }
          print(json.dumps(figures, indent=1))
  record.write(
    'parity_lm_eval',
    {
      'ceval_subjects': _CEVAL.value,
      'mmlu_subjects': _MMLU.value,
      'limit': limit,
      **figures,
    },
    packages=('jax', 'lm_eval', 'torch', 'transformers'),
  )


def _model(name, data, scratch):
  """(folder, our tokenizer, folder of the same one for transformers)."""
  if name == 'stories':
    folder = data / 'ckpt_stories260K' / 'hf'
    tokenizer = vocab.load(folder)
    c, _ = hf.read_config(folder)
    target = scratch / 'tokenizer'
    target.mkdir()
    vocab_export.write(tokenizer, target, max_positions=c.max_positions)
    return folder, tokenizer, target
  tokenizer = vocab.load(data / 'tok_llama_32000')
  if name == 'extended':
    added = vocab.load(data / 'tok_chinese_sp_20000')
    tokenizer = extend.extend(tokenizer, added, score_mode='zero').tokenizer
  folder = write_model(scratch / 'model', tokenizer)
  return folder, tokenizer, folder


if __name__ == '__main__':
  flags.mark_flags_as_required(['data'])
  app.run(main)
