"""Writes a checkpoint as a folder that transformers, vLLM and others load.

  python -m lbe.export_hf --source=runs/zh --target=runs/zh/hf

The dtype is that of the run's source weights unless --dtype says otherwise.
Ends with a certificate.
"""

import json
import pathlib

import numpy as np
from absl import flags

from lbe import certificate
from lbe import checkpoint
from lbe import program
from lbe import stored
from lbe.models import hf
from lbe.vocab import export as vocab_export

_SOURCE = flags.DEFINE_string('source', None, 'A checkpoint or a workdir.')
_TARGET = flags.DEFINE_string('target', None, 'The folder to write.')
_DTYPE = flags.DEFINE_enum(
  'dtype', None, list(hf.DTYPES), "Of the weights; by default the source's."
)
_VERIFY = flags.DEFINE_enum(
  'verify',
  'auto',
  ['auto', 'digests', 'logits'],
  'digests: compare all tensors after a round trip; logits: also compare '
  "with transformers' logits; auto: logits where it is installed and both "
  'models fit in half of the free memory.',
)
_SHARD_BYTES = flags.DEFINE_integer(
  'shard_bytes', 5_000_000_000, 'A safetensors file ends before this size.'
)


def main(argv):
  del argv
  target = pathlib.Path(_TARGET.value)
  source = checkpoint.find(_SOURCE.value)
  if (target / 'config.json').exists():
    raise ValueError(
      f'--target={target} already holds a model; give an empty folder, or '
      'delete it.'
    )
  opened = stored.open_model(source)
  c, info, tokenizer = opened.config, opened.info, opened.tokenizer
  dtype = _DTYPE.value or info['dtype']
  target.mkdir(parents=True, exist_ok=True)
  expected = hf.write_safetensors(
    target,
    c,
    lambda name: checkpoint.load_array(source, name),
    dtype=dtype,
    shard_bytes=_SHARD_BYTES.value,
  )
  ids = {
    f'{role}_id': getattr(tokenizer, f'{role}_id')
    if tokenizer is not None
    else info.get(f'{role}_id')
    for role in ('bos', 'eos', 'pad')
  }
  if tokenizer is None:
    print(f'notice: {source} has no tokenizer; none was written.')
  else:
    vocab_export.write(tokenizer, target, max_positions=c.max_positions)
  generation = {
    f'{role}_token_id': ids[f'{role}_id']
    for role in ('bos', 'eos', 'pad')
    if ids[f'{role}_id'] is not None
  }
  generation = {**(info.get('generation_config') or {}), **generation}
  for name, record in (
    ('generation_config.json', generation),
    # Last: a folder with a config.json is whole.
    ('config.json', hf.config_json(c, dtype=dtype, **ids)),
  ):
    (target / name).write_text(json.dumps(record, indent=2))
  record = certificate.make(
    checkpoint_dir=source,
    hf_dir=target,
    expected=expected,
    got=hf.tensor_digests(target, c),
    # Rounded weights have other logits; the digests prove the rounding.
    verify=_VERIFY.value if _same_dtype(source, dtype) else 'digests',
    c=c,
    program='export_hf',
    source=str(source),
    target=str(target),
    dtype=dtype,
  )
  if not _same_dtype(source, dtype) and _VERIFY.value != 'digests':
    record['logits'] = {
      'skipped': f'the checkpoint was rounded to {dtype}; its logits differ'
    }
  certificate.finish(target, record)


def _same_dtype(source, dtype):
  return checkpoint.load_array(source, 'final_norm_D').dtype == np.dtype(
    hf.DTYPES[dtype]
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['source', 'target'])
  program.run(main)
