"""Gives a model rows for the pieces of an extended tokenizer.

  python -m lbe.extend_model --source=CKPT_OR_HF --tokenizer=zh_pieces \\
    --target=checkpoints/llama-7b-zh

`train` does the same at its start where config.tokenizer extends the one of
config.init_from; this writes the checkpoint. Old rows and the dtype on disk
are kept to the bit.
"""

import jax
from absl import flags

from lbe.assemble import extension
from lbe.assemble import model as model_lib
from lbe.convert import settings
from lbe.convert import stored
from lbe.mesh import sharding
from lbe.run import checkpoint
from lbe.run import program
from lbe.run import progress
from lbe.vocab import rows
from lbe.vocab import tokenizers

_SOURCE = flags.DEFINE_string(
  'source', None, 'A checkpoint, a workdir, or a Hugging Face folder.'
)
_TOKENIZER = flags.DEFINE_string(
  'tokenizer', None, 'The extended tokenizer: a .model, .json, or a folder.'
)
_TARGET = flags.DEFINE_string('target', None, 'Where the checkpoint goes.')
_METHOD = flags.DEFINE_enum(
  'method', 'pieces_mean', rows.METHODS, 'How new rows start.'
)
_DICTIONARY = flags.DEFINE_string(
  'dictionary', '', 'Lines of a new word, a tab, and its translation.'
)
_MATCH_NORMS = flags.DEFINE_bool(
  'match_norms', False, "Scale each new row to the old rows' mean norm."
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the drawn rows.')


def main(argv):
  del argv
  checkpoint.check_free(_TARGET.value)
  opened = stored.open_model(_SOURCE.value)
  tokenizer = tokenizers.load(_TOKENIZER.value)
  if not model_lib.is_extended(opened, tokenizer):
    raise ValueError(
      f'--tokenizer={_TOKENIZER.value} ({tokenizer.vocab_size} pieces) is no '
      f'extension of the tokenizer of {opened.path}; make one with '
      '`python -m lbe.tokenizer extend --base=...`.'
    )
  num_old = opened.tokenizer.vocab_size
  model = model_lib.extended_config(opened, tokenizer)
  mesh = sharding.make_mesh(dict(fsdp=jax.device_count()))
  with progress.doing('reading the weights'):
    params = opened.load_params(mesh, dtype=opened.dtypes())
  with progress.doing('making the new rows'):
    params = extension.extend_params(
      opened,
      tokenizer,
      model,
      mesh,
      params,
      method=_METHOD.value,
      match_norms=_MATCH_NORMS.value,
      dictionary=_DICTIONARY.value,
      seed=_SEED.value,
    )
  with progress.doing('writing the checkpoint'):
    checkpoint.save_model(
      _TARGET.value,
      params,
      meta={
        'model': model.to_json(),
        'tokenizer': stored.tokenizer_meta(tokenizer),
        'config': None,
        'source': {
          **opened.info,
          'num_old_rows': num_old,
          'tokenizer_files': settings.tokenizer_files(
            opened.info, _TOKENIZER.value
          ),
        },
      },
    )
  print(
    f'{_TARGET.value}: {tokenizer.vocab_size - num_old:,} new rows behind '
    f'{num_old:,}, by {_METHOD.value}'
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['source', 'tokenizer', 'target'])
  program.run(main)
