"""Several processes on one machine: same batches, same losses."""

import socket

import numpy as np

import runs

STEPS = ('--config.budget.steps=20', '--config.checkpoint.every=20')


def free_port():
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


def digests(output):
  """{(step, row): digest} of the lines that --log_batches prints."""
  return {
    tuple(map(int, line.split()[1:3])): line.split()[3]
    for line in output.splitlines()
    if line.startswith('batch ')
  }


def test_two_processes_of_four_devices_equal_one_of_eight(tmp_path):
  """Hosts that load other rows, or a loss divided per host, differ here."""
  cache = f'--config.data.cache_dir={tmp_path}/data'
  one, two = tmp_path / 'one', tmp_path / 'two'
  command = (*runs.TINY, *STEPS, cache, '--log_batches')
  output = runs.run('train', *command, f'--workdir={one}', num_devices=8)
  address = f'--coordinator_address=localhost:{free_port()}'
  both = [
    runs.start(
      'train',
      *command,
      f'--workdir={two}',
      address,
      '--num_processes=2',
      f'--process_id={i}',
      num_devices=4,
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=300)[0] for process in both]
  assert [process.returncode for process in both] == [0, 0], outputs
  alone = digests(output)
  parts = [digests(o) for o in outputs]
  assert len(alone) == 20 * 8
  assert all(len(part) == 20 * 4 for part in parts)
  assert {**parts[0], **parts[1]} == alone
  a, b = runs.losses(one), runs.losses(two)
  assert a.keys() == b.keys() and len(a) == 20
  np.testing.assert_allclose(
    list(a.values()), list(b.values()), rtol=0, atol=1e-5
  )
