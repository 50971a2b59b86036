"""Pairs of texts: is the right one likelier?

A text's score is its total log-probability behind BOS (EOS where there is
none), as a rolling log-likelihood, its end not scored. Three protocols:

- 'pairs@blimp': BLiMP, as lm-evaluation-harness scores it: a space before each
  sentence, and the right one wins a tie. The headline is the mean of the
  paradigms.
- 'pairs@own': a file of pairs. A tie is half right.
- 'pairs@swap': sentences of any text beside the same with two neighbours
  exchanged (see lbe/exams/pairs.py). A tie is half right, so that a model that
  knows nothing has 50%.
"""

import functools

import numpy as np

from lbe.evals import core
from lbe.exams import pairs as pairs_lib
from lbe.run import averages

BLIMP, OWN, SWAP = PROTOCOLS = ('pairs@blimp', 'pairs@own', 'pairs@swap')
# More ties than this share are told.
_MOST_TIES = 0.01


def make(*, protocol, path, texts, sides, parts, limit, seed):
  """The pairs, read and checked; None where there are no data.

  'pairs@swap' makes them of `texts`, by their language, which is '' where there
  is one alone, the others read `path`. Raises ValueError
  for a field that the protocol does not take.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
      f'protocol={protocol!r} is unknown; take one of {", ".join(PROTOCOLS)}.'
    )
  if limit < 0:
    raise ValueError(f'limit={limit} is below 0.')
  if protocol == SWAP:
    if texts is None:
      return None
    made = []
    for code, own in texts.items():
      found = pairs_lib.swapped(own, limit=limit, seed=seed)
      if code:
        found = [p._replace(id=f'{code}/{p.id}', parts=(code,)) for p in found]
      made += found
    parts = () if '' in texts else ('language',)
    return Pairs(made, protocol, parts=parts, seed=seed)
  if not path:
    return None
  if protocol == BLIMP:
    made, parts = pairs_lib.blimp(path, limit=limit), pairs_lib.BLIMP_PARTS
  else:
    if len(set(sides)) != 2:
      raise ValueError(
        f'sides={tuple(sides)!r}: name two fields, that of the right text '
        'first.'
      )
    made = pairs_lib.own(path, sides=sides, parts=parts, limit=limit)
  return Pairs(made, protocol, parts=parts)


class Pairs:
  """Pairs under one protocol; `parts` are the fields scores are told by."""

  def __init__(self, pairs, protocol, *, parts, **facts):
    self.pairs = pairs
    self.protocol = protocol
    self._parts = parts
    self._facts = facts
    self._hash = core.data_hash(text for p in pairs for text in (p.good, p.bad))

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result: accuracies of all and, with intervals, by part."""
    before = ' ' if self.protocol == BLIMP else ''
    ids = model.tokenizer.encode_batch(
      [before + text for p in self.pairs for text in (p.good, p.bad)]
    )
    logprobs_N = model.score_texts(ids, progress=name)
    good_N, bad_N = logprobs_N[::2], logprobs_N[1::2]
    tie = 1.0 if self.protocol == BLIMP else 0.5
    right_N = np.where(good_N == bad_N, tie, good_N > bad_N)
    records = [
      {
        'step': step,
        'evaluator': name,
        'id': pair.id,
        **dict(zip(self._parts, pair.parts, strict=True)),
        'good': pair.good,
        'bad': pair.bad,
        'scores': [float(good), float(bad)],
        'acc': float(right),
      }
      for pair, good, bad, right in zip(
        self.pairs, good_N, bad_N, right_N, strict=True
      )
    ]
    num_ties = int((good_N == bad_N).sum())
    rows = self._rows(records, right_N, num_ties=num_ties)
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      unit='pairs',
      protocol=self.protocol,
      data_hash=self._hash,
      **self._facts,
    )
    return core.Result(
      [row(**r) for r in rows], averages.metrics(rows), records
    )

  def _rows(self, records, right_N, *, num_ties):
    facts = {'num_ties': num_ties}
    if num_ties > _MOST_TIES * len(right_N):
      facts['warning'] = (
        f'{num_ties:,} of {len(right_N):,} pairs have two equal scores; does '
        'the tokenizer tell their sides apart?'
      )
    masks = [
      averages.masks(pair.parts[i] for pair in self.pairs)
      for i in range(len(self._parts))
    ]
    of_all = averages.mean(right_N)
    if self.protocol == BLIMP:
      # The mean of the paradigms, whatever their sizes.
      paradigms_N = np.zeros(len(right_N))
      for mine_N in masks[-1].values():
        paradigms_N[mine_N] = 1 / mine_N.sum()
      of_all = averages.Average(right_N * paradigms_N, paradigms_N)
      core.put_weights(records, paradigms_N)
    rows = [averages.row('acc', of_all, **facts)]
    for part, by_value in zip(self._parts, masks, strict=True):
      for value, mine_N in by_value.items():
        of_part = averages.mean(right_N[mine_N])
        rows.append(averages.row(f'acc/{part}/{value}', of_part))
        # BLiMP's paradigms are too many for the table.
        if part == 'UID':
          rows[-1]['of_subject'] = True
    return rows
