"""Perplexity and bits per byte of texts, as a rolling log-likelihood.

Each document stands alone. Its ids, without special ones, are predicted from
BOS in disjoint windows; the last window is moved to the left so that its
tokens see full context, and only the tokens that no window scored before
count. EOS is not scored. These are the semantics of `loglikelihood_rolling`
of lm-evaluation-harness with a tokenizer that adds no BOS.

Of conversations (`perplexity@responses`) what has loss weight is scored, the
end of a response included, given all that stands before it.
"""

import math

import numpy as np

from lbe import score
from lbe.evals import core


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

  Two float64 / int64 arrays, equal on every host. A tokenizer without BOS
  predicts from EOS. Raises ValueError where there is neither.
  """
  requests, owners = [], []
  num_tokens = np.zeros(len(documents), np.int64)
  prefix_id = score.prefix_id(tokenizer)
  for i, ids in enumerate(tokenizer.encode_batch(list(documents))):
    num_tokens[i] = len(ids)
    cut = list(score.windows(ids, prefix_id=prefix_id, max_len=max_len))
    requests += cut
    owners += [i] * len(cut)
  scores = score.score(
    params,
    c,
    requests,
    max_len=max_len,
    execution=execution,
    mesh=mesh,
    batch_size=batch_size,
  )
  nats = np.zeros(len(documents), np.float64)
  np.add.at(nats, np.array(owners, int), [-s.logprob for s in scores])
  return nats, num_tokens


def response_nats(params, c, *, examples, max_len, execution, mesh, batch_size):
  """As `document_nats`, of what is learnt of [(ids, weights), ...].

  Each is one window, of at most `max_len` tokens.
  """
  requests = []
  for ids, weights in examples:
    at = np.nonzero(weights[1:])[0]
    requests.append(score.Request(ids[:-1], at, ids[1:][at]))
  scores = score.score(
    params,
    c,
    requests,
    max_len=max_len,
    execution=execution,
    mesh=mesh,
    batch_size=batch_size,
  )
  nats = np.array([-s.logprob for s in scores])
  return nats, np.array([len(r.targets) for r in requests])


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
  for what, value, count in summarize(nats, num_tokens, num_bytes):
    row = {**common, 'name': what, 'value': value, 'count': count}
    if what == 'bits_per_byte':
      row['interval95'] = core.bootstrap(nats, num_bytes, scale=1 / math.log(2))
    rows.append(row)
    metrics[f'eval/{name}/{what}'] = value
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
