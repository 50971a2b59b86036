"""Lets a model write: on a prompt, in a conversation, or on a file of prompts.

  python -m lbe.generate --model=CKPT_OR_HF --prompt='从前' --temperature=0.8
  python -m lbe.generate --model=CKPT_OR_HF --template=belle
  python -m lbe.generate --model=HF --adapter=hf:OWNER/NAME --template=belle
  python -m lbe.generate --model=CKPT_OR_HF --template=belle \
    --input=questions.jsonl --output=responses.jsonl
  python -m lbe.generate --model=CKPT_OR_HF --num_samples=500 \
    --temperature=1 --output=samples.jsonl

Without --prompt, --input and --num_samples it talks in the terminal. A file is
gone on with where its output ends.
"""

import contextlib
import hashlib
import io
import json
import math
import pathlib
import sys

import jax
import numpy as np
from absl import flags

from lbe.chat import messages
from lbe.chat import prompts as prompts_lib
from lbe.convert import adapted
from lbe.convert import stored
from lbe.inference import decode
from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import int8
from lbe.models import weights
from lbe.run import program
from lbe.run import progress as progress_lib
from lbe.text import bars
from lbe.text import hub
from lbe.text import lines

_MODEL = flags.DEFINE_string(
  'model', None, 'A checkpoint, an HF folder, or hf:OWNER/NAME.'
)
_ADAPTER = flags.DEFINE_string(
  'adapter', '', 'A folder of PEFT, or hf:OWNER/NAME, with adapters of it.'
)
_PROMPT = flags.DEFINE_string('prompt', None, 'What the model goes on from.')
_TEMPLATE = flags.DEFINE_string(
  'template',
  '',
  'How a conversation is written (alpaca, belle, llama3_chat, …, or the path '
  "of a chat_template.jinja); '' lets the model go on from plain text.",
)
_SYSTEM = flags.DEFINE_string('system', '', 'The system message, if any.')
_BOS = flags.DEFINE_bool(
  'bos', None, "BOS before plain text; by default the tokenizer's own habit."
)
_MAX_NEW_TOKENS = flags.DEFINE_integer('max_new_tokens', 200, 'At most.')
_TEMPERATURE = flags.DEFINE_float('temperature', 0.0, '0 is greedy.')
_TOP_K = flags.DEFINE_integer('top_k', 0, 'The likeliest k only; 0 is all.')
_TOP_P = flags.DEFINE_float('top_p', 1.0, 'The likeliest mass only.')
_MIN_P = flags.DEFINE_float('min_p', 0.0, 'Of the likeliest, at least.')
_PENALTY = flags.DEFINE_float(
  'repetition_penalty', 1.0, 'On tokens of prompt and response; 1 is none.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the samples.')
_STOP = flags.DEFINE_multi_string('stop', [], 'A text that ends a response.')
_NUM_SAMPLES = flags.DEFINE_integer(
  'num_samples', 0, 'Responses to each prompt (or continuations of BOS).'
)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 50, 'Rows at a time.')
_INPUT = flags.DEFINE_string(
  'input', None, 'A JSONL file of prompts, or of conversations to answer.'
)
_FIELD = flags.DEFINE_string('field', 'prompt', 'Where its prompt stands.')
_OUTPUT = flags.DEFINE_string(
  'output', None, 'A JSONL file for responses, or for samples (field `text`).'
)
_TOO_LONG = flags.DEFINE_enum(
  'too_long',
  'fail',
  decode.TOO_LONG,
  'A prompt of --input that does not fit: cut_left cuts and counts.',
)
_DTYPE = flags.DEFINE_enum(
  'compute_dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.'
)
_INT8 = flags.DEFINE_bool(
  'int8',
  False,
  'Weights of layers in 8 bits, for one device: faster on a CPU, of many '
  'prompts at a time where it has products of integers (VNNI, AMX).',
)
_MESH = {
  axis: flags.DEFINE_integer(f'mesh_{axis}', 1, f'Devices along {axis}.')
  for axis in ('data', 'fsdp', 'tensor')
}


