"""Converts a Hugging Face LLaMA folder into a checkpoint.

  python -m lbe.import_hf --source=llama-7b-hf --target=checkpoints/llama-7b
  python -m lbe.import_hf --source=llama-7b-hf --adapter=zh-lora --target=...

The dtype on disk is kept. With --adapter, a folder of PEFT, the checkpoint has
its adapters, unmerged, and the embedding, head and tokenizer that lie with
them. Ends with a certificate.
"""

import pathlib
import shutil

from absl import flags

from lbe.convert import adapted
from lbe.convert import certificate
from lbe.convert import hf
from lbe.convert import hf_config
from lbe.convert import settings
from lbe.convert import stored
from lbe.models import weights
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.run import program
from lbe.run import progress
from lbe.text import hub
from lbe.vocab import tokenizers

_SOURCE = flags.DEFINE_string(
  'source', None, 'The Hugging Face folder, or hf:OWNER/NAME.'
)
_TARGET = flags.DEFINE_string('target', None, 'Where the checkpoint goes.')
_VERIFY = flags.DEFINE_enum(
  'verify', 'auto', certificate.VERIFY, certificate.VERIFY_HELP
)
_ADAPTER = flags.DEFINE_string(
  'adapter',
  '',
  'A folder of PEFT, or hf:OWNER/NAME, with adapters of the source.',
)


def main(argv):
  del argv
  checkpoint.check_free(_TARGET.value)
  name, target = hub.pinned(_SOURCE.value), pathlib.Path(_TARGET.value)
  source, adapter_dir = hub.local(name), ''
  if not hf_config.is_hf_dir(source):
    why = 'it holds a checkpoint of ours, which every program takes as it is'
    if not checkpoint.is_checkpoint(source):
      why = hf_config.lacks(source)
    raise ValueError(f'--source={name} is no Hugging Face folder: {why}.')
  checksums.check(source, stored.IF_CHANGED)
  if _ADAPTER.value:
    adapter_dir = adapted.folder(_ADAPTER.value)  # what is refused, at once
  opened = stored.open_model(source)
  c = opened.config
  if opened.tokenizer is None:
    print(f'notice: {name} has no tokenizer; the checkpoint has none.')
  else:
    print(tokenizers.check_rows(opened.tokenizer, c.vocab_size))
  theirs, info, tokenizer = opened.hf_weights, opened.info, opened.tokenizer
  with progress.doing('hashing and reading the weights'):
    expected = theirs.digests()
    params, kept = theirs.load(), hf.tensor_names(c)
  if adapter_dir:
    flat = weights.flatten(params)
    with progress.doing('reading the adapter'):
      found = adapted.read(adapter_dir, opened, flat.__getitem__)
    params = weights.unflatten({**flat, **found.arrays})
    c, tokenizer = found.config, found.tokenizer
    kept = [name for name in kept if name not in found.arrays]
    info = {**info, 'base': str(name), 'frozen': found.frozen}
    if tokenizers.find(adapter_dir):
      info = settings.with_tokenizer(info, tokenizer, adapter_dir)
  # It gets its name when it is proven: until then nothing takes it for a model.
  unfinished = target / 'unfinished'
  try:
    with progress.doing('writing the checkpoint'):
      checkpoint.save_model(
        unfinished,
        params,
        meta={
          'model': c.to_json(),
          'tokenizer': stored.tokenizer_meta(tokenizer),
          'config': None,
          'source': info,
        },
      )
    del params
    with progress.doing('reading it back'):
      got = checkpoint_digests(unfinished, c, kept)
    certificate.write(
      target,
      {
        'program': 'import_hf',
        'source': str(name),
        'target': str(target),
        'dtype': info['dtype'],
      },
      c=c,
      checkpoint_dir=unfinished,
      hf_dir=source,
      adapter_dir=adapter_dir,
      digests=({name: expected[name] for name in got}, got),
      not_read=theirs.not_read,
      verify=_VERIFY.value,
    )
    (unfinished / 'checkpoints').rename(target / 'checkpoints')
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def checkpoint_digests(path, c, kept=None):
  """{Hugging Face name: sha256} of a checkpoint, one weight in memory.

  `kept` are the weights that are looked at, by default all.
  """
  digests = {}
  for name, names in hf.tensor_names(c).items():
    if kept is not None and name not in kept:
      continue
    array = checkpoint.load_array(path, name)
    stacked = weights.is_stacked(name)
    for i, theirs in enumerate(names):
      one = hf.to_theirs(c, name, array[i] if stacked else array)
      digests[theirs] = hf.digest(one)
    del array
  return digests


if __name__ == '__main__':
  flags.mark_flags_as_required(['source', 'target'])
  program.run(main)
