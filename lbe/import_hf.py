"""Converts a Hugging Face LLaMA folder into a checkpoint.

  python -m lbe.import_hf --source=llama-7b-hf --target=checkpoints/llama-7b

The dtype on disk is kept. Ends with a certificate.
"""

import hashlib
import pathlib

import numpy as np
from absl import flags

from lbe import certificate
from lbe import checkpoint
from lbe import program
from lbe import stored
from lbe.models import hf
from lbe.vocab import load as vocab

_SOURCE = flags.DEFINE_string('source', None, 'The Hugging Face folder.')
_TARGET = flags.DEFINE_string('target', None, 'Where the checkpoint goes.')
_VERIFY = flags.DEFINE_enum(
  'verify',
  'auto',
  ['auto', 'digests', 'logits'],
  'digests: compare all tensors after a round trip; logits: also compare '
  "with transformers' logits; auto: logits where it is installed and both "
  'models fit in half of the free memory.',
)


def main(argv):
  del argv
  source, target = pathlib.Path(_SOURCE.value), pathlib.Path(_TARGET.value)
  if not hf.is_hf_dir(source):
    raise ValueError(
      f'--source={source} is no Hugging Face folder: it has no config.json '
      'of a model.'
    )
  if checkpoint.is_checkpoint(target):
    raise ValueError(
      f'--target={target} already holds a checkpoint; give an empty folder, '
      'or delete it.'
    )
  opened = stored.open_model(source)
  c = opened.config
  if opened.tokenizer is None:
    print(f'notice: {source} has no tokenizer; the checkpoint has none.')
  else:
    print(vocab.check_rows(opened.tokenizer, c.vocab_size))
  params = hf.load_params(source, c)
  checkpoint.save_model(
    target,
    params,
    meta={
      'model': c.to_json(),
      'tokenizer': stored.tokenizer_meta(opened.tokenizer),
      'config': None,
      'source': opened.info,
    },
  )
  del params
  record = certificate.make(
    checkpoint_dir=target,
    hf_dir=source,
    expected=hf.tensor_digests(source, c),
    got=checkpoint_digests(target, c),
    verify=_VERIFY.value,
    c=c,
    program='import_hf',
    source=str(source),
    target=str(target),
    dtype=opened.info['dtype'],
  )
  certificate.finish(target, record)


def checkpoint_digests(path, c):
  """{Hugging Face name: sha256} of a checkpoint, one weight in memory."""
  digests = {}
  for name, names in hf.tensor_names(c).items():
    array = checkpoint.load_array(path, name)
    stacked = name.startswith('layers/')
    for i, theirs in enumerate(names):
      one = hf.to_theirs(c, name, array[i] if stacked else array)
      data = np.ascontiguousarray(one).view(np.uint8)
      digests[theirs] = hashlib.sha256(memoryview(data.reshape(-1))).hexdigest()
    del array
  return digests


if __name__ == '__main__':
  flags.mark_flags_as_required(['source', 'target'])
  program.run(main)
