"""Perplexity and bits per byte of texts, as a rolling log-likelihood.

Each document stands alone. Its ids, without special ones, are predicted from
BOS in disjoint windows; the last window is moved to the left so that its
tokens see full context, and only the tokens that no window scored before
count. EOS is not scored. These are the semantics of `loglikelihood_rolling`
of lm-evaluation-harness with a tokenizer that adds no BOS.

Of conversations (`perplexity@responses`) what has loss weight is scored, the
end of a response included, given all that stands before it.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from lbe import loss
from lbe import sharding
from lbe.evals import core
from lbe.models import llama


def windows(ids, *, prefix_id, max_len):
  """(inputs, targets, weights) of a document.

  Three tokens 5 6 7 with a window of 2: ([0, 5], [5, 6], [1, 1]) and then
  ([5, 6], [6, 7], [0, 1]), where 0 is the prefix.
  """
  whole = [prefix_id, *ids]
  for start in range(0, len(ids), max_len):
    stop = min(start + max_len, len(ids))
    first = max(0, stop - max_len) if start else 0
    weights = [0] * (start - first) + [1] * (stop - start)
    yield whole[first:stop], whole[first + 1 : stop + 1], weights


def document_nats(
  params,
  c,
  *,
  tokenizer,
  documents,
  max_len,
  execution,
  mesh,
  batch_size,
):
  """Negative log-likelihood in nats, and tokens, of each document.

  Two float64 / int64 arrays, equal on every host. Windows are sorted by
  length and padded to one of few lengths, so few programs are compiled. A
  tokenizer without BOS predicts from EOS. Raises ValueError where there is
  neither.
  """
  prefix_id = tokenizer.bos_id
  if prefix_id is None:
    prefix_id = tokenizer.eos_id
  if prefix_id is None:
    raise ValueError(
      'the tokenizer has neither BOS nor EOS; the first token of a document '
      'has nothing to be predicted from.'
    )
  cut = []
  num_tokens = np.zeros(len(documents), np.int64)
  for i, ids in enumerate(tokenizer.encode_batch(list(documents))):
    num_tokens[i] = len(ids)
    cut += [(i, *w) for w in windows(ids, prefix_id=prefix_id, max_len=max_len)]
  nats = _score(
    params, c, cut, len(documents), max_len, execution, mesh, batch_size
  )
  return nats, num_tokens


def response_nats(params, c, *, examples, max_len, execution, mesh, batch_size):
  """As `document_nats`, of what is learnt of [(ids, weights), ...].

  Each is one window, of at most `max_len` tokens.
  """
  cut = [
    (i, ids[:-1], ids[1:], weights[1:])
    for i, (ids, weights) in enumerate(examples)
  ]
  nats = _score(
    params, c, cut, len(examples), max_len, execution, mesh, batch_size
  )
  return nats, np.array([int(weights[1:].sum()) for _, weights in examples])


def _score(params, c, cut, num, max_len, execution, mesh, batch_size):
  """float64 [num] nats: each of `cut` is (document, *window), in any order."""
  batch_size = _divisible(batch_size, mesh)
  cut.sort(key=lambda w: len(w[1]))
  nats = np.zeros(num, np.float64)
  pending = []
  for start in range(0, len(cut), batch_size):
    batch = cut[start : start + batch_size]
    length = _bucket(len(batch[-1][1]), max_len)
    arrays = _pad(batch, batch_size, length)
    score = _scorer(c, execution, mesh)
    pending.append((batch, score(params, _place(mesh, arrays))))
    # The device works on a batch while the host reads an earlier one.
    if len(pending) > 2:
      _add(nats, *pending.pop(0))
  for batch, scores in pending:
    _add(nats, batch, scores)
  return nats


def _add(nats, batch, scores_B):
  for (i, *_), value in zip(batch, np.asarray(scores_B), strict=False):
    nats[i] += float(value)


def _divisible(batch_size, mesh):
  rows = mesh.shape['data'] * mesh.shape['fsdp']
  return -(-batch_size // rows) * rows


def _bucket(length, max_len):
  """The padded length: a power of two from 32 on, at most `max_len`."""
  return min(max(32, 1 << (length - 1).bit_length()), max_len)


def _pad(batch, batch_size, length):
  ids = np.zeros((batch_size, length), np.int32)
  targets = np.zeros((batch_size, length), np.int32)
  weights = np.zeros((batch_size, length), np.float32)
  segments = np.zeros((batch_size, length), np.int32)
  for row, (_, inputs, outputs, counted) in enumerate(batch):
    n = len(inputs)
    ids[row, :n], targets[row, :n], segments[row, :n] = inputs, outputs, 1
    weights[row, :n] = counted
  return {'ids': ids, 'targets': targets, 'weights': weights, 'seg': segments}


def _place(mesh, arrays):
  where = jax.sharding.NamedSharding(mesh, sharding.spec(('batch', None)))
  return {
    name: jax.make_array_from_callback(x.shape, where, lambda i, x=x: x[i])
    for name, x in arrays.items()
  }


@functools.lru_cache(maxsize=8)
def _scorer(c, execution, mesh):
  """The jitted (params, arrays) → float32 nats of each row, on every host."""
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  @functools.partial(jax.jit, out_shardings=replicated)
  def score(params, arrays):
    ids_BT = arrays['ids']
    positions_BT = jnp.broadcast_to(
      jnp.arange(ids_BT.shape[1], dtype=jnp.int32), ids_BT.shape
    )
    x_BTD = llama.hidden(
      params,
      c,
      ids_BT,
      positions_BT=positions_BT,
      segments_BT=arrays['seg'],
      execution=execution,
      constrain=sharding.constrain(mesh),
    )
    nll_BT = loss.per_token(
      x_BTD,
      llama.head_DV(params, c),
      arrays['targets'],
      vocab_size=c.vocab_size,
    )
    return jnp.sum(nll_BT * arrays['weights'], axis=1)

  return score


def evaluate(
  params,
  c,
  *,
  name,
  documents,
  tokenizer,
  max_len,
  execution,
  mesh,
  batch_size,
  step,
):
  """(rows for results.jsonl, metrics by name) of one set of documents.

  A document is a text or, of conversations, (ids, weights).
  """
  settings = dict(
    max_len=max_len, execution=execution, mesh=mesh, batch_size=batch_size
  )
  if isinstance(documents[0], str):
    protocol, texts = 'perplexity@rolling', documents
    nats, num_tokens = document_nats(
      params, c, tokenizer=tokenizer, documents=documents, **settings
    )
    num_bytes = np.array([len(text.encode()) for text in documents])
  else:
    protocol = 'perplexity@responses'
    texts = [str((ids.tolist(), w.tolist())) for ids, w in documents]
    nats, num_tokens = response_nats(params, c, examples=documents, **settings)
    lengths = np.asarray(tokenizer.byte_lengths, np.int64)
    num_bytes = np.array([lengths[ids[w > 0]].sum() for ids, w in documents])
  common = {
    'step': step,
    'evaluator': name,
    'protocol': protocol,
    'data_hash': core.data_hash(texts),
    'documents': len(documents),
    'tokenizer': tokenizer.fingerprint[:16],
    'predicted_from': 'EOS' if tokenizer.bos_id is None else 'BOS',
    'dtype': execution.compute_dtype,
    'max_len': max_len,
  }
  rows, metrics = [], {}
  for score, value, count in summarize(nats, num_tokens, num_bytes):
    row = {**common, 'name': score, 'value': value, 'count': count}
    if score == 'bits_per_byte':
      row['interval95'] = core.bootstrap(nats, num_bytes, scale=1 / math.log(2))
    rows.append(row)
    metrics[f'eval/{name}/{score}'] = value
  return rows, metrics


def summarize(nats, num_tokens, num_bytes):
  """[(name, value, count)] over a corpus; sums are divided once.

  `bits_per_byte` counts UTF-8 bytes of the original texts and compares
  across tokenizers; `perplexity` is per token and does not.
  """
  total, tokens, size = nats.sum(), num_tokens.sum(), num_bytes.sum()
  return [
    ('bits_per_byte', float(total / math.log(2) / size), int(size)),
    ('perplexity', math.exp(min(total / tokens, 700.0)), int(tokens)),
    ('nats_per_document', float(total / len(nats)), len(nats)),
  ]
