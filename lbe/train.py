"""Trains a LLaMA: from random weights, a checkpoint or a Hugging Face folder.

  python -m lbe.train --config=configs/quickstart.py --workdir=runs/quickstart
  python -m lbe.train --config=... --workdir=... --dry_run

The same command again resumes where the last checkpoint stands.
"""

import json
import time

import jax
from absl import flags

from lbe.assemble import config_flag
from lbe.assemble import data
from lbe.assemble import evaluators as evaluators_lib
from lbe.assemble import extension
from lbe.assemble import longer
from lbe.assemble import model as model_lib
from lbe.assemble import paths
from lbe.assemble import step as step_lib
from lbe.convert import certificate
from lbe.convert import settings
from lbe.convert import stored
from lbe.data import report
from lbe.data import skipped
from lbe.evals import core
from lbe.evals import forgetting
from lbe.evals import run_page
from lbe.evals import samples
from lbe.evals import schedule
from lbe.mesh import compilation
from lbe.mesh import hardware
from lbe.mesh import hosts
from lbe.mesh import place
from lbe.mesh import sharding
from lbe.run import aside
from lbe.run import branch
from lbe.run import checkpoint
from lbe.run import goodput
from lbe.run import identity
from lbe.run import metrics
from lbe.run import output
from lbe.run import profile
from lbe.run import program
from lbe.run import progress
from lbe.run import rollback
from lbe.run import sinks
from lbe.run import watchdog
from lbe.run import workdir as workdir_lib
from lbe.text import bars
from lbe.text import files
from lbe.training import memory
from lbe.training import nans
from lbe.training import optim
from lbe.training import replay
from lbe.vocab import tokenizers

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'A folder that all hosts see, or gs://BUCKET/FOLDER.'
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Check everything, show the data, and stop.'
)
_LOG_BATCHES = flags.DEFINE_bool(
  'log_batches', False, 'Print a digest of every row trained on here, by step.'
)
_DESCRIBE = flags.DEFINE_bool(
  'describe_extension', True, 'Score new pieces and old ones before step 1.'
)
_DEBUG_NANS = flags.DEFINE_bool(
  'debug_nans',
  False,
  'Wait for each step, and end where a gradient is not finite, with the layer '
  'and the row that are not finite first.',
)
_PROFILE = flags.DEFINE_string(
  'profile',
  '',
  'FROM:TO: write a trace of these steps to WORKDIR/profile, for XProf or '
  'TensorBoard, and print the five heaviest operations.',
)
_PAGE = flags.DEFINE_bool(
  'page', False, 'Keep WORKDIR/report.html: curves, scores, samples.'
)