def main(argv):
  del argv
  if _INPUT.value and not _OUTPUT.value:
    raise ValueError('--input needs --output, a JSONL file for the responses.')
  if _INPUT.value and _PROMPT.value is not None:
    raise ValueError('--input and --prompt do not go together; give one.')
  out = pathlib.Path(_OUTPUT.value or '')
  if not _INPUT.value and out.is_file() and out.stat().st_size:
    raise ValueError(
      f'--output={out} is there already; give another name, or delete it.'
    )
  program.keep_compiled()
  adapter = hub.pinned(_ADAPTER.value)
  if adapter:
    adapter_dir = adapted.folder(adapter)  # what is refused, at once
  opened = stored.open_model(_MODEL.value)
  shape = {axis: flag.value for axis, flag in _MESH.items()}
  num = max(math.prod(shape.values()), 1)
  mesh = sharding.make_mesh(shape, devices=jax.devices()[:num])
  if _INT8.value:
    int8.check(mesh)  # before weights are read
  tokenizer, c = opened.tokenizer, opened.config
  if adapter:
    with progress_lib.doing('reading the weights'):
      params = opened.load_params(mesh)
      c, params, tokenizer = _adapted(adapter_dir, opened, params, mesh)
  if tokenizer is None:
    raise ValueError(f'{opened.path} has no tokenizer to write text with.')
  if _TEMPLATE.value and _BOS.value is not None:
    raise ValueError('--bos is for plain text; a template says where BOS is.')
  writer = prompts_lib.Encoder(
    _TEMPLATE.value, tokenizer, system=_SYSTEM.value, bos=_BOS.value
  )
  settings = dict(
    temperature=_TEMPERATURE.value,
    top_k=_TOP_K.value,
    top_p=_TOP_P.value,
    min_p=_MIN_P.value,
    repetition_penalty=_PENALTY.value,
    seed=_SEED.value,
    num_samples=max(_NUM_SAMPLES.value, 1),
    **writer.ends(_STOP.value),
  )
  if _INPUT.value:
    asked = prompts_lib.read(
      _INPUT.value, template=_TEMPLATE.value, field=_FIELD.value
    )
    work = list(zip(asked, writer.of_prompts(asked), strict=True))
    # What decides the responses, but not how fast they come.
    run = _digest(
      settings,
      opened.path,
      tokenizer.fingerprint,
      _TEMPLATE.value,
      _SYSTEM.value,
      *([] if _BOS.value is None else [_BOS.value]),
      *([adapter] if adapter else []),
      _MAX_NEW_TOKENS.value,
      _TOO_LONG.value,
      _DTYPE.value,
      *(['int8'] if _INT8.value else []),
    )
    finished = _finished(_OUTPUT.value, run)
  if not adapter:
    with progress_lib.doing('reading the weights'):
      params = opened.load_params(mesh)
  if _INT8.value:
    params = int8.quantized(params, mesh)
  # Unrolled, a CPU copies no weights; elsewhere it would only compile longer.
  execution = forward.Execution(
    compute_dtype=_DTYPE.value, scan=jax.default_backend() != 'cpu'
  )

  def respond(prompts, **changes):
    return decode.respond(
      params,
      c,
      tokenizer,
      prompts,
      execution=execution,
      mesh=mesh,
      batch_size=_BATCH_SIZE.value,
      **{**settings, 'max_new_tokens': _MAX_NEW_TOKENS.value, **changes},
    )

  def left(ids):
    """The new tokens that the window has place for, 0 or less where none."""
    return min(_MAX_NEW_TOKENS.value, c.max_positions - len(ids))

  def room(ids):
    """The same; ValueError where there is none."""
    if left(ids) < 1:
      raise ValueError(
        f'the prompt has {len(ids)} tokens, and the model {c.max_positions} '
        'positions; shorten it.'
      )
    return left(ids)

  if _INPUT.value:
    todo = [(p, ids) for p, ids in work if _id(p) not in finished]
    _work_off(respond, todo, len(work), run)
  elif _NUM_SAMPLES.value or _OUTPUT.value:
    _write_samples(respond, room, writer, tokenizer)
  elif _PROMPT.value is not None:
    ids = writer.of_text(_PROMPT.value)
    lead = '' if _TEMPLATE.value else tokenizer.decode(ids)
    _say(respond, ids, room(ids), lead=lead)
  else:
    _talk(respond, left, room, writer)


def _adapted(folder, opened, params, mesh):
  """(config, parameters, tokenizer) under the adapter of a folder."""
  flat = weights.flatten(params)
  found = adapted.read(folder, opened, lambda name: np.asarray(flat[name]))
  shardings = weights.flatten(
    sharding.shardings(mesh, weights.dims(found.config))
  )
  for name, array in found.arrays.items():
    flat[name] = jax.device_put(array, shardings[name])
  return found.config, weights.unflatten(flat), found.tokenizer


# ------------------------------------------------------------------ terminal

# What the first text waits for.
_STARTING = 'compiling, and reading the prompt'


def _say(respond, ids, max_new_tokens, *, lead='', **changes):
  """The Response, printed behind `lead` while it is written."""
  shown = ''
  with contextlib.ExitStack() as waiting:
    waiting.enter_context(progress_lib.doing(_STARTING))

    def show(text):
      nonlocal shown
      if text != shown:
        waiting.close()
        print(text[len(shown) :], end='', flush=True)
        shown = text

    (response,) = respond(
      [ids],
      max_new_tokens=max_new_tokens,
      on_text=lambda _, text: show(lead + text),
      chunk=1,
      **changes,
    )
    show(lead + response.text)
  print()
  return response


