"""The evaluators of a config, with the steps at which they are due."""

import importlib
import pathlib
import re

from lbe.assemble import data
from lbe.data import order as order_lib
from lbe.data import tokenized
from lbe.evals import core
from lbe.evals import pairs
from lbe.evals import perplexity
from lbe.evals import schedule
from lbe.vocab import tokenizers

# Modules of lbe.evals, by their names.
EVALUATORS = (
  'perplexity',
  'in_context',
  'parallel',
  'multiple_choice',
  'exam',
  'pairs',
  'generation',
  'response_quality',
  'code_switching',
  'lm_eval',
)


def make(
  config,
  prepared: dict[str, tokenized.Prepared] | None,
  tokenizer: tokenizers.Tokenizer,
  *,
  max_positions: int,
  num_old: int | None = None,
  results: pathlib.Path | None = None,
) -> list[schedule.Evaluator]:
  """The evaluators of the config, their data read and checked.

  One without data (an empty path) is left out. `prepared` is None where no
  training data is there (evaluate). `max_positions` are the model's, `num_old`
  its pieces before its vocabulary was extended, and `results` the
  results.jsonl of a run that is trained. Raises ValueError, before anything is
  compiled, for what cannot be scored.
  """
  result = []
  for name, e in config.evals.items():
    fields = e.to_dict()
    kind = fields.pop('evaluator', None)
    if kind not in EVALUATORS:
      raise ValueError(
        f'evals.{name}.evaluator={kind!r} is unknown; take one of '
        f'{", ".join(EVALUATORS)}.'
      )
    steps = {k: fields.pop(k) for k in ('every', 'at_start', 'at_end')}
    try:
      if kind == 'perplexity':
        task = _make_documents(config, prepared, name, **fields)
      elif kind == 'pairs':
        task = _make_pairs(config, prepared, name, **fields)
      else:
        if kind == 'in_context':
          fields['num_pieces'] = (
            fields['num_pieces'] or num_old or tokenizer.vocab_size
          )
          fields |= {
            'tokenizer': tokenizer,
            'max_positions': max_positions,
            'results': results,
          }
        module = importlib.import_module(f'lbe.evals.{kind}')
        task = module.make(**fields)
      if kind == 'multiple_choice' and task is not None:
        task.check(tokenizer)
    except ValueError as error:
      raise ValueError(f'evals.{name}: {error}') from error
    if task is not None:
      result.append(schedule.Evaluator(name=name, task=task, **steps))
  whole = {e.name for e in result if e.at_start and e.at_end}
  for side, scores in config.forgetting.items():
    for score in scores:
      if score.split('/')[0] not in whole:
        raise ValueError(
          f'forgetting.{side} has {score!r}, but no evaluator of that name has '
          'data and runs at_start and at_end; those that do: '
          f'{", ".join(sorted(whole)) or "none"}.'
        )
  return result


def best_is(config, evaluators: list[schedule.Evaluator]) -> str | None:
  """'lower' or 'higher': which value of checkpoint.keep_best is kept.

  None where nothing is. Raises ValueError, before anything is compiled, for
  what is no score of these evaluators, or of which neither is better.
  """
  asked = config.checkpoint.keep_best
  if not asked:
    return None
  known = {}
  for e in evaluators:
    kind = config.evals[e.name].evaluator
    if kind == 'lm_eval':
      scores = e.task.better()
    else:
      scores = dict(core.BETTER[kind])
    if kind == 'response_quality':
      scores |= dict.fromkeys(e.task.rubric.criteria, core.HIGHER)
    known |= {f'eval/{e.name}/{score}': way for score, way in scores.items()}
    # Of parts, as acc/stem and chrf/zh, and of averages, as acc_macro.
    for name, way in known.items():
      average = re.escape(name).replace('/TASK/', '/.+/')
      if re.fullmatch(f'{average}(_(micro|macro|points))?(/.+)?', asked):
        return way
  raise ValueError(
    f'checkpoint.keep_best={asked!r} is no score of this run of which lower or '
    f'higher is better; take one of {", ".join(known) or "none: set evals"}.'
  )


def _make_documents(
  config, prepared, name, *, source, max_len, limit, **fields
):
  """The texts of a perplexity.Documents; None with neither source nor path."""
  found = _texts(config, prepared, name, source=source, limit=limit, **fields)
  if found is None:
    return None
  texts, hashes = found
  max_len = max_len or config.data.seq_len
  names = [f'{number:016x}' for number in hashes][: limit or None]
  texts = texts[: limit or None]
  if not isinstance(texts[0], str):
    max_len = config.data.seq_len  # a conversation is one window
    # Of the others there is nothing to score.
    learnt = [i for i, (_, weights) in enumerate(texts) if weights[1:].any()]
    if not learnt:
      raise ValueError(
        f'it scores {len(texts)} held-out conversations of {source}, all of '
        'whose responses have the weight 0; hold out more, or mend them.'
      )
    texts, names = ([of[i] for i in learnt] for of in (texts, names))
  return perplexity.Documents(texts, names, max_len=max_len)


def _make_pairs(
  config,
  prepared,
  name,
  *,
  protocol,
  source,
  path,
  languages,
  limit,
  seed,
  sides,
  parts,
  **fields,
):
  """As pairs.make, whose texts are those of a source or a path."""
  texts = None
  if languages and (source or protocol != pairs.SWAP):
    raise ValueError(
      f'languages={tuple(languages)!r} are of {pairs.SWAP} and a folder, '
      'path=FOLDER; take () for what has one.'
    )
  if languages:
    texts = path and data.sentences_of(config.evals[name])
  elif protocol == pairs.SWAP:
    found = _texts(
      config, prepared, name, source=source, path=path, limit=0, **fields
    )
    if found and not isinstance(found[0][0], str):
      raise ValueError(
        f'source={source!r} has conversations; {protocol} takes texts.'
      )
    texts = found and {'': found[0]}
  elif source:
    raise ValueError(
      f'source={source!r}, but {protocol} reads pairs; give path=.'
    )
  return pairs.make(
    protocol=protocol,
    path=path,
    texts=texts or None,
    sides=sides,
    parts=parts,
    limit=limit,
    seed=seed,
  )


def _texts(config, prepared, name, *, source, path, limit, **fields):
  """(texts that are scored, their hashes), of a source's held-out documents.

  Or those of a path. None with neither: an empty slot, to be filled on the
  command line.
  """
  if source and path:
    raise ValueError(
      f'it has both source={source!r} and path={path!r}; clear one of them.'
    )
  if source:
    if not prepared or source not in prepared:
      raise ValueError(
        f'source={source!r} is no source of this run; give path=FILE, or one '
        f'of {", ".join(prepared or ())}.'
      )
    texts, hashes = prepared[source].heldout_documents()
    if not texts:
      where = f'data.sources.{source}'
      share = config.data.sources[source].get('holdout')
      found = (prepared[source].whole or prepared[source].train).num_documents
      raise ValueError(
        f'it scores the held-out documents of {source}, which has none'
        + (
          f': none of its {found:,} fell into the share {where}.holdout='
          f'{share}; take a larger one, or cut its text into more documents '
          f'({where}.cut).'
          if share
          else f'; set {where}.holdout.'
        )
      )
    return texts, hashes
  if path:
    texts = data.scored_texts(config, name, path=path, limit=limit, **fields)
    return texts, map(order_lib.text_hash, texts)
  return None
