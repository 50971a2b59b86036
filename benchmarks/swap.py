"""Does `pairs@swap` tell a model that has learnt a language from a random one?

  PYTHONPATH=. python benchmarks/swap.py --data=TEST_DATA --output=DIR

Small models with LLaMA's tokenizer and with bytes, each beside itself before
its first step. What a language's word order is takes more than minutes to
learn, so that they learn 100 lines of NTREX in each of 15 languages by heart,
and are asked about these. Pairs of what nobody was trained on, the last 400
lines of NTREX and SIB-200 whole, are put to stories260K, which knows English,
and to what configs/small_zh.py makes of it, which knows Chinese too. DIR keeps
the runs, and a second call goes on with what is there.
"""

import pathlib

from absl import app
from absl import flags

from benchmarks import once
from lbe.configs import common
from lbe.configs import small_zh
from lbe.exams import sentences
from lbe.text import language_table
from lbe.text import lines

_DATA = flags.DEFINE_string('data', None, 'The folder of test data.')
_OUTPUT = flags.DEFINE_string('output', None, 'The folder of the runs.')
_WHAT = flags.DEFINE_multi_enum(
  'what',
  ['bytes', 'llama', 'stories', 'small_zh'],
  ['bytes', 'llama', 'stories', 'small_zh'],
  'Which models.',
)
_STEPS = flags.DEFINE_integer('steps', 600, 'Of the two that are trained.')
_PAIRS = flags.DEFINE_integer('pairs', 500, 'Of each language.')

_LEARN = ('bytes', 'llama')
_CODES = (*language_table.THIRTEEN, 'en', 'zh')
_HELD_LINES, _LEARNT_LINES = 400, 100


def main(argv):
  del argv
  data, output = pathlib.Path(_DATA.value), pathlib.Path(_OUTPUT.value)
  _write_texts(data, output)
  for what in _WHAT.value:
    config = _config(what, data, output)
    config.evals.swap = common.pairs(
      protocol='pairs@swap',
      path=str(output / ('asked' if what in _LEARN else 'held')),
      languages=_CODES,
      limit=_PAIRS.value,
      at_start=True,
    )
    workdir = output / what
    once.run('evaluate' if what == 'stories' else 'train', config, workdir)
    found = _scores(workdir)
    once.write(
      'swap',
      {
        'model': what,
        'steps': 0 if what == 'stories' else config.budget.steps,
        'tokens_of_a_step': config.data.seq_len * config.data.batch_size,
        'languages': found,
        'separated': sum(
          of[-1]['interval95'][0] > 0.5 for of in found.values()
        ),
      },
      workdir,
    )
    _show(what, found)


def _write_texts(data, output):
  """CODE.txt, a sentence a line, of what is learnt by heart and what is not."""
  folders = ('learnt', 'asked', 'held')
  for folder in folders:
    (output / folder).mkdir(parents=True, exist_ok=True)
  ntrex = sentences.read(data / 'text_ntrex', _CODES)
  sib200 = sentences.read(data / 'bench_sib200', _CODES)
  for code in _CODES:
    own = [text for _, text in ntrex[code]]
    held = own[-_HELD_LINES:] + [text for _, text in sib200[code]]
    learnt = own[:_LEARNT_LINES]
    # A run refuses to score a file that it is trained on.
    for folder, texts in zip(folders, (learnt, learnt, held), strict=True):
      path = output / folder / f'{code}.txt'
      path.write_text('\n'.join(texts) + '\n', encoding='utf-8')


def _config(what, data, output):
  stories = str(data / 'ckpt_stories260K' / 'hf')
  if what == 'small_zh':
    config = small_zh.get_config()
    config.init_from = stories
    config.data.sources.zh.path = str(data / 'text_zh_novels')
    config.evals, config.forgetting.source = common.ConfigDict(), ()
    config.forgetting.target = ()
    return config
  config = common.base()
  config.execution.compute_dtype = 'float32'
  config.execution.scan = False
  config.eval_batch_size = 4
  if what == 'stories':
    config.init_from = stories
    return config
  for code in _CODES:
    config.data.sources[code] = common.source(
      path=str(output / 'learnt' / f'{code}.txt'),
      cut='line',
      proportion=1 / len(_CODES),
    )
  config.tokenizer = 'bytes'
  if what == 'llama':
    config.tokenizer = str(data / 'tok_llama_32000')
  # Most of what a step costs is the head, where there are 32,000 pieces.
  dim = {'bytes': 96, 'llama': 64}[what]
  config.model.update(
    dim=dim,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    mlp_dim=3 * dim,
    max_positions=1024,
    tied=True,
    init_std=0.1,
  )
  config.data.update(seq_len=256, batch_size=16, num_workers=1)
  config.budget.steps = _STEPS.value
  config.optim.peak_lr = 4e-3
  config.optim.weight_decay = 0.01
  config.checkpoint.update(every=100, keep=1)
  return config


def _scores(workdir):
  """Language → its scores, before the first step and behind the last."""
  found = {}
  for row in lines.rows(workdir / 'results.jsonl'):
    start, _, code = row['name'].rpartition('/')
    if start == 'acc/language':
      found.setdefault(code, []).append(
        {
          'acc': round(row['value'], 3),
          'interval95': [round(x, 3) for x in row['interval95']],
          'pairs': row['count'],
        }
      )
  return found


def _show(what, found):
  for code, of in found.items():
    told = (
      f'{x["acc"]:.3f} ({x["interval95"][0]:.3f} to {x["interval95"][1]:.3f})'
      for x in of
    )
    print(f'| {what} | {code} | {" | ".join(told)} |')


if __name__ == '__main__':
  flags.mark_flags_as_required(['data', 'output'])
  app.run(main)
