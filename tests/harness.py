"""lm-evaluation-harness beside us: its own task files on local data.

Of a task file only the place of the data is replaced. For the benchmarks and
the tests that compare scores.
"""

import json
import pathlib
import time

import jax
import lm_eval
import numpy as np
import torch
import transformers
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lbe.convert import hf
from lbe.convert import hf_config
from lbe.evals import multiple_choice
from lbe.exams import agieval
from lbe.exams import item
from lbe.exams import sib200
from lbe.exams import sib200_prompts
from lbe.exams import spreadsheet
from lbe.exams import subjects as subjects_lib
from lbe.inference import model as model_lib
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights
from lbe.text import lines
from lbe.vocab import export as vocab_export
from lbe.vocab import tokenizers

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


def write_model(folder, tokenizer, *, seed=0, **shape):
  """A random LLaMA of SHAPE as a Hugging Face folder with its tokenizer."""
  c = architecture.Config(vocab_size=tokenizer.vocab_size, **{**SHAPE, **shape})
  params = weights.init(c, jax.random.key(seed))
  folder.mkdir()
  flat = {name: np.asarray(x) for name, x in weights.flatten(params).items()}
  hf.write_safetensors(folder, c, flat.__getitem__, dtype='float32')
  ids = {
    f'{r}_id': getattr(tokenizer, f'{r}_id') for r in ('bos', 'eos', 'pad')
  }
  (folder / 'config.json').write_text(
    json.dumps(hf_config.config_json(c, dtype='float32', **ids))
  )
  vocab_export.write(tokenizer, folder, max_positions=c.max_positions)
  return folder


def load_ours(folder, *, tokenizer=None, batch_size=32):
  """The folder as an inference.model.Model on one device."""
  c, _ = hf_config.read_config(folder)
  return model_lib.Model(
    params=jax.tree.map(
      jax.numpy.asarray, hf.load_params(folder, c, dtype='float32')
    ),
    config=c,
    tokenizer=tokenizer or tokenizers.load(folder),
    mesh=sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1]),
    execution=forward.Execution(compute_dtype='float32', scan=False),
    batch_size=batch_size,
    max_len=c.max_positions,
  )


def load_theirs(folder, tokenizer_folder, *, bos, ids_of=None, batch_size=8):
  """The folder as the harness's own model of transformers.

  `ids_of` is a tokenizer of ours that it takes its ids from: with the scores
  of the published 49,953 pieces no tokenizer.json can say the same.
  """

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
    ).to('cuda' if torch.cuda.is_available() else 'cpu'),
    tokenizer=transformers.AutoTokenizer.from_pretrained(tokenizer_folder),
    add_bos_token=bos,
    batch_size=batch_size,
    device='cuda' if torch.cuda.is_available() else 'cpu',
  )


# ------------------------------------------------------------------- tasks


def _task_files():
  return pathlib.Path(lm_eval.__file__).parent / 'tasks'


def _put(folder, name, source, splits, **changes):
  """A task that is the harness's own but for where its data lies."""
  files = {}
  for split, records in splits.items():
    path = folder / f'{name}_{split}.jsonl'
    lines.write(path, records)
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
    return [row for row, _ in spreadsheet.read(path, columns)]

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
      for r, _ in spreadsheet.read(
        path, ('question', *item.LETTERS, 'answer'), header=False
      )
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


def mgsm_task(folder, data, language, *, limit=0):
  """A file of MGSM in the form of the data set that the harness loads."""
  lines = (data / 'bench_mgsm' / f'mgsm_{language}.tsv').read_text()
  records = [
    {
      'question': question,
      'answer': None,
      'answer_number': int(answer.replace(',', '')),
    }
    for question, answer in (x.split('\t') for x in lines.splitlines())
  ]
  return _put(
    folder,
    f'own_mgsm_{language}',
    f'mgsm/direct/mgsm_direct_{language}.yaml',
    {'test': records[: limit or None]},
    training_split=None,
  )


