"""New pieces at the start of a run: rows for them, and what they do at once."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax

from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.convert import stored
from lbe.evals import perplexity
from lbe.evals import schedule
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import weights
from lbe.run import branch
from lbe.training import groups
from lbe.vocab import rows
from lbe.vocab import tokenizers


def check(config):
  """Raises ValueError for settings of new rows that do not go together.

  It needs no data, so it is asked before hours of tokenizing.
  """
  rows.check(config.new_rows.method, config.new_rows.dictionary)


def extend_params(
  opened: stored.Opened,
  tokenizer: tokenizers.Tokenizer,
  model: architecture.Config,
  mesh: jax.sharding.Mesh,
  params: dict,
  *,
  method: str,
  match_norms: bool,
  dictionary: str,
  seed: int,
  say: Callable[[str], None] = print,
) -> dict:
  """`params` of the opened weights get rows for the tokenizer's new pieces.

  `model` is the extended architecture; both matrices come in their shards.
  `method` and `match_norms` are those of rows.make, `dictionary` the file of
  the method of that name.
  """
  rows.check(method, dictionary)
  if dictionary:
    spellings, num_found = rows.translate(
      opened.tokenizer, tokenizer, dictionary
    )
    say(
      f'{dictionary}: {num_found:,} of {len(spellings):,} new pieces have a '
      'translation; the others start from the rows that spell them'
    )
  else:
    spellings = rows.spell(opened.tokenizer, tokenizer)
  shardings = sharding.shardings(mesh, weights.dims(model))
  # One matrix after the other, and the old one is let go: `params` changes.
  for i, name in enumerate(('embed_VD', 'head_DV')):
    if name in params:
      extend = functools.partial(
        rows.extend,
        name=name,
        spellings=spellings,
        num_old=opened.tokenizer.vocab_size,
        num_rows=model.padded_vocab_size,
        constrain=sharding.constrain(mesh),
        method=method,
        key=jax.random.fold_in(jax.random.key(seed), i),
        match_norms=match_norms,
      )
      extend = jax.jit(extend, out_shardings=shardings[name])
      params[name] = extend(params[name])
  return params


def describe(
  config,
  opened: stored.Opened,
  model: architecture.Config,
  params: dict,
  evaluators: list[schedule.Evaluator],
  mesh: jax.sharding.Mesh,
) -> str:
  """Lines about the new rows before the first step.

  For each set of texts: bits per byte in the base's pieces with the new ones
  masked (the base model's own score), and the probability that the new rows
  take from each token there (a geometric mean).
  """
  num_old = opened.tokenizer.vocab_size
  lines = []
  for name in ('embed_VD', 'head_DV'):
    if name in params:
      rows_VD = params[name] if name == 'embed_VD' else params[name].T
      norm_V = jax.numpy.linalg.norm(rows_VD, axis=1)
      lines.append(
        f'{name}: mean norm of old rows {norm_V[:num_old].mean():.4f}, of new '
        f'rows {norm_V[num_old : model.vocab_size].mean():.4f}'
      )
  for e in evaluators:
    documents = getattr(e.task, 'documents', [None])
    if not isinstance(documents[0], str):
      continue  # conversations have the extended tokenizer's ids
    nats = []
    for c in (dataclasses.replace(model, vocab_size=num_old), model):
      seen = model_lib.as_evaluated(params, c, opened.tokenizer, mesh, config)
      seen = dataclasses.replace(
        seen, max_len=min(e.task.max_len, seen.max_len)
      )
      of_documents, num_tokens = perplexity.document_nats(seen, documents)
      nats.append(of_documents.sum())
    num_bytes = sum(len(text.encode()) for text in documents)
    mass = -math.expm1((nats[0] - nats[1]) / num_tokens.sum())
    lines.append(
      f'{e.name} in the pieces of the base: '
      f'{nats[0] / math.log(2) / num_bytes:.4f} bits per byte with the new '
      f'pieces masked; they take {mass:.2%} of the probability'
    )
  return '\n'.join(lines)


def first_params(
  config,
  opened: stored.Opened | None,
  tokenizer: tokenizers.Tokenizer,
  model: architecture.Config,
  mesh: jax.sharding.Mesh,
  partition: groups.Partition,
  evaluators: list,
  say: Callable[[str], None],
) -> dict:
  """The parameters of step 0: of `opened`, grown and adapted, or random."""
  if opened is None:
    say('starting from random weights')
    return model_lib.init_params(model, mesh, config.seed)
  anew = branch.not_taken(opened.path)
  say(f'starting from the weights of {opened.path}{anew}')
  params = opened.load_params(
    mesh, dtype=step_lib.param_dtypes(config, partition)
  )
  if model.lora and not opened.config.lora:
    params['lora'] = model_lib.init_adapters(model, mesh, config.seed)
  if model_lib.is_extended(opened, tokenizer):
    how = dict(**config.new_rows.to_dict(), seed=config.seed, say=say)
    params = extend_params(opened, tokenizer, model, mesh, params, **how)
    say(describe(config, opened, model, params, evaluators, mesh))
  return params
