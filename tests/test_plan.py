"""plan: a real step compiled for a TPU slice that is not there."""

import json
import pickle

import pytest

import runs

# A model that compiles for a TPU within seconds.
TINY = (
  '--config=configs/zh_pretrain.py:10k',
  '--config.model.dim=256',
  '--config.model.num_layers=3',
  '--config.model.num_heads=2',
  '--config.model.mlp_dim=512',
  '--vocab_size=512',
  '--config.data.seq_len=256',
  '--config.data.batch_size=8',
)


def test_a_slice_is_planned_on_a_machine_without_one(tmp_path):
  """Catches a plan of another program than train's, and weights summed whole.

  On TPUs the compiler would sum gradients whole over all chips and then cut
  them: twice the traffic.
  """
  pytest.importorskip('libtpu')
  told = runs.run(
    'plan',
    *TINY,
    '--topology=v5p:2x2x2',
    '--price=4',
    '--tokens=1e9',
    f'--json={tmp_path / "plan.json"}',
    f'--executable={tmp_path / "step.pickle"}',
  )
  assert len(told.splitlines()) < 40
  assert 'FITS' in told and 'a chip-hour' in told
  plan = json.loads((tmp_path / 'plan.json').read_text())
  assert plan['devices'] == 8 and plan['fits']
  # float32 weights and two moments, in eighths, and little beside.
  bytes_each = 4 * plan['parameters'] / 8
  assert plan['params_bytes'] == pytest.approx(bytes_each, rel=0.01)
  assert plan['opt_state_bytes'] == pytest.approx(2 * bytes_each, rel=0.01)
  # Forward, backward and made again, and attention in each.
  assert 1.1 < plan['flops'] / plan['model_flops'] < 1.5
  sent = {}
  for c in plan['collectives']:
    sent[c['kind']] = sent.get(c['kind'], 0) + c['sent']
  weights = 2 * plan['parameters'] * 7 / 8
  assert sent['reduce-scatter'] < 1.2 * weights
  assert sent['all-reduce'] < 0.25 * weights  # whole it would be 2
  assert plan['seconds'] >= max(
    plan[f'seconds_{part}'] for part in ('compute', 'memory', 'network')
  )
  payload, _, _ = pickle.loads((tmp_path / 'step.pickle').read_bytes())
  assert len(payload) > 10_000


@pytest.mark.parametrize(
  'change, error',
  [
    (('--topology=v9:4x4',), 'take one of v4, v5e, v5p, v6e, tpu7x'),
    (
      ('--topology=v5p:2x2x1', "--config.compiler_options=('xla_foo=1',)"),
      "No such compile option: 'xla_foo'; XLA takes other",
    ),
    (('--topology=v5p:2x2x1', '--vocab_size=0'), 'knows no vocabulary'),
  ],
)
def test_what_cannot_be_planned_is_refused_before_compiling(change, error):
  pytest.importorskip('libtpu')
  assert error in runs.run('plan', *TINY, *change, status=1)
