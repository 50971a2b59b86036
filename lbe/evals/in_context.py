"""Does the model still learn from its context? Canaries without a language.

Bits per byte of a language that is trained on can be as good as ever while a
model loses what made it useful, to go by what stands before (arXiv
2506.00288). Each canary is a sequence of random pieces in which some stand
twice: once where nothing foretells them, and again where the context does.
Its score is the share of the nats of the first time that the context saves
the second time: 0 where it does not help, 1 where nothing is left, below 0
where it harms. `_acc` is the share of the second ones that are the likeliest
token where they stand.

`in_context@copy`: a sequence is said twice, a b c d a b c d (copying, the test
of induction heads of arXiv 2209.11895).
`in_context@lookup`: keys with their values, and again in another order,
k v l w l w k v; values are scored (associative recall with several queries,
arXiv 2312.04927).
`in_context@labels`: labels that take turns behind new pieces, a A b B c A d B;
a label is compared with its first time.

Pieces are drawn by a seed from those of the base vocabulary that are text: a
model, what goes on from it and what extends its vocabulary see the same ids.
"""

import functools
import itertools
import math
import pathlib
from collections.abc import Iterator

import numpy as np

from lbe.evals import core
from lbe.inference import score
from lbe.run import averages
from lbe.text import lines
from lbe.vocab import tokenizers

# Labels that take turns.
_LABELS = 4


def copy(pieces: np.ndarray, length: int, rng) -> tuple[np.ndarray, list]:
  """(ids [length], [(first, again), ...] places of what stands twice)."""
  half = length // 2
  ids = np.tile(rng.choice(pieces, half, replace=False), 2)
  return ids, [(i, i + half) for i in range(half)]


def lookup(pieces: np.ndarray, length: int, rng) -> tuple[np.ndarray, list]:
  """As `copy`: every second piece is the value of the one before it."""
  num = length // 4
  pairs = rng.choice(pieces, (num, 2), replace=False)
  order = rng.permutation(num)
  ids = np.concatenate([pairs, pairs[order]]).ravel()
  return ids, [(2 * k + 1, 2 * (num + i) + 1) for i, k in enumerate(order)]


def labels(pieces: np.ndarray, length: int, rng) -> tuple[np.ndarray, list]:
  """As `copy`: every second piece is a label."""
  num = length // 2
  drawn = rng.choice(pieces, num + _LABELS, replace=False)
  turns = np.arange(num) % _LABELS
  ids = np.stack([drawn[_LABELS:], drawn[turns]], axis=1).ravel()
  return ids, [(2 * turns[i] + 1, 2 * i + 1) for i in range(_LABELS, num)]


TASKS = {'copy': copy, 'lookup': lookup, 'labels': labels}


def ordinary(
  tokenizer: tokenizers.Tokenizer, num_pieces: int, *, seed: int
) -> Iterator[int]:
  """Of the first pieces those that are text with a letter, in a drawn order.

  No bytes, control strings and added tokens, and none that no text has.
  """
  added = {token.id for token in tokenizer.added}
  silent = tokenizer.is_byte | (np.asarray(tokenizer.byte_lengths) == 0)
  for i in map(int, np.random.default_rng(seed).permutation(num_pieces)):
    if not silent[i] and i not in added:
      if any(map(str.isalpha, tokenizer.decode([i]))):
        yield i


def make(
  *,
  sequences: int,
  length: int,
  seed: int,
  num_pieces: int,
  warn_fall: float,
  tokenizer: tokenizers.Tokenizer,
  max_positions: int,
  results: pathlib.Path | None,
):
  """The canaries; None for no `sequences`.

  They are made of the first `num_pieces` of the vocabulary. `results` is the
  results.jsonl of a run, whose first rows a score is compared with, or None.
  Raises ValueError for sequences that are no such or longer than the model's
  positions, and where the pieces do not do for one.
  """
  if not sequences:
    return None
  least = 4 * _LABELS
  if length < least or length % 4:
    raise ValueError(
      f'length={length}: a canary has at least {least} tokens, and a multiple '
      'of 4.'
    )
  if length > max_positions:
    raise ValueError(
      f'length={length}, but the model has {max_positions} positions; take '
      f'length={max_positions // 4 * 4} or less.'
    )
  if not 0 <= num_pieces <= tokenizer.vocab_size:
    raise ValueError(
      f'num_pieces={num_pieces}, but the tokenizer has '
      f'{tokenizer.vocab_size:,}; take no more.'
    )
  needed = length // 2 + _LABELS
  found = ordinary(tokenizer, num_pieces, seed=seed)
  pieces = list(itertools.islice(found, len(TASKS) * sequences * needed))
  if len(pieces) < needed:
    raise ValueError(
      f'length={length} needs {needed} different pieces that are text with '
      f'letters, and of the first {num_pieces:,} of the tokenizer '
      f'{len(pieces)} are; take a lower length, or sequences=0 for no canary.'
    )
  return Canaries(
    pieces,
    score.prefix_id(tokenizer),
    sequences=sequences,
    length=length,
    seed=seed,
    warn_fall=warn_fall,
    results=results,
  )