def xquad_task(folder, path, language, *, limit=0):
  """A file of XQuAD in the form of the data set that the harness loads.

  Its F1 comes from a module that transformers 5 has no more: only the prompts
  and the texts are the harness's.
  """
  tasks = _task_files() / 'xquad'
  common = (tasks / 'xquad_common_yaml').read_text().splitlines()
  plain = folder / 'xquad_common_yaml'
  plain.write_text('\n'.join(x for x in common if '!function' not in x))
  own = yaml.safe_load((tasks / f'xquad_{language}.yaml').read_text())
  records = [
    {
      'id': qa['id'],
      'context': passage['context'],
      'question': qa['question'],
      'answers': {'text': [x['text'] for x in qa['answers']]},
    }
    for article in json.loads(path.read_text())['data']
    for passage in article['paragraphs']
    for qa in passage['qas']
  ]
  return _put(
    folder,
    f'own_xquad_{language}',
    plain,
    {'validation': records[: limit or None]},
    doc_to_text=own['doc_to_text'],
    metric_list=[{'metric': 'exact_match'}],
  )


def paradigms(data):
  return sorted(x.stem for x in (data / 'bench_blimp' / 'data').glob('*.jsonl'))


def blimp_task(folder, data, paradigm, *, limit=0):
  rows = lines.rows(data / 'bench_blimp' / 'data' / f'{paradigm}.jsonl')
  return _put(
    folder,
    f'own_blimp_{paradigm}',
    f'blimp/{paradigm}.yaml',
    {'train': rows[: limit or None]},
  )


def xcopa_task(folder, data, language, *, limit=0):
  file = data / 'bench_xcopa' / language / f'test.{language}.jsonl'
  return _put(
    folder,
    f'own_xcopa_{language}',
    f'xcopa/default_{language}.yaml',
    {'test': lines.rows(file)[: limit or None]},
    validation_split=None,
  )


def sib200_task(folder, data, code, variant, *, limit=0):
  """SIB-200 in a language as one of our protocols asks it.

  Where the harness has it, its own file; else a file with our prompt.
  """
  rows = [
    {
      'text': s.text,
      'category': s.topic,
      'gold': sib200_prompts.TOPICS.index(s.topic),
    }
    for s in sib200.sentences(data / 'bench_sib200', code, 'test')
  ]
  if variant in sib200_prompts.HARNESS:
    prompt = f'prompt_{variant[-1]}'
    theirs = {'en': 'eng', 'sw': 'swa'}[code]
    source, changes = f'afrobench/sib/{prompt}/sib_{theirs}.yaml', {}
  else:
    header, ask, labels = sib200.own_prompt(
      code if variant == 'labels_native' else 'en'
    )
    text = sib200.Sentence('', '', '{{text.strip()}}')
    source, changes = (
      'afrobench/sib/prompt_1/sib_eng.yaml',
      {
        'doc_to_text': header + ask(text),
        'doc_to_choice': [x.strip() for x in labels],
        'target_delimiter': ' ' * labels[0].startswith(' '),
        'doc_to_target': 'gold',
      },
    )
  return _put(
    folder,
    f'own_sib200_{variant}_{code}',
    source,
    {'test': rows[: limit or None]},
    validation_split=None,
    fewshot_split=None,
    # Of the two the weighted F1 is a function that the file names by its place.
    metric_list=[
      {'metric': 'acc', 'aggregation': 'mean', 'higher_is_better': True}
    ],
    **changes,
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


def run(model, folder, tasks, *, num_fewshot, **settings):
  """The harness's results of its own task files under `folder`."""
  start = time.perf_counter()
  found = lm_eval.simple_evaluate(
    model=model,
    tasks=tasks,
    num_fewshot=num_fewshot,
    task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    log_samples=True,
    bootstrap_iters=0,
    **settings,
  )
  return found, time.perf_counter() - start


def compare(ours, theirs):
  """The largest differences over all requests and metrics."""
  worst, relative_worst, rolling = 0.0, 0.0, 0.0
  greedy, requests, metrics = 0, 0, {}
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
          relative_worst = max(relative_worst, abs(x - y) / max(1, abs(x)))
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
    # A long answer's sum has hundreds of nats, of which float32 tells 1e-7.
    'largest_logprob_difference_relative': relative_worst,
    'largest_rolling_difference_relative': rolling,
    'greedy_differ': greedy,
    'metric_differences': metrics,
  }


