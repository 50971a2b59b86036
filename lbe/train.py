"""Trains a LLaMA: from random weights, a checkpoint or a Hugging Face folder.

  python -m lbe.train --config=configs/quickstart.py --workdir=runs/quickstart
  python -m lbe.train --config=... --workdir=... --dry_run

The same command again resumes where the last checkpoint stands.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from lbe.assemble import data
from lbe.assemble import evaluators as evaluators_lib
from lbe.assemble import extension
from lbe.assemble import model as model_lib
from lbe.assemble import step as step_lib
from lbe.convert import stored
from lbe.evals import core
from lbe.evals import forgetting
from lbe.inference import decode
from lbe.mesh import compilation
from lbe.mesh import hardware
from lbe.mesh import hosts
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.models import weights
from lbe.run import checkpoint
from lbe.run import identity
from lbe.run import metrics
from lbe.run import profile
from lbe.run import program
from lbe.run import workdir as workdir_lib
from lbe.training import memory
from lbe.vocab import tokenizers

_CONFIG = config_flags.DEFINE_config_file('config', None, lock_config=True)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Where the run keeps its files: a folder that all hosts see, or '
  'gs://BUCKET/FOLDER.',
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Check everything, show the data, and stop.'
)
_LOG_BATCHES = flags.DEFINE_bool(
  'log_batches',
  False,
  'Print a digest of every row that this host trains on, by step.',
)
_PROFILE = flags.DEFINE_string(
  'profile',
  '',
  'FROM:TO: write a trace of these steps to WORKDIR/profile, for XProf or '
  'TensorBoard, and print the five heaviest operations.',
)


def main(argv):
  del argv
  program.join_hosts()
  config = _CONFIG.value
  profiled = profile.parse_steps(_PROFILE.value)
  workdir = workdir_lib.open_workdir(_WORKDIR.value)
  if workdir.is_local():
    hosts.check_shared(workdir.here)
  workdir.fetch()
  program.keep_compiled(workdir.path)
  say = print if jax.process_index() == 0 else lambda *a, **k: None

  # ------------------------------------------------ model and tokenizer
  opened = None
  if config.init_from:
    opened = stored.open_model(
      config.init_from, vocab_multiple=config.vocab_multiple
    )
    opened.check()
  tokenizer = model_lib.make_tokenizer(
    config, opened, workdir.here, may_extend=True
  )
  extended = model_lib.is_extended(opened, tokenizer)
  if opened is not None:
    model = opened.config
    if extended:
      model = model_lib.extended_config(opened, tokenizer)
    say(tokenizers.check_rows(tokenizer, model.vocab_size))
    model = model_lib.adapted_config(config, model)
  else:
    model = model_lib.make_config(config, tokenizer)
  mesh = sharding.make_mesh(config.mesh.to_dict())
  num_old = opened.num_old_rows(tokenizer) if opened else None
  step_lib.check_fit(config, model, mesh, num_old=num_old)
  step_lib.check_memory(config, model, mesh, num_old=num_old)

  # --------------------------------------------------------------- data
  prepared = data.prepare(config, tokenizer, workdir.here)
  loader = data.make_loader(config, prepared, tokenizer)
  num_steps = data.count_steps(config, prepared, loader)
  data.check_epochs(config, loader, num_steps)
  evaluators = evaluators_lib.make(config, prepared, tokenizer)
  partition = step_lib.make_partition(config, model, num_steps, num_old=num_old)
  training = step_lib.make_training(config, model, mesh, partition)
  tokens_per_step = config.data.batch_size * config.data.seq_len
  say(loader.report(num_steps))
  say(f'\nrow 0 of step 0:\n{loader.decoded_row(0, 0)}\n')
  # What is learnt is green on a terminal, and in brackets in a file.
  green = {'mark': ('\033[32m', '\033[0m')} if sys.stdout.isatty() else {}
  say(loader.decoded_examples(**green))
  if jax.process_index() == 0:
    shown = (
      loader.report(num_steps),
      loader.decoded_row(0, 0),
      loader.decoded_examples(),
    )
    (workdir.here / 'data.txt').write_text('\n\n'.join(shown), encoding='utf-8')
  say(
    f'model: {weights.num_params(model):,} parameters, '
    f'{model.vocab_size:,} pieces in {model.padded_vocab_size:,} rows\n'
    f'run: {num_steps:,} steps of {tokens_per_step:,} tokens = '
    f'{num_steps * tokens_per_step:,} tokens\n'
    f'mesh: {dict(mesh.shape)} over {jax.device_count()} '
    f'{jax.devices()[0].device_kind} in {jax.process_count()} process(es)'
  )
  exact = dataclasses.replace(model, vocab_multiple=1)  # without padding
  say(partition.describe(weights.shapes(exact)))
  say(memory.describe(step_lib.memory_estimate(config, training)))
  device_kind = jax.devices()[0].device_kind
  say(hardware.describe_mfu(model, config.data.seq_len, device_kind))
  if _DRY_RUN.value:
    say('dry run: everything above holds; nothing was trained.')
    return

  # ---------------------------------------------- resume, start or scratch
  facts = identity.describe(config, model, tokenizer, prepared, num_steps)
  checkpointer = checkpoint.Checkpointer(
    workdir.path,
    training.abstract_state,
    every=config.checkpoint.every,
    keep=config.checkpoint.keep,
    keep_best=config.checkpoint.keep_best or None,
  )
  first_step = checkpointer.latest() or 0
  identity.check_same_run(workdir.here, facts, say)
  hosts.check_same('run', facts)
  trace = profile.Trace(
    workdir.here / 'profile',
    *profiled,
    steps=range(first_step + 1, num_steps + 1),
  )
  missed = ()  # names of evaluators that were due at the restored step
  if first_step:
    state, data_state, restored = checkpointer.restore(first_step)
    assert data_state['step'] == first_step
    missed = restored.get('unscored', ())
    say(f'resuming at step {first_step:,}')
  elif opened is not None:
    say(f'starting from the weights of {opened.path}')
    params = opened.load_params(
      mesh, dtype=step_lib.param_dtypes(config, partition)
    )
    if model.lora and not opened.config.lora:
      params['lora'] = model_lib.init_adapters(model, mesh, config.seed)
    if extended:
      params = extension.extend_params(
        opened,
        tokenizer,
        model,
        mesh,
        params,
        **config.new_rows.to_dict(),
        seed=config.seed,
        say=say,
      )
      say(extension.describe(config, opened, model, params, evaluators, mesh))
    state = step_lib.new_state(training, params)
  else:
    say('starting from random weights')
    params = model_lib.init_params(model, mesh, config.seed)
    state = step_lib.new_state(training, params)
  # What an earlier process wrote behind the restored step is cut.
  resume_step = first_step if first_step else -1
  writer = metrics.Writer(workdir.here, resume_step=resume_step)
  if jax.process_index() == 0:
    for file in ('results.jsonl', 'predictions.jsonl'):
      metrics.truncate_lines(workdir.here / file, resume_step, unscored=missed)
    (workdir.here / 'config.json').write_text(json.dumps(facts, indent=2))
  meta = {
    'model': model.to_json(),
    'tokenizer': stored.tokenizer_meta(tokenizer),
    'config': facts,
    'source': {
      **(opened.info if opened else {'dtype': 'float32'}),
      'num_old_rows': num_old,
      'base': config.init_from,
      'frozen': partition.frozen_names(),
    },
  }

  # -------------------------------------------------------------- compile
  start, num_found = time.perf_counter(), compilation.num_found()
  train_step = step_lib.compile_step(
    config,
    training.step.lower(training.abstract_state, training.abstract_batch),
  )
  found = 'found compiled, ' if compilation.num_found() > num_found else ''
  say(
    f'compiled the step in {time.perf_counter() - start:.1f} s; '
    f'{found}{memory.describe_compiled(train_step)}'
  )
  # Collectives give up on a host that compiles half a minute longer.
  hosts.wait_for_others('compiled', limit_seconds=hosts.DAY)

  # ------------------------------------------------------------ evaluators
  def due(step):
    """The evaluators that are due after `step`."""
    return [
      e
      for e in evaluators
      if core.due(
        step,
        every=e.every,
        at_start=e.at_start,
        at_end=e.at_end,
        last=num_steps,
      )
    ]

  def evaluate(step, unscored):
    """(scores as metrics, with how long they took; an error or None).

    Takes from `unscored` what it scores; rows go to results.jsonl. What is
    left there without an error had to stop.
    """
    if not unscored:
      return {}, None
    # Steps that the device still works on are not the evaluators' time.
    jax.block_until_ready(state)
    start, row, failed = time.perf_counter(), {}, None
    seen = model_lib.as_evaluated(
      state['params'], model, tokenizer, mesh, config
    )
    while unscored and failed is None:
      name = unscored[0].name
      try:
        with watch(name), stop.interrupting():
          found = core.evaluate(unscored[0].task, seen, name=name, step=step)
        if jax.process_index() == 0:
          core.record(workdir.here, found)
        row |= {f'eval/{name}/{k}': v for k, v in found.metrics.items()}
        del unscored[0]
      except _Stopped:
        break
      except Exception as error:
        if not hosts.alone():
          raise  # the others would not come to save
        failed = error
    row['speed/evaluation_seconds'] = time.perf_counter() - start
    return row, failed

  # ------------------------------------------------------------------ loop
  stop = _StopFlag()
  progress = metrics.Progress(num_steps, first_step=first_step)
  watch = compilation.Watch(progress.say)
  meter = _Meter(model, mesh, config)
  heartbeat = hosts.Heartbeat()
  rows = place.local_rows(training.abstract_batch)
  batches = loader.iterator(first_step, num_steps - first_step, rows)
  unscored = due(0) if first_step == 0 else []
  unscored += [e for e in evaluators if e.name in missed]
  if unscored:
    row, failed = evaluate(first_step, unscored)
    if failed:
      raise failed
    writer.write(first_step, row)
    progress.say(_scores_line(first_step, row))
    meter.restart()
  step = first_step
  with checkpointer.finishing():
    for step in () if unscored else range(first_step + 1, num_steps + 1):
      trace.before(step, state)
      meter.start_wait()
      batch = place.place(training.abstract_batch, next(batches), rows)
      meter.stop_wait()
      with watch('the step'):
        # It takes what it was compiled for only, and names what differs.
        state, step_metrics = train_step(state, batch)
      meter.add(step_metrics)
      heartbeat.beat(step)
      told = trace.after(step, state, train_step)
      if told:
        progress.say(told)
      if _LOG_BATCHES.value:
        _print_digests(step, batch)

      stopping = stop.agreed(step)
      saving = stopping or checkpointer.due(step) or step == num_steps
      row = {}
      if saving or step % config.log_every == 0:
        row = meter.row()
        seconds = row['speed/seconds_per_step']
        own_seconds = row['speed/data_wait_share'] * seconds
        row |= hosts.pace(own_seconds, seconds, progress.say)
        progress.update(step, row)
        if 'train/skipped_steps' in row:
          progress.say(
            f'step {step:,}: {row["train/skipped_steps"]} steps since the last '
            'line had no finite gradient and changed nothing.'
          )
      else:
        progress.update(step, None)
      scores, failed, unscored = {}, None, due(step)
      if not stopping:
        scores, failed = evaluate(step, unscored)
        stopping = bool(unscored)
        # An evaluator may lose its own scores, but not the steps before it.
        saving = saving or stopping
      if scores:
        progress.say(_scores_line(step, scores))
        row.update(scores)
        meter.skip(scores['speed/evaluation_seconds'])
      if row:
        writer.write(step, row)
        workdir.send(now=saving)
      if saving:
        with watch('saving'):
          checkpointer.save(
            step,
            state,
            data=loader.state(step),
            # The process that goes on from here begins with these.
            meta={**meta, 'unscored': [e.name for e in unscored]},
            metrics=scores,
          )
        meter.restart()
      if failed:
        checkpointer.wait()
        progress.say(f'step {step:,} is saved; then an evaluator failed:')
        raise failed
      if stopping:
        break
  progress.close()
  checkpointer.wait()
  checkpointer.close()
  writer.close()
  workdir.send(now=True)
  if step < num_steps or unscored:
    say(f'stopped at step {step:,}; the same command goes on from there.')
    return

  # ------------------------------------------------- scores, and samples
  if evaluators and jax.process_index() == 0:
    say(core.write_summary(workdir.here))
    if config.forgetting.source:
      say(forgetting.write(workdir.here, **config.forgetting.to_dict()))
  for i, prompt in enumerate(config.sample_prompts):
    ids = decode.generate(
      state['params'],
      model,
      [tokenizers.prompt_ids(tokenizer, prompt)],
      max_new_tokens=config.sample_max_new_tokens,
      temperature=0.8,
      top_k=0,
      top_p=0.95,
      seed=config.seed + i,
      eos_id=tokenizer.eos_id,
      execution=model_lib.make_execution(config),
    )
    say(f'{prompt!r} → {tokenizer.decode(ids[0])!r}')
  if config.export_hf and jax.process_index() == 0:
    _export(workdir)
  workdir.send(now=True)


def _export(workdir):
  """What a person would type: it reads the checkpoint, in its own process."""
  target = workdir.here / 'hf'
  if (target / 'config.json').exists():
    return  # it is written last: an earlier process was done
  command = [
    sys.executable,
    '-m',
    'lbe.export_hf',
    f'--source={workdir.path}',
    f'--target={target}',
  ]
  subprocess.run(
    command, check=True, env={**os.environ, 'JAX_PLATFORMS': 'cpu'}
  )


# Scores that a line in the terminal has room for.
_HEADLINES = ('bits_per_byte', '/acc', '/score_rate', '/overall', '/switched')


def _scores_line(step, row):
  scores = '  '.join(
    f'{name.removeprefix("eval/")} {value:.4f}'
    for name, value in row.items()
    if name.endswith(_HEADLINES)
  )
  return f'step {step:,}: {scores}'


def _print_digests(step, batch):
  """One line a row, read back from this host's shards of the batch."""
  rows = {}
  for name in sorted(batch):
    for shard in batch[name].addressable_shards:
      start = shard.index[0].indices(batch[name].shape[0])[0]
      for i, row in enumerate(np.asarray(shard.data)):
        rows.setdefault(start + i, {})[name, str(shard.index[1:])] = row
  for i, parts in sorted(rows.items()):
    digest = hashlib.sha256()
    for part in sorted(parts):
      digest.update(np.ascontiguousarray(parts[part]).tobytes())
    print(f'batch {step} {i} {digest.hexdigest()[:16]}', flush=True)


