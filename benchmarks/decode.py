"""Tokens per second of our greedy decoding beside transformers or llama.cpp.

  PYTHONPATH=. python benchmarks/decode.py                  # CPU or one GPU
  PYTHONPATH=. python benchmarks/decode.py --shape=300m --prompts=1 --pairs=7
  PYTHONPATH=. python benchmarks/decode.py --shape=300m --int8 --peer=q8_0 \
    --tokenizer=llama/tokenizer.model

The same random weights, saved once as a Hugging Face folder and read by both,
the same prompts, and as many new tokens, which both sides must agree on while
logits are not nearly equal. Timed in turns: ours, theirs, ours, theirs; a
ratio above 1 means that ours is faster. The peer has its default cache or its
static one, and on a CPU one thread or all: whichever is fastest in a trial.
--int8 has ours with weights in 8 bits. --peer=f32 or q8_0 is llama.cpp on such
a GGUF, which its own converter makes (LBE_LLAMA_CPP names its folder), by all
threads and in a process of its own.
"""

import itertools
import os
import pathlib
import shutil
import statistics
import tempfile
import time

import jax
import numpy as np
import torch
import transformers
from absl import app
from absl import flags

from benchmarks import llama_cpp_peer
from benchmarks import record
from lbe.convert import stored
from lbe.inference import decode
from lbe.mesh import sharding
from lbe.models import forward
from lbe.models import int8
from lbe.models import weights

_SHAPE = flags.DEFINE_enum(
  'shape', '20m', ['tiny', '20m', '300m', '1b'], 'Of the model.'
)
_PROMPTS = flags.DEFINE_integer('prompts', 1, 'Prompts at a time.')
_NEW_TOKENS = flags.DEFINE_integer('new_tokens', 128, 'New tokens of each.')
_PROMPT_TOKENS = flags.DEFINE_integer('prompt_tokens', 32, 'Of each prompt.')
_PAIRS = flags.DEFINE_integer('pairs', 7, 'Alternating measurements.')
_TRIAL_TOKENS = 16
_INT8 = flags.DEFINE_bool('int8', False, 'Ours with weights in 8 bits.')
_PEER = flags.DEFINE_enum(
  'peer',
  'transformers',
  ['transformers', 'f32', 'q8_0', 'ours'],
  'transformers, llama.cpp on a GGUF of this kind, or ours without --int8.',
)
_TOKENIZER = flags.DEFINE_string(
  'tokenizer', None, "32,000 pieces, which llama.cpp's converter asks for."
)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.'
)

SHAPES = {
  'tiny': dict(  # to try this script
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
  ),
  '20m': dict(
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=8,
  ),
  '300m': dict(
    hidden_size=1024,
    intermediate_size=2752,
    num_hidden_layers=20,
    num_attention_heads=16,
    num_key_value_heads=16,
  ),
  # TinyLlama's.
  '1b': dict(
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
  ),
}


def save(folder):
  """A LlamaForCausalLM of random weights, with a tokenizer if there is one."""
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=32000,
      max_position_embeddings=4096,
      initializer_range=0.05,
      **SHAPES[_SHAPE.value],
    )
  )
  model.save_pretrained(folder)
  if _TOKENIZER.value:
    shutil.copy(_TOKENIZER.value, pathlib.Path(folder) / 'tokenizer.model')


def make_ours(folder, in_int8):
  """(a function from ids [B, T] to new ids [B, X], the architecture)."""
  opened = stored.open_model(folder)
  mesh = sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1])
  params = opened.load_params(mesh, dtype=_DTYPE.value)
  if in_int8:
    params = int8.quantized(params, mesh)
  execution = forward.Execution(
    compute_dtype=_DTYPE.value, scan=jax.default_backend() != 'cpu'
  )

  def run(ids_BT):
    return decode.generate(
      params,
      opened.config,
      ids_BT.tolist(),
      max_new_tokens=_NEW_TOKENS.value,
      execution=execution,
      mesh=mesh,
    )

  return run, opened.config


