"""Writes a checkpoint as a folder that transformers, vLLM and others load.

  python -m lbe.export_hf --source=runs/zh --target=runs/zh/hf
  python -m lbe.export_hf --source=runs/zh --target=adapter --adapter_only

The dtype is that of the run's source weights unless --dtype says otherwise.
Adapters are merged into their weights, or with --adapter_only written alone,
as PEFT loads them. Ends with a certificate.
"""

import contextlib
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
from absl import flags

from lbe.convert import card
from lbe.convert import certificate
from lbe.convert import hf
from lbe.convert import hf_config
from lbe.convert import peft
from lbe.convert import settings
from lbe.convert import stored
from lbe.models import lora
from lbe.models import weights
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.run import program
from lbe.run import progress
from lbe.run import verified
from lbe.text import hub
from lbe.vocab import export

_SOURCE = flags.DEFINE_string('source', None, 'A checkpoint or a workdir.')
_TARGET = flags.DEFINE_string('target', None, 'The folder to write.')
_DTYPE = flags.DEFINE_enum(
  'dtype', None, list(hf.DTYPES), "Of the weights; by default the source's."
)
_VERIFY = flags.DEFINE_enum(
  'verify', 'auto', certificate.VERIFY, certificate.VERIFY_HELP
)
_SHARD_BYTES = flags.DEFINE_integer(
  'shard_bytes', 5_000_000_000, 'A safetensors file ends before this size.'
)


_ADAPTER_ONLY = flags.DEFINE_bool(
  'adapter_only', False, 'Write the adapters alone, in the format of PEFT.'
)
_BASE = flags.DEFINE_string(
  'base',
  None,
  'adapter_only: the Hugging Face folder that the adapters belong to; by '
  'default where the run started from.',
)
_PUSH = flags.DEFINE_string(
  'push',
  None,
  'OWNER/NAME: upload what was written to the Hugging Face Hub, where it is '
  'private.',
)
_PUBLIC = flags.DEFINE_bool('public', False, 'push: for everybody to see.')


def main(argv):
  del argv
  target = pathlib.Path(_TARGET.value)
  source = checkpoint.find(_SOURCE.value)
  _check_free(target, 'config.json', 'a model')
  if _PUBLIC.value and not _PUSH.value:
    raise ValueError('--public without --push: add --push=OWNER/NAME.')
  if _PUSH.value:
    hub.check_push(_PUSH.value, public=_PUBLIC.value)
  verified.checked(source, ('params', 'meta'))
  opened = stored.open_model(source)
  with _writing(target):
    (_export_adapter if _ADAPTER_ONLY.value else _export)(
      source, target, opened
    )
  if _PUSH.value:
    try:
      print(hub.push(target, _PUSH.value, public=_PUBLIC.value))
    except ValueError as error:
      raise ValueError(
        f'{error} {target} is whole; push it later with `hf upload '
        f'{_PUSH.value} {target}`.'
      ) from error


def _export(source, target, opened):
  c, info, tokenizer = opened.config, opened.info, opened.tokenizer
  dtype = _DTYPE.value or info['dtype']
  with progress.doing('writing the weights'):
    expected = hf.write_safetensors(
      target,
      c,
      functools.partial(_merged, source, c),
      dtype=dtype,
      shard_bytes=_SHARD_BYTES.value,
    )
  beside = _settings(source, opened)
  compared = _write_tokenizer(tokenizer, target, c, beside)
  if tokenizer is None:
    print(f'notice: {source} has no tokenizer; none was written.')
  config = hf_config.config_json(
    c,
    dtype=dtype,
    bos_id=beside.bos_id,
    eos_id=beside.eos_id,
    pad_id=beside.pad_id,
  )
  card.write(target, source, checkpoint.read_meta(source), adapter=False)
  for name, record in (
    ('generation_config.json', beside.generation),
    ('config.json', config),  # last: a folder with a config.json is whole
  ):
    (target / name).write_text(json.dumps(record, indent=2))
  exact = _keeps(source, dtype) and (c.lora is None or dtype == 'float32')
  with progress.doing('reading the weights back'):
    read_back = hf.Weights(target, c).digests()
  certificate.write(
    target,
    {
      'program': 'export_hf',
      **_of(source),
      'dtype': dtype,
      **compared,
    },
    c=c,
    checkpoint_dir=source,
    hf_dir=target,
    digests=(expected, read_back),
    verify=_VERIFY.value,
    # The digests prove the rounding.
    skipped=None
    if exact
    else f'the checkpoint was rounded to {dtype}; its logits differ',
  )


def _check_free(target, name, what):
  """Refuses a folder that somebody finished, by the file written last.

  What a call left that was killed is written over, file by file.
  """
  mark = target / hf_config.UNFINISHED
  if (target / name).exists() and not mark.exists():
    raise ValueError(
      f'--target={target} already holds {what}; give an empty folder, or '
      'delete it.'
    )


