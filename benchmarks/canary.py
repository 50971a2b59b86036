"""Does the canary fall where learning from context is lost, and nowhere else?

  PYTHONPATH=. python benchmarks/canary.py --data=TEST_DATA --output=DIR

A small base that goes by its context, trained here on WikiText-2 and on lines
of a few random words that are said again and again: it foretells labels that
take turns, which takes minutes to learn; copying a long sequence was not learnt
in ten million tokens. It then goes on in three ways, by three seeds each, and
at the same steps the canary and the bits per byte of both languages are scored:
Chinese alone, with a fifth of what the base was trained on, and Chinese alone
at ten times the rate. DIR keeps the runs, and a second call goes on with what
is there.
"""

import pathlib

import numpy as np
from absl import app
from absl import flags

from benchmarks import once
from lbe.configs import common
from lbe.text import lines
from lbe.vocab import tokenizers

_DATA = flags.DEFINE_string('data', None, 'The folder of test data.')
_OUTPUT = flags.DEFINE_string('output', None, 'The folder of the runs.')
_BASE_STEPS = flags.DEFINE_integer('base_steps', 500, 'Of the base.')
_STEPS = flags.DEFINE_integer('steps', 200, 'Of each way.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Of each way.')

_RATE = 3e-3
_LINES = 10000  # that say again, and as many tokens as are taken of them
_WAYS = {
  'chinese': dict(rate=_RATE / 10, replay=0.0),
  'replay': dict(rate=_RATE / 10, replay=0.2),
  'rate_x10': dict(rate=_RATE, replay=0.0),
}


def main(argv):
  del argv
  data, output = pathlib.Path(_DATA.value), pathlib.Path(_OUTPUT.value)
  output.mkdir(parents=True, exist_ok=True)
  _write_repeats(data, output / 'repeats.txt')
  base = output / 'base'
  once.run('train', _base(data, output), base)
  for way, how in _WAYS.items():
    for seed in range(_SEEDS.value):
      workdir = output / f'{way}-s{seed}'
      config = _way(data, output, base, seed=seed, **how)
      once.run('train', config, workdir)
      row = {'way': way, 'seed': seed, **_found(workdir)}
      once.write('canary', row, workdir)


def _write_repeats(data, path):
  """Lines of a few words, or of bits of words, said over and over."""
  tokenizer = tokenizers.load(str(data / 'ckpt_stories260K' / 'hf'))
  pieces = {tokenizer.piece(i) for i in range(tokenizer.vocab_size)}
  bits = {space: [] for space in ('▁', '')}
  for piece in sorted(pieces):
    text = piece.removeprefix('▁')
    if len(text) > 1 and text.isalpha():
      bits['▁' if piece != text else ''].append(text)
  rng = np.random.default_rng(0)
  with path.open('w', encoding='utf-8') as file:
    for i in range(_LINES):
      space = '' if i % 3 == 0 else '▁'
      num = int(np.exp(rng.uniform(np.log(2), np.log(16))))
      said = rng.choice(bits[space], num, replace=False)
      # In one order, or each time in another one.
      order = (rng.permutation(num) if i % 2 else range(num) for _ in range(99))
      words = [said[k] for turn in order for k in turn][:120]
      file.write((' ' if space else '').join(words) + '\n')


def _common(data):
  config = common.base()
  config.tokenizer = str(data / 'ckpt_stories260K' / 'hf')
  config.execution.compute_dtype = 'float32'
  config.execution.scan = False
  config.data.update(seq_len=256, batch_size=16, num_workers=1)
  config.optim.weight_decay = 0.01
  config.checkpoint.keep = 1
  return config


def _english(data, split):
  path = data / 'text_en_wikitext2' / f'wiki.{split}.raw.txt'
  return dict(path=str(path), cut='heading')


def _base(data, output):
  config = _common(data)
  config.model.update(
    dim=128,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    mlp_dim=384,
    max_positions=512,
    tied=True,
    init_std=0.05,
  )
  config.data.sources = _old(data, output, 1.0)
  config.evals.in_context = common.in_context(
    sequences=8, length=128, every=100
  )
  config.evals.en = common.perplexity(
    **_english(data, 'validation'), every=300, limit=20
  )
  config.budget.steps = _BASE_STEPS.value
  config.optim.peak_lr = _RATE
  config.checkpoint.every = 100
  return config


def _old(data, output, share):
  return common.ConfigDict(
    {
      'en': common.source(proportion=share / 2, **_english(data, 'test')),
      'again': common.source(
        proportion=share / 2, path=str(output / 'repeats.txt'), cut='line'
      ),
    }
  )


def _way(data, output, base, *, seed, rate, replay):
  config = _common(data)
  config.init_from = str(base)
  config.seed = seed
  if replay:
    config.data.sources = _old(data, output, replay)
  config.data.sources.zh = common.source(
    path=str(data / 'text_zh_niutrans_modern'),
    kind='text',
    holdout=0.01,
    proportion=1 - replay,
  )
  every = max(1, _STEPS.value // 20)
  when = dict(every=every, at_start=True)
  config.evals.in_context = common.in_context(sequences=8, length=128, **when)
  config.evals.en = common.perplexity(
    **_english(data, 'validation'), limit=20, **when
  )
  config.evals.zh = common.perplexity(source='zh', limit=40, **when)
  config.budget.steps = _STEPS.value
  config.optim.peak_lr = rate
  config.checkpoint.every = _STEPS.value
  return config


def _found(workdir):
  """Scores by step, and where the canary first warned."""
  scores, warned = {}, None
  for row in lines.rows(workdir / 'results.jsonl'):
    name = f'{row["evaluator"]}/{row["name"]}'
    if name in (
      *(f'in_context/{task}' for task in ('copy', 'lookup', 'labels')),
      'en/bits_per_byte',
      'zh/bits_per_byte',
    ):
      scores.setdefault(name, {})[row['step']] = round(row['value'], 4)
    if 'fell from' in row.get('warning', '') and warned is None:
      warned = row['step']
  return {'scores': scores, 'warned_at': warned}


if __name__ == '__main__':
  flags.mark_flags_as_required(['data', 'output'])
  app.run(main)
