"""LLaMA into Chinese: the paper's Tables 1 and 2 and Figure 2 as one study.

  python -m lbe.study --config=configs/studies/zh_transfer.py --workdir=DIR \
    --config.llama_7b=HF_DIR --config.zh=zh/ --config.en=en/ \
    --config.belle=belle.jsonl --config.heldout_zh=zh_web.jsonl \
    --config.heldout_en=refinedweb.jsonl --config.pieces=chinese_sp.model
  python -m lbe.study --config=configs/studies/zh_transfer.py --workdir=DIR \
    --dry_run --topology=v5p-128=4.2,h100:8=3

A dry run counts all of them without a path; what lacks one is left out by
`--only=zh-*`, which runs the cells that it names. Own checkpoints are scored
beside the paper's with `--config.own=DIR`.

Of the paper (arXiv 2401.01055) come scales, sizes and models; it states no
optimisation settings: those of zh_pretrain.py and BELLE's recipe stand here.
Responses are kept for `python -m lbe.judge`: its judge was GPT-4. Figure 2's
exams need the folders of C-Eval, MMLU, AGIEval and GAOKAO-Bench.
"""

from lbe.configs import common
from lbe.configs import instruct
from lbe.configs import study

SCALES = {'10k': 10_000, '100k': 100_000, '1m': 1_000_000}
SIZES = {'1k': 1_000, '5k': 5_000, '950k': 950_000}

# LLaMA tokens of a document: 0.5B tokens are 1M samples (the paper). An
# extended vocabulary writes the same text in 0.636 / 1.482 as many
# (Chinese-LLaMA's own figures, arXiv 2304.08177).
_DOCUMENT_TOKENS = 500
_EXTENDED = 0.636 / 1.482
# An example of BELLE in LLaMA's tokens: an estimate.
_EXAMPLE_TOKENS = 300

# (name, preset, pieces): what is published, and scored as it is.
_MODELS = (
  ('llama_7b', 'llama_7b', 32_000),
  ('llama_13b', 'llama_13b', 32_000),
  ('llama2_7b', 'llama2_7b', 32_000),
  ('chinese_llama', 'llama_7b', 49_953),
  ('chinese_llama2', 'llama2_7b', 55_296),
  ('open_chinese_llama', 'llama_7b', 32_000),
)
# Table 1's rows of each size.
_TUNED = {
  '1k': (
    'llama_7b',
    'zh-10k',
    'zh-100k',
    'zh-1m',
    'chinese_llama',
    'open_chinese_llama',
  ),
  '950k': (
    'llama_7b',
    'zh-1m',
    'zh-ext-1m',
    'chinese_llama',
    'open_chinese_llama',
    'llama2_7b',
    'chinese_llama2',
  ),
}
_TUNED['5k'] = _TUNED['1k']


def get_config():
  config = common.ConfigDict()
  for name, _, _ in _MODELS:
    config[name] = ''
  config.own = ''  # a checkpoint of one's own, of LLaMA-7B's shape
  config.own_pieces = 32_000
  config.pieces = ''  # the SentencePiece model whose pieces are added
  config.zh = ''  # web text to go on with
  config.en = ''  # for replay, where there is any
  config.replay = 0.0  # the paper has none
  config.belle = ''
  config.heldout_zh = ''  # 200,000 documents each, in the paper
  config.heldout_en = ''
  config.ceval = config.mmlu = config.agieval = config.gaokao = ''
  config.questions = ''  # LLM-Eval's, for responses
  config.recipe = 'belle'
  config.peak_lr = 3e-5
  config.seeds = 1  # as in the paper; three for a verdict
  return config.lock()


def make(asked):
  """The study that the fields ask for."""
  models = [*_MODELS]
  if asked.own:
    models.append(('own', 'llama_7b', asked.own_pieces))
  cells, pieces = [], {}
  for name, preset, number in models:
    cells.append(
      study.model(
        name, asked[name], preset=preset, axes=dict(stage='model', base=name)
      )
    )
    pieces[name] = number
  cells.append(
    study.tokenizer(
      'pieces',
      'extend',
      {'base': asked.llama_7b, 'add': asked.pieces},
    )
  )
  tuned = {size: list(names) for size, names in _TUNED.items()}
  for seed in range(asked.seeds):
    for scale in SCALES:
      cells.append(_pretrained(asked, 'orig', scale, seed))
    cells.append(_pretrained(asked, 'ext', '1m', seed))
    for size, names in tuned.items():
      for name in [*names, *['own'] * bool(asked.own)]:
        cells.append(_instructed(asked, name, size, seed, pieces))
  return dict(
    name='zh_transfer',
    files=_files(asked),
    evals=_evals(asked),
    scoring=dict(execution=dict(compute_dtype='bfloat16')),
    cells=cells,
    claims=_claims(asked),
  )