def main(argv):
  del argv
  program.join_hosts()
  phases = goodput.Phases()
  config = _CONFIG.value
  profiled = profile.parse_steps(_PROFILE.value)
  workdir = workdir_lib.open_workdir(_WORKDIR.value)
  workdir.lock()
  if workdir.is_local():
    hosts.check_shared(workdir.here)
  workdir.fetch()
  program.keep_compiled(workdir.path)
  say = bars.say if jax.process_index() == 0 else lambda *unused: None
  aside.choose(workdir.path, say)

  # ------------------------------------------------ model and tokenizer
  # What it goes on from: its own newest checkpoint, or one of another run.
  begun = going_on = None
  if checkpoint.is_checkpoint(workdir.path):
    going_on = workdir.path
  elif config.branch_from:
    begun = branch.find(config.branch_from)
    going_on = begun.path
  identity.check_trains(workdir.here)
  recorded = begun.facts if begun else identity.recorded(workdir.here)
  where = begun.path.parent.parent if begun else workdir.path
  config = paths.pinned(config, recorded)
  identity.check_config(where, recorded, config)
  paths.check(config, begins=not going_on)
  sinks.check(config.sinks)
  opened = model_lib.open_weights(config, going_on)
  tokenizer = model_lib.make_tokenizer(
    config, opened, workdir.here, may_extend=True, going_on=going_on
  )
  model = model_lib.make_architecture(config, opened, tokenizer)
  num_old, num_new = None, 0
  if opened is not None:
    say(tokenizers.check_rows(tokenizer, model.vocab_size))
    num_old = opened.num_old_rows(tokenizer)
    if model_lib.is_extended(opened, tokenizer):
      num_new = tokenizer.vocab_size - num_old
  # What cannot be is said before hours of tokenizing.
  mesh = sharding.make_mesh(config.mesh.to_dict())
  step_lib.check_base(config)
  extension.check(config)
  samples.check(
    config.sample_prompts,
    config.sample_max_new_tokens,
    tokenizer,
    model.max_positions,
  )
  step_lib.check_fit(config, model, mesh)
  partition = step_lib.make_partition(config, model, num_old=num_old)
  needed = step_lib.memory_estimate(config, model, mesh, partition)
  memory_line = step_lib.check_memory(needed, mesh)
  phases.lap('start')

  # --------------------------------------------------------------- data
  prepared = data.prepare(config, tokenizer, workdir.here)
  loader = data.make_loader(config, prepared, tokenizer)
  num_steps = data.count_steps(config, prepared, loader)
  data.check_epochs(config, loader, num_steps)
  data.check_learnt(config, loader, num_steps, begins=not going_on)
  with progress.doing('reading what is scored', quiet=say is not bars.say):
    evaluators = evaluators_lib.make(
      config,
      prepared,
      tokenizer,
      max_positions=model.max_positions,
      num_old=num_old,
      results=workdir.here / 'results.jsonl',
    )
  best_is = evaluators_lib.best_is(config, evaluators)
  training = step_lib.make_training(config, model, mesh, partition, num_steps)
  phases.lap('data')
  # ---------------------------------------------- resume, start or scratch
  facts = identity.describe(
    config,
    model,
    tokenizer,
    prepared,
    num_steps,
    base=model_lib.base_fingerprint(config, opened, recorded),
    branch=branch.mark(config.branch_from, begun, recorded),
  )
  first_step = int(checkpoint.find(going_on).name) if going_on else 0
  identity.check_same_run(
    where,
    recorded,
    facts,
    say,
    check_plan=lambda old: longer.check(old, facts, first_step, str(where)),
  )
  hosts.check_same(
    'newest checkpoint',
    {'first_step': first_step},
    way_out=f'Mend the disk under {workdir.path}, which shows them other '
    'files, or wait until it does not, and give the same command again.',
  )
  hosts.check_same('run', facts)
  if jax.process_index() == 0 and not _DRY_RUN.value:
    output.keep(workdir.here / 'train.log')
  report.show(loader, num_steps, workdir.here, say)
  say(step_lib.describe(config, training, num_steps, num_new=num_new))
  say(memory_line)
  counted = (model, config.data.seq_len, partition.frozen_names())
  flops_per_token = hardware.flops_per_token(*counted)
  device_kind = jax.devices()[0].device_kind
  say(hardware.describe_mfu(*counted, device_kind))
  if _DRY_RUN.value:
    say('dry run: everything above holds; nothing was trained.')
    return
  compiling = _begin_compiling(config, training)
  checkpointer = checkpoint.Checkpointer(
    workdir.path,
    training.abstract_state,
    every=config.checkpoint.every,
    keep=config.checkpoint.keep,
    keep_best=config.checkpoint.keep_best or None,
    best_is=best_is,
  )
  trace = profile.Trace(
    workdir.here / 'profile',
    *profiled,
    steps=range(first_step + 1, num_steps + 1),
    say=say,
  )
  missed, row = (), {}  # who was due at the restored step; its metrics
  phases.look(workdir.here / 'metrics.jsonl')
  phases.lap('start')
  if first_step:
    with progress.doing('reading the checkpoint', quiet=say is not bars.say):
      state, data_state, restored = checkpoint.load_state(
        going_on, training.abstract_state
      )
    assert data_state['step'] == first_step
    missed, row = schedule.unscored(workdir.here, first_step, restored)
    how = f'branching off {going_on}' if begun else 'resuming'
    say(f'{how} at step {first_step:,}')
    phases.lap('load')
  else:
    described = evaluators if _DESCRIBE.value else []
    with progress.doing('making the first weights', quiet=say is not bars.say):
      params = extension.first_params(
        config, opened, tokenizer, model, mesh, partition, described, say
      )
      state = step_lib.new_state(training, params)
  check = replay.Replay(
    mesh,
    training.abstract_state,
    every=config.replay_every,
    reach=optim.reach(
      config.optim.kind, b1=config.optim.b1, b2=config.optim.b2
    ),
  )
  check.begin(state)
  # What an earlier process wrote behind the restored step is cut.
  resume_step = first_step or -1
  if jax.process_index() == 0:
    if begun:
      branch.bring(begun, workdir.here)
    schedule.cut_behind(workdir.here, resume_step, unscored=missed)
    files.write_whole(workdir.here / 'config.json', json.dumps(facts, indent=2))
  # The row of the restored step is written again where scores come to it.
  writer = metrics.Writer(
    workdir.here,
    resume_step=resume_step - 1 if missed else resume_step,
    sinks=config.sinks,
  )
  phases.goes_on_from(row or writer.last)
  keep_best = config.checkpoint.keep_best
  if first_step and keep_best:
    checkpointer.scored_late(schedule.values(workdir.here, keep_best))
  info = opened.info if opened else {'dtype': 'float32'}
  meta = {
    'model': model.to_json(),
    'tokenizer': stored.tokenizer_meta(tokenizer),
    'config': facts,
    'source': {
      **info,
      'tokenizer_files': settings.tokenizer_files(info, config.tokenizer),
      'num_old_rows': num_old,
      **model_lib.origin(config, opened, partition.frozen_names()),
    },
  }

  phases.lap('start')
  train_step = _compiled(compiling, say)
  phases.lap('compile')

  # ---------------------------------- evaluators due before the next step
  stop = progress.StopFlag()
  line = progress.Line(num_steps, first_step=first_step)
  watch = watchdog.Watchdog(compilation.Watch(line.say))
  meter = progress.Meter(
    num_chips=mesh.size,
    flops_per_token=flops_per_token,
    peak_flops=hardware.peak_flops(device_kind),
    tell_skipped=lambda ago: skipped.write(
      workdir.here, loader, [step - x for x in ago]
    ),
  )
  heartbeat = hosts.Heartbeat()
  rows = place.local_rows(training.abstract_batch)
  # It reads ahead from here on.
  batches = loader.iterator(first_step, num_steps - first_step, rows)
  of_run = identity.of_rows(workdir.path, config)
  around = (model, tokenizer, mesh, config)  # of the parameters that are scored
  sampled = samples.Samples(
    config.sample_prompts, config.sample_max_new_tokens, config.seed
  )

  def score(due, state, step):
    check.look(step, state)
    read = sum(source['bytes'] for source in loader.seen(step).values())
    return schedule.run(
      due,
      model_lib.as_evaluated(state['params'], *around),
      step=step,
      workdir=workdir.here,
      stop=stop,
      watch=watch,
      facts=of_run | {'bytes_seen': read},
      samples=sampled.write,
    )

  due = [e for e in evaluators if e.name in missed]
  if first_step == 0:
    due = [e for e in evaluators if e.is_due(0, last=num_steps)]
  outcome = schedule.Outcome()
  if due or missed:  # of these the config may have lost some, or all
    with rollback.on_alarm(workdir.path):
      outcome = score(due, state, first_step)
    if outcome.error:
      raise outcome.error
    phases.lap('score')
    writer.write(first_step, row | outcome.scores | phases.row())
    if first_step and keep_best in outcome.scores:
      checkpointer.scored_late({first_step: outcome.scores[keep_best]})
    line.say('\n'.join(outcome.told))
    meter.restart()

  def save(step, state, row, outcome):
    with watch('saving'):
      check.look(step, state)
      checkpointer.save(
        step,
        state,
        data=loader.state(step),
        # The process that goes on from here begins with these.
        meta=meta | schedule.to_come(outcome.unscored, row),
        metrics=outcome.scores,
      )
      try:
        check.look(step, state)
      except rollback.Alarm as alarm:
        # It may have been so already when it was copied.
        checkpointer.wait()
        raise rollback.set_aside(workdir.path, step, alarm) from None
    line.say(f'saving checkpoint {step}')
    meter.restart()
    phases.lap('save')

  # ------------------------------------------------------------------ loop
  step, stopping = first_step, bool(outcome.unscored)
  last = checkpointer.wait, writer.close
  with rollback.on_alarm(workdir.path, *last), checkpointer.finishing():
    while step < num_steps and not stopping:
      step += 1
      trace.before(step, state)
      with watch('waiting for data'), meter.waiting():
        batch = place.batch(training.abstract_batch, next(batches), rows)
      with watch(check.part(step)):
        # It takes what it was compiled for only, and names what differs.
        rates = training.rates(state['step'])
        state, step_metrics = check(step, train_step, state, batch, rates)
      meter.add(step_metrics)
      if _DEBUG_NANS.value:
        params = state['params']  # as before: such a step changes nothing
        how = {'execution': model_lib.make_execution(config), 'mesh': mesh}
        nans.check(step, step_metrics, params, batch, model, **how)
      heartbeat.beat(step)
      heaviest = trace.after(step, state, train_step)
      if heaviest:
        line.say(heaviest)
      if _LOG_BATCHES.value:
        place.print_digests(step, batch)

      stopping = stop.agreed(step)
      saving = stopping or checkpointer.due(step) or step == num_steps
      row = {}
      if saving or step % config.log_every == 0:
        with watch('the steps since the last line'):
          check.look(step, state)
          row = meter.row()
        seconds = row['speed/seconds_per_step']
        own_seconds = row['speed/data_wait_share'] * seconds
        row |= hosts.pace(own_seconds, seconds, line.say)
      line.update(step, row)

      phases.lap('train')
      due = [e for e in evaluators if e.is_due(step, last=num_steps)]
      outcome = schedule.Outcome(unscored=due)
      # What was learnt is safe before the scores, unless these choose what is.
      early = saving and due and not stopping and not checkpointer.chooses()
      if early:
        row |= phases.row() | metrics.seen(loader.seen(step))
        save(step, state, row, outcome)
      if due and not stopping:
        outcome = score(due, state, step)
        # An evaluator may lose its own scores, but not the steps before it.
        stopping = bool(outcome.unscored)
        best = checkpointer.is_best(outcome.scores)
        saving = saving or stopping or best
        meter.skip(outcome.scores['speed/evaluation_seconds'])
        if saving and not row:  # what is saved was looked at, and counts
          row = meter.row()
        line.say('\n'.join(outcome.told))
        row |= outcome.scores
        phases.lap('score')
      if row:
        row |= phases.row() | metrics.seen(loader.seen(step))
        writer.write(step, row)
        if _PAGE.value and outcome.scores and jax.process_index() == 0:
          run_page.write(workdir.here)
        workdir.send(now=saving)
      if saving and not early:
        save(step, state, row, outcome)
      if outcome.error:
        checkpointer.wait()
        line.say(f'step {step:,} is saved; then an evaluator failed:')
        raise outcome.error
  line.close()
  with progress.doing('writing the checkpoint', quiet=say is not bars.say):
    checkpointer.close()
  stop.close()
  if step > first_step:
    say(f'saved checkpoint {step}')
  if checkpointer.lacks_best():
    say(f'no step had checkpoint.keep_best={config.checkpoint.keep_best!r}')
  writer.close()
  if _PAGE.value and jax.process_index() == 0:
    say(run_page.write(workdir.here))
  workdir.send(now=True)
  if step < num_steps or outcome.unscored:
    say(f'stopped at step {step:,}; the same command goes on from there.')
    return

  # ------------------------------------------------- scores, and samples
  if evaluators and jax.process_index() == 0:
    say(core.write_summary(workdir.here))
    if config.forgetting.source:
      say(forgetting.write(workdir.here, **config.forgetting.to_dict()))
    metrics.add_pictures(workdir.here, step)
  if not evaluators and step > first_step:
    score([], state, step)
  if config.sample_prompts and jax.process_index() == 0:
    say(samples.told(workdir.here))
  if config.export_hf and jax.process_index() == 0:
    certificate.export(workdir.path, workdir.here / 'hf')
  phases.lap('save')
  say(goodput.end(workdir.path, phases, *config.sample_prompts[:1]))
  workdir.send(now=True)


def _begin_compiling(config, training):
  """A future of (the train step, seconds, whether it was found compiled).

  Beside what is read meanwhile: the weights of a large model take as long.
  """
  start = time.perf_counter()
  traced = training.step.trace(
    training.abstract_state, training.abstract_batch, training.abstract_rates
  )

  def finish():
    num_found = compilation.num_found()
    train_step = step_lib.compile_step(config, traced)
    seconds = time.perf_counter() - start
    return train_step, seconds, compilation.num_found() > num_found

  return compilation.beside(finish)


def _compiled(compiling, say):
  """The compiled train step, as soon as all hosts have it."""
  what = 'compiling the step: seconds, of large models minutes; it is kept'
  with progress.doing(what, quiet=jax.process_index() != 0):
    train_step, seconds, found = compiling.result()
  kept = 'found compiled, ' if found else ''
  say(
    f'compiled the step in {seconds:.1f} s; '
    f'{kept}{memory.describe_compiled(train_step)}'
  )
  # Collectives give up on a host that compiles half a minute longer.
  hosts.wait_for_others('compiled', limit_seconds=hosts.DAY)
  return train_step


if __name__ == '__main__':
  flags.mark_flags_as_required(['config'])
  program.run(main)