def subjects(exam, count):
  names = {
    'ceval': [s for t in subjects_lib.CEVAL.values() for s in t],
    'mmlu': sorted(s for t in subjects_lib.MMLU.values() for s in t),
  }[exam]
  return names[:: max(1, len(names) // count)][:count] if count else []


def own_pairs_equal(result, theirs):
  """Our pairs@blimp beside the harness's tasks: pairs, differences."""
  right, worst, differ = {}, 0.0, 0
  for prediction in result.predictions:
    right[prediction['id']] = prediction['scores'], prediction['acc']
  samples = [
    (f'{task.removeprefix("own_blimp_")}/{sample["doc_id"]}', sample)
    for task, found in theirs['samples'].items()
    for sample in found
  ]
  assert right.keys() == {name for name, _ in samples}
  for name, sample in samples:
    scores, acc = right[name]
    values = [r[0][0] for r in sample['resps']]
    worst = max(worst, *np.abs(np.subtract(values, scores)))
    differ += sample['acc'] != acc
  return {
    'pairs': len(right),
    'answers_differ': differ,
    'largest_logprob_difference': float(worst),
  }


def own_equals(
  model, data, exam, names, theirs, *, limit, bos, variant='lmeval'
):
  """How many answers of our own evaluator differ from the harness's.

  Its tasks are own_EXAM_NAME, and of another variant own_EXAM_VARIANT_NAME.
  """
  folder = {
    'ceval': 'bench_ceval',
    'mmlu': 'bench_mmlu_2020',
    'xcopa': 'bench_xcopa',
    'sib200': 'bench_sib200',
  }[exam]
  made = multiple_choice.make(
    path=data / folder,
    protocol=f'{exam}@{variant}',
    subjects=names,
    split='',
    num_shots=None,
    limit=limit,
    bos=bos,
    cut='harness',
  )
  task = f'own_{exam}' if variant == 'lmeval' else f'own_{exam}_{variant}'
  of_task = {}
  for prediction in made.evaluate(model, name=task, step=None).predictions:
    name, _ = prediction['id'].split('/')
    of_task.setdefault(f'{task}_{name}', []).append(prediction)
  differ, worst, relative = 0, 0.0, 0.0
  for task, predictions in of_task.items():
    samples = sorted(theirs['samples'][task], key=lambda s: s['doc_id'])
    for prediction, sample in zip(predictions, samples, strict=True):
      values = [r[0][0] for r in sample['resps']]
      differ += int(np.argmax(values)) != prediction['chosen']
      apart_C = np.abs(np.subtract(values, prediction['scores']))
      worst = max(worst, *apart_C)
      relative = max(relative, *(apart_C / np.maximum(1, np.abs(values))))
      assert sample['acc'] == prediction['acc'], (prediction, sample)
  return {
    'answers_differ': differ,
    'largest_logprob_difference': float(worst),
    'largest_logprob_difference_relative': float(relative),
  }


def mgsm_equals(ours, theirs):
  """How many of our evaluator's prompts, answers and scores differ."""
  pairs, scores = [], 0
  for p in ours.predictions:
    language, number = p['id'].split('/')
    for sample in theirs['samples'][f'own_mgsm_{language}']:
      if sample['doc_id'] == int(number):
        kind = sample['filter'].replace('-', '_')
        scores += sample['exact_match'] != p[f'lmeval_{kind}']
        pairs.append((p, sample))
  return {**_texts_equal(pairs), 'scores_differ': scores}


def xquad_equals(ours, theirs, language):
  """How many of our evaluator's prompts and answers differ."""
  name = f'own_xquad_{language}'
  samples = {s['doc']['id']: s for s in theirs['samples'][name]}
  return _texts_equal([(p, samples[p['id']]) for p in ours.predictions])


def _texts_equal(pairs):
  """Of (our prediction, their sample)."""
  # The harness decodes an answer alone, so that its first space is lost.
  return {
    'answers': len({p['id'] for p, _ in pairs}),
    'prompts_differ': sum(
      sample['arguments'][0][0] != p['prompt'] for p, sample in pairs
    ),
    'answers_differ': sum(
      sample['resps'][0][0].lstrip(' ') != p['response'].lstrip(' ')
      for p, sample in pairs
    ),
  }
