"""Rows of a batch, cut from one stream of documents.

Concat, then split: documents stand one behind the other, and row r has the
tokens [r * T, r * T + T] of that stream, its inputs without the last and its
targets without the first. Two documents `1 a b 2` and `1 c d 2` in rows of
T = 4 give

  row 0   ids 1 a b 2   targets a b 2 1   weights 1 1 1 0   segments 1 1 1 1
  row 1   ids 1 c d 2   targets c d 2 0   weights 1 1 1 0   segments 1 1 1 1

The last target of row 0 is the next document's first token: nothing may
predict it. Positions count inside a segment, and segment 0 is padding.
"""

import numpy as np


def num_rows(num_tokens, seq_len):
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
