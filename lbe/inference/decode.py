"""Generation: prompts in batches of few shapes, and what a model wrote.

The compiled part is lbe.inference.engine. Here prompts are checked, cut and
batched, and a response's text ends at its stop string.
"""

import bisect
import dataclasses
import os
from collections.abc import Callable
from collections.abc import Sequence

import jax
import numpy as np

from lbe.inference import engine
from lbe.inference import sampling as sampling_lib
from lbe.mesh import place
from lbe.models import architecture
from lbe.models import forward
from lbe.vocab import tokenizers

TOO_LONG = ('fail', 'cut_left')
# A shared beginning of fewer tokens is computed in each row.
MIN_PREFIX = 64
# Tokens between two looks at the text of a batch for stop strings.
CHUNK = 32
_MAX_SEED = 2**32 - 1
# Tokens of the prompt that are decoded with a response, so that no space
# between the two is lost.
_CONTEXT = 16


@dataclasses.dataclass(frozen=True)
class Response:
  """What a model wrote: the text up to a stop string, and its tokens.

  `ended` is 'eos', 'stop' (a stop string) or 'length'. `ids` go up to the
  token that completed the stop string; EOS is not among them. `cut` counts
  the tokens of the prompt that had no place in the window.
  """

  text: str
  ids: tuple
  ended: str
  cut: int = 0


def generate(
  params: dict,
  c: architecture.Config,
  prompts: Sequence[Sequence[int]],
  *,
  max_new_tokens: int,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh | None = None,
  batch_size: int | None = None,
  num_samples: int = 1,
  seed: int = 0,
  seeds: Sequence[int] | None = None,
  eos_id: int | Sequence[int] | None = None,
  silent: Sequence[int] = (),
  shared_prefix: bool = True,
  watch: Callable[[int, list[int]], bool] | None = None,
  chunk: int = CHUNK,
  **sampling,
) -> list[list[int]]:
  """New ids for each prompt (lists of at least one id), without the prompt.

  `sampling` are the fields of lbe.inference.sampling.Settings. A draw depends
  on `seed`, the row's own of `seeds` (0, 1, 2, … where not given), the number
  of the sample and that of the token, and on no other row, batch or padding. A
  row ends before `eos_id`, an id or several, and holds none of the ids
  `silent`. Of `num_samples` of a prompt the lists are side by side, and the
  prompt is computed once.

  `batch_size` is the most rows at a time, None is all; they are laid over
  `mesh` where there is one. With `shared_prefix`, what all prompts begin with
  is computed once and kept once, where it is long enough.

  Every `chunk` tokens `watch(i, ids)` sees the new ids so far of the list i of
  the result, while it goes on; where it returns True it ends there.

  Raises ValueError for an empty prompt, an id outside the vocabulary, a
  setting out of its range, and more tokens than the model has positions.
  """
  settings = sampling_lib.Settings(**sampling).check()
  seeds = list(range(len(prompts))) if seeds is None else list(seeds)
  _check_prompts(c, prompts, max_new_tokens)
  _check_numbers(len(prompts), num_samples, batch_size, chunk, seed, seeds)
  eos_E = np.ravel([] if eos_id is None else eos_id).astype(np.int32)
  silent_V = None
  if len(silent):
    silent_V = np.zeros(c.padded_vocab_size, bool)
    silent_V[list(silent)] = True
  run = engine.functions(c, execution, mesh)
  params = run.prepare(params)
  num_shared, prefix = 0, None
  if shared_prefix and len(prompts) * num_samples > 1:
    num_shared = _num_shared(prompts)
  if num_shared:
    ids_1T, (length,) = _padded([prompts[0][:num_shared]], 1)
    prefix = run.prefix(params, ids_1T, length)
  prompts = [prompt[num_shared:] for prompt in prompts]
  results = [[] for _ in range(len(prompts) * num_samples)]
  for chosen, samples in _batches(
    [len(p) for p in prompts], num_samples, batch_size or len(results)
  ):
    rows = [(i, s) for i in chosen for s in samples]
    batch = _arrays(prompts, chosen, rows, seeds, batch_size, mesh)
    bound = min(chunk, max_new_tokens) if watch else max_new_tokens
    state, shown = run.begin(
      params,
      batch,
      prefix,
      settings,
      eos_E,
      silent_V,
      np.uint32(seed),
      np.int32(bound),
      num_new=engine.bucket(max_new_tokens),
    )
    live = dict(enumerate(i * num_samples + s for i, s in rows))
    while True:
      ids_BX, count_B, done_B = (np.array(x) for x in shown)
      for b, i in list(live.items()):
        results[i] = ids_BX[b, : count_B[b]].tolist()
        if watch and watch(i, results[i]):
          done_B[b] = True
        if done_B[b]:
          del live[b]
      if bound == max_new_tokens or not live:
        break
      bound = min(bound + chunk, max_new_tokens)
      done_B = place.array(mesh, done_B, ('batch',))
      state, shown = run.go_on(params, state, prefix, done_B, np.int32(bound))
  return results


