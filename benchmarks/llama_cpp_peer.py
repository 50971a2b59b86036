"""llama.cpp's greedy decoding, the peer of decode.py in a process of its own.

  PYTHONPATH=. python benchmarks/llama_cpp_peer.py GGUF PROMPTS.json NUM_NEW

All prompts are one batch of its own sequences, as its server has them. Prints
{"seconds": …, "ids": [[…], …]} of the second of two runs, as JSON; the first
one warms up.
"""

import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np


def convert(folder, outtype):
  """The path of a GGUF of a Hugging Face folder, by llama.cpp's own script."""
  root = os.environ.get('LBE_LLAMA_CPP')
  if not root:
    raise ValueError(
      'LBE_LLAMA_CPP names no folder of llama.cpp, which has the converter; '
      'the sdist of llama-cpp-python has one in vendor/.'
    )
  path = pathlib.Path(folder) / f'{outtype}.gguf'
  script = pathlib.Path(root) / 'convert_hf_to_gguf.py'
  subprocess.run(
    [sys.executable, script, folder, f'--outtype={outtype}']
    + [f'--outfile={path}'],
    check=True,
    capture_output=True,
  )
  return path


def measure(gguf, ids_BT, new_tokens):
  """(seconds, new ids [B, X]) in a process of its own."""
  prompts = pathlib.Path(gguf).with_suffix('.json')
  prompts.write_text(json.dumps(np.asarray(ids_BT).tolist()))
  told = subprocess.run(
    [sys.executable, __file__, gguf, prompts, str(new_tokens)],
    check=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
  ).stdout
  found = json.loads(told.splitlines()[-1])
  return found['seconds'], found['ids']


def _make(gguf, num_rows, num_positions, outtype):
  """A function of (prompts, number of new tokens): the new ids."""
  import llama_cpp

  llama_cpp.llama_backend_init()
  how = llama_cpp.llama_model_default_params()
  # With AMX, q8_0 ends in a segmentation fault of version 0.3.36.
  how.use_extra_bufts = outtype == 'f32'
  model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), how)
  vocab_size = llama_cpp.llama_vocab_n_tokens(
    llama_cpp.llama_model_get_vocab(model)
  )
  asked = llama_cpp.llama_context_default_params()
  each = -(-num_positions // 256) * 256  # what it rounds up to
  asked.n_ctx, asked.n_seq_max = num_rows * each, num_rows
  asked.n_batch = asked.n_ubatch = num_rows * num_positions
  asked.n_threads = asked.n_threads_batch = os.cpu_count()
  if outtype == 'f32':
    asked.type_k = asked.type_v = 0  # GGML_TYPE_F32
  context = llama_cpp.llama_init_from_model(model, asked)

  def feed(rows):
    """Logits [B, V] of the (token, position, sequence, is asked) that ask."""
    batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, is_asked) in enumerate(rows):
      batch.token[i], batch.pos[i] = token, position
      batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
      batch.logits[i] = is_asked
    if llama_cpp.llama_decode(context, batch):
      raise RuntimeError('llama_decode failed')
    at = [i for i, row in enumerate(rows) if row[3]]
    logits_BV = [
      np.ctypeslib.as_array(
        ctypes.cast(
          llama_cpp.llama_get_logits_ith(context, i),
          ctypes.POINTER(ctypes.c_float),
        ),
        (vocab_size,),
      ).copy()
      for i in at
    ]
    llama_cpp.llama_batch_free(batch)
    return np.stack(logits_BV)

  def run(prompts, new_tokens):
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    T = len(prompts[0])
    logits_BV = feed(
      [
        (token, t, b, t == T - 1)
        for b, ids in enumerate(prompts)
        for t, token in enumerate(ids)
      ]
    )
    new = []
    for x in range(new_tokens):
      new.append(logits_BV.argmax(1).tolist())
      # Ours runs the last token through the model, too.
      logits_BV = feed([(id_, T + x, b, True) for b, id_ in enumerate(new[-1])])
    return np.array(new).T.tolist()

  return run


def main(gguf, prompts, new_tokens):
  prompts = json.loads(pathlib.Path(prompts).read_text())
  new_tokens = int(new_tokens)
  run = _make(
    gguf,
    len(prompts),
    len(prompts[0]) + new_tokens + 1,
    pathlib.Path(gguf).stem,
  )
  run(prompts, 2)
  start = time.perf_counter()
  ids = run(prompts, new_tokens)
  print(json.dumps({'seconds': time.perf_counter() - start, 'ids': ids}))


if __name__ == '__main__':
  main(*sys.argv[1:])
