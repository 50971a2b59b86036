"""Rows of documents and of examples: literals, and no token lost."""

import bisect
import json

import numpy as np
import pytest

from lbe.chat import messages
from lbe.chat import templates
from lbe.data import packing
from lbe.vocab import tokenizers


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


# ----------------------------------------------------------------- best fit


def packed(lengths, seq_len, *, seed=0, epoch=0):
  """The examples of each row."""
  starts, examples = packing.best_fit(lengths, seq_len, seed=seed, epoch=epoch)
  assert starts[0] == 0 and starts[-1] == len(examples) == len(lengths)
  return [r.tolist() for r in np.split(examples, starts[1:-1])]


@pytest.mark.parametrize(
  ('lengths', 'seq_len', 'rows'),
  [
    ([3, 5, 2], 5, [[5], [3, 2]]),
    ([1] * 7, 3, [[1, 1, 1], [1, 1, 1], [1]]),
    # The 3 goes to the row with least room, which leaves 4 for the last two.
    ([7, 6, 3, 2, 2], 10, [[7, 3], [6, 2, 2]]),
    ([4, 4, 4, 3, 3, 3, 3], 8, [[4, 4], [4, 3], [3, 3], [3]]),
    ([6, 5, 5, 4, 4, 3, 3], 10, [[6, 4], [5, 5], [4, 3, 3]]),
    ([8], 8, [[8]]),
  ],
)
def test_hand_made_cases_are_packed_best(lengths, seq_len, rows):
  """First fit, or a stale room, needs another row somewhere here."""
  found = [[lengths[i] for i in row] for row in packed(lengths, seq_len)]
  assert sorted(found) == sorted(rows)


def test_rows_are_those_of_best_fit_one_by_one():
  """Filling rows of one room at once must not change what best fit does."""
  for seed in range(100):
    rng = np.random.default_rng(seed)
    seq_len = int(rng.integers(1, 60))
    lengths = rng.integers(1, seq_len + 1, rng.integers(1, 200))
    rooms = []
    for length in sorted(lengths.tolist(), reverse=True):
      tightest = bisect.bisect_left(rooms, length)
      room = rooms.pop(tightest) if tightest < len(rooms) else seq_len
      bisect.insort(rooms, room - length)
    rows = packed(lengths, seq_len, seed=seed)
    assert sorted(seq_len - lengths[row].sum() for row in rows) == rooms
    assert sorted(sum(rows, [])) == list(range(len(lengths)))


def test_epochs_share_rows_differently_and_number_the_same():
  """The number of rows is what random access over epochs is counted by."""
  lengths = np.random.default_rng(0).integers(1, 30, 2000)
  first, again, second, other = (
    packed(lengths, 64, seed=seed, epoch=epoch)
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
  )
  assert first == again
  assert len(first) == len(second) == len(other)
  known = {frozenset(row) for row in first}
  for rows in (second, other):
    assert sum(frozenset(row) in known for row in rows) < len(rows) / 20


def test_an_example_that_fits_no_row_is_an_error():
  with pytest.raises(ValueError, match=r'example 1 has 9 tokens.*\(2 such'):
    packing.best_fit([8, 9, 0], 8, seed=0, epoch=0)


def test_a_packed_row_is_its_examples_one_by_one():
  """A target across two examples, or a weight off by one."""
  examples = [
    ([1, 5, 6, 2], [0, 0, 1, 1]),
    ([1, 7, 2], [0, 1, 1]),
    ([9], [1]),
  ]
  row = packing.pack(examples, 10)
  assert row['ids'].tolist() == [1, 5, 6, 2, 1, 7, 2, 9, 0, 0]
  assert row['targets'].tolist() == [5, 6, 2, 0, 7, 2, 0, 0, 0, 0]
  assert row['weights'].tolist() == [0, 1, 1, 0, 1, 1, 0, 0, 0, 0]
  assert row['segments'].tolist() == [1, 1, 1, 1, 2, 2, 2, 3, 0, 0]
  assert row['positions'].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 0, 0]
  stream = packing.make_row([1, 5, 6, 2], [0] * 4, 10)
  for number, example in enumerate(examples, 1):
    alone = packing.pack([example], 10)
    for name in ('ids', 'targets', 'weights', 'positions'):
      part = row[name][row['segments'] == number]
      assert part.tolist() == alone[name][alone['segments'] == 1].tolist()
      assert part.dtype == stream[name].dtype
  with pytest.raises(ValueError, match='3 examples have 8 tokens, and a row 7'):
    packing.pack(examples, 7)


@pytest.mark.parametrize('language', ['en_original', 'zh_translated'])
def test_real_alpaca_rows_have_hardly_any_padding(test_data, language):
  """At 512 tokens: at most 3%, and every example whole in one row."""
  tokenizer = tokenizers.load(test_data / 'tok_llama_32000')
  encode = templates.Encoder('alpaca', tokenizer)
  folder = test_data / 'sft_alpaca_en_zh' / language
  path = sorted(folder.glob('alpaca_data-0-3252-*.json'))[0]
  examples = []
  for record in json.loads(path.read_text(encoding='utf-8-sig')):
    if record['output'].strip():
      found = encode(messages.conversation(record, where='a record'))
      found = templates.fit(*found, 512, policy='drop')
      examples += [found] if found else []
  assert len(examples) > 3000
  rows = packed([len(ids) for ids, _ in examples], 512)
  assert sorted(sum(rows, [])) == list(range(len(examples)))
  tokens = learnt = 0
  for row in rows:
    made = packing.pack([examples[i] for i in row], 512)
    tokens += (made['segments'] > 0).sum()
    learnt += made['weights'].sum()
  assert tokens == sum(len(ids) for ids, _ in examples)
  assert learnt == sum(sum(weights) for _, weights in examples)
  assert 1 - tokens / (512 * len(rows)) <= 0.03
