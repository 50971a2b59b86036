"""The paper's questions at 0.8M layer parameters, on two cores.

  python -m lbe.study --config=configs/studies/micro.py --workdir=runs/micro

A base of English with 3% Chinese, so that it can read both; then Chinese alone
at four nested scales, with and without new pieces, with replay, at equal
updates, at a lower rate; instruction tuning at three sizes, in sequence and
together with pretraining; facts that were invented for it, learnt in English,
and asked for in both languages before and after Chinese. Three seeds stand
behind the headline contrasts.

The folder of test data is LBE_TEST_DATA, or give the four paths. `:tiny` is the
same grid in a tenth of the size of everything, to see it run.
"""

import os

from lbe.configs import common
from lbe.configs import study

VOCABULARIES = ('orig', 'ext')


def get_config(size='full'):
  if size not in ('full', 'tiny'):
    raise ValueError(f'micro.py:{size} is unknown; take :full or :tiny.')
  tiny = size == 'tiny'
  data = os.environ.get('LBE_TEST_DATA', '')

  def path(*parts):
    return os.path.join(data, *parts) if data else ''

  config = common.ConfigDict()
  # Chinese prose; without the classical originals.
  config.zh = path('text_zh_niutrans_modern', '[三容徐战汉论]*.txt')
  config.zh_base = path('text_zh_novels')
  config.en = path('text_en_wikitext2', 'wiki.*.raw.txt')
  config.sft_zh = path('sft_alpaca_en_zh', 'zh_translated', '*-6382-*.json')
  config.sft_en = path('sft_alpaca_en_zh', 'alpaca_5000.json')
  config.dim = 32 if tiny else 128
  config.num_layers = 2 if tiny else 4
  config.num_pieces = 1_500 if tiny else 4_000
  config.num_new_pieces = 500 if tiny else 2_000
  config.base_tokens = 60_000 if tiny else 3_000_000
  config.scales = (
    (10_000, 30_000, 100_000, 300_000)
    if tiny
    else (100_000, 300_000, 1_000_000, 3_000_000)
  )
  config.sft_sizes = (25, 100, 400) if tiny else (250, 1_000, 2_000)
  config.sft_en_size = 100 if tiny else 1_000
  config.seeds = 3  # of the headline contrasts; one of all others
  config.replay = 0.2
  config.num_facts = 40 if tiny else 300
  config.fact_epochs = 60
  config.num_cloze = 40 if tiny else 400
  config.eval_documents = 20 if tiny else 100
  config.peak_lr = 3e-3
  config.lower_lr = 1e-3
  config.sft_lr = 1e-3
  return config.lock()


# Tokens a byte of Chinese and of English: measured at 4,000 and 6,000 pieces.
_PER_BYTE = {'orig': 0.47, 'ext': 0.347, 'en': 0.308}
_ROWS, _LENGTH = 16, 256
_FACT_TOKENS = 14