@contextlib.contextmanager
def _writing(target):
  """Within, a mark says that the folder is unfinished; then it has checksums.

  The model card is anybody's to change, and has none.
  """
  mark = target / hf_config.UNFINISHED
  target.mkdir(parents=True, exist_ok=True)
  mark.touch()
  try:
    yield
  except Exception:
    if not list(target.glob('*config.json')):  # no model yet
      mark.unlink()
      with contextlib.suppress(OSError):
        target.rmdir()  # where nothing is in it
    raise
  others = (mark.name, 'README.md')
  names = [name for name in checksums.files(target) if name not in others]
  with progress.doing('keeping checksums'):
    checksums.write(target, names)
  mark.unlink()


def _settings(source, opened):
  facts = checkpoint.read_meta(source)['config']
  beside = settings.Settings(
    opened.info,
    opened.tokenizer,
    facts and facts['config'],
    opened.config.vocab_size,
  )
  for notice in beside.notices:
    print(notice)
  return beside


def _write_tokenizer(tokenizer, target, c, beside):
  """Its files, where there is one; how tokenizer.json differs is said."""
  if tokenizer is None:
    return {}
  with progress.doing('comparing the tokenizer with its tokenizer.json'):
    compared = export.write(
      tokenizer, target, max_positions=c.max_positions, kept=beside.kept
    )
  print(export.told(compared))
  return {'tokenizer_json': compared}


def _merged(source, c, name):
  """One stacked weight of the checkpoint, its adapter added."""
  array = checkpoint.load_array(source, name)
  weight = name.removeprefix('layers/')
  if c.lora is None or weight not in c.lora.weights:
    return array
  a, b = (
    checkpoint.load_array(source, f'lora/{part}')
    for part in weights.adapters(weight)
  )
  return lora.merged(array, a, b, c.lora)


def _export_adapter(source, target, opened):
  """The adapters, and what of the vocabulary was trained beside them."""
  c, info = opened.config, opened.info
  if c.lora is None:
    raise ValueError(
      f'{source} has no adapters (config.lora); leave out --adapter_only.'
    )
  _check_free(target, 'adapter_config.json', 'an adapter')
  vocabulary = ('embed_VD', 'head_DV')
  # New rows are not in the base, whether they learned or not.
  added = vocabulary if info.get('num_old_rows') else ()
  learned = [
    n for n in hf.tensor_names(c) if n not in info['frozen'] or n in added
  ]
  others = [n for n in learned if n not in vocabulary]
  if others:
    raise ValueError(
      f'{source} trained {", ".join(others)} as well, which no adapter holds; '
      'leave out --adapter_only: the whole model is written, merged.'
    )
  base = _BASE.value or info['base']
  told = _told_base(base)
  with progress.doing('writing the adapters'):
    peft.write(
      target,
      c,
      functools.partial(checkpoint.load_array, source),
      dtype='float32',
      base=told,
      saved=learned,
    )
  card.write(target, source, checkpoint.read_meta(source), adapter=True)
  compared = _write_tokenizer(
    opened.tokenizer, target, c, _settings(source, opened)
  )
  skipped = None
  folder = hub.local(base)
  if _VERIFY.value == 'auto' and not hf_config.is_hf_dir(folder):
    told = card.shown(base)
    skipped = f'{told} is no Hugging Face folder; name it with --base'
  certificate.write(
    target,
    {
      'program': 'export_hf',
      **_of(source),
      'base': base if hub.is_name(base) else card.shown(base),
      **compared,
    },
    c=c,
    checkpoint_dir=source,
    hf_dir=folder,
    adapter_dir=target,
    verify=_VERIFY.value,
    skipped=skipped,
  )


def _told_base(base):
  """How adapter_config.json names the base; PEFT finds a folder here by it."""
  if hub.is_name(base):
    return base
  told = card.shown(base) if _PUSH.value else str(base)
  print(
    f'notice: adapter_config.json names its base {told!r}, which nobody else '
    'has; where it is on the hub, say so: --base=hf:OWNER/NAME.'
  )
  return told


def _of(source):
  """What a certificate says of a checkpoint, and not where it lies."""
  return {
    'source': card.shown(source),
    'fingerprint': checkpoint.fingerprint(source),
  }


def _keeps(source, dtype):
  """Whether the dtype holds every value of the checkpoint."""
  stored = jax.tree.leaves(checkpoint.params_metadata(source))
  return all(jnp.promote_types(x.dtype, dtype) == dtype for x in stored)


if __name__ == '__main__':
  flags.mark_flags_as_required(['source', 'target'])
  program.run(main)
