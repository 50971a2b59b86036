"""Models on disk: looked at first, loaded later, each with its tokenizer."""

import base64
import dataclasses
import pathlib
import sys

import jax

from lbe.convert import hf
from lbe.convert import hf_config
from lbe.mesh import sharding
from lbe.models import architecture
from lbe.models import weights
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.text import hub
from lbe.vocab import folder
from lbe.vocab import tokenizers

# Of a folder that was exported.
IF_CHANGED = (
  'Copy it again, or delete its checksums.json where it was changed on purpose'
)


def _is_large(name):
  return name.endswith('.safetensors')


@dataclasses.dataclass(frozen=True)
class Opened:
  """A model on disk, looked at but not yet loaded.

  `info` holds what came with the weights and is not architecture: the dtype
  on disk (`dtype`), the rows before an extension (`num_old_rows`), of a run
  where it started (`base`) and what stayed as it was (`frozen`), and of a
  Hugging Face folder its special ids. `path` is as it was given, a name on
  the hub with its commit; the files lie in `folder`.
  """

  path: str
  kind: str  # 'checkpoint' or 'hf'
  config: architecture.Config
  tokenizer: tokenizers.Tokenizer | None
  info: dict
  hf_weights: hf.Weights | None = None  # of a Hugging Face folder

  @property
  def folder(self) -> str:
    hf_weights = self.hf_weights
    return self.path if hf_weights is None else str(hf_weights.folder)

  def fingerprint(self) -> str:
    """A hash of the weights, the same wherever they lie; little is read."""
    if self.hf_weights is not None:
      return self.hf_weights.fingerprint()
    return checkpoint.fingerprint(self.path)

  def num_old_rows(self, tokenizer: tokenizers.Tokenizer) -> int | None:
    """Rows of the vocabulary before it was extended; None where it was not.

    It was by `tokenizer`, or earlier: the checkpoint remembers.
    """
    if self.tokenizer is not None and (
      tokenizers.is_extension(tokenizer, self.tokenizer)
    ):
      return self.tokenizer.vocab_size
    return self.info.get('num_old_rows')

  def dtypes(self) -> str | dict[str, str]:
    """The dtypes on disk, as `load_params` takes them."""
    if self.hf_weights is not None:
      return self.hf_weights.dtypes()
    stored = weights.flatten(checkpoint.params_metadata(self.path))
    return {name: str(x.dtype) for name, x in stored.items()}

  def load_params(
    self, mesh: jax.sharding.Mesh, *, dtype: str | dict[str, str] = 'float32'
  ) -> dict:
    """The parameters, each created in its shards on `mesh`.

    `dtype` is that of weights.shapes: one for all, or by name.
    """
    shardings = sharding.shardings(mesh, weights.dims(self.config))
    if self.hf_weights is not None:
      checksums.check(self.folder, IF_CHANGED)
      return self.hf_weights.load(dtype=dtype, shardings=shardings)
    abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      weights.shapes(self.config, dtype=dtype),
      shardings,
    )
    return checkpoint.load_params(self.path, abstract)


def open_model(path: hf.Folder, *, vocab_multiple: int | None = None) -> Opened:
  """Looks at a checkpoint, a workdir, a Hugging Face folder or a name of one.

  To a multiple of `vocab_multiple` the rows of a Hugging Face vocabulary are
  padded; None is what architecture.Config has. Raises ValueError where `path`
  is none of these.
  """
  name, path = hub.pinned(path), hub.local(path)
  if checkpoint.is_checkpoint(path):
    meta = checkpoint.read_meta(path)
    tokenizer = tokenizer_from_meta(meta['tokenizer'])
    return Opened(
      path=str(checkpoint.find(path)),
      kind='checkpoint',
      config=architecture.Config.from_json(meta['model']),
      tokenizer=tokenizer,
      info=meta['source'] or {},
    )
  if hf_config.is_hf_dir(path):
    if (pathlib.Path(path) / hf_config.UNFINISHED).exists():
      raise ValueError(
        f'{path} is not written to its end: lbe.export_hf is at it, or was '
        'stopped; give that command again.'
      )
    checksums.check(path, IF_CHANGED, by_size=_is_large)
    model_config, info = hf_config.read_config(path)
    if vocab_multiple is not None:
      model_config = dataclasses.replace(
        model_config, vocab_multiple=vocab_multiple
      )
    found = hf.Weights(path, model_config)
    for notice in found.notices:
      print(f'notice: {notice}', file=sys.stderr)
    tokenizer = tokenizers.load(path) if tokenizers.find(path) else None
    if tokenizer is not None:
      tokenizers.check_rows(tokenizer, model_config.vocab_size)
    dtypes = set(found.dtypes().values())
    # What holds every value of all.
    info['dtype'] = dtypes.pop() if len(dtypes) == 1 else 'float32'
    info['tokenizer_files'] = folder.kept(path)
    return Opened(str(name), 'hf', found.config, tokenizer, info, found)
  raise ValueError(
    f'{str(path)!r} is neither a checkpoint nor a Hugging Face folder: '
    f'{hf_config.lacks(path)}.'
  )


def tokenizer_meta(tokenizer: tokenizers.Tokenizer | None) -> dict | None:
  """The tokenizer as JSON, whole: a checkpoint alone is enough."""
  if tokenizer is None:
    return None
  return {
    'kind': tokenizer.kind,
    'fingerprint': tokenizer.fingerprint,
    'base64': base64.b64encode(tokenizer.to_bytes()).decode(),
  }


def tokenizer_from_meta(meta: dict | None) -> tokenizers.Tokenizer | None:
  """The tokenizer of a checkpoint; None where it has none."""
  if meta is None:
    return None
  tokenizer = tokenizers.from_bytes(
    meta['kind'], base64.b64decode(meta['base64'])
  )
  tokenizers.check_same(
    meta['fingerprint'], tokenizer, where="the checkpoint's own record"
  )
  return tokenizer
