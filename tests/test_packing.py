"""Rows cut from a stream of documents: literals, and no token lost."""

import numpy as np

from lbe.data import packing


def test_the_example_of_the_docstring():
  """The last target of row 0 begins another document: weight 0."""
  tokens, documents = [1, 5, 6, 2, 1, 7, 8, 2], [0] * 4 + [1] * 4
  row = packing.make_row(tokens[:5], documents[:5], 4)
  assert row['ids'].tolist() == [1, 5, 6, 2]
  assert row['targets'].tolist() == [5, 6, 2, 1]
  assert row['weights'].tolist() == [1, 1, 1, 0]
  assert row['segments'].tolist() == [1, 1, 1, 1]
  assert row['positions'].tolist() == [0, 1, 2, 3]
  row = packing.make_row(tokens[4:], documents[4:], 4)
  assert row['ids'].tolist() == [1, 7, 8, 2]
  assert row['targets'].tolist() == [7, 8, 2, 0]
  assert row['weights'].tolist() == [1, 1, 1, 0]


def test_segments_and_positions_start_anew_with_each_document():
  row = packing.make_row([4, 2, 1, 9, 2, 1], [6, 6, 7, 7, 7, 8], 5)
  assert row['segments'].tolist() == [1, 1, 2, 2, 2]
  assert row['positions'].tolist() == [0, 1, 0, 1, 2]
  assert row['weights'].tolist() == [1, 0, 1, 1, 0]


def test_the_end_of_the_stream_is_padded():
  """Padding has segment 0 and no weight."""
  row = packing.make_row([4, 5, 2], [0, 0, 0], 6)
  assert row['ids'].tolist() == [4, 5, 2, 0, 0, 0]
  assert row['segments'].tolist() == [1, 1, 1, 0, 0, 0]
  assert row['weights'].tolist() == [1, 1, 0, 0, 0, 0]


def test_every_token_but_each_first_is_a_target_once():
  """Off by one at a row's border drops or repeats a token a row."""
  rng = np.random.default_rng(0)
  for _ in range(50):
    lengths = rng.integers(1, 9, rng.integers(1, 12))
    documents = np.repeat(np.arange(len(lengths)), lengths)
    tokens = np.arange(100, 100 + len(documents))
    T = int(rng.integers(1, 8))
    seen = []
    for r in range(packing.num_rows(len(tokens), T)):
      cut = slice(r * T, r * T + T + 1)
      row = packing.make_row(tokens[cut], documents[cut], T)
      scored = row['weights'] > 0
      seen += row['targets'][scored].tolist()
      assert (row['targets'][scored] == row['ids'][scored] + 1).all()
    first = np.flatnonzero(np.diff(documents, prepend=-1))
    assert seen == np.delete(tokens, first).tolist()