def respond(
  params: dict,
  c: architecture.Config,
  tokenizer: tokenizers.Tokenizer,
  prompts: Sequence[Sequence[int]],
  *,
  max_new_tokens: int,
  execution: forward.Execution,
  mesh: jax.sharding.Mesh | None,
  batch_size: int | None,
  stop: str | Sequence[str] = (),
  eos_ids: int | Sequence[int] | None = None,
  max_len: int | None = None,
  too_long: str = 'fail',
  on_text: Callable[[int, str], None] | None = None,
  chunk: int = CHUNK,
  **settings,
) -> list[Response]:
  """A Response for each prompt (lists of ids, BOS included).

  `stop` are strings, looked for in the decoded text, which ends before the
  first; `eos_ids` end a response, the tokenizer's EOS where not given. Rows of
  the model that have no piece are never chosen. Where a
  prompt and `max_new_tokens` do not fit into `max_len` (by default all the
  positions of the model), 'fail' raises ValueError, and 'cut_left' cuts the
  prompt's beginning, but not its BOS, and counts what it cut.

  `on_text(i, text)` gets every `chunk` tokens what is settled of the text of
  response i. `settings` are those of `generate`; with `num_samples` the
  responses to a prompt are side by side.
  """
  stop = (stop,) if isinstance(stop, str) else tuple(stop)
  if not all(isinstance(s, str) and s for s in stop):
    raise ValueError(f'stop={stop!r}: a stop string is a text, not empty.')
  window = min(max_len or c.max_positions, c.max_positions)
  kept, cuts = [], []
  for i, prompt in enumerate(prompts):
    ids = _fit(i, prompt, window - max_new_tokens, too_long, tokenizer.bos_id)
    kept.append(ids)
    cuts.append(len(prompt) - len(ids))
  num_samples = settings.get('num_samples', 1)

  def text_of(i, ids):
    context = list(kept[i // num_samples][-_CONTEXT:])
    whole = tokenizer.decode(context + ids)
    return whole[len(tokenizer.decode(context)) :]

  def watch(i, ids):
    text = text_of(i, ids)
    if on_text:
      on_text(i, settled(text, stop))
    return _end(text, stop) is not None

  new = generate(
    params,
    c,
    kept,
    max_new_tokens=max_new_tokens,
    execution=execution,
    mesh=mesh,
    batch_size=batch_size,
    eos_id=tokenizer.eos_id if eos_ids is None else eos_ids,
    silent=tokenizers.without_piece(tokenizer, c.vocab_size),
    watch=watch if stop or on_text else None,
    chunk=chunk,
    **settings,
  )
  responses = []
  for i, ids in enumerate(new):
    text = text_of(i, ids)
    ended = 'eos' if len(ids) < max_new_tokens else 'length'
    if _end(text, stop) is not None:
      # Whatever the chunk: the fewest tokens that have a stop string.
      num = bisect.bisect_left(
        range(len(ids)),
        True,
        key=lambda n, i=i, ids=ids: (
          _end(text_of(i, ids[: n + 1]), stop) is not None
        ),
      )
      ids = ids[: num + 1]
      text, ended = text[: _end(text, stop)], 'stop'
    responses.append(Response(text, tuple(ids), ended, cuts[i // num_samples]))
  return responses


def settled(text: str, stop: Sequence[str] = ()) -> str:
  """What of an unfinished text stays as it is, whatever comes.

  Without a last character of which bytes are missing, and without what may be
  the beginning of a stop string.
  """
  end = _end(text, stop)
  if end is not None:
    return text[:end]
  text = text.rstrip('\ufffd')
  held = max(
    (
      n
      for s in stop
      for n in range(1, min(len(s), len(text) + 1))
      if text.endswith(s[:n])
    ),
    default=0,
  )
  return text[: len(text) - held]


def _end(text, stop):
  """Where the first stop string begins; None where there is none."""
  return min((at for s in stop if (at := text.find(s)) >= 0), default=None)


def _fit(i, prompt, most, too_long, bos_id):
  """The prompt, cut to `most` tokens where that is asked for."""
  if too_long not in TOO_LONG:
    raise ValueError(
      f'too_long={too_long!r} is unknown; take one of {", ".join(TOO_LONG)}.'
    )
  prompt = list(prompt)
  over = len(prompt) - most
  if over <= 0:
    return prompt
  keep = int(prompt[0] == bos_id)
  if too_long == 'fail' or most <= keep:
    raise ValueError(
      f'prompt {i} has {len(prompt)} tokens, and beside the new ones the '
      f'window has place for {most}; shorten it, ask for fewer tokens'
      + ", or take too_long='cut_left'."
      * (too_long == 'fail')
    )
  return prompt[:keep] + prompt[keep + over :]


def _check_prompts(c, prompts, max_new_tokens):
  if not prompts or not all(len(p) for p in prompts):
    raise ValueError('a prompt is empty; begin it with BOS.')
  if max_new_tokens < 1:
    raise ValueError(
      f'max_new_tokens={max_new_tokens} is out of range: it is at least 1.'
    )
  for i, prompt in enumerate(prompts):
    if not 0 <= min(prompt) <= max(prompt) < c.vocab_size:
      raise ValueError(
        f'prompt {i} has the ids {min(prompt)} to {max(prompt)}, and the '
        f'vocabulary those below {c.vocab_size}; use the tokenizer that came '
        'with the weights.'
      )
  longest = max(len(p) for p in prompts)
  if longest + max_new_tokens > c.max_positions:
    raise ValueError(
      f'{longest} prompt tokens and max_new_tokens={max_new_tokens} are more '
      f'than the {c.max_positions} positions of the model; ask for fewer.'
    )


def _check_numbers(num_prompts, num_samples, batch_size, chunk, seed, seeds):
  for name, value in (
    ('num_samples', num_samples),
    ('batch_size', 1 if batch_size is None else batch_size),
    ('chunk', chunk),
  ):
    if value < 1:
      raise ValueError(f'{name}={value} is out of range: it is at least 1.')
  if len(seeds) != num_prompts:
    raise ValueError(
      f'there are {len(seeds)} seeds for {num_prompts} prompts; give one each.'
    )
  for value in (seed, *seeds):
    if not 0 <= value <= _MAX_SEED:
      raise ValueError(
        f'a seed is {value}; seeds are whole numbers from 0 to {_MAX_SEED}.'
      )


def _num_shared(prompts):
  """How many tokens all begin with; each keeps one of its own. 0 if few."""
  same = len(os.path.commonprefix([min(prompts), max(prompts)]))
  same = min(same, min(len(p) for p in prompts) - 1)
  return same if same >= MIN_PREFIX else 0


def _batches(lengths, num_samples, batch_size):
  """(prompts, samples) of each batch, at most `batch_size` rows of both.

  Prompts are sorted by length, so that little of a batch is padding.
  """
  order = sorted(range(len(lengths)), key=lambda i: lengths[i])
  each = max(1, batch_size // num_samples)
  for start in range(0, len(order), each):
    for first in range(0, num_samples, batch_size):
      last = min(first + batch_size, num_samples)
      yield order[start : start + each], range(first, last)


def _padded(prompts, num_rows):
  """(ids [B, T], lengths [B]) of few widths; the rows behind hold one id."""
  ids_BT = np.zeros(
    (num_rows, engine.bucket(max(len(p) for p in prompts))), np.int32
  )
  lengths_B = np.ones(num_rows, np.int32)
  for i, prompt in enumerate(prompts):
    ids_BT[i, : len(prompt)] = prompt
    lengths_B[i] = len(prompt)
  return ids_BT, lengths_B


def _arrays(prompts, chosen, rows, seeds, batch_size, mesh):
  """What engine's `begin` takes as `batch`, of rows (prompt, sample)."""

  def padded_rows(num, most):
    num = min(1 << (num - 1).bit_length(), most)
    by = 1 if mesh is None else mesh.shape['data'] * mesh.shape['fsdp']
    return -(-num // by) * by

  B = padded_rows(len(rows), batch_size or len(rows))
  Q = B
  if len(rows) > len(chosen):
    Q = padded_rows(len(chosen), len(rows))
  ids_QT, lengths_Q = _padded([prompts[i] for i in chosen], Q)
  arrays = {
    'ids_BT': ids_QT,
    'lengths_B': lengths_Q,
    'seeds_B': np.array([seeds[i] for i, _ in rows], np.uint32),
    'samples_B': np.array([s for _, s in rows], np.uint32),
    'live_B': np.ones(len(rows), bool),
  }
  if len(rows) > len(chosen):
    each = len(rows) // len(chosen)
    arrays['source_B'] = np.arange(len(rows), dtype=np.int32) // each
  return {
    name: place.array(
      mesh,
      x if name in ('ids_BT', 'lengths_B') else np.pad(x, (0, B - len(x))),
      ('batch', None)[: x.ndim],
    )
    for name, x in arrays.items()
  }
