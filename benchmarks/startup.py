"""Seconds from the start of a process to the end of its first step, by stage.

  PYTHONPATH=. python benchmarks/startup.py

The quickstart's shape on its own texts, in bytes: `train` with nothing kept
(cold: texts are tokenized, everything is compiled) and started again (warm:
another run that finds both), beside transformers' Trainer with the same shape,
float32, batch and texts, timed in turns. Stages end with what the program
prints; imports are those of a process that does nothing else. Then the step of
a 1B shape is traced and compiled without weights, cold and warm.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app
from absl import flags

from lbe.configs import quickstart

_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Of cold, warm and the peer.')
_PART = flags.DEFINE_enum(
  'part', None, ['peer', 'compile'], 'Does this alone; called by itself.'
)

# Of the quickstart, without scores, samples and export.
_CHANGES = (
  '--config=configs/quickstart.py',
  '--config.tokenizer=bytes',
  '--config.budget.steps=1',
  '--config.log_every=1',
  '--config.checkpoint.every=1000',
  '--config.export_hf=False',
  '--config.sample_prompts=()',
  *(f'--config.evals.{x}.every=0' for x in ('en', 'zh')),
  *(f'--config.evals.{x}.at_start=False' for x in ('en', 'zh')),
  *(f'--config.evals.{x}.at_end=False' for x in ('en', 'zh')),
)
# What a program prints at the end of a stage.
_OURS = {
  'data': 'mesh: ',
  'state': 'starting from',
  'compile': 'compiled the step',
  'first step': 'step 1/1',
}
_THEIRS = {'imports': 'imported', 'data': 'model', 'first step': 'step 1'}


def _stages(command, ends, **variables):
  """{stage: seconds} by when the lines come that end them; and the total."""
  start = last = time.perf_counter()
  root = pathlib.Path(__file__).resolve().parent.parent
  process = subprocess.Popen(
    [sys.executable, *command],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=root,
    env={**os.environ, 'PYTHONUNBUFFERED': '1', **variables},
  )
  left, result, lines = dict(ends), {}, []
  for line in process.stdout:
    lines.append(line)
    for stage, beginning in list(left.items()):
      if line.startswith(beginning):
        now = time.perf_counter()
        result[stage], last = now - last, now
        del left[stage]
  if process.wait() or left:
    raise RuntimeError(f'{command} without {list(left)}: {"".join(lines)}')
  return {**result, 'total': last - start}


def _imports():
  start = time.perf_counter()
  subprocess.run([sys.executable, '-c', 'import lbe.train'], check=True)
  return time.perf_counter() - start


def _peer():
  """transformers' Trainer, one step; prints where it is."""
  import torch
  import transformers

  print('imported')
  shape = quickstart.get_config()
  m, data = shape.model, shape.data
  text = b''.join(
    pathlib.Path(s.path).read_bytes() for s in data.sources.values()
  )
  rows = [
    list(text[i : i + data.seq_len])
    for i in range(0, len(text) - data.seq_len, data.seq_len)
  ]
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=384,
      hidden_size=m.dim,
      intermediate_size=m.mlp_dim,
      num_hidden_layers=m.num_layers,
      num_attention_heads=m.num_heads,
      num_key_value_heads=m.num_kv_heads,
      tie_word_embeddings=True,
    )
  )
  print('model')

  class Say(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **more):
      print(f'step {state.global_step}')

  with tempfile.TemporaryDirectory() as folder:
    transformers.Trainer(
      model=model,
      args=transformers.TrainingArguments(
        output_dir=folder,
        max_steps=1,
        per_device_train_batch_size=data.batch_size,
        save_strategy='no',
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
      ),
      train_dataset=[{'input_ids': r, 'labels': r} for r in rows],
      callbacks=[Say()],
    ).train()


def _compile():
  """Traces and compiles the step of the 1B shape; prints where it is."""
  from benchmarks import train_step

  shape = train_step.SHAPES['1b']
  print('imported')
  _, _, training = train_step.make_abstract(
    shape['model'],
    shape['vocab_size'],
    seq_len=shape['seq_len'],
    batch_size=shape['batch_size'],
    dtype='bfloat16',
    lean=True,
  )
  lowered = training.step.lower(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  )
  print('traced')
  lowered.compile()
  print('compiled')


def main(argv):
  del argv
  if _PART.value:
    return {'peer': _peer, 'compile': _compile}[_PART.value]()
  found = {}

  def add(name, stages):
    for stage, seconds in stages.items():
      found.setdefault(name, {}).setdefault(stage, []).append(seconds)

  me = [__file__]
  with tempfile.TemporaryDirectory() as folder:
    for i in range(_ROUNDS.value):
      add('ours', {'imports': _imports()})
      for name in ('cold', 'warm'):
        command = [
          *('-m', 'lbe.train', *_CHANGES),
          f'--config.data.cache_dir={folder}/data{i}',
          f'--compilation_cache={folder}/compiled{i}',
          f'--workdir={folder}/{name}{i}',
        ]
        add(name, _stages(command, _OURS))
      add('trainer', _stages([*me, '--part=peer'], _THEIRS))
    for name in ('1b cold', '1b warm'):
      ends = {'imports': 'imported', 'trace': 'traced', 'compile': 'compiled'}
      add(
        name,
        _stages(
          [*me, '--part=compile'],
          ends,
          JAX_COMPILATION_CACHE_DIR=f'{folder}/compiled',
        ),
      )
  seconds = {
    name: {stage: round(statistics.median(x), 2) for stage, x in stages.items()}
    for name, stages in found.items()
  }
  for name in ('cold', 'warm'):
    imports = seconds['ours']['imports']
    data = seconds[name]['data']
    seconds[name] = {'imports': imports, **seconds[name]}
    seconds[name]['data'] = round(data - imports, 2)
  del seconds['ours']
  for name in ('1b cold', '1b warm'):
    del seconds[name]['imports'], seconds[name]['total']  # with torch's
  ratios = {
    name: [
      theirs / ours
      for ours, theirs in zip(
        found[name]['total'], found['trainer']['total'], strict=True
      )
    ]
    for name in ('cold', 'warm')
  }
  from benchmarks import record  # the peer is not to wait for jax

  record.write(
    'startup',
    {
      'rounds': _ROUNDS.value,
      'peer': 'transformers Trainer',
      'seconds': seconds,
      **{
        name: {
          'median': round(statistics.median(x), 3),
          'range': [round(min(x), 3), round(max(x), 3)],
        }
        for name, x in ratios.items()
      },
    },
    packages=('jax', 'torch', 'transformers'),
  )


if __name__ == '__main__':
  app.run(main)