def make_transformers(folder):
  """The same with transformers: by cache, threads and number of new tokens."""
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = transformers.LlamaForCausalLM.from_pretrained(
    folder, dtype=getattr(torch, _DTYPE.value)
  ).to(device)

  def run(ids_BT, cache, threads, new_tokens):
    torch.set_num_threads(threads)
    settings = {}
    if cache == 'static cache':
      settings = dict(cache_implementation='static', disable_compile=True)
    ids = torch.tensor(ids_BT, dtype=torch.long, device=device)
    with torch.inference_mode():
      whole = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
        **settings,
      )
    return whole[:, ids.shape[1] :].tolist()

  return run


def fastest_transformers(folder, ids_BT):
  """(`_timed` of transformers in its fastest way, the way in words)."""
  run = make_transformers(folder)
  trials = {}
  for way in itertools.product(
    ('default cache', 'static cache'), sorted({1, os.cpu_count()})
  ):
    trial = (ids_BT, *way, _TRIAL_TOKENS)
    trials[way] = min(_timed(run, *trial)[0] for _ in range(3))
  cache, threads = min(trials, key=trials.get)
  whole = (ids_BT, cache, threads, _NEW_TOKENS.value)
  return (
    lambda: _timed(run, *whole),
    f'transformers generate, {cache}, {threads} threads',
  )


def _timed(run, *arguments):
  """(seconds, what it gives)."""
  start = time.perf_counter()
  found = run(*arguments)
  return time.perf_counter() - start, found


def main(argv):
  del argv
  torch.set_float32_matmul_precision('highest')
  ids_BT = np.random.default_rng(0).integers(
    3, 32000, size=(_PROMPTS.value, _PROMPT_TOKENS.value)
  )
  packages = ['jax', 'torch', 'transformers']
  with tempfile.TemporaryDirectory() as folder:
    save(folder)
    run, c = make_ours(folder, _INT8.value)
    if _PEER.value == 'transformers':
      theirs, peer = fastest_transformers(folder, ids_BT)
    elif _PEER.value == 'ours':
      other, _ = make_ours(folder, False)
      theirs, peer = lambda: _timed(other, ids_BT), 'ours, float32 weights'
    else:
      gguf = llama_cpp_peer.convert(folder, _PEER.value)
      packages.append('llama_cpp_python')
      peer = f'llama.cpp, {_PEER.value}, {os.cpu_count()} threads'

      def theirs():
        return llama_cpp_peer.measure(gguf, ids_BT, _NEW_TOKENS.value)

    # The first run of each warms it up.
    agreed = np.mean(np.array(run(ids_BT)) == np.array(theirs()[1]))
    times = {'ours': [], 'theirs': []}
    for _ in range(_PAIRS.value):
      times['ours'].append(_timed(run, ids_BT)[0])
      times['theirs'].append(theirs()[0])
  ratios = [b / a for a, b in zip(times['ours'], times['theirs'], strict=True)]
  tokens = _PROMPTS.value * _NEW_TOKENS.value
  record.write(
    'decode',
    {
      'shape': _SHAPE.value,
      'parameters': weights.num_params(c),
      'prompts': [_PROMPTS.value, _PROMPT_TOKENS.value],
      'new_tokens': _NEW_TOKENS.value,
      'dtype': _DTYPE.value,
      **({'weight_dtype': 'int8'} if _INT8.value else {}),
      'peer': peer,
      'same_ids': round(float(agreed), 4),
      'pairs': _PAIRS.value,
      'ratio_median': round(statistics.median(ratios), 3),
      'ratio_range': [round(min(ratios), 3), round(max(ratios), 3)],
      **{
        f'{name}_tokens_per_second': round(tokens / statistics.median(t), 1)
        for name, t in times.items()
      },
    },
    packages=packages,
  )


if __name__ == '__main__':
  app.run(main)
