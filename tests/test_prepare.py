"""The tokenization step by itself."""

import runs


def test_train_finds_what_prepare_has_made(tmp_path):
  """Another fingerprint in one of them would tokenize everything again."""
  flags = (*runs.TINY, f'--workdir={tmp_path}', '--config.budget.steps=1')
  output = runs.run('prepare', *flags)
  table = [line for line in output.splitlines() if line[:3] in ('en ', 'zh ')]
  assert len(table) == 2 and 'bytes/token' in output
  files = {p: p.stat().st_mtime_ns for p in tmp_path.glob('data/**/*')}
  assert len(files) > 20
  output = runs.run('train', *flags, '--dry_run')
  assert all(line in output for line in table)
  assert {p: p.stat().st_mtime_ns for p in tmp_path.glob('data/**/*')} == files


def test_options_without_a_runner_are_refused(tmp_path):
  """They would be ignored, and the work be done here."""
  output = runs.run(
    'prepare',
    *runs.TINY,
    f'--workdir={tmp_path}',
    '--beam_options=--region=here',
    status=1,
  )
  assert 'error: beam_options=' in output and 'set --beam_runner' in output
