"""Log-probabilities of tokens: of continuations, of documents, of responses.

What requests have in common is computed once. Requests with the same context
are one row: the trunk and behind it their continuations as branches, which do
not see each other. Rows that begin alike share the keys and values of what
they begin with (a prompt with five solved examples, say), and differ in the
rest only.
"""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lbe.inference import engine
from lbe.mesh import place
from lbe.models import architecture
from lbe.models import forward
from lbe.text import bars
from lbe.vocab import tokenizers

# ---------------------------------------------------------------- requests


class Request(NamedTuple):
  """Input ids, the positions whose next token is scored, and these tokens.

  A position may be named twice, with two targets; positions ascend.
  """

  ids: np.ndarray
  positions: np.ndarray
  targets: np.ndarray


class Score(NamedTuple):
  """Of a request: the sum of log-probabilities, in nats, in float32 or better.

  `greedy` says whether each target is the likeliest token where it stands;
  `normalizer` is the sum of the logarithms that turn logits into
  log-probabilities: logit = logprob + normalizer for a single target.
  """

  logprob: float
  greedy: bool
  normalizer: float


CUTS = ('safe', 'harness')


def split(
  tokenizer: tokenizers.Tokenizer,
  pairs: list[tuple[str, str]],
  *,
  bos: bool | None,
  cut: str = 'safe',
) -> list[tuple[list[int], list[int]]]:
  """[(context ids, continuation ids)] of [(context, continuation)], texts.

  The two are encoded as one text. 'harness' cuts it as lm-evaluation-harness
  does, behind as many tokens as the context has alone, wherever these end.
  'safe' cuts where the two encodings part: the same, but where a piece spans
  the border. Spaces at a context's end go to its continuation. With `bos` the
  context begins with BOS, with None where that is the tokenizer's habit; an
  empty one is BOS, or EOS, in any case.

  Raises ValueError where nothing is left to score.
  """
  if cut not in CUTS:
    raise ValueError(f'cut={cut!r} is unknown; take one of {", ".join(CUTS)}.')
  moved = []
  for context, continuation in pairs:
    kept = context.rstrip()
    moved.append((kept, context[len(kept) :] + continuation))
  contexts = list(dict.fromkeys(context for context, _ in moved))
  alone_of = dict(zip(contexts, tokenizer.encode_batch(contexts), strict=True))
  wholes = tokenizer.encode_batch([a + b for a, b in moved])
  start = tokenizers.start_ids(tokenizer, bos)
  result = []
  for (context, continuation), whole in zip(moved, wholes, strict=True):
    alone = alone_of[context]
    at = len(alone) if cut == 'harness' else common_length(alone, whole)
    first, rest = (
      start + (alone if cut == 'harness' else whole[:at]),
      whole[at:],
    )
    if not context:
      first, rest = [], whole
    if not rest:
      raise ValueError(
        f'the continuation {continuation!r} has no token of its own behind '
        f"{context[-20:]!r}; take cut='safe', or another continuation."
      )
    result.append((first or [prefix_id(tokenizer)], rest))
  return result


def prefix_id(tokenizer: tokenizers.Tokenizer) -> int:
  """The token that a text's first token is predicted from: BOS, else EOS."""
  for token in (tokenizer.bos_id, tokenizer.eos_id):
    if token is not None:
      return token
  raise ValueError(
    'the tokenizer has neither BOS nor EOS; the first token of a text has '
    'nothing to be predicted from.'
  )


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
  """The length of what two lists begin with."""
  n = min(len(a), len(b))
  differ = np.nonzero(np.asarray(a[:n]) != np.asarray(b[:n]))[0]
  return int(differ[0]) if len(differ) else n


def continuation(
  context: Sequence[int], ids: Sequence[int], *, max_len: int
) -> tuple[Request, int]:
  """(Request, tokens cut) of continuation ids behind context ids.

  What is longer than the window loses tokens from the left. Raises ValueError
  where the continuation alone is longer.
  """
  if len(ids) > max_len:
    raise ValueError(
      f'a continuation of {len(ids)} tokens is longer than the window of '
      f'{max_len}; nothing would be left to predict it from.'
    )
  whole = [*context, *ids]
  cut = max(0, len(whole) - max_len - 1)
  whole = np.asarray(whole[cut:], np.int32)
  at = np.arange(len(whole) - len(ids) - 1, len(whole) - 1)
  return Request(whole[:-1], at, whole[1:][at]), cut


def windows(
  ids: Sequence[int], *, prefix_id: int, max_len: int
) -> Iterator[Request]:
  """A Request for each window of a document; together they score each token.

  Windows are disjoint; the last one is moved to the left, so that its tokens
  see full context, and scores what no window scored before. Three tokens
  5 6 7 with a window of 2, behind the prefix 0, give the inputs 0 5 (both
  scored) and 5 6 (the second scored).
  """
  whole = np.asarray([prefix_id, *ids], np.int32)
  for start in range(0, len(ids), max_len):
    stop = min(start + max_len, len(ids))
    first = max(0, stop - max_len) if start else 0
    at = np.arange(start - first, stop - first)
    yield Request(whole[first:stop], at, whole[first + 1 : stop + 1][at])


