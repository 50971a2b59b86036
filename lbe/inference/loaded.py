"""What `lbe.load` gives: a model on disk, ready for a notebook."""

import dataclasses
import math

import jax
from flax import nnx

from lbe.convert import stored
from lbe.inference import model as model_lib
from lbe.inference import score
from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import llama
from lbe.vocab import tokenizers


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A Flax model with its tokenizer.

  `generate` and `score` compute with the parameters that `model` has at the
  moment: also after some steps of training. `tokenizer` is None where the
  folder has none; these two then raise ValueError.
  """

  path: str
  model: llama.Llama
  tokenizer: tokenizers.Tokenizer | None
  mesh: jax.sharding.Mesh
  batch_size: int

  def generate(
    self,
    prompts: list[str],
    *,
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    **settings,
  ) -> list[str]:
    """What the model writes behind each prompt; greedily.

    A prompt gets BOS where that is the tokenizer's habit.

    `settings` are `stop` (texts that end a response), `top_k`, `top_p`,
    `min_p`, `repetition_penalty`, `seed` and `num_samples`; with the last the
    responses to a prompt are side by side. Raises ValueError for a prompt that
    leaves no room for `max_new_tokens` in the model's positions.
    """
    responses = self._evaluated().generate(
      _texts(prompts, 'prompts'),
      max_new_tokens=max_new_tokens,
      temperature=temperature,
      **settings,
    )
    return [response.text for response in responses]

  def score(self, contexts: list[str], continuations: list[str]) -> list[float]:
    """The log-probability, in nats, of each continuation behind its context.

    The sum over the continuation's tokens; context and continuation are
    encoded as one text, behind BOS where that is the tokenizer's habit. A
    context that is too long for the model's positions loses its beginning.
    Raises ValueError for a continuation without a token of its own.
    """
    model = self._evaluated()
    contexts = _texts(contexts, 'contexts')
    continuations = _texts(continuations, 'continuations')
    if len(contexts) != len(continuations):
      raise ValueError(
        f'{len(contexts)} contexts, but {len(continuations)} continuations; '
        'give one for each.'
      )
    pairs = list(zip(contexts, continuations, strict=True))
    requests = [
      score.continuation(context, ids, max_len=model.max_len)[0]
      for context, ids in score.split(self.tokenizer, pairs, bos=None)
    ]
    return [float(s.logprob) for s in model.score(requests)]

  def _evaluated(self):
    if self.tokenizer is None:
      raise ValueError(
        f'{self.path} has no tokenizer for texts; call `model` with ids, or '
        'put tokenizer files into the folder.'
      )
    return model_lib.Model(
      params=nnx.to_pure_dict(nnx.state(self.model, nnx.Param)),
      config=self.model.config,
      tokenizer=self.tokenizer,
      mesh=self.mesh,
      execution=self.model.execution,
      batch_size=self.batch_size,
      max_len=self.model.config.max_positions,
    )


def _texts(texts, name):
  if isinstance(texts, str):
    raise ValueError(f'{name}={texts!r} is one text; give a list of texts.')
  return texts


def load(folder: str, *, compute_dtype: str, batch_size: int) -> Loaded:
  """The model of a workdir, a checkpoint or a Hugging Face folder."""
  opened = stored.open_model(folder)
  devices = jax.local_devices()
  num = math.gcd(len(devices), opened.config.dim)  # the width is cut evenly
  mesh = sharding.make_mesh({'fsdp': num}, devices=devices[:num])
  # Unrolled, a CPU copies no weights; elsewhere it would only compile longer.
  execution = forward.Execution(
    compute_dtype=compute_dtype, scan=jax.default_backend() != 'cpu'
  )
  model = llama.Llama.from_params(
    opened.config, opened.load_params(mesh), execution=execution
  )
  return Loaded(opened.path, model, opened.tokenizer, mesh, batch_size)