def make(asked):
  """The study that the fields ask for."""
  cells = [
    study.tokenizer(
      'pieces',
      'train',
      {
        'texts': [f'{study.FILES}/en.jsonl', f'{study.FILES}/zh_base.jsonl'],
        'vocab_size': asked.num_pieces,
        # Frequent Chinese characters alone, as LLaMA has them.
        'character_coverage': 0.995,
      },
    ),
    study.tokenizer(
      'pieces-ext',
      'extend',
      {
        'corpus': [f'{study.FILES}/zh.jsonl'],
        'num_pieces': asked.num_new_pieces,
      },
      base='pieces',
    ),
  ]
  seeds, largest = range(asked.seeds), max(asked.scales)
  cells += [_base(asked, seed) for seed in seeds]
  for scale in asked.scales:
    for vocabulary in VOCABULARIES:
      for seed in seeds if scale == largest else [0]:
        cells.append(_pretrained(asked, vocabulary, scale, seed))
  for scale in sorted(asked.scales)[-2:]:
    for vocabulary in VOCABULARIES:
      cells.append(_pretrained(asked, vocabulary, scale, 0, asked.replay))
  cells.append(_pretrained(asked, 'ext', largest, 0, how='updates'))
  cells.append(_pretrained(asked, 'orig', largest, 0, how='lower'))
  for seed in seeds:
    cells += _knowing(asked, seed)
  top = _words(largest)
  parents = {
    'base': ('base-s0', 'orig'),
    'orig': (f'zh-orig-{top}-s0', 'orig'),
    'ext': (f'zh-ext-{top}-s0', 'ext'),
    'replay': (f'zh-orig-{top}-replay-s0', 'orig'),
  }
  for name, (parent, vocabulary) in parents.items():
    for size in asked.sft_sizes:
      cells.append(_tuned(asked, name, parent, vocabulary, zh=size))
    cells.append(_tuned(asked, name, parent, vocabulary, en=asked.sft_en_size))
  for name in ('base', 'orig', 'ext'):
    cells.append(
      _tuned(
        asked,
        name,
        *parents[name],
        zh=max(asked.sft_sizes),
        en=asked.sft_en_size,
      )
    )
  return dict(
    name='micro',
    files=_files(asked),
    evals=dict(
      zh=study.scored('zh', max_len=_LENGTH),
      en=study.scored('en', max_len=_LENGTH),
      # Held-out responses, as texts that stand alone.
      zh_responses=study.scored('sft_zh', field='output', max_len=_LENGTH),
      en_responses=study.scored('sft_en', field='output', max_len=_LENGTH),
      knows_en=_choices('facts_en'),
      knows_zh=_choices('facts_zh'),
      cloze_en=_choices('cloze_en'),
      cloze_zh=_choices('cloze_zh'),
    ),
    scoring=dict(
      execution=dict(compute_dtype='float32', scan=False), eval_batch_size=16
    ),
    cells=cells,
    claims=_claims(asked),
    plots=_plots(),
  )


