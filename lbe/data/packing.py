"""Rows of a batch, cut from one stream of documents.

Concat, then split: documents stand one behind the other, and row r has the
tokens [r * T, r * T + T] of that stream, its inputs without the last and its
targets without the first. Two documents `1 a b 2` and `1 c d 2` in rows of
T = 4 give

  row 0   ids 1 a b 2   targets a b 2 1   weights 1 1 1 0   segments 1 1 1 1
  row 1   ids 1 c d 2   targets c d 2 0   weights 1 1 1 0   segments 1 1 1 1

The last target of row 0 is the next document's first token: nothing may
predict it. Positions count inside a segment, and segment 0 is padding.

Instruction data is packed best-fit: examples stay whole, and each goes to the
fullest row that has room. A target has the loss weight of its own token. Two
examples `1 a b 2` with weights 0 0 1 1 and `1 c 2` with weights 0 1 1 give

  ids 1 a b 2 1 c 2 0   targets a b 2 0 c 2 0 0   weights 0 1 1 0 1 1 0 0
  segments 1 1 1 1 2 2 2 0   positions 0 1 2 3 0 1 2 0
"""

import collections

import numpy as np


def num_rows(num_tokens: int, seq_len: int) -> int:
  """Rows of T tokens that cover the stream; the last one may be padded."""
  return max(1, -(-(num_tokens - 1) // seq_len))


def make_row(tokens, documents, seq_len):
  """One row of at most T + 1 `tokens` with their `documents`' numbers.

  Returns ids, targets, segments, positions (int32) and weights (float32),
  each [T]. A segment is a document's part in this row; a document that began
  in an earlier row starts again at position 0.
  """
  tokens = np.asarray(tokens, np.int32)
  documents = np.asarray(documents)
  n = min(len(tokens), seq_len)
  new = np.ones(n, bool)
  new[1:] = documents[1:n] != documents[: n - 1]
  starts = np.flatnonzero(new)
  segments = np.cumsum(new)
  positions = np.arange(n) - starts[segments - 1]
  m = len(tokens) - 1
  row = {
    'ids': np.zeros(seq_len, np.int32),
    'targets': np.zeros(seq_len, np.int32),
    'segments': np.zeros(seq_len, np.int32),
    'positions': np.zeros(seq_len, np.int32),
    'weights': np.zeros(seq_len, np.float32),
  }
  row['ids'][:n] = tokens[:n]
  row['segments'][:n] = segments
  row['positions'][:n] = positions
  row['targets'][:m] = tokens[1:]
  row['weights'][:m] = documents[1:] == documents[:-1]
  return row


def best_fit(lengths, seq_len, *, seed, epoch):
  """(starts, examples), int64: row r has examples[starts[r] : starts[r + 1]].

  Best-fit decreasing over examples of `lengths` tokens in rows of T: from the
  longest to the shortest, each goes to the fullest row with room. `seed` and
  `epoch` decide which of the examples of one length goes where, so rows differ
  by epoch while their number does not. Rows come in an order of length; who
  reads them shuffles. Raises ValueError for a length that fits no row.
  """
  lengths = np.asarray(lengths, np.int64)
  wrong = np.flatnonzero((lengths < 1) | (lengths > seq_len))
  if len(wrong):
    raise ValueError(
      f'example {wrong[0]} has {lengths[wrong[0]]} tokens, and a row holds 1 '
      f'to {seq_len} ({len(wrong)} such examples); cut or drop them before '
      'they are packed.'
    )
  order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
  order = order[np.argsort(-lengths[order], kind='stable')]
  row_of = np.empty(len(lengths), np.int64)  # by index in `order`
  # Room that is left → arrays of the rows that have it. What is alike is filled
  # at once: the work grows with the number of lengths, not of examples.
  rooms = collections.defaultdict(list)
  num_rows, done = 0, 0
  counts = np.bincount(lengths)

  def fill(rows, room):
    """Puts what is left of this length into `rows`, the first ones first."""
    nonlocal done
    each = room // length
    n = min(end - done, len(rows) * each)
    full, rest = divmod(n, each)
    used = full + (rest > 0)
    row_of[done : done + n] = np.repeat(rows[:used], each)[:n]
    done += n
    for some, left in (
      (rows[:full], room - each * length),
      (rows[full:used], room - rest * length),
      (rows[used:], room),
    ):
      if len(some):
        rooms[left].append(some)

  for length in np.flatnonzero(counts)[::-1].tolist():
    end = done + int(counts[length])
    for room in sorted(room for room in rooms if room >= length):
      if done == end:
        break
      for rows in rooms.pop(room):
        fill(rows, room)
    if done < end:
      new = -(-(end - done) // (seq_len // length))
      fill(np.arange(num_rows, num_rows + new), seq_len)
      num_rows += new
  # Stable: a row's examples stay from the longest to the shortest.
  by_row = np.argsort(row_of, kind='stable')
  starts = np.searchsorted(row_of[by_row], np.arange(num_rows + 1))
  return starts, order[by_row]


def pack(examples, seq_len):
  """One row of whole examples, [(ids, weights), …], as make_row gives it.

  Each is a segment of its own. Raises ValueError where they do not fit.
  """
  total = sum(len(ids) for ids, _ in examples)
  if total > seq_len:
    raise ValueError(
      f'{len(examples)} examples have {total} tokens, and a row {seq_len}; '
      'best_fit says which go together.'
    )
  row = {
    name: np.zeros(seq_len, np.float32 if name == 'weights' else np.int32)
    for name in ('ids', 'targets', 'segments', 'positions', 'weights')
  }
  start = 0
  for number, (ids, weights) in enumerate(examples, 1):
    end = start + len(ids)
    row['ids'][start:end] = ids
    row['targets'][start : end - 1] = ids[1:]
    row['weights'][start : end - 1] = weights[1:]
    row['segments'][start:end] = number
    row['positions'][start:end] = np.arange(len(ids))
    start = end
  return row
