"""Damage of stored files is found, named, and never gone on from."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from absl import flags

from lbe import check
from lbe.run import aside
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.run import identity

FACTS = {'num_steps': 3}
META = {'model': None, 'tokenizer': None, 'config': FACTS, 'source': None}


def flip(path, at=0):
  data = bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(data)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Three files, of several blocks where they are long, with checksums."""
  monkeypatch.setattr(checksums, 'BLOCK_BYTES', 1000)
  (tmp_path / 'd').mkdir()
  for name, byte in (('a', 1), ('d/b', 2), ('d/c', 3)):
    (tmp_path / name).write_bytes(bytes([byte]) * 3500)
  (tmp_path / 'empty').touch()
  checksums.write(tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  'damage, told',
  [
    (lambda f: flip(f / 'd/b', 2999), 'in bytes 2,000 to 3,000'),
    (lambda f: (f / 'd/b').unlink(), 'is missing'),
    (lambda f: (f / 'd/b').write_bytes(b'\2' * 100), 'cut off: 100 bytes, not'),
    (lambda f: (f / 'd/b').write_bytes(b'\2' * 3501), 'has grown'),
    (lambda f: (f / 'd/b').write_bytes(b'\0' * 3500), 'are all zero'),
    (lambda f: shutil.copy(f / 'a', f / 'd/b'), 'holds what a should'),
  ],
)
def test_each_damage_is_named(damage, told, folder):
  """Weights with one other bit were loaded without a word."""
  assert checksums.compare(folder).damage == {}
  damage(folder)
  found = checksums.compare(folder).damage
  assert list(found) == ['d/b'] and told in found['d/b']
  assert checksums.compare(folder, within=('other',)).damage == {}
  assert not checksums.compare(folder, share=(0, 4)).damage == found
  parts = [vars(checksums.compare(folder, share=(i, 4))) for i in range(4)]
  assert checksums.joined(parts).damage == found


def test_damaged_checksums_are_no_silence(folder):
  flip(folder / 'checksums.json', 40)
  found = checksums.compare(folder)
  assert 'damaged itself' in found.damage['checksums.json'] and found.kept
  (folder / 'checksums.json').unlink()
  assert not checksums.compare(folder).kept


def test_hosts_keep_what_each_of_them_wrote(folder):
  """A checkpoint whose second host was killed before it kept its own."""
  checksums.write(folder, ['a', 'empty'], part=(0, 2))
  assert not checksums.compare(folder).complete
  checksums.write(folder, ['d/b', 'd/c'], part=(1, 2))
  found = checksums.compare(folder)
  assert found.complete and found.num_files == 4
  flip(folder / 'd/c')
  assert list(checksums.compare(folder).damage) == ['d/c']


# ----------------------------------------------------------------- checkpoints


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A run with checkpoints of steps 1 to 3."""
  root = tmp_path_factory.mktemp('run')
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  x = jax.device_put(np.arange(100, dtype=np.float32), where)
  state = {'params': {'x': x}, 'opt_state': {'m': x}, 'step': x[0]}
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state
  )
  saver = checkpoint.Checkpointer(root, abstract, every=1, keep=3)
  for step in (1, 2, 3):
    saver.save(step, state, data={'step': step}, meta=META)
  saver.close()
  return root, abstract


@pytest.fixture
def run(saved, tmp_path):
  shutil.copytree(saved[0], tmp_path / 'run')
  return tmp_path / 'run'


@pytest.fixture(autouse=True)
def flag():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['test'])


def damage(run, step, part='params'):
  """Flips a bit in the largest file of a checkpoint's part."""
  files = [p for p in (run / f'checkpoints/{step}/{part}').rglob('*')]
  flip(max(files, key=lambda p: p.stat().st_size * p.is_file()))


def choose(run, restore=None):
  """What is said, and the step that the run goes on from."""
  said = []
  flags.FLAGS.restore = restore
  try:
    aside.choose(str(run), said.append)
  finally:
    flags.FLAGS.restore = None
  return '\n'.join(said), checkpoint.find(run).name


@pytest.mark.parametrize('part', ['params', 'opt', 'data', 'meta'])
def test_a_damaged_newest_checkpoint_is_set_aside(part, run):
  """The run ended in 198 lines of Orbax, and an older one was not tried."""
  damage(run, 3, part)
  told, newest = choose(run)
  assert newest == '2'
  assert f'WARNING: checkpoint 3 of {run} is damaged: {part}/' in told
  assert f'kept in {run}/set_aside/3; the run goes on from step 2' in told
  assert (run / 'set_aside/3/params').is_dir()
  assert choose(run)[1] == '2'


