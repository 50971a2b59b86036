"""docs/cookbook.md: its commands, taken out of the page and run small."""

import json
import os
import re
import shlex
import subprocess
import sys

from lbe.models import architecture
from lbe.vocab import tokenizers

import conftest
import runs

PAGE = conftest.ROOT / 'docs' / 'cookbook.md'
SHAPE = architecture.Config(
  vocab_size=512,
  dim=16,
  num_layers=1,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  mlp_dim=24,
  max_positions=512,
)
# Runs commands one after the other, each in a fork of one process that has
# imported what all of them need: that takes longer than most of them do.
MANY = """
import json, os, runpy, subprocess, sys
import lbe.assemble.data, lbe.assemble.evaluators, lbe.assemble.step
for command in json.load(sys.stdin):
  if isinstance(command, str):
    subprocess.run(['bash', '-euc', command], check=True)
    continue
  print('$', *command, flush=True)
  if not (child := os.fork()):
    break
  _, status, used = os.wait4(child, 0)
  print(f'{used.ru_utime:.1f} s of a CPU', flush=True)
  if status:
    sys.exit(1)
else:
  sys.exit()
sys.argv = command
runpy.run_module(command[0], run_name='__main__', alter_sys=True)
"""
# What makes a program small, behind what the page says.
RUN = [
  '--config.data.seq_len=64',
  '--config.data.batch_size=4',
  '--config.data.num_workers=1',
  '--config.evals.vi.limit=2',
  '--config.budget.steps=2',
  '--config.execution.remat=none',
  '--config.export_hf=False',
]
SCORES = ['--config.evals.parallel.limit=1', '--config.evals.swap.limit=1']
SMALL = {
  'lbe.train pretrain': [
    *RUN,
    *SCORES,
    '--config.evals.en.limit=2',
    '--describe_extension=False',
  ],
  'lbe.train instruct': [*RUN, '--config.evals.vi.source='],
  'lbe.evaluate': SCORES,
  'lbe.generate': ['--max_new_tokens=4'],
  'lbe.export_hf': ['--verify=digests'],
}
LESS = {
  '-n 1600': '-n 120',
  '--num_pieces=1000': '--num_pieces=40',
  '--num_samples=300': '--num_samples=40',
}


def statements():
  """The page's commands in their order; '\\' at the end of a line joins."""
  blocks = re.findall(r'```bash\n(.*?)```', PAGE.read_text('utf-8'), re.S)
  for block in blocks:
    block = block.replace('\\\n', ' ')
    here = r"[^\n]*<<'END'\n.*?\nEND\n"
    yield from re.findall(f'{here}|[^\\n]+\\n', block, re.S)


def small(words):
  """The flags that make this program small."""
  for name, more in SMALL.items():
    program, _, stage = name.partition(' ')
    if words[0] == program and stage in ' '.join(words):
      return more
  return []


def test_the_page_runs(test_data, tmp_path):
  """Catches a page whose commands no longer do what they say.

  All of them, as they stand, on a model of one layer; Vietnamese.
  """
  base = tmp_path / 'llama'
  tokenizer = test_data / 'ckpt_stories260K' / 'hf' / 'tokenizer.model'
  runs.save_random(base, SHAPE, tokenizers.load(tokenizer))
  (base / 'tokenizer.model').write_bytes(tokenizer.read_bytes())
  given = {
    'BASE': str(base),
    'NTREX': str(test_data / 'text_ntrex'),
    'SIB': str(test_data / 'bench_sib200'),
  }
  commands, names, environment = [], [], runs.environment() | given
  install, enter, *rest = statements()
  assert 'launch/local.sh' in install and enter.endswith('bin/activate\n')
  for statement in rest:
    for much, less in LESS.items():
      statement = statement.replace(much, less)
    if found := re.fullmatch(r'export (.*)\n', statement):
      for word in shlex.split(found[1]):
        name, _, value = word.partition('=')
        names.append(name)
        environment[name] = given.get(name, environment.get(name, value))
    elif statement.startswith('python -m lbe.'):
      words = shlex.split(
        re.sub(
          r'\$\{?(\w+)\}?', lambda x: environment[x[1]], statement, flags=re.A
        )
      )[2:]
      commands.append(words + small(words))
    else:
      commands.append(statement)
  assert set(given) < set(names) and len(commands) > 10
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', MANY],
    input=json.dumps(commands),
    cwd=tmp_path,
    env=environment
    | {
      'PYTHONPATH': os.fspath(conftest.ROOT),
      'XLA_FLAGS': '--xla_backend_optimization_level=0',
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=600,
  )
  print(done.stdout)
  assert done.returncode == 0
  assert (tmp_path / 'vi_answer.jsonl').read_text('utf-8').strip()
  assert (tmp_path / 'runs' / 'vi_scores' / 'languages.json').exists()
