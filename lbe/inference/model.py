"""A model as those see it who score and generate: evaluators and judges."""

import dataclasses

import jax
import numpy as np

from lbe.inference import decode
from lbe.inference import engine
from lbe.inference import score
from lbe.inference import trees
from lbe.mesh import place
from lbe.models import architecture
from lbe.models import forward
from lbe.models import int8
from lbe.vocab import tokenizers


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A model as evaluators see it: its parameters in their shards.

  `max_len` is the longest window, at most the model's positions;
  `batch_size` counts rows.
  """

  params: dict
  config: architecture.Config
  tokenizer: tokenizers.Tokenizer
  mesh: jax.sharding.Mesh
  execution: forward.Execution
  batch_size: int
  max_len: int

  def score(
    self, requests: list[score.Request], *, progress: str = ''
  ) -> list[score.Score]:
    """A score.Score for each score.Request; ValueError where some are NaN."""
    scores = score.score(
      self.params,
      self.config,
      requests,
      execution=self.execution,
      mesh=self.mesh,
      batch_size=self.batch_size,
      progress=progress,
    )
    self._refuse_nan([s.logprob for s in scores])
    return scores

  def score_texts(
    self, texts: list[list[int]], *, progress: str = ''
  ) -> np.ndarray:
    """The log-probability of each, ids behind BOS or EOS: float64 [N], in nats.

    What texts begin with alike is computed once; of one that is longer than
    `max_len` it is the sum over score.windows. Equal on every host. Raises
    ValueError where some are NaN, and for a tokenizer without BOS and EOS.
    """
    prefix_id = score.prefix_id(self.tokenizer)
    result_N = np.zeros(len(texts))
    longest = min(self.max_len, trees.LONGEST)
    short = [i for i, ids in enumerate(texts) if len(ids) <= longest]
    result_N[short] = trees.logprobs(
      self.params,
      self.config,
      [texts[i] for i in short],
      prefix_id=prefix_id,
      execution=self.execution,
      mesh=self.mesh,
      batch_size=self.batch_size,
      progress=progress,
    )
    self._refuse_nan(result_N)
    requests, owners = [], []
    for i, ids in enumerate(texts):
      if len(ids) > longest:
        requests += score.windows(
          ids, prefix_id=prefix_id, max_len=self.max_len
        )
        owners += [i] * (len(requests) - len(owners))
    for i, scored in zip(owners, self.score(requests), strict=True):
      result_N[i] += scored.logprob
    return result_N

  def _refuse_nan(self, logprobs):
    bad = int(np.isnan(logprobs).sum())
    if bad:
      dtype = self.execution.compute_dtype
      raise ValueError(
        f'{bad:,} of {len(logprobs):,} log-probabilities of the model are NaN, '
        'and its answer to every question would be the first: weights are not '
        f'finite, or overflow as execution.compute_dtype={dtype!r}. Score an '
        'earlier checkpoint, or in float32.'
      )

  def score_each(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ids [B, 1 + T] each but the first, given all that stand before it.

    Log-probabilities in nats, float64 [B, T], and whether each is the likeliest
    token where it stands; equal on every host. Rows are one batch.
    """
    B, T = len(rows), rows.shape[1] - 1
    over = self.mesh.shape['data'] * self.mesh.shape['fsdp']
    rows = np.pad(rows, ((0, -B % over), (0, 0)))
    at_BT = np.broadcast_to(np.arange(T, dtype=np.int32), (len(rows), T))
    arrays = {
      'ids_BT': rows[:, :-1],
      'positions_BT': at_BT,
      'branches_BT': np.zeros_like(at_BT),
      'until_BT': np.ones_like(at_BT),
      'scored_BQ': at_BT,
      'targets_BQ': rows[:, 1:],
    }
    batch = {
      name: place.array(self.mesh, x, ('batch', None))
      for name, x in arrays.items()
    }
    programs = engine.functions(self.config, self.execution, self.mesh)
    scored = programs.score(self.params, batch, None)
    logprobs_BT, _, likeliest_BT = jax.device_get(scored)
    return logprobs_BT[:B].astype(np.float64), likeliest_BT[:B]

  def generate(
    self, prompts: list[str | list[int]], **settings
  ) -> list[decode.Response]:
    """A decode.Response for each prompt: texts, or lists of ids.

    A text gets BOS where that is the tokenizer's habit. The settings are those
    of decode.respond.
    """
    ids = [
      tokenizers.prompt_ids(self.tokenizer, p)
      if isinstance(p, str)
      else list(p)
      for p in prompts
    ]
    return decode.respond(
      self.params,
      self.config,
      self.tokenizer,
      ids,
      execution=self.execution,
      mesh=self.mesh,
      batch_size=self.batch_size,
      max_len=self.max_len,
      **settings,
    )

  def row(self, **fields) -> dict:
    """A row for results.jsonl: what every score says of the model, and these.

    Those that all rows have: step, evaluator, protocol, data_hash, name,
    value, count (what the value is divided by), unit (what is drawn anew for
    an interval). Where the count is of something else, num_units are the units.
    """
    eighth = ', int8 weights' if int8.is_in(self.params) else ''
    return {
      'tokenizer': self.tokenizer.fingerprint[:16],
      'dtype': self.execution.compute_dtype + eighth,
      'max_len': self.max_len,
      **fields,
    }