class _Stopped(BaseException):
  """SIGTERM in the middle of an evaluation; not for evaluators to catch."""


class _StopFlag:
  """SIGTERM asks for a save and an end, on every host at the same step."""

  def __init__(self):
    self._asked = self._interrupts = False
    self._alone = jax.process_count() == 1
    if self._alone:
      signal.signal(signal.SIGTERM, self._ask)

  def _ask(self, signum, frame):
    del signum, frame
    self._asked = True
    if self._interrupts:
      raise _Stopped

  @contextlib.contextmanager
  def interrupting(self):
    """Within, SIGTERM raises _Stopped: evaluations outlast a notice.

    Where a run has several processes they end together, at the next step.
    """
    if self._asked:
      raise _Stopped
    self._interrupts = True
    try:
      yield
    finally:
      self._interrupts = False

  def agreed(self, step):
    if self._alone:
      return self._asked
    # jax.distributed takes SIGTERM itself and picks a step for all hosts.
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


# So many steps without a finite gradient in a row end a run.
_MOST_SKIPPED = 10


class _Meter:
  """Sums of the steps since the last line; the device is read only there."""

  def __init__(self, model, mesh, config):
    self._num_chips = mesh.size
    self._skipped = 0  # steps up to the last one
    self._flops_per_token = hardware.flops_per_token(model, config.data.seq_len)
    self._peak = hardware.peak_flops(jax.devices()[0].device_kind)
    self.restart()

  def restart(self):
    self._steps = []
    self._waited = 0.0
    self._start = time.perf_counter()

  def skip(self, seconds):
    """So long nothing was trained."""
    self._start += seconds

  def start_wait(self):
    self._wait_start = time.perf_counter()

  def stop_wait(self):
    self._waited += time.perf_counter() - self._wait_start

  def add(self, step_metrics):
    self._steps.append(step_metrics)

  def row(self):
    """The metrics of the steps since the last row; waits for the device."""
    steps = jax.device_get(self._steps)
    seconds = time.perf_counter() - self._start
    for s in steps:
      skipped = not math.isfinite(s['grad_norm'])
      self._skipped = self._skipped + 1 if skipped else 0
      if self._skipped == _MOST_SKIPPED:
        raise ValueError(
          f'the last {_MOST_SKIPPED} steps had no finite gradient (loss '
          f'{s["loss_sum"] / s["weight_sum"]:.4g}) and changed nothing; look '
          'at the data, or go on from the last checkpoint in another workdir '
          '(--config.init_from=THIS_WORKDIR) with a lower optim.peak_lr.'
        )
    row = metrics.reduce(steps)
    speed = sum(s['weight_sum'] for s in steps) / seconds / self._num_chips
    row['speed/tokens_per_second_per_chip'] = float(speed)
    row['speed/seconds_per_step'] = seconds / len(steps)
    row['speed/data_wait_share'] = self._waited / seconds
    if self._peak:
      row['speed/mfu'] = float(speed) * self._flops_per_token / self._peak
    self.restart()
    return row


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  program.run(main)