def _talk(respond, left, room, writer):
  print('An empty line ends, /new forgets what was said.')
  number, turns = 0, []
  while True:
    try:
      said = input('> ')
    except EOFError:
      return
    if not said:
      return
    if said == '/new':
      turns = []
      continue
    if writer.one_turn:
      turns = []
    asked = [*turns, messages.Message('user', said)]
    ids = writer.of_turns(asked)
    # The oldest question and answer go first; the last question stays.
    while len(asked) > 2 and left(ids) < _MAX_NEW_TOKENS.value:
      asked = asked[2:]
      ids = writer.of_turns(asked)
    try:
      num = room(ids)
    except ValueError as error:  # alone it is too long: what was said stays
      print(error)
      continue
    response = _say(respond, ids, num, seeds=[number])
    turns = [*asked, messages.Message('assistant', response.text.strip())]
    number += 1


# ------------------------------------------------------------------- samples


def _write_samples(respond, room, writer, tokenizer):
  """Continuations of one prompt; sample i does not hang on how many."""
  ids = writer.of_text(_PROMPT.value or '')
  num, size = max(_NUM_SAMPLES.value, 1), _BATCH_SIZE.value
  lead = '' if _TEMPLATE.value else tokenizer.decode(ids)
  with contextlib.ExitStack() as stack:
    out = None
    if _OUTPUT.value:
      out = stack.enter_context(open(_OUTPUT.value, 'w', encoding='utf-8'))
    stack.enter_context(progress_lib.doing('writing samples'))
    progress = stack.enter_context(bars.make(total=num, unit='sample'))
    for start in range(0, num, size):
      numbers = range(start, min(start + size, num))
      responses = respond(
        [ids] * len(numbers),
        seeds=numbers,
        num_samples=1,
        max_new_tokens=room(ids),
      )
      rows = ''.join(lines.line({'text': lead + r.text}) for r in responses)
      if out:
        out.write(rows)
        out.flush()
      else:
        bars.say(rows.rstrip('\n'))
      progress.update(len(numbers))


# ---------------------------------------------------------------- JSON lines


def _id(prompt):
  """What its responses are found by: its `id` as it stands, or its line."""
  own = prompt.record.get('id')
  return prompt.number if own is None else own


def _digest(*facts):
  text = json.dumps(facts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _finished(path, run):
  """The ids whose responses stand in the output; a torn last line is cut off.

  Raises ValueError for an output of another run.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return set()
  finished = set()
  for row, number in lines.values(io.BytesIO(lines.whole(path))):
    try:
      finished.add(row['id'])
      same = row['run'] == run
    except (KeyError, TypeError) as error:
      raise ValueError(
        f'{path}:{number} is no line of responses; give another --output.'
      ) from error
    if not same:
      raise ValueError(
        f'{path}:{number} has a response of another model or of other '
        'settings; take those again, or give another --output.'
      )
  lines.mend(path)
  return finished


def _work_off(respond, todo, total, run):
  """Adds a line to --output for each item: the record and its response."""
  num_samples = max(_NUM_SAMPLES.value, 1)
  # Some batches at a time: sorted by length, and soon on disk.
  at_a_time = max(1, 8 * _BATCH_SIZE.value // num_samples)
  with (
    open(_OUTPUT.value, 'a', encoding='utf-8') as out,
    progress_lib.doing('writing responses'),
    bars.make(
      total=total, initial=total - len(todo), unit='prompt'
    ) as progress,
  ):
    for start in range(0, len(todo), at_a_time):
      batch = todo[start : start + at_a_time]
      responses = respond(
        [ids for _, ids in batch],
        seeds=[p.number for p, _ in batch],
        too_long=_TOO_LONG.value,
      )
      for i, (p, _) in enumerate(batch):
        own = responses[i * num_samples : (i + 1) * num_samples]
        if _NUM_SAMPLES.value:
          said = {
            'responses': [r.text for r in own],
            'ended': [r.ended for r in own],
            'num_tokens': [len(r.ids) for r in own],
          }
        else:
          said = {
            'response': own[0].text,
            'ended': own[0].ended,
            'num_tokens': len(own[0].ids),
          }
        row = {'id': _id(p), 'cut': own[0].cut, 'run': run}
        out.write(lines.line({**p.record, **said, **row}))
      out.flush()
      progress.update(len(batch))


if __name__ == '__main__':
  flags.mark_flags_as_required(['model'])
  to_file = any(x.lstrip('-').startswith('output') for x in sys.argv[1:])
  program.run(main, goes_on=to_file)
