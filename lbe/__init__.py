"""Carry LLaMA into other languages: vocabulary, pretraining, instructions."""

__version__ = '0.1.0'


def load(folder, *, compute_dtype='float32', batch_size=32):
  """A model with its tokenizer, for a notebook: see lbe.inference.loaded.

  `folder` is a workdir, a checkpoint, a Hugging Face folder or the name of one
  on the hub, 'hf:OWNER/NAME'. The parameters are float32, cut over the local
  devices; `compute_dtype` is 'float32' or 'bfloat16', and `batch_size` counts
  the rows that `generate` and `score` compute at a time. The result has `model`
  (a flax.nnx.Module), `tokenizer`, `generate(prompts)` and
  `score(contexts, continuations)`. Raises ValueError for what is none of these.
  """
  from lbe.inference import loaded  # `import lbe` alone starts no jax

  return loaded.load(folder, compute_dtype=compute_dtype, batch_size=batch_size)
