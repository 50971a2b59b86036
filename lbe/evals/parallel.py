"""Bits that a model needs for sentences that are the same in many languages.

Perplexity compares within one tokenizer, and bits per byte within one language:
Tamil has three times as many bytes as English says the same with. Bits
per sentence of the same sentences compare both languages and tokenizers, and
divided by those of English they say how much more a model needs for what it is
told in the other language.
"""

import functools
import math

import numpy as np

from lbe.evals import core
from lbe.exams import sentences
from lbe.run import averages

PROTOCOL = 'parallel@bits'


def make(*, path, languages, reference, split, limit):
  """The sentences, read and checked; None for an empty `path`.

  The folder is read by lbe/exams/sentences.py. () is all languages that are
  there; `reference`, which others are divided by, is read as well, and '' is
  none.
  """
  if not path:
    return None
  if limit < 0:
    raise ValueError(f'limit={limit} is below 0.')
  texts, ids = {}, []
  read = sentences.read(path, languages, also=reference, split=split)
  for code, found in read.items():
    own = [x for x, _ in found]
    if texts and own != ids:
      _differ(path, next(iter(texts)), ids, code, own)
    ids, texts[code] = own, [text for _, text in found]
  return Sentences(
    ids[: limit or None],
    {code: x[: limit or None] for code, x in texts.items()},
    reference=reference,
  )


def _differ(path, first, ids, code, own):
  """Raises ValueError: two languages do not have the same sentences."""
  if len(ids) != len(own):
    raise ValueError(
      f'{path}: {first} has {len(ids):,} sentences and {code} has '
      f'{len(own):,}; they are to be the same in each language.'
    )
  at = next(i for i, (a, b) in enumerate(zip(ids, own, strict=True)) if a != b)
  raise ValueError(
    f'{path}: sentence {at + 1} is {ids[at]!r} in {first} and {own[at]!r} in '
    f'{code}; they are to be the same, in the same order, in each language.'
  )


class Sentences:
  """The same sentences by language; `ids` name them."""

  def __init__(self, ids, texts, *, reference):
    self.ids = ids
    self.texts = texts
    self.reference = reference

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result: bits by sentence and by byte of each language.

    `relative` is what a language needs beside the reference, over the same
    sentences; its interval draws sentences, each in both languages.
    """
    codes, N = list(self.texts), len(self.ids)
    flat = [text for texts in self.texts.values() for text in texts]
    ids = list(model.tokenizer.encode_batch(flat))
    nats = core.rolling_nats(model, ids, progress=name)
    bits = dict(zip(codes, nats.reshape(-1, N) / math.log(2), strict=True))
    tokens = np.array([len(x) for x in ids]).reshape(-1, N)
    sizes = np.array([len(x.encode()) for x in flat]).reshape(-1, N)
    rows, predictions = [], []
    for code, tokens_N, bytes_N in zip(codes, tokens, sizes, strict=True):
      row = functools.partial(
        averages.row,
        tokens_per_sentence=float(tokens_N.mean()),
        bytes_per_sentence=float(bytes_N.mean()),
      )
      of_sentence = averages.mean(bits[code])
      rows.append(row(f'bits_per_sentence/{code}', of_sentence))
      of_byte = averages.Average(bits[code], bytes_N)
      rows.append(row(f'bits_per_byte/{code}', of_byte))
      if self.reference and code != self.reference:
        rows.append(
          row(
            f'relative/{code}',
            averages.Average(bits[code], bits[self.reference]),
            reference=self.reference,
          )
        )
      predictions += [
        {
          'step': step,
          'evaluator': name,
          'id': f'{code}/{x}',
          'bits': float(b),
          'tokens': int(t),
          'bytes': int(size),
        }
        for x, b, t, size in zip(
          self.ids, bits[code], tokens_N, bytes_N, strict=True
        )
      ]
    common = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      unit='sentences',
      protocol=PROTOCOL,
      data_hash=core.data_hash(flat),
      predicted_from='EOS' if model.tokenizer.bos_id is None else 'BOS',
    )
    return core.Result(
      [common(**r) for r in rows], averages.metrics(rows), predictions
    )