class Canaries:
  """Sequences of each kind, as `make` checked them."""

  def __init__(
    self, pieces, prefix_id, *, sequences, length, seed, warn_fall, results
  ):
    rows, self._places = [], []
    for task, build in TASKS.items():
      for i in range(sequences):
        rng = np.random.default_rng([seed, list(TASKS).index(task), i])
        ids, twice = build(pieces, length, rng)
        rows.append([prefix_id, *ids])
        self._places.append((task, i, np.array(twice)))
    self.rows = np.array(rows, np.int32)  # [B, 1 + T], behind BOS
    self._hash = core.data_hash([' '.join(map(str, row)) for row in rows])
    self._fields = {'sequences': sequences, 'length': length, 'seed': seed}
    self._warn_fall, self._results = warn_fall, results
    self._start = None  # 'SCORE' → value at the start of the run
    self._fallen = set()  # tasks that were warned of and have not come back

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result; in training it warns of what has fallen since the start."""
    logprobs_BT, likeliest_BT = model.score_each(self.rows)
    taken = {task: [] for task in TASKS}
    predictions = []
    for row, (task, i, twice) in enumerate(self._places):
      nats = -logprobs_BT[row, twice]
      right = likeliest_BT[row, twice[:, 1]]
      taken[task].append(np.column_stack([nats, right]))
      predictions.append(
        {
          'step': step,
          'evaluator': name,
          'id': f'{task}/{i}',
          'nats_first': float(nats[:, 0].sum()),
          'nats_again': float(nats[:, 1].sum()),
          'right': int(right.sum()),
          'count': len(twice),
        }
      )
    rows = []
    row_of = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      unit='pieces',
      data_hash=self._hash,
      **self._fields,
    )
    for task, parts in taken.items():
      first_N, again_N, right_N = np.concatenate(parts).T
      saved = averages.Average(first_N - again_N, first_N)
      how = {
        'protocol': f'in_context@{task}',
        'nats_first': float(first_N.mean()),
        'nats_again': float(again_N.mean()),
      }
      rows.append(row_of(**averages.row(task, saved, **how)))
      right = averages.mean(right_N)
      rows.append(
        row_of(**averages.row(f'{task}_acc', right, protocol=how['protocol']))
      )
    metrics = averages.metrics(rows)
    if self._results is not None:
      metrics['fallen'] = self._compare(rows, name, step)
    return core.Result(rows, metrics, predictions)

  def _compare(self, rows, name, step):
    """Warns in rows, of each fall once; the number of scores that are low."""
    if self._start is None:
      self._start = _first(self._results, name, self._hash) or {
        row['name']: row['value'] for row in rows
      }
    before, self._fallen = self._fallen, set()
    for row in rows:
      task, start = row['name'], self._start.get(row['name'])
      if task not in TASKS or start is None or not math.isfinite(start):
        continue
      row['start'] = start
      # A value that is no number is a fall.
      if not row['value'] >= start - self._warn_fall:
        self._fallen.add(task)
        if task in before:
          continue
        row['warning'] = (
          f'{task} fell from {start:.2f} at the start to {row["value"]:.2f}: '
          'the model loses what it does with its context; replay of the old '
          'data, or a lower rate, may keep it'
        )
      elif step == 0 and start < self._warn_fall:
        row['warning'] = (
          f'{task} is {start:.2f} at the start: what a model cannot do it is '
          'not seen to lose'
        )
    return len(self._fallen)


def _first(path, name, data_hash):
  """'SCORE' → value of the first rows that this evaluator left, if any."""
  values = {}
  for row in lines.rows(path):
    if row['evaluator'] == name and row['data_hash'] == data_hash:
      values.setdefault(row['name'], row['value'])
  return values
