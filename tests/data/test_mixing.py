"""Places of the training by arithmetic: shares, order, permutations."""

import numpy as np
import pytest

from lbe.data import mixing


@pytest.mark.parametrize(
  ('shares', 'counts'),
  [
    ([1.0], [1000]),
    ([0.8, 0.2], [800, 200]),
    ([1 / 3, 1 / 3, 1 / 3], [334, 333, 333]),
    ([0.9996, 0.0004], [1000, 0]),
    ([0.1] * 10, [100] * 10),
  ],
)
def test_each_block_has_its_shares(shares, counts):
  """Drawn at random, the share of a small source would wander."""
  assert mixing.counts(shares).tolist() == counts
  for number in (0, 1, 7):
    sources, rank = mixing.block(shares, 3, number)
    assert np.bincount(sources, minlength=len(shares)).tolist() == counts
    for i, n in enumerate(counts):
      assert rank[sources == i].tolist() == list(range(n))


def test_blocks_differ_and_are_functions_of_seed_and_number():
  a = mixing.block([0.5, 0.5], 0, 0)[0]
  assert (a == mixing.block([0.5, 0.5], 0, 0)[0]).all()
  assert (a != mixing.block([0.5, 0.5], 0, 1)[0]).any()
  assert (a != mixing.block([0.5, 0.5], 1, 0)[0]).any()


@pytest.mark.parametrize('num_rows', [1, 2, 3, 17, 256])
def test_an_epoch_takes_every_row_once(num_rows):
  """A hash instead of a permutation would repeat a third of the rows."""
  orders = [
    [mixing.shuffled(i, num_rows, seed=5, epoch=e) for i in range(num_rows)]
    for e in (0, 1)
  ]
  assert all(sorted(order) == list(range(num_rows)) for order in orders)
  if num_rows > 10:
    assert orders[0] != orders[1]
    assert orders[0] != list(range(num_rows))


def test_rows_before_counts_what_the_blocks_give():
  """The table's achieved shares and epochs come from it."""
  shares = [0.7, 0.25, 0.05]
  blocks = np.concatenate([mixing.block(shares, 1, n)[0] for n in range(3)])
  for place in (0, 1, 999, 1000, 2345):
    direct = np.bincount(blocks[:place], minlength=3)
    assert mixing.rows_before(shares, 1, place).tolist() == direct.tolist()
