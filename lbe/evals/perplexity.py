"""Perplexity and bits per byte of texts, as a rolling log-likelihood.

Each document stands alone. Its ids, without special ones, are predicted from
BOS in disjoint windows; the last window is moved to the left so that its
tokens see full context, and only the tokens that no window scored before
count. EOS is not scored. These are the semantics of `loglikelihood_rolling`
of lm-evaluation-harness with a tokenizer that adds no BOS.

Of conversations (`perplexity@responses`) what has loss weight is scored, the
end of a response included, given all that stands before it.
"""

import dataclasses
import functools
import math

import numpy as np

from lbe.evals import core
from lbe.inference import score
from lbe.run import averages
from lbe.text import scripts

# Nats whose exponential is a float64.
_LARGEST = 700.0
# Where a larger share of the characters has no spaces between words, there is
# no score by word.
_MOST_UNSPACED = 0.05


def document_nats(model, documents, *, progress=''):
  """Negative log-likelihood in nats, and tokens, of each text.

  Two float64 / int64 arrays, equal on every host. A tokenizer without BOS
  predicts from EOS. Raises ValueError where there is neither.
  """
  ids = list(model.tokenizer.encode_batch(list(documents)))
  num_tokens = np.array([len(x) for x in ids], np.int64)
  return core.rolling_nats(model, ids, progress=progress), num_tokens


def response_nats(model, examples, *, progress=''):
  """As `document_nats`, of what is learnt of [(ids, weights), ...].

  Each is one window, of at most the model's positions.
  """
  requests = []
  for ids, weights in examples:
    at = np.nonzero(weights[1:])[0]
    requests.append(score.Request(ids[:-1], at, ids[1:][at]))
  scores = model.score(requests, progress=progress)
  nats = np.array([-s.logprob for s in scores])
  return nats, np.array([len(r.targets) for r in requests])


class Documents:
  """Texts or, of conversations, [(ids, weights), ...]; one kind only.

  `names` are hashes of their contents: the same in every run, whatever its
  tokenizer and order. Windows are `max_len` long, at most as the model's
  positions.
  """

  def __init__(self, documents, names, *, max_len):
    self.documents = documents
    self.names = names
    self.max_len = max_len

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result: bits per byte, perplexity, and others by their unit."""
    max_len = min(self.max_len, model.max_len)
    model = dataclasses.replace(model, max_len=max_len)
    counts = {}
    if isinstance(self.documents[0], str):
      protocol, texts = 'perplexity@rolling', self.documents
      nats, num_tokens = document_nats(model, texts, progress=name)
      counts['byte'] = np.array([len(text.encode()) for text in texts])
      counts['character'] = np.array([len(text) for text in texts])
      if _has_words(texts):
        counts['word'] = np.array([len(text.split()) for text in texts])
    else:
      protocol = 'perplexity@responses'
      nats, num_tokens = response_nats(model, self.documents, progress=name)
      lengths = np.asarray(model.tokenizer.byte_lengths, np.int64)
      counts['byte'] = np.array(
        [lengths[ids[1:][w[1:] > 0]].sum() for ids, w in self.documents]
      )
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      protocol=protocol,
      data_hash=core.data_hash(sorted(self.names)),
      num_units=len(self.names),
      unit='documents',
      predicted_from='EOS' if model.tokenizer.bos_id is None else 'BOS',
    )
    rows, metrics = [], {}
    for what, value, count in summarize(nats, num_tokens, counts):
      rows.append(row(name=what, value=value, count=count))
      if what == 'bits_per_byte':
        bits = averages.Average(nats / math.log(2), counts['byte'])
        rows[-1] |= averages.interval(bits.interval95())
      metrics[what] = value
    predictions = [
      {
        'step': step,
        'evaluator': name,
        'id': self.names[i],
        'nats': float(nats[i]),
        'tokens': int(num_tokens[i]),
        'bytes': int(counts['byte'][i]),
      }
      for i in range(len(self.names))
    ]
    return core.Result(rows, metrics, predictions)


def _has_words(texts):
  """Whether nearly all characters are of scripts that part words by spaces.

  A sentence without spaces would count as one word.
  """
  unspaced = sum(len(scripts.NO_SPACES.findall(text)) for text in texts)
  return unspaced <= _MOST_UNSPACED * sum(map(len, texts))


def summarize(nats, num_tokens, counts):
  """[(name, value, count)] over a corpus; sums are divided once.

  `bits_per_byte` counts UTF-8 bytes of the original texts and compares across
  tokenizers, as do `perplexity_per_character` and `_per_word` (by white
  space, where a text has such words; what would be infinite is left out).
  `perplexity` is per token and compares within one tokenizer only;
  `perplexity_sample_mean` is the mean of the documents' own, as some papers
  report it.
  """
  total, num = nats.sum(), len(nats)
  own = np.minimum(nats / np.maximum(num_tokens, 1), _LARGEST)
  size, tokens = int(counts['byte'].sum()), int(num_tokens.sum())
  rows = [
    ('bits_per_byte', float(total / math.log(2) / size), size),
    ('perplexity', math.exp(min(total / tokens, _LARGEST)), tokens),
    ('nats_per_document', float(total / num), num),
    ('perplexity_sample_mean', float(np.mean(np.exp(own))), num),
  ]
  for what in ('character', 'word'):
    number = int(counts[what].sum()) if what in counts else 0
    if number and total / number < _LARGEST:
      value = float(np.exp(total / number))
      rows.append((f'perplexity_per_{what}', value, number))
  return rows