def _files(asked):
  held = dict(eval_documents=asked.eval_documents)
  # Of 4 bytes a token at least, an example and its template fit into a row.
  examples = dict(template='alpaca', max_bytes_each=700, **held)
  examples['on_bad_record'] = 'skip'  # some ask or answer nothing, as found
  return dict(
    zh=dict(path=asked.zh, kind='text', max_characters=400, **held),
    zh_base=dict(
      path=asked.zh_base,
      kind='text',
      max_characters=400,
      train_bytes=max(asked.base_tokens // 10, 100_000),
    ),
    en=dict(
      path=asked.en, kind='text', cut='heading', max_characters=1200, **held
    ),
    sft_zh=dict(path=asked.sft_zh, **examples),
    sft_en=dict(path=asked.sft_en, **examples),
    facts=dict(facts=asked.num_facts),
    cloze_en=dict(cloze=asked.num_cloze, of='en'),
    cloze_zh=dict(cloze=asked.num_cloze, of='zh'),
  )


def _choices(file):
  return common.multiple_choice(
    protocol='choices@continuation', path=f'{study.FILES}/{file}.jsonl'
  )


def _run(asked, seed, peak_lr):
  """What all runs share."""
  config = common.base()
  config.seed = seed
  config.data.seed = 0  # the same text for every seed
  config.data.update(seq_len=_LENGTH, batch_size=_ROWS, num_workers=1)
  config.execution.update(compute_dtype='float32', scan=False)
  config.optim.update(peak_lr=peak_lr, weight_decay=0.01)
  config.checkpoint.update(every=10_000, keep=1)
  config.log_every = 50
  return config


def _base(asked, seed):
  config = _run(asked, seed, asked.peak_lr)
  config.model.update(
    dim=asked.dim,
    num_layers=asked.num_layers,
    num_heads=4,
    mlp_dim=asked.dim * 11 // 4,
  )
  config.data.sources.en = study.text('en', proportion=0.97)
  config.data.sources.zh = study.text('zh_base', proportion=0.03)
  config.budget.tokens = asked.base_tokens
  return study.train(
    f'base-s{seed}',
    config,
    axes=dict(stage='base', vocabulary='orig', scale_bytes=0, seed=seed),
    tokens=asked.base_tokens,
    pieces=asked.num_pieces,
    tokenizer='pieces',
  )


def _words(number):
  """100k, 3m."""
  if number >= 1_000_000:
    return f'{number // 1_000_000}m'
  return f'{number // 1_000}k'


def _pretrained(asked, vocabulary, scale, seed, replay=0.0, how=''):
  """Chinese at a scale; `how` is 'updates' (as many as the other vocabulary
  has, in smaller batches) or 'lower' (rate)."""
  rate = asked.lower_lr if how == 'lower' else asked.peak_lr
  config = _run(asked, seed, rate)
  config.data.sources.zh = study.text(
    'zh', max_bytes=scale, proportion=1 - replay
  )
  if replay:
    config.data.sources.en = study.text('en', proportion=replay)
  config.budget.epochs, config.budget.of = 1.0, 'zh'
  if how == 'updates':
    fewer = _PER_BYTE['orig'] / _PER_BYTE['ext']
    config.data.batch_size = round(_ROWS / fewer)
  parts = ['zh', vocabulary, _words(scale), 'replay' * bool(replay), how]
  inputs = dict(init_from=f'base-s{seed}')
  if vocabulary == 'ext':
    inputs['tokenizer'] = 'pieces-ext'
  return study.train(
    '-'.join([*filter(None, parts), f's{seed}']),
    config,
    axes=dict(
      stage='pretrain',
      vocabulary=vocabulary,
      scale_bytes=scale,
      replay=replay,
      how=how,
      seed=seed,
    ),
    tokens=scale * _PER_BYTE[vocabulary] / (1 - replay),
    pieces=_pieces(asked, vocabulary),
    **inputs,
  )


def _knowing(asked, seed):
  """Facts learnt among as much other English; then Chinese, and with replay."""
  config = _run(asked, seed, asked.peak_lr)
  config.data.sources.facts = study.text('facts', proportion=0.5)
  config.data.sources.en = study.text('en', proportion=0.5)
  config.budget.epochs, config.budget.of = float(asked.fact_epochs), 'facts'
  told = asked.num_facts * asked.fact_epochs * _FACT_TOKENS
  learnt = f'know-s{seed}'
  cells = [
    study.train(
      learnt,
      config,
      axes=dict(stage='facts', how='', seed=seed),
      tokens=2 * told,
      pieces=asked.num_pieces,
      init_from=f'base-s{seed}',
    )
  ]
  scale = asked.scales[1]
  for how, replay in (('zh', 0.0), ('zh-replay', asked.replay)):
    config = _run(asked, seed, asked.peak_lr)
    config.data.sources.zh = study.text(
      'zh', max_bytes=scale, proportion=1 - replay
    )
    if replay:
      config.data.sources.en = study.text('en', proportion=replay)
    config.budget.epochs, config.budget.of = 1.0, 'zh'
    cells.append(
      study.train(
        f'know-{how}-{_words(scale)}-s{seed}',
        config,
        axes=dict(stage='facts', how=how, seed=seed),
        tokens=scale * _PER_BYTE['orig'] / (1 - replay),
        pieces=asked.num_pieces,
        init_from=learnt,
      )
    )
  return cells


def _pieces(asked, vocabulary):
  return asked.num_pieces + asked.num_new_pieces * (vocabulary == 'ext')


def _tuned(asked, name, parent, vocabulary, *, zh=0, en=0):
  """Instructions behind a parent: Chinese, English, or both together."""
  config = _run(asked, 0, asked.sft_lr)
  config.data.update(seq_len=1024, batch_size=4)
  tokens = {
    'zh': zh * 450 * _PER_BYTE[vocabulary],
    'en': en * 450 * _PER_BYTE['en'],
  }
  for language, size in (('zh', zh), ('en', en)):
    if size:
      config.data.sources[language] = study.text(
        f'sft_{language}',
        template='alpaca',
        max_documents=size,
        proportion=tokens[language] / sum(tokens.values()),
      )
  config.budget.epochs, config.budget.of = 1.0, 'zh' if zh else 'en'
  parts = ['sft', name, f'zh{zh}' * bool(zh), f'en{en}' * bool(en)]
  return study.train(
    '-'.join([*filter(None, parts), 's0']),
    config,
    axes=dict(
      stage='instruct',
      base=name,
      vocabulary=vocabulary,
      sft_zh=zh,
      sft_en=en,
      seed=0,
    ),
    tokens=sum(tokens.values()),
    pieces=_pieces(asked, vocabulary),
    init_from=parent,
  )


def _claims(asked):
  def pretrained(vocabulary, replay=0.0):
    return dict(
      stage='pretrain',
      vocabulary=vocabulary,
      scale_bytes=max(asked.scales),
      replay=replay,
      how='',
    )

  def tuned(base, size):
    return dict(stage='instruct', base=base, sft_zh=size, sft_en=0)

  def knows(language, how, **claim):
    return dict(
      evaluator=f'knows_{language}',
      metric='acc',
      terms=study.difference(
        dict(stage='facts', how=how), dict(stage='facts', how='')
      ),
      expect='equal',
      margin=0.02,
      guards=[dict(kind='above_chance', chance=0.25)],
      units=asked.num_facts,
      **claim,
    )

  base = dict(stage='base')
  few, many = min(asked.sft_sizes), max(asked.sft_sizes)
  # Below uniform bytes by a tenth: such a base has some Chinese to lose.
  reads = dict(kind='reads', evaluator='zh', cells=base, below=7.2)
  bits = dict(metric='bits_per_byte')
  return [
    dict(
      name='C1',
      claim='Extending the vocabulary does not pay at a small scale.',
      evaluator='zh',
      **bits,
      terms=study.difference(pretrained('ext'), pretrained('orig')),
      expect='greater',
      margin=0.01,
      margin_of=1,
      guards=[reads],
      seed_sd=0.02,
    ),
    knows(
      'en',
      'zh',
      name='C2',
      claim='Chinese leaves what was learnt in English as it was.',
    ),
    knows(
      'en',
      'zh-replay',
      name='C2-replay',
      claim='So it does with a fifth of English beside it.',
    ),
    knows(
      'zh',
      'zh',
      name='C2-transfer',
      claim='Chinese brings no knowledge over: asked in it, as before.',
    ),
    dict(
      name='C3',
      claim='Pretraining helps responses more with few instructions.',
      evaluator='zh_responses',
      **bits,
      terms=[
        *study.difference(tuned('orig', few), tuned('base', few)),
        *study.difference(tuned('base', many), tuned('orig', many)),
      ],
      expect='less',
      margin=0.01,
      margin_of=0,
      guards=[reads],
    ),
    dict(
      name='C4',
      claim='Chinese alone takes the English away.',
      evaluator='en',
      **bits,
      terms=study.difference(pretrained('orig'), base),
      expect='greater',
      margin=0.02,
      margin_of=1,
      seed_sd=0.072,
    ),
    dict(
      name='C4-replay',
      claim='A fifth of English beside it avoids 80% of that.',
      evaluator='en',
      **bits,
      # Of the rise no more than a fifth is left.
      terms=[
        dict(weight=1.0, cells=pretrained('orig', asked.replay)),
        dict(weight=-0.2, cells=pretrained('orig')),
        dict(weight=-0.8, cells=base),
      ],
      expect='less',
      margin=0.0,
    ),
  ]


def _plots():
  def plot(title, x, y, along, by, cells, **more):
    return dict(title=title, x=x, y=y, along=along, by=by, cells=cells, **more)

  zh, en = 'zh/bits_per_byte', 'en/bits_per_byte'
  scale = (
    'scale_bytes',
    ['vocabulary'],
    dict(stage='pretrain', how='', replay=0.0),
  )
  tuned = dict(stage='instruct', sft_en=0)
  return [
    plot('Chinese over its text', 'scale_bytes', zh, *scale, log_x=True),
    plot('English over Chinese text', 'scale_bytes', en, *scale, log_x=True),
    plot(
      'English against Chinese',
      zh,
      en,
      'scale_bytes',
      ['vocabulary', 'replay'],
      dict(stage='pretrain', how=''),
    ),
    plot(
      'Chinese responses over instructions',
      'sft_zh',
      'zh_responses/bits_per_byte',
      'sft_zh',
      ['base'],
      tuned,
      log_x=True,
    ),
    plot(
      'English over Chinese instructions',
      'sft_zh',
      en,
      'sft_zh',
      ['base'],
      tuned,
      log_x=True,
    ),
  ]
