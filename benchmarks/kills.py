"""Does a killed program go on as if it had not been?

  PYTHONPATH=. python benchmarks/kills.py --minutes=60

Each trial runs one program on tiny shapes in a fork of this process, and sends
it SIGKILL, SIGTERM, SIGINT or SIGSTOP at its n-th operation on a file that it
writes (opening, renaming, deleting, making a folder), n drawn evenly over those
of an undisturbed run; sometimes once more in the run that goes on. The command
is given until it ends by itself. Equal is what has the files of an
undisturbed run to the byte, and its checkpoints to the bit; seconds and logs
aside. Nothing hangs on the clock: a seed gives the same trials.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import tempfile
import time

import numpy as np
import tensorflow_datasets  # noqa: F401

# What the programs would each import: they are forked, and start no device
# before. Not the programs themselves, whose flags are those of one process.
import lbe.assemble.data
import lbe.assemble.evaluators
import lbe.assemble.step
import lbe.convert.hf
import lbe.inference.decode
import lbe.run.board
import lbe.vocab.export
import lbe.vocab.train
from benchmarks import forks
from benchmarks import record
from lbe.data import shards
from lbe.run import checkpoint

_SIGNALS = ('SIGKILL', 'SIGTERM', 'SIGINT', 'SIGSTOP')
_AGAIN = 0.3  # share of the trials in which what goes on is disturbed, too
_MOST_CALLS = 6
# Of these nothing is compared, or in another way.
_LEFT_OUT = (
  'checkpoints',
  'compiled',
  'tensorboard',
  'train.log',
  'in_use',
  'digests.json',
)
_TINY = (
  '--config=configs/quickstart.py',
  '--config.tokenizer=bytes',
  '--config.model.dim=16',
  '--config.model.num_layers=1',
  '--config.model.num_heads=2',
  '--config.model.num_kv_heads=1',
  '--config.model.mlp_dim=32',
  '--config.data.seq_len=64',
  '--config.data.batch_size=4',
  '--config.data.num_workers=1',
  '--config.evals.en.limit=2',
  '--config.evals.zh.limit=2',
  '--config.eval_batch_size=4',
  '--config.log_every=1',
  '--config.export_hf=False',
  '--config.budget.steps=6',
  '--config.checkpoint.every=2',
  '--config.evals.en.every=3',
  '--config.evals.zh.every=3',
  '--config.sample_max_new_tokens=4',
)


def _programs(base, work):
  """{name: command}; what is read lies in `base`, what is written in `work`."""
  run, hf = base / 'run', base / 'hf'
  sample = pathlib.Path(lbe.__path__[0]) / 'data' / 'sample'
  return {
    'tokenizer': (
      *('lbe.tokenizer', 'train', f'--texts={sample}/en.txt'),
      *('--vocab_size=400', f'--output={work}/tokenizer'),
    ),
    'prepare': ('lbe.prepare', *_TINY, f'--workdir={work}'),
    'train': (
      *('lbe.train', *_TINY, f'--config.data.cache_dir={base}/run/data'),
      f'--workdir={work}',
    ),
    'evaluate': ('lbe.evaluate', f'--run={run}', f'--workdir={work}'),
    'generate': (
      *('lbe.generate', f'--model={run}', f'--input={base}/prompts.jsonl'),
      *(f'--output={work}/out.jsonl', '--max_new_tokens=4', '--batch_size=2'),
    ),
    'export_hf': (
      *('lbe.export_hf', f'--source={run}', f'--target={work}/hf'),
      *('--verify=digests', '--shard_bytes=4000'),
    ),
    'import_hf': (
      *('lbe.import_hf', f'--source={hf}', f'--target={work}/imported'),
      '--verify=digests',
    ),
    **{
      f'train, {n} processes': (
        *('lbe.train', *_TINY, f'--config.data.cache_dir={base}/run/data'),
        *(f'--config.mesh.fsdp={n}', f'--workdir={work}'),
      )
      for n in (2, 4)
    },
  }


def _num_processes(name):
  return int(name.split()[1]) if 'processes' in name else 1


# ---------------------------------------------------------------- comparing


def _arrays(root):
  """{step/array: digest} of the newest checkpoint of a folder."""
  import jax
  from orbax.checkpoint import v1 as ocp

  found = {}
  # Whatever processes wrote it.
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  # A run that was asked to end saves a step more, which takes an older's place.
  for step in checkpoint.steps(root)[-1:]:
    folder = pathlib.Path(root) / 'checkpoints' / str(step)
    with checkpoint._context():
      for part in ('params', 'opt'):
        if not (folder / part).is_dir():
          continue
        stored = ocp.checkpointables_metadata(folder).metadata[part]
        abstract = jax.tree.map(
          lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
          stored,
        )
        tree = ocp.load_checkpointables(folder, {part: abstract})[part]
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
          name = f'{step}/{part}{jax.tree_util.keystr(path)}'
          found[name] = hashlib.sha256(np.asarray(x).tobytes()).hexdigest()
  return found


def _timeless(line):
  """A line of metrics or scores without what the clock says."""
  row = json.loads(line)
  for key in list(row):
    if key.split('/')[0] in ('seconds', 'speed', 'hosts'):
      del row[key]
  return json.dumps(row)


def _files(root):
  """{name: digest} of the files below a folder."""
  found = {}
  for path in sorted(root.rglob('*')):
    name = path.relative_to(root)
    if not path.is_file() or set(name.parts) & set(_LEFT_OUT):
      continue
    data = path.read_bytes()
    if path.suffix == '.jsonl':
      with contextlib.suppress(ValueError):
        lines = data.decode().split('\n')
        data = '\n'.join(_timeless(x) if x else '' for x in lines).encode()
    found[str(name)] = hashlib.sha256(data).hexdigest()
  return found


def _state(work):
  """All that a program has left, as {name: digest}."""
  state = _files(work)
  for folder in {p.parent for p in work.rglob('checkpoints')}:
    arrays = forks.asked(_arrays, str(folder))
    if isinstance(arrays, str):
      arrays = {'arrays': arrays}
    state |= {f'{folder.name}/{k}': v for k, v in arrays.items()}
  return state


def _difference(state, whole):
  """The names that differ, '' where none does."""
  names = sorted(
    name
    for name in state.keys() | whole.keys()
    if state.get(name) != whole.get(name)
  )
  return ', '.join(
    name + ' (missing)' * (name not in state) + ' (more)' * (name not in whole)
    for name in names[:8]
  )


# ------------------------------------------------------------------- trials


class _Campaign:
  """The programs, what each leaves undisturbed, and what trials came to."""

  def __init__(self, root, keep):
    self._root, self._keep = root, keep
    self._work = root / 'work'
    self.whole, self.operations = {}, {}
    self.longest = 0.0  # seconds from one process's end to that of all
    base = root / 'base'
    base.mkdir()
    with open(base / 'prompts.jsonl', 'w') as file:
      for i in range(6):
        file.write(json.dumps({'id': str(i), 'prompt': f'Once {i} '}) + '\n')
    self.programs = _programs(base, self._work)
    for command in (
      ('lbe.train', *_TINY, f'--workdir={base}/run'),
      ('lbe.export_hf', f'--source={base}/run', f'--target={base}/hf')
      + ('--verify=digests',),
    ):
      assert self._call(command, 'base')[0] == 0, (
        f'{command}: see {root}/base.log'
      )

  def _call(self, command, name, victim=0, **how):
    """(the worst status, None where one hung; operations; whether signalled).

    Of several processes the victim is signalled.
    """
    count, log = _num_processes(name), self._root / f'{name}.log'
    port = forks.free_port()
    running = []
    for i in range(count):
      own = (
        f'--coordinator_address=localhost:{port}',
        f'--num_processes={count}',
        f'--process_id={i}',
      )
      running.append(
        forks.Fork(
          command + own * (count > 1),
          self._work,
          log,
          **how if i == victim else {},
        )
      )
    in_time = forks.wait(running)
    operations, signalled = zip(
      *[fork.counted() for fork in running], strict=True
    )
    if not in_time:
      return None, operations, any(signalled)
    if any(signalled):
      ended = [fork.ended for fork in running]
      self.longest = max(self.longest, max(ended) - min(ended))
    worst = max((fork.status for fork in running), key=abs)
    return worst, operations, any(signalled)

  def _clear(self, name):
    shutil.rmtree(self._work, ignore_errors=True)
    self._work.mkdir()
    (self._root / f'{name}.log').unlink(missing_ok=True)

  def undisturbed(self, name):
    """Runs a program twice: what it leaves has to be the same."""
    states = []
    for _ in range(2):
      self._clear(name)
      status, operations, _ = self._call(self.programs[name], name)
      assert status == 0, f'{name}: see {self._root}/{name}.log'
      states.append(_state(self._work))
    differs = _difference(*states)
    assert not differs, f'{name} differs from itself: {differs}'
    self.whole[name], self.operations[name] = states[0], operations

  def trial(self, rng, name):
    """{'signals', 'outcome', 'why'} of one."""
    self._clear(name)
    signals, at = [], []
    disturbed = 1 + (rng.random() < _AGAIN)
    for call in range(_MOST_CALLS):
      how = {}
      if call < disturbed:
        kind = _SIGNALS[rng.integers(len(_SIGNALS))]
        victim = int(rng.integers(_num_processes(name)))
        place = int(rng.integers(1, self.operations[name][victim] + 1))
        number = getattr(signal, kind)
        how = {'at': place, 'number': number, 'victim': victim}
      status, _, signalled = self._call(self.programs[name], name, **how)
      if signalled:
        signals.append(kind)
        at.append(place)
      if status is None:
        return self._told(name, signals, at, 'hung', '')
      if call >= disturbed and (status == 0 or not signalled):
        break
    state = _state(self._work)
    differs = _difference(state, self.whole[name])
    if not differs:
      return self._told(name, signals, at, 'equal', '')
    outcome = 'refused' if status else 'different'
    return self._told(name, signals, at, outcome, differs)

  def _told(self, name, signals, at, outcome, why):
    if outcome != 'equal' and self._keep:
      kept = pathlib.Path(self._keep) / f'{name}-{"-".join(map(str, at))}'
      shutil.rmtree(kept, ignore_errors=True)
      shutil.copytree(self._work, kept)
      shutil.copy(self._root / f'{name}.log', kept / 'its.log')
    return {'signals': signals, 'at': at, 'outcome': outcome, 'why': why}


def main():
  # Flags of absl are the programs'.
  parser = argparse.ArgumentParser()
  parser.add_argument('--minutes', type=float, default=10)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', nargs='*', help='programs')
  parser.add_argument('--keep', help='a folder for what was not equal')
  asked = parser.parse_args()
  shards.SHARD_BYTES = 20_000
  os.environ |= {
    'JAX_PLATFORMS': 'cpu',
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
  }
  root = pathlib.Path(tempfile.mkdtemp(prefix='lbe-kills-'))
  os.environ['XDG_CACHE_HOME'] = str(root / 'cache')
  rng = np.random.default_rng(asked.seed)
  campaign = _Campaign(root, asked.keep)
  names = asked.only or list(campaign.programs)
  for name in names:
    campaign.undisturbed(name)
    print(f'{name}: {campaign.operations[name]} operations', flush=True)
  trials = collections.defaultdict(list)
  end, n = time.monotonic() + 60 * asked.minutes, 0
  while time.monotonic() < end:
    name = names[n % len(names)]
    n += 1
    trial = campaign.trial(rng, name)
    trials[name].append(trial)
    print(name, json.dumps(trial), flush=True)
  for name, done in trials.items():
    signals = collections.Counter(x for t in done for x in t['signals'])
    figures = {
      'setting': name,
      'trials': len(done),
      'kills': sum(signals.values()),
      'signals': dict(signals),
      'operations': campaign.operations[name],
      'outcomes': dict(collections.Counter(t['outcome'] for t in done)),
      'seconds_until_all_ended': round(campaign.longest, 1),
      'not_equal': [t for t in done if t['outcome'] != 'equal'][:10],
    }
    record.write('kills', figures)
  shutil.rmtree(root)


if __name__ == '__main__':
  main()
