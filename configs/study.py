"""What the studies share: a cell as data, and where its texts lie."""

from lbe.configs import common

FILES = '{files}'


def text(name, **changes):
  """A source of one of the study's frozen files."""
  return common.source(path=f'{FILES}/{name}.jsonl', **changes)


def scored(name, **changes):
  """An evaluator of the documents that the study held out of a file."""
  return common.perplexity(path=f'{FILES}/{name}_eval.jsonl', **changes)


def of(evaluator, **axes):
  """An evaluator of the cells with these axes alone."""
  with evaluator.unlocked():
    evaluator.cells = common.ConfigDict(axes)
  return evaluator


def train(name, config, *, axes, tokens, pieces, **inputs):
  """A run of `config`; inputs as init_from='base' name other cells.

  `tokens` and `pieces` (of its vocabulary) are expectations, for a dry run.
  """
  return dict(
    name=name,
    kind='train',
    axes=axes,
    inputs=inputs,
    config=config,
    tokens=round(tokens),
    pieces=pieces,
  )


def tokenizer(name, command, flags, **inputs):
  """A folder of lbe.tokenizer."""
  return dict(
    name=name,
    kind='tokenizer',
    axes=dict(stage='tokenizer'),
    inputs=inputs,
    config=dict(command=command, flags=flags),
    tokens=0,
    pieces=0,
  )


def model(name, path, *, preset, axes):
  """Weights from elsewhere, which are scored, and which cells begin from."""
  return dict(
    name=name,
    kind='model',
    axes=axes,
    inputs={},
    config=dict(path=path, preset=preset),
    tokens=0,
    pieces=0,
  )


def difference(a, b):
  """The terms of a claim: cells with the axes `a`, less those with `b`."""
  return [dict(weight=1, cells=a), dict(weight=-1, cells=b)]