def test_a_checkpoint_without_its_meta_is_damaged_not_unfinished(run):
  shutil.rmtree(run / 'checkpoints/3/meta')
  told, newest = choose(run)
  assert newest == '2' and 'meta/commit_success.txt is missing' in told


def test_where_none_is_whole_nothing_is_moved_and_nothing_begins(run):
  """A silent start from zero."""
  for step in (1, 2, 3):
    damage(run, step)
  with pytest.raises(ValueError, match='no checkpoint of .* is whole .3: par'):
    choose(run)
  assert checkpoint.steps(run) == [1, 2, 3]


def test_a_run_goes_back_to_the_step_that_is_asked_for_once(run):
  """Given again, as a launcher does, the command would go back for ever."""
  assert choose(run, restore=1)[1] == '1'
  assert (run / 'set_aside/behind-1/3').is_dir()
  shutil.copytree(run / 'checkpoints/1', run / 'checkpoints/2')
  told, newest = choose(run, restore=1)
  assert newest == '2' and 'was done before' in told
  with pytest.raises(ValueError, match='restore=7: .* checkpoints of 1, 2;'):
    choose(run, restore=7)
  damage(run, 1)
  shutil.rmtree(run / 'set_aside')
  with pytest.raises(ValueError, match='is whole'):
    choose(run, restore=1)
  assert checkpoint.steps(run) == [1, 2]


def test_weights_that_differ_from_what_was_written_are_refused(
  run, saved, monkeypatch
):
  """Damaged moments are no matter of who wants the weights."""
  abstract = saved[1]['params']
  damage(run, 3, 'opt')
  assert checkpoint.load_params(run, abstract)['x'][1] == 1
  damage(run, 3)
  with pytest.raises(ValueError, match='checkpoints/3 is damaged: params/ocd'):
    checkpoint.load_params(run, abstract)
  monkeypatch.setattr(checksums, 'asked', False)
  checkpoint.load_params(run, abstract)
  damage(run, 3, 'meta')
  monkeypatch.setattr(checksums, 'asked', True)
  with pytest.raises(ValueError, match='is damaged: meta/'):
    checkpoint.read_meta(run)


def test_a_checkpoint_of_an_older_version_is_taken_as_it_is(run, saved, capsys):
  (run / 'checkpoints/3/checksums.json').unlink()
  told, newest = choose(run)
  assert newest == '3' and 'has no checksums' in told
  checkpoint.load_state(run, saved[1])
  checkpoint.load_params(run, saved[1]['params'])
  assert 'checkpoints/3 has no checksums' in capsys.readouterr().err
  # What Orbax itself cannot read is damage here, too.
  path: pathlib.Path = run / 'checkpoints/3/params/_METADATA'
  path.write_bytes(path.read_bytes()[:100])
  told, newest = choose(run)
  assert newest == '2' and 'cannot be read' in told


def test_facts_that_were_torn_are_those_of_the_checkpoint(run, capsys):
  """A config.json cut off by a kill, and the run was stuck."""
  assert identity.recorded(run) is None
  (run / 'config.json').write_text('{"num_st')
  assert identity.recorded(run) == FACTS
  assert 'config.json:1: no JSON' in capsys.readouterr().err
  shutil.rmtree(run / 'checkpoints')
  assert identity.recorded(run) is None
  assert 'it begins anew' in capsys.readouterr().err


def test_check_says_what_is_damaged_and_what_depends_on_it(run, capsys):
  """Without it a person would learn of it when the run is lost."""
  check.main(['check', str(run)])
  assert '3 looked at, 0 damaged' in capsys.readouterr().out
  damage(run, 2, 'opt')
  (run / 'metrics.jsonl').write_text('{"step": 1}\n{"st\n{"step": 3}\n{"s')
  with pytest.raises(SystemExit):
    check.main(['check', str(run)])
  told = capsys.readouterr().out
  assert f'{run}/checkpoints/2: DAMAGED\n  opt/' in told
  assert 'no run can go on from it; its weights are whole' in told
  assert 'Whole beside it: 1, 3' in told
  assert f'{run}/metrics.jsonl: DAMAGED\n  line 2 is no JSON' in told
  assert '4 looked at, 2 damaged' in told
  with pytest.raises(ValueError, match='holds nothing that lbe keeps'):
    check.main(['check', str(run / 'checkpoints/1/opt')])
