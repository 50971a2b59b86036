"""How much slower is our data pipeline than sentencepiece alone?

  PYTHONPATH=. python benchmarks/data_pipeline.py \
    --tokenizer=llama/tokenizer.model \
    --texts=zh/ --megabytes=300 --texts=en/ --megabytes=40

Each folder of text is cut into documents of at least 1,000 tokens and repeated
up to its megabytes. `prepare` reads, tokenizes, compresses and writes it with
as many processes as cores; beside it, in turns, sentencepiece encodes the
same texts from memory with as many threads, to lists and to arrays. Then one
core reads batches, at the start and far behind it, and for a long time. Last,
lbe.train trains a LLaMA of 17 million parameters on them, and says which share
of its steps' time it has waited for data.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import sentencepiece
from absl import app
from absl import flags

from lbe.data import build
from lbe.data import sources
from lbe.vocab import tokenizers

_TOKENIZER = flags.DEFINE_string('tokenizer', None, 'A SentencePiece model.')
_TEXTS = flags.DEFINE_multi_string('texts', None, 'Folders of text.')
_MEGABYTES = flags.DEFINE_multi_integer('megabytes', None, 'For each folder.')
_PAIRS = flags.DEFINE_integer('pairs', 7, 'Times that both sides are run.')
_TRAIN_STEPS = flags.DEFINE_integer('train_steps', 60, 'Of lbe.train.')
CORES = len(os.sched_getaffinity(0))
SEQ_LEN, BATCH_SIZE, STEPS = 2048, 8, 4000


def seconds(function, *arguments, **fields):
  start = time.perf_counter()
  function(*arguments, **fields)
  return time.perf_counter() - start


def make_documents(path, megabytes, tokenizer):
  """Texts of at least 1,000 tokens, no two the same."""
  source = sources.Source(name='text', path=path, kind='text', cut='file')
  whole = '\n'.join(text for text, _ in sources.documents(source))
  texts = [whole[i : i + 6000] for i in range(0, len(whole) - 6000, 6000)]
  assert min(map(len, tokenizer.encode_batch(texts))) >= 1000
  left, found = megabytes * 10**6, []
  while left > 0:
    found.append(f'{len(found)} {texts[len(found) % len(texts)]}')
    left -= len(found[-1].encode())
  return found


def tokenizing(texts, tokenizer, folder):
  """Figures of both sides; what `prepare` made stays in `folder`."""
  file = folder / 'text.jsonl'
  lines = (json.dumps({'text': x}, ensure_ascii=False) for x in texts)
  file.write_text('\n'.join(lines), encoding='utf-8')
  source = sources.Source(name='text', path=str(file))
  processor = sentencepiece.SentencePieceProcessor(
    model_proto=tokenizer.to_bytes()
  )

  def ours():
    build.prepare(source, tokenizer, cache_dir=folder, progress=False)

  ours_s, lists_s, arrays_s = [], [], []
  for _ in range(_PAIRS.value):
    for path in folder.glob('text-*'):
      shutil.rmtree(path)
    ours_s.append(seconds(ours))
    for times, kind in ((lists_s, int), (arrays_s, 'numpy')):
      times.append(
        seconds(processor.encode, texts, num_threads=CORES, return_type=kind)
      )
  prepared = build.prepare(source, tokenizer, cache_dir=folder)

  def ratio(theirs):
    found = [a / b for a, b in zip(theirs, ours_s, strict=True)]
    return {
      'median': round(statistics.median(found), 3),
      'range': [round(min(found), 3), round(max(found), 3)],
    }

  num_tokens = prepared.train.num_tokens
  return prepared, {
    'tokens': num_tokens,
    'tokens_per_second': round(num_tokens / statistics.median(ours_s)),
    'of_sentencepiece_to_lists': ratio(lists_s),
    'of_sentencepiece_to_arrays': ratio(arrays_s),
  }


def reading(prepared, tokenizer):
  """Figures of one core that reads batches."""
  from benchmarks import convert
  from lbe.data import loader as loader_lib

  def new():
    return loader_lib.Loader(
      {'text': prepared},
      {'text': 1.0},
      seq_len=SEQ_LEN,
      batch_size=BATCH_SIZE,
      seed=0,
      tokenizer=tokenizer,
    )

  loader = new()
  marks, start = [], time.perf_counter()
  for step in range(STEPS):
    loader.rows(step)
    if (step + 1) % (STEPS // 4) == 0:
      marks.append(convert.anonymous_bytes())
  rate = STEPS * BATCH_SIZE * SEQ_LEN / (time.perf_counter() - start)

  def first_batch(step):
    times = [
      seconds(lambda k: new().rows(k), step + i) for i in range(_PAIRS.value)
    ]
    return round(1000 * statistics.median(times), 2)

  return {
    'tokens_per_second_and_core': round(rate),
    'first_batch_ms_at_step': {k: first_batch(k) for k in (0, 10**4, 10**7)},
    'mib_at_each_quarter': [round(x / 2**20, 1) for x in marks],
  }


_CONFIG = """
from lbe.configs import common


def get_config():
  config = common.base()
  config.tokenizer = {tokenizer!r}
  config.model.update(dim=256, num_layers=4, num_heads=8, mlp_dim=688)
  config.execution.update(compute_dtype='float32', scan=False)
  config.data.sources.text = common.source(path={path!r})
  config.data.update(cache_dir={cache!r}, seq_len=256, batch_size=4)
  config.budget.steps = {steps}
  return config
"""


def waiting(folder):
  """The share of its steps' time that a run waits for data.

  Of the whole run, and of what follows its first ten steps: the first one
  waits for the threads that read ahead to start.
  """
  config = folder / 'config.py'
  config.write_text(
    _CONFIG.format(
      tokenizer=_TOKENIZER.value,
      path=str(folder / 'text.jsonl'),
      cache=str(folder),
      steps=_TRAIN_STEPS.value,
    )
  )
  arguments = [f'--config={config}', f'--workdir={folder / "run"}']
  subprocess.run(
    [sys.executable, '-m', 'lbe.train', *arguments],
    check=True,
    stdout=subprocess.DEVNULL,
  )
  lines = (folder / 'run' / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  seconds = [row['speed/seconds_per_step'] for row in rows]
  waited = [
    row['speed/data_wait_share'] * row['speed/seconds_per_step'] for row in rows
  ]
  return {
    'seconds_per_step': round(statistics.median(seconds), 3),
    'wait_share': round(sum(waited) / sum(seconds), 5),
    'wait_share_behind_ten_steps': round(sum(waited[1:]) / sum(seconds[1:]), 5),
  }


def main(argv):
  del argv
  from benchmarks import record  # brings jax, which no worker needs

  tokenizer = tokenizers.load(_TOKENIZER.value)
  figures = {
    'cores': CORES,
    'pairs': _PAIRS.value,
    'batch': [BATCH_SIZE, SEQ_LEN],
    'steps': STEPS,
  }
  for path, megabytes in zip(_TEXTS.value, _MEGABYTES.value, strict=True):
    with tempfile.TemporaryDirectory() as folder:
      texts = make_documents(path, megabytes, tokenizer)
      prepared, found = tokenizing(texts, tokenizer, pathlib.Path(folder))
      del texts
      found |= reading(prepared, tokenizer)
      found |= waiting(pathlib.Path(folder))
    figures[pathlib.Path(path).name] = {'megabytes': megabytes, **found}
  record.write(
    'data_pipeline', figures, packages=('sentencepiece', 'array_record')
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['tokenizer', 'texts', 'megabytes'])
  app.run(main)
