"""Useful tokens per second of instruction tuning, beside transformers.

  PYTHONPATH=. python benchmarks/sft_throughput.py --data=alpaca_5000.json \
    --tokenizer=llama/tokenizer.model

The same 2,000 examples, the same model, float32, fused AdamW. Ours: rows of
512, packed best-fit, four a batch. Theirs: 16 examples a batch, which are as
many tokens, padded to the longest, or laid one behind the other without
padding (DataCollatorWithFlattening). Useful tokens are those of prompts and
responses; padding never counts. Timed in turns; --pairs and --steps are those
of train_step.py.
"""

import itertools
import statistics
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


def main(argv):
  del argv
  torch.set_float32_matmul_precision('highest')
  tokenizer = tokenizers.load(_TOKENIZER.value)
  with tempfile.TemporaryDirectory() as folder:
    prepared, loader = prepare(tokenizer, folder)
    data = prepared.train
    examples = [data.example(i) for i in range(data.num_documents)]
    steps = range(data.num_documents)  # more than are asked for
    packed = (loader.rows(step) for step in steps)
    stream = np.concatenate([ids for ids, _ in examples])

    def full():
      """Rows without padding, as pretraining has them."""
      for i in itertools.cycle(range(len(stream) // (ROWS * T) - 1)):
        rows = [
          packing.make_row(
            stream[start : start + T + 1], np.zeros(T + 1, int), T
          )
          for start in range(i * ROWS * T, (i + 1) * ROWS * T, T)
        ]
        batch = {
          f'{name}_BT': np.stack([row[name] for row in rows])
          for name in ('ids', 'targets', 'positions', 'segments', 'weights')
        }
        yield batch | {'num_bytes_B': np.ones(ROWS, np.int32)}

    c = train_step.make_training(
      MODEL, tokenizer.vocab_size, seq_len=T, batch_size=ROWS
    )[0]
    runs = {
      'packed': make_ours(packed, tokenizer.vocab_size),
      'padded': make_theirs(c, padded, _batched(examples, PER_BATCH)),
      'flattened': make_theirs(c, flattened, _batched(examples, PER_BATCH)),
      'pretraining': make_ours(full(), tokenizer.vocab_size),
    }
    speeds = {name: [] for name in runs}
    for run in runs.values():
      run(1)
    for _ in range(flags.FLAGS.pairs):
      for name, run in runs.items():
        start = time.perf_counter()
        useful = run(flags.FLAGS.steps)
        speeds[name].append(useful / (time.perf_counter() - start))

    def ratio(of, to):
      found = [a / b for a, b in zip(speeds[of], speeds[to], strict=True)]
      return {
        'median': round(statistics.median(found), 3),
        'range': [round(min(found), 3), round(max(found), 3)],
      }

    record.write(
      'sft_throughput',
      {
        'parameters': weights_lib.num_params(c),
        'examples': data.num_documents,
        'row_tokens': T,
        'padding_share': round(1 - loader.fill('sft'), 4),
        'pairs': flags.FLAGS.pairs,
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
