"""What the studies at LLaMA's size share: cells, sizes, and what they take."""

from lbe.configs import common
from lbe.configs import instruct
from lbe.configs import study

# LLaMA tokens of a document: 0.5B tokens are 1M samples (the paper). An
# extended vocabulary writes the same Chinese in 0.636 / 1.482 as many
# (Chinese-LLaMA's own figures, arXiv 2304.08177).
DOCUMENT_TOKENS = 500
EXTENDED = 0.636 / 1.482
PIECES = {'orig': 32_000, 'ext': 49_953}
# An example in LLaMA's tokens: an estimate.
EXAMPLE_TOKENS = 300


def base(asked):
  """The cell of the weights that a study begins from."""
  return study.model(
    'llama',
    asked.init_from,
    preset=asked.preset,
    axes=dict(stage='model', base='llama'),
  )


def pieces(asked):
  """The cell of the extended tokenizer."""
  return study.tokenizer(
    'pieces', 'extend', {'base': asked.init_from, 'add': asked.pieces}
  )


def pretrained(
  name,
  *,
  documents,
  axes,
  seed,
  peak_lr,
  language='zh',
  vocabulary='orig',
  replay=0.0,
  batch_size=128,
  init_from='llama',
):
  """The first so many documents of a language, each once.

  `replay` is the share of English tokens beside them.
  """
  config = common.base()
  config.seed, config.data.seed = seed, 0
  config.data.sources[language] = study.text(
    language, max_documents=documents, proportion=1 - replay
  )
  if replay:
    config.data.sources.en = study.text('en', proportion=replay)
  config.data.update(seq_len=2048, batch_size=batch_size)
  config.budget.epochs, config.budget.of = 1.0, language
  config.execution.remat = 'full'
  config.optim.peak_lr = peak_lr
  config.checkpoint.update(every=200, keep=1)
  inputs = dict(init_from=init_from)
  if vocabulary == 'ext':
    inputs['tokenizer'] = 'pieces'
  tokens = documents * DOCUMENT_TOKENS
  return study.train(
    name,
    config,
    axes=axes | dict(seed=seed),
    tokens=tokens * (EXTENDED if vocabulary == 'ext' else 1) / (1 - replay),
    pieces=PIECES[vocabulary],
    **inputs,
  )


def instructed(
  name,
  *,
  recipe,
  examples,
  axes,
  seed,
  init_from,
  source='sft',
  template='belle',
  num_pieces=PIECES['orig'],
):
  """The first so many examples of the file `source`, by a published recipe."""
  config = instruct.base(recipe)
  config.seed, config.data.seed = seed, 0
  config.data.sources[source] = instruct.source(
    template, path=f'{study.FILES}/{source}.jsonl', max_documents=examples
  )
  config.budget.of = source
  config.checkpoint.update(every=500, keep=1)
  config.export_hf = False  # a cell is what comes behind it
  tokens = examples * EXAMPLE_TOKENS * config.budget.epochs
  return study.train(
    name,
    config,
    axes=axes | dict(seed=seed),
    tokens=tokens * (EXTENDED if num_pieces > PIECES['orig'] else 1),
    pieces=num_pieces,
    init_from=init_from,
  )


def texts(asked):
  """Of Chinese and English: their files, and what is scored on them."""
  held = dict(eval_documents=asked.eval_documents)
  return dict(
    files=dict(zh=dict(path=asked.zh, **held), en=dict(path=asked.en, **held)),
    evals=dict(
      zh=study.scored('zh', max_len=2048), en=study.scored('en', max_len=2048)
    ),
    scoring=dict(execution=dict(compute_dtype='bfloat16')),
  )


def named(parts, seed, seeds):
  """With the seed where there are several."""
  return '-'.join([*parts, *[f's{seed}'] * (seeds > 1)])
