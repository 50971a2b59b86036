"""Log-probabilities of texts by the thousand, each short.

Texts that begin alike share what they begin with: sorted, they are the leaves
of a tree, whose root is the token that a text is predicted from. A row has as
much of the tree as goes into it, in the order in which one walks it, and each
token sees what stands on its way from the root. So no token is computed, or
predicted from the same beginning, twice within a row.
"""

from typing import NamedTuple

import jax
import numpy as np

from lbe.inference import engine
from lbe.mesh import place
from lbe.models import architecture
from lbe.models import forward
from lbe.text import bars

# Longer texts are no matter of trees.
LONGEST = 511


class _Texts(NamedTuple):
  """Sorted texts, and how long each is, and begins as the one before it."""

  ids_NL: np.ndarray  # behind a text, -1
  length_N: np.ndarray
  shared_N: np.ndarray


def logprobs(
  params: dict,
  c: architecture.Config,
  texts: list[list[int]],
  *,
  prefix_id: int,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh,
  batch_size: int,
  progress: str = '',
) -> np.ndarray:
  """The sums of log-probabilities of ids behind the prefix, float64 [N].

  In nats; equal on every host. Texts have at most LONGEST ids. A batch has as
  many tokens as `batch_size` rows of 512.
  """
  lengths = np.array([len(ids) for ids in texts], int)
  result = np.zeros(len(texts))
  programs = engine.functions(c, execution, mesh)
  bar = bars.make(
    total=len(texts),
    desc=progress,
    unit='text',
    disable=not progress or jax.process_index() != 0,
    leave=False,
  )
  pending = []

  def read(mine, parts_NL, scored):
    values_BQ, _, _ = jax.device_get(scored)
    # Of no part, behind a text's end, the value is 0.
    values = np.append(values_BQ.ravel().astype(np.float64), 0.0)
    result[mine] = values[parts_NL].sum(axis=1)
    bar.update(len(mine))

  for row, mine in _by_length(lengths, c.dim):
    order, sorted_texts = _sorted([texts[i] for i in mine])
    mine = mine[order]
    starts = _rows(sorted_texts, row)
    over = mesh.shape['data'] * mesh.shape['fsdp']
    most = -(-max(1, batch_size * 512 // row) // over) * over
    for first in range(0, len(starts) - 1, most):
      bounds = starts[first : first + most + 1]
      size = most
      while size % (2 * over) == 0 and size // 2 >= len(bounds) - 1:
        size //= 2
      arrays, parts_NL = _batch(sorted_texts, bounds, size, row, prefix_id)
      placed = {
        name: place.array(mesh, x, ('batch', None))
        for name, x in arrays.items()
      }
      scored = programs.score(params, placed, None)
      pending.append((mine[bounds[0] : bounds[-1]], parts_NL, scored))
      # The device works on a batch while the host reads an earlier one.
      if len(pending) > 2:
        read(*pending.pop(0))
  for batch in pending:
    read(*batch)
  bar.close()
  return result


def _by_length(lengths_N, dim):
  """[(tokens of a row, indices of the texts whose rows have so many)].

  The longer a row, the more its texts share, and the more tokens of others it
  meets in attention, in vain. Of T tokens products with weights cost about
  6 D T as much as T² of attention: at T = D / 2, a twelfth.
  """
  least = min(dim // 2, LONGEST + 1)
  row_N = [engine.bucket(max(n + 1, least)) for n in lengths_N.tolist()]
  return [(row, np.nonzero(row_N == row)[0]) for row in np.unique(row_N)]


def _sorted(texts):
  """(the order of the texts, _Texts)."""
  length_N = np.array([len(ids) for ids in texts])
  width = int(length_N.max())
  has_NL = np.arange(width) < length_N[:, None]
  ids_NL = np.full((len(texts), width), -1, np.int32)
  ids_NL[has_NL] = np.concatenate(texts) if has_NL.any() else ()
  # As texts of bytes, which sort as their ids do; an end before any id.
  keys_N = (ids_NL + 1).astype('>u4').view(f'S{4 * width}')[:, 0]
  order = np.argsort(keys_N, kind='stable')
  ids_NL, length_N = ids_NL[order], length_N[order]
  same_NL = (ids_NL[1:] == ids_NL[:-1]) & (ids_NL[1:] >= 0)
  shared_N = np.cumprod(same_NL, axis=1, dtype=bool).sum(axis=1)
  return order, _Texts(ids_NL, length_N, np.append(0, shared_N))


def _num_scored(row):
  """Tokens that a row scores: leaves, which are not run, are among them."""
  return row * 9 // 8


def _rows(texts, row):
  """The first text of each row, and behind the last the number of texts."""
  starts, num, num_scored = [0], row, 0
  last = np.append(texts.shared_N[1:] < texts.length_N[:-1], True)
  for i, (length, shared, leaf) in enumerate(
    zip(
      *(x.tolist() for x in (texts.length_N, texts.shared_N, last)), strict=True
    )
  ):
    # Of equal texts the first alone has tokens, and so a leaf, if any.
    num += max(0, length - shared - leaf)
    num_scored += length - shared
    if num > row or num_scored > _num_scored(row):
      if i:
        starts.append(i)
      num, num_scored = 1 + length, length
  return [*starts, len(last)]


def _batch(texts, bounds, size, row, prefix_id):
  """(arrays of `size` rows, for each text where its scores stand [N, L])."""
  low, high = bounds[0], bounds[-1]
  ids_NL, length_N = texts.ids_NL[low:high], texts.length_N[low:high]
  shared_N = texts.shared_N[low:high].copy()
  begins = np.array(bounds[:-1]) - low
  shared_N[begins] = 0
  row_N = np.repeat(np.arange(len(begins)), np.diff(bounds))
  at_L = np.arange(ids_NL.shape[1])
  new_NL = (at_L >= shared_N[:, None]) & (at_L < length_N[:, None])
  # A leaf is predicted, but nothing is predicted from it.
  next_N = np.append(shared_N[1:], 0)
  leaf_NL = (at_L == length_N[:, None] - 1) & (next_N < length_N)[:, None]
  run_NL = new_NL & ~leaf_NL

  def numbers(mask_NL):
    """([N, L] number of each, counted within its row; counted in all)."""
    count_N = mask_NL.sum(axis=1)
    before_N = np.cumsum(count_N) - count_N
    all_NL = (np.cumsum(mask_NL.ravel()) - 1).reshape(mask_NL.shape)
    return all_NL - before_N[begins][row_N][:, None], before_N

  slot_NL, run_before_N = numbers(run_NL)
  slot_NL += 1  # behind the root
  part_NL, _ = numbers(new_NL)
  num_scored = _num_scored(row)

  def on_the_way(mask_NL, places_NL, width):
    """Where each text's own tokens stand, or those that it shares, flat."""
    flat_NL = np.where(mask_NL, row_N[:, None] * width + places_NL, -1)
    return np.maximum.accumulate(flat_NL, axis=0)

  # The state that predicts a token is that of the one before it on its way.
  before_NL = on_the_way(run_NL, slot_NL, row)[:, :-1] - row_N[:, None] * row
  before_NL = np.pad(before_NL, ((0, 0), (1, 0)))
  # A token is seen until the first later text that does not share it.
  first_N = row_N * row + 1 + run_before_N - run_before_N[begins][row_N]
  leaves_NL = np.where(at_L >= shared_N[:, None], first_N[:, None], size * row)
  leaves_NL = np.append(leaves_NL[1:], np.full((1, len(at_L)), size * row), 0)
  until_NL = np.minimum.accumulate(leaves_NL[::-1], axis=0)[::-1]
  until_NL = np.minimum(until_NL - row_N[:, None] * row, row)

  arrays = {
    'ids_BT': np.zeros((size, row), np.int32),
    'positions_BT': np.zeros((size, row), np.int32),
    'branches_BT': np.full((size, row), -1, np.int32),
    'until_BT': np.zeros((size, row), np.int32),
    'scored_BQ': np.zeros((size, num_scored), np.int32),
    'targets_BQ': np.zeros((size, num_scored), np.int32),
  }
  arrays['ids_BT'][:, 0] = prefix_id
  arrays['branches_BT'][:, 0] = 0
  arrays['until_BT'][:, 0] = row

  def put(name, mask_NL, places_NL, values_NL):
    rows_NL = np.broadcast_to(row_N[:, None], mask_NL.shape)
    at = rows_NL[mask_NL], places_NL[mask_NL]
    arrays[name][at] = np.broadcast_to(values_NL, mask_NL.shape)[mask_NL]

  put('ids_BT', run_NL, slot_NL, ids_NL)
  put('positions_BT', run_NL, slot_NL, at_L + 1)
  put('branches_BT', run_NL, slot_NL, slot_NL)
  put('until_BT', run_NL, slot_NL, until_NL)
  put('scored_BQ', new_NL, part_NL, before_NL)
  put('targets_BQ', new_NL, part_NL, ids_NL)
  parts_NL = on_the_way(new_NL, part_NL, num_scored)
  return arrays, np.where(at_L < length_N[:, None], parts_NL, size * num_scored)
