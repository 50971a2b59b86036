"""Useful tokens per second of instruction tuning, beside transformers.

  PYTHONPATH=. python benchmarks/sft_throughput.py --data=alpaca_5000.json \
    --tokenizer=llama/tokenizer.model

The same 2,000 examples, the same model, float32, fused AdamW. Ours: rows of
512, packed best-fit, four a batch. Theirs: 16 examples a batch, which are as
many tokens, padded to the longest, or laid one behind the other without
padding (DataCollatorWithFlattening). Useful tokens are those of prompts and
responses; padding never counts. Each measurement has a process of its own, in
turns: one side's threads and memory would slow the other down. --pairs and
--steps are those of train_step.py.
"""

import itertools
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import transformers
from absl import app
from absl import flags

from benchmarks import record
from benchmarks import train_step
from lbe.data import build
from lbe.data import loader as loader_lib
from lbe.data import packing
from lbe.data import sources
from lbe.models import weights as weights_lib
from lbe.vocab import tokenizers

_DATA = flags.DEFINE_string('data', None, 'Alpaca records, a JSON file.')
_TOKENIZER = flags.DEFINE_string('tokenizer', None, 'Its tokenizer.')
_CACHE = flags.DEFINE_string('cache', None, 'Of prepared data; its own else.')
SIDES = ('packed', 'padded', 'flattened', 'pretraining')
_ALONE = flags.DEFINE_enum(
  'alone', None, SIDES, 'Prints the speed of one side; called by itself.'
)

EXAMPLES, ROWS, T, PER_BATCH = 2000, 4, 512, 16
MODEL = dict(dim=384, num_layers=6, num_heads=6, mlp_dim=1024)


def prepare(tokenizer, folder):
  """(prepared examples, a loader of packed rows of them)."""
  prepared = build.prepare(
    sources.Source(
      name='sft',
      path=_DATA.value,
      template='alpaca',
      too_long='drop',
      on_bad_record='skip',
      max_documents=EXAMPLES,
    ),
    tokenizer,
    cache_dir=folder,
    seq_len=T,
  )
  loader = loader_lib.Loader(
    {'sft': prepared},
    {'sft': 1.0},
    seq_len=T,
    batch_size=ROWS,
    seed=0,
    tokenizer=tokenizer,
    packed=('sft',),
  )
  return prepared, loader