# -------------------------------------------------------------------- rows


@dataclasses.dataclass
class _Row:
  """A trunk with branches; `owners` are the requests of what is scored."""

  ids: np.ndarray
  positions: np.ndarray
  branches: np.ndarray  # 0 is the trunk
  trunk: int
  scored: np.ndarray  # indices of the states that predict the targets
  targets: np.ndarray
  owners: np.ndarray


def _make_rows(requests, dim):
  """Rows; equal contexts are one trunk where that saves work.

  Of L tokens, products with weights cost about 6 D L as much as L² of
  attention. A branch of s tokens more, behind n of the trunk and u of other
  branches, saves n (6 D + n) and costs 2 u s.
  """
  same = {}
  for i, request in enumerate(requests):
    trunk = request.ids[: request.positions[0] + 1]
    same.setdefault(trunk.tobytes(), []).append(i)
  rows = []
  for owners in same.values():
    n = int(requests[owners[0]].positions[0]) + 1
    held, used = [], 0
    for i in owners:
      size = len(requests[i].ids) - n
      if held and 2 * used * size > n * (6 * dim + n):
        rows.append(_join(requests, held, n))
        held, used = [], 0
      held.append(i)
      used += size
    rows.append(_join(requests, held, n))
  return rows


def _join(requests, owners, n):
  trunk = requests[owners[0]].ids[:n]
  parts = {name: [] for name in ('ids', 'positions', 'branches')}
  scored, targets, own = [], [], []
  at = n
  for number, i in enumerate(owners, 1):
    request = requests[i]
    branch = request.ids[n:]
    parts['ids'].append(branch)
    parts['positions'].append(np.arange(n, n + len(branch)))
    parts['branches'].append(np.full(len(branch), number))
    scored.append(
      np.where(request.positions < n, n - 1, request.positions + at - n)
    )
    targets.append(request.targets)
    own.append(np.full(len(request.targets), i))
    at += len(branch)
  return _Row(
    ids=np.concatenate([trunk, *parts['ids']]).astype(np.int32),
    positions=np.concatenate([np.arange(n), *parts['positions']]),
    branches=np.concatenate([np.zeros(n), *parts['branches']]),
    trunk=n,
    scored=np.concatenate(scored),
    targets=np.concatenate(targets),
    owners=np.concatenate(own),
  )


# Shared beginnings are counted in steps of so many tokens, and shorter ones
# are not shared.
_STEP = 32


def _kept(length):
  """The padded length of what is shared.

  A program is compiled for each with each length of the rest: powers of two
  are half as many as engine.bucket's, and padding costs attention alone.
  """
  return max(_STEP, 1 << (length - 1).bit_length())


def _shared(rows, padded):
  """[(length of what is shared, rows)], the shared beginning longest apart.

  Rows are sorted, so that those which begin alike are neighbours. Of every
  run of neighbours the better is taken: its common beginning once, or the
  best of the runs that it falls into. `padded(n)` is the rows that a batch of
  n has in memory.
  """
  rows = sorted(rows, key=lambda r: r.ids[: r.trunk].astype('>i4').tobytes())
  # A row keeps one token of its trunk: it predicts the first target.
  alike = [
    min(common_length(a.ids[: a.trunk - 1], b.ids[: b.trunk - 1]), a.trunk - 1)
    // _STEP
    * _STEP
    for a, b in zip(rows, rows[1:], strict=False)
  ]
  length = np.cumsum([0, *(len(r.ids) for r in rows)])

  def best(low, high):
    """(tokens saved, [(shared, low, high)]) of rows low to high."""
    num = high - low
    if num < 2:
      return 0, [(0, low, high)]
    within = alike[low : high - 1]
    shared = min(within)
    # Saved: what each row no longer computes, less what is shared once with
    # its padding, less the empty rows of batches that this group has to itself.
    rest = (length[high] - length[low]) / num - shared
    once = _kept(shared) if shared else 0
    saved = num * shared - once - (padded(num) - num) * rest
    # Sorted rows are the leaves of a tree, whose branches have more in common
    # the smaller they are. The run falls apart where neighbours share no more
    # than all do, and so do its parts in turn: between a branch whole and its
    # parts the better is taken, and that is the best of all its branches.
    cuts = [low + i + 1 for i, x in enumerate(within) if x == shared]
    if shared == max(within):
      # All begin alike to the same length: there is nothing to split for.
      return max(saved, 0), [(shared if saved > 0 else 0, low, high)]
    parts = [
      best(a, b) for a, b in zip([low, *cuts], [*cuts, high], strict=True)
    ]
    apart = sum(gain for gain, _ in parts)
    if saved > max(apart, 0):
      return saved, [(shared, low, high)]
    return apart, [run for _, runs in parts for run in runs]

  groups, alone = [], []
  for shared, low, high in best(0, len(rows))[1]:
    if shared:
      groups.append((shared, rows[low:high]))
    else:
      alone += rows[low:high]
  return groups + [(0, alone)] * bool(alone)