def _files(asked):
  """Those that are given."""
  of = dict(
    zh=dict(path=asked.zh),
    en=dict(path=asked.en),
    belle=dict(path=asked.belle, template='belle'),
  )
  for language in ('zh', 'en'):
    path = asked[f'heldout_{language}']
    of[f'heldout_{language}'] = dict(path=path, eval_documents=200_000)
  return {name: fields for name, fields in of.items() if fields['path']}


def _evals(asked):
  evals = {}
  for language in ('zh', 'en'):
    if asked[f'heldout_{language}']:
      evals[language] = study.scored(f'heldout_{language}', max_len=2048)
  for name, protocol in (
    ('ceval', 'ceval@official'),
    ('mmlu', 'mmlu@hendrycks'),
    ('agieval', 'agieval@loglik'),
    ('gaokao', 'gaokao@loglik'),
  ):
    if asked[name]:
      evals[name] = common.multiple_choice(protocol=protocol, path=asked[name])
  if asked.questions:
    evals.responses = common.response_quality(
      questions=asked.questions, template='belle', judge=common.people()
    )
  return evals


def _pretrained(asked, vocabulary, scale, seed):
  """Chinese at a scale of documents, each once."""
  config = common.base()
  config.seed, config.data.seed = seed, 0
  config.data.sources.zh = study.text(
    'zh', max_documents=SCALES[scale], proportion=1 - asked.replay
  )
  if asked.replay:
    config.data.sources.en = study.text('en', proportion=asked.replay)
  config.data.update(seq_len=2048, batch_size=128)
  config.budget.epochs, config.budget.of = 1.0, 'zh'
  config.execution.remat = 'full'
  config.optim.peak_lr = asked.peak_lr
  config.checkpoint.update(every=200, keep=1)
  tokens, inputs = SCALES[scale] * _DOCUMENT_TOKENS, dict(init_from='llama_7b')
  if vocabulary == 'ext':
    tokens *= _EXTENDED
    inputs['tokenizer'] = 'pieces'
  parts = ['zh', *['ext'] * (vocabulary == 'ext'), scale]
  return study.train(
    _name(asked, parts, seed),
    config,
    axes=dict(
      stage='pretrain',
      base='llama_7b',
      vocabulary=vocabulary,
      scale_documents=SCALES[scale],
      replay=asked.replay,
      seed=seed,
    ),
    tokens=tokens / (1 - asked.replay),
    pieces=49_953 if vocabulary == 'ext' else 32_000,
    **inputs,
  )


def _name(asked, parts, seed):
  """With the seed where there are several."""
  return '-'.join([*parts, *[f's{seed}'] * (asked.seeds > 1)])


def _instructed(asked, base, size, seed, pieces):
  """One row of Table 1."""
  config = instruct.base(asked.recipe)
  config.seed, config.data.seed = seed, 0
  config.data.sources.zh = instruct.source(
    'belle', path=f'{study.FILES}/belle.jsonl', max_documents=SIZES[size]
  )
  config.budget.of = 'zh'
  config.checkpoint.update(every=500, keep=1)
  number = pieces.get(base, 49_953 if '-ext-' in base else 32_000)
  parent = base if base in pieces else _name(asked, [base], seed)
  tokens = SIZES[size] * _EXAMPLE_TOKENS * config.budget.epochs
  return study.train(
    _name(asked, ['sft', size, base], seed),
    config,
    axes=dict(stage='instruct', base=base, sft_zh=SIZES[size], seed=seed),
    tokens=tokens * (_EXTENDED if number > 32_000 else 1),
    pieces=number,
    init_from=parent,
  )


def _claims(asked):
  """Those whose evaluators have their data."""

  def pretrained(vocabulary):
    return dict(
      stage='pretrain', vocabulary=vocabulary, scale_documents=SCALES['1m']
    )

  llama = dict(stage='model', base='llama_7b')
  claims = []
  if asked.heldout_zh:
    claims.append(
      dict(
        name='C1',
        claim='Extending the vocabulary does not pay at 0.5B tokens.',
        evaluator='zh',
        metric='bits_per_byte',
        terms=study.difference(pretrained('ext'), pretrained('orig')),
        expect='greater',
        margin=0.01,
        margin_of=1,
      )
    )
  if asked.heldout_en:
    claims.append(
      dict(
        name='C4',
        claim='Chinese alone takes the English away.',
        evaluator='en',
        metric='bits_per_byte',
        terms=study.difference(pretrained('orig'), llama),
        expect='greater',
        margin=0.02,
        margin_of=1,
      )
    )
  for exam, units in (('ceval', 1_346), ('mmlu', 14_042)):
    if asked[exam]:
      claims.append(
        dict(
          name=f'C2-{exam}',
          claim='Pretraining of this size changes no knowledge.',
          evaluator=exam,
          metric='acc',
          terms=study.difference(pretrained('orig'), llama),
          expect='equal',
          margin=0.02,
          guards=[dict(kind='above_chance', chance=0.25)],
          units=units,
        )
      )
  return claims
