"""Which source, and which row of it, stands at each position in training.

Places are cut into blocks of BLOCK rows. Every block has the same number of
rows of each source (its proportion, by the largest remainder), in an order
that the seed and the block's number decide: a position is found by arithmetic,
whatever came before.
"""

import grain
import numpy as np

BLOCK = 1000


def counts(proportions):
  """Rows of each source in a block; they sum to BLOCK."""
  exact = np.asarray(proportions, np.float64) * BLOCK
  whole = np.floor(exact + 1e-9).astype(np.int64)
  rest = BLOCK - whole.sum()
  most = np.argsort(-(exact - whole), kind='stable')[:rest]
  whole[most] += 1
  return whole


def block(proportions, seed, number):
  """(source, row of the source within this block), each int64 [BLOCK]."""
  per_source = counts(proportions)
  sources = np.repeat(np.arange(len(per_source)), per_source)
  np.random.default_rng([seed, number]).shuffle(sources)
  rank = np.empty(BLOCK, np.int64)
  first = np.cumsum(per_source) - per_source
  by_source = np.argsort(sources, kind='stable')
  rank[by_source] = np.arange(BLOCK) - np.repeat(first, per_source)
  return sources, rank


def shuffled(row, num_rows, *, seed, epoch):
  """Row `row` of an epoch of a source: a permutation by index arithmetic."""
  if num_rows == 1:
    return 0
  return grain.experimental.index_shuffle(
    int(row),
    max_index=num_rows - 1,
    seed=int(np.random.default_rng([seed, epoch]).integers(2**31)),
    rounds=4,
  )


def rows_before(proportions, seed, position):
  """Rows of each source before `position` in training, int64 [sources]."""
  full, rest = divmod(position, BLOCK)
  total = counts(proportions) * full
  if rest:
    sources, _ = block(proportions, seed, full)
    total = total + np.bincount(sources[:rest], minlength=len(total))
  return total