# Batches have as many rows as asked for up to this length, and as many tokens
# beyond it.
_FULL_ROWS_UP_TO = 512


def _num_rows(count, length, batch_size, mesh):
  """Rows of a batch for `count` rows of `length`: one of two numbers.

  Multiples of what the mesh divides rows into.
  """
  over = mesh.shape['data'] * mesh.shape['fsdp']
  largest = max(1, min(batch_size, batch_size * _FULL_ROWS_UP_TO // length))
  most, few = (-(-n // over) * over for n in (largest, max(1, largest // 4)))
  return few if count <= few else most


def _batches(rows, batch_size, mesh):
  """(shared ids, rows, rows in memory, length), the longest rows first."""

  def padded(n):
    if n > batch_size:
      return -(-n // batch_size) * batch_size
    return _num_rows(n, 1, batch_size, mesh)

  for shared, group in _shared(rows, padded):
    group.sort(key=lambda r: -len(r.ids))
    prefix = group[0].ids[:shared]
    while group:
      length = engine.bucket(len(group[0].ids) - shared)
      size = _num_rows(len(group), length, batch_size, mesh)
      yield prefix, group[:size], size, length
      group = group[size:]


def _arrays(rows, size, length, shared):
  """The batch as arrays; `scored` and `targets` are padded to a bucket."""
  most = max(len(r.scored) for r in rows)
  num_scored = engine.bucket(most) if most > 8 else 8
  batch = {
    'ids_BT': np.zeros((size, length), np.int32),
    'positions_BT': np.zeros((size, length), np.int32),
    'branches_BT': np.full((size, length), -1, np.int32),
    'until_BT': np.zeros((size, length), np.int32),
    'scored_BQ': np.zeros((size, num_scored), np.int32),
    'targets_BQ': np.zeros((size, num_scored), np.int32),
  }
  for i, row in enumerate(rows):
    n, q = len(row.ids) - shared, len(row.scored)
    batch['ids_BT'][i, :n] = row.ids[shared:]
    batch['positions_BT'][i, :n] = row.positions[shared:]
    batch['branches_BT'][i, :n] = row.branches[shared:]
    # A branch is seen by itself, the trunk by all.
    until = np.where(row.branches == 0, 2**30, row.branches + 1)
    batch['until_BT'][i, :n] = until[shared:]
    batch['scored_BQ'][i, :q] = row.scored - shared
    batch['targets_BQ'][i, :q] = row.targets
  return batch


# ----------------------------------------------------------------- scoring


def score(
  params: dict,
  c: architecture.Config,
  requests: Sequence[Request],
  *,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh,
  batch_size: int,
  progress: str = '',
) -> list[Score]:
  """A Score for each Request, in their order; equal on every host.

  `batch_size` counts rows of up to 512 tokens; of longer ones a batch has
  fewer. `progress` names a progress bar.
  """
  rows = _make_rows(requests, c.dim)
  programs = engine.functions(c, execution, mesh)
  logprobs, normalizers = np.zeros((2, len(requests)), np.float64)
  greedy = np.ones(len(requests), bool)
  pending = []
  bar = bars.make(
    total=len(requests),
    desc=progress,
    unit='request',
    disable=not progress or jax.process_index() != 0,
    leave=False,
  )

  def read(batch, scored):
    for row, values, norms, likeliest in zip(
      batch, *jax.device_get(scored), strict=False
    ):
      n = len(row.owners)
      np.add.at(logprobs, row.owners, values[:n].astype(np.float64))
      np.add.at(normalizers, row.owners, norms[:n].astype(np.float64))
      np.logical_and.at(greedy, row.owners, likeliest[:n])
      bar.update(len(np.unique(row.owners)))

  held, prefix = b'', None
  for shared, batch, size, length in _batches(rows, batch_size, mesh):
    if held != shared.tobytes():
      held, prefix = shared.tobytes(), None
      if len(shared):
        ids_1P = np.zeros((1, _kept(len(shared))), np.int32)
        ids_1P[0, : len(shared)] = shared
        ids_1P = place.array(mesh, ids_1P, (None, None))
        prefix = programs.prefix(params, ids_1P, np.int32(len(shared)))
    arrays = {
      name: place.array(mesh, x, ('batch', None))
      for name, x in _arrays(batch, size, length, len(shared)).items()
    }
    pending.append((batch, programs.score(params, arrays, prefix)))
    # The device works on a batch while the host reads an earlier one.
    if len(pending) > 2:
      read(*pending.pop(0))
  for batch_and_scored in pending:
    read(*batch_and_scored)
  bar.close()
  scores = zip(logprobs, greedy, normalizers, strict=True)
  return [
    Score(float(x), bool(likeliest), float(n)) for x, likeliest, n in scores
  ]
