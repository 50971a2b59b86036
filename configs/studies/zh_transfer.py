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
from lbe.configs import study
from lbe.configs.studies import llama

SCALES = {'10k': 10_000, '100k': 100_000, '1m': 1_000_000}
SIZES = {'1k': 1_000, '5k': 5_000, '950k': 950_000}

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
    evals['responses'] = common.response_quality(
      questions=asked.questions, template='belle', judge=common.people()
    )
  return evals


def _pretrained(asked, vocabulary, scale, seed):
  """Chinese at a scale of documents."""
  parts = ['zh', *['ext'] * (vocabulary == 'ext'), scale]
  return llama.pretrained(
    llama.named(parts, seed, asked.seeds),
    documents=SCALES[scale],
    axes=dict(
      stage='pretrain',
      base='llama_7b',
      vocabulary=vocabulary,
      scale_documents=SCALES[scale],
      replay=asked.replay,
    ),
    seed=seed,
    peak_lr=asked.peak_lr,
    vocabulary=vocabulary,
    replay=asked.replay,
    init_from='llama_7b',
  )


def _instructed(asked, base, size, seed, pieces):
  """One row of Table 1."""
  vocabulary = 'ext' if '-ext-' in base else 'orig'
  return llama.instructed(
    llama.named(['sft', size, base], seed, asked.seeds),
    recipe=asked.recipe,
    source='belle',
    examples=SIZES[size],
    axes=dict(stage='instruct', base=base, sft_zh=SIZES[size]),
    seed=seed,
    init_from=base
    if base in pieces
    else llama.named([base], seed, asked.seeds),
    num_pieces=pieces.get(base, llama.PIECES[vocabulary]),
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