def whole_rows(examples):
  """Batches of rows without padding, as pretraining has them."""
  stream = np.concatenate([ids for ids, _ in examples])
  for i in itertools.cycle(range(len(stream) // (ROWS * T) - 1)):
    rows = [
      packing.make_row(stream[start : start + T + 1], np.zeros(T + 1, int), T)
      for start in range(i * ROWS * T, (i + 1) * ROWS * T, T)
    ]
    batch = {
      f'{name}_BT': np.stack([row[name] for row in rows])
      for name in ('ids', 'targets', 'positions', 'segments', 'weights')
    }
    yield batch | {'num_bytes_B': np.ones(ROWS, np.int32)}


def padded(examples):
  """A batch padded to its longest example; -100 is what is not learnt."""
  longest = max(len(ids) for ids, _ in examples)
  batch = {
    'input_ids': np.zeros((len(examples), longest), np.int64),
    'attention_mask': np.zeros((len(examples), longest), np.int64),
    'labels': np.full((len(examples), longest), -100, np.int64),
  }
  for i, (ids, weights) in enumerate(examples):
    n = len(ids)
    batch['input_ids'][i, :n] = ids
    batch['attention_mask'][i, :n] = 1
    batch['labels'][i, :n] = np.where(weights > 0, ids, -100)
  return {name: torch.from_numpy(x) for name, x in batch.items()}


def flattened(examples):
  """One row without padding; positions say where an example begins."""
  collate = transformers.DataCollatorWithFlattening(return_tensors='pt')
  return dict(
    collate(
      [
        {
          'input_ids': ids.tolist(),
          'labels': np.where(weights > 0, ids, -100).tolist(),
        }
        for ids, weights in examples
      ]
    )
  )


def make_theirs(c, collate, groups):
  """A function (n) → useful tokens of its n next batches, trained."""
  model = train_step.make_peer(c)
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
  )

  def run(num_steps):
    useful = 0
    for _ in range(num_steps):
      examples = next(groups)
      useful += sum(len(ids) for ids, _ in examples)
      batch = collate(examples)
      given = {
        name: x.to(model.device) if torch.is_tensor(x) else x
        for name, x in batch.items()
      }
      loss = model(**given).loss
      loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
    assert np.isfinite(loss.item())
    return useful

  return run


def make_ours(batches, vocab_size):
  """The same with our step over the batches of an iterator."""
  _, training, state = train_step.make_training(
    MODEL, vocab_size, seq_len=T, batch_size=ROWS
  )

  def run(num_steps):
    nonlocal state
    useful = 0
    for _ in range(num_steps):
      batch = next(batches)
      useful += int((batch['segments_BT'] > 0).sum())
      state, metrics = training.step(
        state, batch, training.rates(state['step'])
      )
    assert np.isfinite(float(metrics['loss_sum']))
    return useful

  return run


def make(side, tokenizer, folder):
  """A function (n) → useful tokens of the n next batches of a side, trained."""
  prepared, loader = prepare(tokenizer, folder)
  data = prepared.train
  examples = [data.example(i) for i in range(data.num_documents)]
  if side == 'packed':
    batches = map(loader.rows, itertools.count())
    return make_ours(batches, tokenizer.vocab_size)
  if side == 'pretraining':
    return make_ours(whole_rows(examples), tokenizer.vocab_size)
  torch.set_float32_matmul_precision('highest')
  collate = padded if side == 'padded' else flattened
  return make_theirs(
    _architecture(tokenizer), collate, _batched(examples, PER_BATCH)
  )


def _architecture(tokenizer):
  return train_step.make_abstract(
    MODEL, tokenizer.vocab_size, seq_len=T, batch_size=ROWS
  )[0]


def _measure(side, tokenizer, folder):
  """Prints useful tokens a second, behind two steps that warm up."""
  run = make(side, tokenizer, folder)
  run(2)
  start = time.perf_counter()
  useful = run(flags.FLAGS.steps)
  print(useful / (time.perf_counter() - start))


def _alone(side, folder):
  """What `_measure` prints, of a process of its own."""
  told = subprocess.run(
    [sys.executable, *sys.argv, f'--alone={side}', f'--cache={folder}'],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return float(told.stdout.splitlines()[-1])


def main(argv):
  del argv
  tokenizer = tokenizers.load(_TOKENIZER.value)
  if _ALONE.value:
    return _measure(_ALONE.value, tokenizer, _CACHE.value)
  pairs = flags.FLAGS.pairs or 7
  with tempfile.TemporaryDirectory() as folder:
    prepared, loader = prepare(tokenizer, folder)
    speeds = {side: [] for side in SIDES}
    for _ in range(pairs):
      for side, found in speeds.items():
        found.append(_alone(side, folder))

  def ratio(of, to):
    found = [a / b for a, b in zip(speeds[of], speeds[to], strict=True)]
    return {
      'median': round(statistics.median(found), 3),
      'range': [round(min(found), 3), round(max(found), 3)],
    }

  record.write(
    'sft_throughput',
    {
      'parameters': weights_lib.num_params(_architecture(tokenizer)),
      'examples': prepared.train.num_documents,
      'row_tokens': T,
      'padding_share': round(1 - loader.fill('sft'), 4),
      'pairs': pairs,
      'tokens_per_second': {
        name: round(statistics.median(x)) for name, x in speeds.items()
      },
      'packed_to_padded': ratio('packed', 'padded'),
      'packed_to_flattened': ratio('packed', 'flattened'),
      'packed_to_pretraining': ratio('packed', 'pretraining'),
    },
    packages=('jax', 'torch', 'transformers'),
  )


def _batched(examples, n):
  """n examples at a time, over and over."""
  endless = itertools.cycle(examples)
  while True:
    yield list(itertools.islice(endless, n))


if __name__ == '__main__':
  flags.mark_flags_as_required(['data', 'tokenizer'])
  app.run(main)
