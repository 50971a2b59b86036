"""A LLaMA as Flax has it, for notebooks and training loops of one's own.

Programs run forward.py over the plain parameters and never import flax.
"""

import jax.numpy as jnp
from flax import nnx

from lbe.models import architecture
from lbe.models import forward
from lbe.models import weights

_EXECUTION = forward.Execution()


class Llama(nnx.Module):
  """One nnx.Param a weight, under the names of lbe/models/weights.py.

  `nnx.to_pure_dict(nnx.state(model))` is the parameter tree that programs,
  checkpoints and exports take. `execution` says how it runs; by default it
  computes in bfloat16.
  """

  def __init__(
    self,
    config: architecture.Config,
    *,
    rngs: nnx.Rngs,
    execution: forward.Execution = _EXECUTION,
  ):
    self.config = config
    self.execution = execution
    _set(self, weights.init(config, rngs.params()))

  @classmethod
  def from_params(
    cls,
    config: architecture.Config,
    params: dict,
    *,
    execution: forward.Execution = _EXECUTION,
  ) -> 'Llama':
    """The model of a parameter tree, whose arrays it takes as they are."""
    model = nnx.eval_shape(
      lambda: cls(config, rngs=nnx.Rngs(0), execution=execution)
    )
    nnx.update(model, params)
    return model

  @classmethod
  def load(cls, folder: str, *, compute_dtype: str = 'float32') -> 'Llama':
    """The model of a workdir, a checkpoint or a Hugging Face folder.

    What `lbe.load` gives, the model alone. Raises ValueError for another
    folder.
    """
    import lbe  # the door stands above all rooms

    return lbe.load(folder, compute_dtype=compute_dtype).model

  def __call__(self, ids_BT, *, positions_BT=None, segments_BT=None):
    """float32 logits [B, T, V], without columns for padding rows.

    Rows are one document each, from position 0, where nothing else is said.
    Packed ones need both: positions count from 0 inside each segment, and
    segment 0 is padding.
    """
    ids_BT = jnp.asarray(ids_BT, jnp.int32)
    if positions_BT is None:
      positions_BT = jnp.arange(ids_BT.shape[1], dtype=jnp.int32)[None]
      positions_BT = jnp.broadcast_to(positions_BT, ids_BT.shape)
    if segments_BT is None:
      segments_BT = jnp.ones_like(ids_BT)
    params = nnx.to_pure_dict(nnx.state(self, nnx.Param))
    x_BTD = forward.hidden(
      params,
      self.config,
      ids_BT,
      positions_BT=positions_BT,
      segments_BT=segments_BT,
      execution=self.execution,
    )
    logits_BTV = forward.logits(params, self.config, x_BTD)
    return logits_BTV[..., : self.config.vocab_size]


def _set(module, params):
  """Each array as an nnx.Param of its name, groups as modules."""
  for name, x in params.items():
    if isinstance(x, dict):
      setattr(module, name, nnx.Module())
      _set(getattr(module, name), x)
    else:
      setattr(module, name, nnx.Param(x))
