"""Tokenizes the sources of a run, and shows them: what `train` does first.

  python -m lbe.prepare --config=configs/zh_pretrain.py --workdir=runs/zh
  python -m lbe.prepare --config=... --workdir=... --beam_runner=FlinkRunner \\
    --beam_options=--flink_master=HOST:8081

Killed, the same command goes on behind its finished shards. `train` with the
same sources and workdir, or data.cache_dir, finds everything there.
"""

import jax
from absl import flags

from lbe.assemble import config_flag
from lbe.assemble import data
from lbe.assemble import model
from lbe.data import beam
from lbe.data import report
from lbe.run import program
from lbe.run import workdir as workdir_lib

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'The workdir of the run, whose data this is.'
)
_BEAM_RUNNER = flags.DEFINE_string(
  'beam_runner',
  None,
  'Tokenize on Apache Beam: DirectRunner, DataflowRunner, FlinkRunner, '
  'SparkRunner, or another of its runners.',
)
_BEAM_OPTIONS = flags.DEFINE_list(
  'beam_options', [], "The runner's own flags, as --region=…,--project=…."
)


def main(argv):
  del argv
  program.join_hosts()
  config = _CONFIG.value
  workdir = workdir_lib.open_workdir(_WORKDIR.value)
  workdir.fetch()
  elsewhere = None
  if _BEAM_RUNNER.value:
    elsewhere = beam.runner(_BEAM_RUNNER.value, _BEAM_OPTIONS.value)
  elif _BEAM_OPTIONS.value:
    raise ValueError(
      f'beam_options={_BEAM_OPTIONS.value} without a runner; set --beam_runner.'
    )
  tokenizer = model.make_tokenizer(
    config,
    model.open_weights(config, workdir.path),
    workdir.here,
    may_extend=True,
  )
  prepared = data.prepare(config, tokenizer, workdir.here, elsewhere=elsewhere)
  loader = data.make_loader(config, prepared, tokenizer)
  num_steps = data.count_steps(config, prepared, loader)
  data.check_learnt(config, loader, num_steps)
  if jax.process_index() == 0:
    print(report.table(loader, num_steps))
  workdir.send(now=True)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config'])
  program.run(main)
