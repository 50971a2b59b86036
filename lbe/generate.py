"""Lets a model write: on a prompt, in a conversation, or many samples.

  python -m lbe.generate --model=CKPT_OR_HF --prompt='从前' --temperature=0.8
  python -m lbe.generate --model=CKPT_OR_HF --num_samples=500 \
    --temperature=1 --output=samples.jsonl

Without --prompt and --num_samples it reads prompts from the terminal.
"""

import json
import sys

import jax
from absl import flags

from lbe import decode
from lbe import program
from lbe import sharding
from lbe import stored
from lbe.models import llama
from lbe.vocab import load as vocab

_MODEL = flags.DEFINE_string('model', None, 'A checkpoint or an HF folder.')
_PROMPT = flags.DEFINE_string('prompt', None, 'What the model goes on from.')
_MAX_NEW_TOKENS = flags.DEFINE_integer('max_new_tokens', 200, 'At most.')
_TEMPERATURE = flags.DEFINE_float('temperature', 0.0, '0 is greedy.')
_TOP_K = flags.DEFINE_integer('top_k', 0, 'The likeliest k only; 0 is all.')
_TOP_P = flags.DEFINE_float('top_p', 1.0, 'The likeliest mass only.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the samples.')
_NUM_SAMPLES = flags.DEFINE_integer(
  'num_samples', 0, 'So many continuations of the prompt (or of BOS alone).'
)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 50, 'Samples at a time.')
_OUTPUT = flags.DEFINE_string(
  'output', None, 'A JSONL file for the samples, in the field `text`.'
)
_DTYPE = flags.DEFINE_enum(
  'compute_dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.'
)


def main(argv):
  del argv
  opened = stored.open_model(_MODEL.value)
  if opened.tokenizer is None:
    raise ValueError(f'{opened.path} has no tokenizer to write text with.')
  mesh = sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])
  params = opened.load_params(mesh)
  tokenizer, c = opened.tokenizer, opened.config

  def texts(prompt, num, seed):
    ids = vocab.prompt_ids(tokenizer, prompt)
    if not ids:
      raise ValueError('an empty prompt needs a tokenizer with BOS.')
    new = decode.generate(
      params,
      c,
      [ids] * num,
      max_new_tokens=min(_MAX_NEW_TOKENS.value, c.max_positions - len(ids)),
      temperature=_TEMPERATURE.value,
      top_k=_TOP_K.value,
      top_p=_TOP_P.value,
      seed=seed,
      eos_id=tokenizer.eos_id,
      execution=llama.Execution(compute_dtype=_DTYPE.value),
    )
    # The prompt is decoded with what follows, so that no space is lost.
    return [tokenizer.decode(ids + row) for row in new]

  if _NUM_SAMPLES.value:
    _write_samples(texts)
  elif _PROMPT.value is not None:
    print(texts(_PROMPT.value, 1, _SEED.value)[0])
  else:
    _converse(texts)


def _write_samples(texts):
  out = sys.stdout
  if _OUTPUT.value:
    out = open(_OUTPUT.value, 'w', encoding='utf-8')  # noqa: SIM115
  done = 0
  while done < _NUM_SAMPLES.value:
    # Whole batches, so that sample i does not hang on how many are asked.
    batch = texts(
      _PROMPT.value or '',
      _BATCH_SIZE.value,
      _SEED.value * 1_000_003 + done // _BATCH_SIZE.value,
    )
    for text in batch[: _NUM_SAMPLES.value - done]:
      out.write(json.dumps({'text': text}, ensure_ascii=False) + '\n')
    done += len(batch)
    print(
      f'{min(done, _NUM_SAMPLES.value)} of {_NUM_SAMPLES.value} samples',
      file=sys.stderr,
    )
  out.flush()


def _converse(texts):
  print('Type the beginning of a text; an empty line ends.')
  number = _SEED.value
  while True:
    try:
      prompt = input('> ')
    except EOFError:
      return
    if not prompt:
      return
    print(texts(prompt, 1, number)[0])
    number += 1


if __name__ == '__main__':
  flags.mark_flags_as_required(['model'])
  program.run(main)
