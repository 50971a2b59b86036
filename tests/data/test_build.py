"""Text tokenized once: the same on any number of workers, kept when killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lbe.data import build
from lbe.data import cleaning
from lbe.data import order
from lbe.data import shards
from lbe.data import sources
from lbe.data import tokenized
from lbe.run import checksums
from lbe.vocab import huggingface
from lbe.vocab import tokenizers

import runs
import terminal


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  monkeypatch.setattr(shards, 'SHARD_BYTES', 2000)


def write(tmp_path, num_documents=60):
  path = tmp_path / 'zh.txt'
  if not path.exists():
    texts = [
      f'第{i}个文件 ' + 'ab ' * (7 * i % 50) for i in range(num_documents)
    ]
    path.write_text('\n\n'.join(texts) + '\n')
  return path


def prepare(path, cache, *, tokenizer=None, num_workers=1, seed=0, **fields):
  ours = ('bos', 'eos', 'elsewhere', 'seq_len')
  settings = {k: fields.pop(k) for k in ours if k in fields}
  return build.prepare(
    sources.Source(name='zh', path=str(path), **fields),
    tokenizer or tokenizers.Bytes(),
    cache_dir=cache,
    num_workers=num_workers,
    seed=seed,
    progress=False,
    **settings,
  )


def stream(dataset):
  return dataset.tokens(0, dataset.num_tokens)


def texts_of(dataset):
  """The documents behind the token stream, specials taken off."""
  ids, documents = stream(dataset)
  parts = np.split(ids, np.flatnonzero(np.diff(documents)) + 1)
  assert all(part[0] == 1 and part[-1] == 2 for part in parts)
  return [tokenizers.Bytes().decode(part) for part in parts]


def test_the_stream_holds_every_document_once_in_the_seeded_order(tmp_path):
  """BOS and EOS around each; counts are those of the text itself."""
  path = write(tmp_path)
  found = prepare(path, tmp_path)
  data = found.train
  texts = path.read_text().rstrip('\n').split('\n\n')
  assert sorted(texts_of(data)) == sorted(texts)
  assert texts_of(data) != texts
  assert data.num_documents == 60
  assert data.num_bytes == sum(len(t.encode()) for t in texts)
  assert data.num_tokens == data.num_bytes + 2 * 60
  assert data.num_fallback == data.num_bytes
  assert sorted(data.document_lengths) == sorted(
    len(t.encode()) + 2 for t in texts
  )
  other = prepare(path, tmp_path, seed=1).train
  assert sorted(texts_of(other)) == sorted(texts)
  assert texts_of(other) != texts_of(data)


def contents(cache):
  """Every byte of the tokenized source, by path."""
  (folder,) = cache.glob('zh-*')
  files = [path for path in folder.rglob('*') if path.is_file()]
  return {str(p.relative_to(cache)): p.read_bytes() for p in files}


def backwards(work, numbers):
  """Shards made from what is stored, the last first, some of them twice."""
  assert len(numbers) > 2
  for number in [*reversed(numbers), numbers[0]]:
    shards.write_stored(str(work), number)


def test_records_are_those_that_tfds_writes():
  """A length of two bytes read as one would cut every longer document."""
  from tensorflow_datasets.proto import tf_example_pb2

  for size in (0, 1, 127, 128, 16_383, 16_384, 70_000):
    example = {'text': b'abc', 'ids': b'\x80' * size, 'weights': b''}
    record = tf_example_pb2.Example()
    for name, value in example.items():
      record.features.feature[name].bytes_list.value.append(value)
    expected = record.SerializeToString(deterministic=True)
    assert shards.serialized(example) == expected


def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
  """Shards cut by worker would change with the machine."""
  path = write(tmp_path)
  found = {}
  for name, settings in {
    'one': dict(num_workers=1),
    'two': dict(num_workers=2),
    'elsewhere': dict(elsewhere=backwards),
  }.items():
    prepare(path, tmp_path / name, holdout=0.1, **settings)
    found[name] = contents(tmp_path / name)
  assert len(found['one']) > 15
  assert found['one'] == found['two'] == found['elsewhere']


def test_shards_that_do_not_come_back_are_missed(tmp_path):
  """Workers with disks of their own would leave a part of the text."""
  with pytest.raises(ValueError, match=r'[3-9] of [3-9] shards did not come b'):
    prepare(write(tmp_path), tmp_path, elsewhere=lambda work, numbers: None)
  with pytest.raises(ValueError, match='gs://b/c.*mount the store as a folder'):
    prepare(write(tmp_path), 'gs://b/c')


def test_what_is_there_is_opened_and_any_change_is_noticed(tmp_path):
  """A stale cache trains on the wrong text or the wrong ids."""
  path = write(tmp_path)
  first = prepare(path, tmp_path)
  folder = next(tmp_path.glob('zh-*'))
  before = {p: p.stat().st_mtime_ns for p in folder.rglob('*')}
  again = prepare(path, tmp_path)
  assert again.fingerprint == first.fingerprint
  assert {p: p.stat().st_mtime_ns for p in folder.rglob('*')} == before
  seen = {first.fingerprint}
  for changes in (
    dict(cut='line'),
    dict(holdout=0.2),
    dict(eos=False),
    dict(tokenizer=_Renamed()),
  ):
    seen.add(prepare(path, tmp_path, **changes).fingerprint)
  with open(path, 'a') as f:
    f.write('\nmore\n')
  seen.add(prepare(path, tmp_path).fingerprint)
  assert len(seen) == 6


class _Renamed(tokenizers.Bytes):
  fingerprint = 'another'


@pytest.mark.parametrize('name', ['train_lengths.npy', 'tokens-train*00002-*'])
def test_data_that_is_not_as_it_was_written_is_refused(
  name, tmp_path, monkeypatch
):
  """A bit of the index was other documents' borders, without a word."""
  path = write(tmp_path)
  folder = prepare(path, tmp_path / 'cache').folder
  (file,) = folder.glob(name)
  data = bytearray(file.read_bytes())
  data[-1] ^= 4
  file.write_bytes(data)
  with pytest.raises(
    ValueError, match=rf'{file.name} differs .* Delete \S+zh-'
  ):
    prepare(path, tmp_path / 'cache')
  # Of much data the index is read, and of the rest the size.
  monkeypatch.setattr(tokenized, 'CHECKED_BYTES', 0)
  if 'train_' in name:
    with pytest.raises(ValueError, match='is damaged'):
      prepare(path, tmp_path / 'cache')
  else:
    prepare(path, tmp_path / 'cache')
    file.write_bytes(data[:-1])
    with pytest.raises(ValueError, match='is cut off'):
      prepare(path, tmp_path / 'cache')


def test_heldout_documents_are_chosen_by_their_text_and_kept_whole(tmp_path):
  """A document must not change sides when others come or go."""
  path = write(tmp_path)
  found = prepare(path, tmp_path, holdout=0.3)
  texts = path.read_text().rstrip('\n').split('\n\n')
  heldout, hashes = found.heldout_documents()
  assert hashes == [order.text_hash(text) for text in heldout]
  assert 5 < len(heldout) < 30
  assert sorted(heldout + texts_of(found.train)) == sorted(texts)
  shorter = tmp_path / 'shorter.txt'
  shorter.write_text('\n\n'.join(texts[::2]))
  half, _ = prepare(shorter, tmp_path, holdout=0.3).heldout_documents()
  assert set(half) == set(heldout) & set(texts[::2])


def test_smaller_subsets_lie_within_larger_ones(tmp_path):
  """The paper's 10K, 100K and 1M documents are nested."""
  path = write(tmp_path)
  whole = texts_of(prepare(path, tmp_path).train)
  ten = texts_of(prepare(path, tmp_path, max_documents=10).train)
  assert ten == whole[:10]
  some = texts_of(prepare(path, tmp_path, max_bytes=500).train)
  assert some == whole[: len(some)]
  sizes = [len(t.encode()) for t in some]
  assert sum(sizes[:-1]) < 500 <= sum(sizes)
  few = prepare(path, tmp_path, max_tokens=300).train
  assert texts_of(few) == whole[: few.num_documents]
  assert sum(few.document_lengths[:-1]) < 300 <= few.num_tokens


@pytest.mark.parametrize('changes', [{}, {'template': 'plain'}])
def test_a_limit_on_documents_tokenizes_what_it_takes_alone(tmp_path, changes):
  """And takes what it takes of the whole; where that is there, from there."""
  path = write(tmp_path)
  if changes:
    path, texts = tmp_path / 'talks.jsonl', path.read_text().split('\n\n')
    rows = [{'instruction': 'say', 'output': text} for text in texts]
    path.write_text(''.join(json.dumps(row) + '\n' for row in [*rows, rows[3]]))
  changes |= {'holdout': 0.2, 'cleaning': cleaning.Rules(max_characters=90)}

  def prepared(cache, **more):
    return prepare(path, tmp_path / cache, seq_len=200, **changes, **more)

  ten = prepared('few', max_documents=10)
  assert len(np.load(ten.folder / 'train_lengths.npy')) == 10
  whole = prepared('whole')
  of_whole = prepared('whole', max_documents=10)
  assert of_whole.folder == whole.folder != ten.folder
  assert of_whole.fingerprint == ten.fingerprint
  assert ten.report['cleaned'] == whole.report['cleaned']
  assert ten.report['cleaned'][0] > ten.report['cleaned'][1] > 30
  for a, b in (ten.train, of_whole.train), (ten.heldout, whole.heldout):
    assert a.hashes.tolist() == b.hashes.tolist()
    np.testing.assert_array_equal(a.tokens(0, 10**6)[0], b.tokens(0, 10**6)[0])
  assert prepared('few', max_documents=10).folder == ten.folder
  assert prepared('few', max_documents=9).folder != ten.folder


def test_very_long_documents_are_stored_in_pieces(tmp_path, monkeypatch):
  """One document still: no border in its middle, its bytes counted once."""
  path = tmp_path / 'a.txt'
  path.write_text('x' * 150_000 + '\n\nshort')
  data = prepare(path, tmp_path).train
  assert data.num_documents == 2
  assert data.num_bytes == 150_005
  assert len(data._order) == 4
  assert sorted(map(len, texts_of(data))) == [5, 150_000]


def test_the_unknown_token_is_counted(tmp_path):
  """Text that no piece covers is lost, and only its number tells so."""
  from tokenizers import models
  from tokenizers import pre_tokenizers
  from tokenizers import Tokenizer

  pieces = ('<unk>', '<s>', '</s>', 'a', 'b')
  made = Tokenizer(
    models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token='<unk>')
  )
  made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  made.add_special_tokens(list(pieces[:3]))
  path = tmp_path / 'a.txt'
  path.write_text('a b ' * 50 + 'c d e')
  tokenizer = huggingface.HuggingFace(made.to_str())
  found = prepare(path, tmp_path, tokenizer=tokenizer)
  assert found.train.num_unknown == 3
  assert 'zh (2.86%) are the unknown one' in tokenized.describe(found, 'zh')
  # Data of an earlier version lacks the column.
  for name in ('train_unknown.npy', 'checksums.json'):
    (found.folder / name).unlink()
  again = prepare(path, tmp_path, tokenizer=tokenizer)
  assert again.folder == found.folder and again.train.num_unknown is None


def test_a_shard_of_an_earlier_version_is_made_again(tmp_path):
  """Killed before, gone on with after an upgrade: it lacks what is asked."""
  np.savez(tmp_path / '000000.npz', train_lengths=np.zeros(1))
  assert not shards.is_done(tmp_path, 0)
  assert not shards.is_done(tmp_path, 1)


def test_skipped_records_are_reported(tmp_path):
  """`skip` may not be silent."""
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "' + 'good ' * 200 + '"}\n{"text"\n')
  found = prepare(path, tmp_path, on_bad_record='skip')
  told = tokenized.describe(found, 'zh')
  assert '1 records of zh were skipped, the first: ' in told
  assert 'a.jsonl, line 2: invalid JSON' in told


def test_short_documents_are_warned_of(tmp_path):
  """Lines taken for documents teach nothing beyond a line."""
  path = tmp_path / 'a.txt'
  path.write_text('one\n\ntwo\n')
  assert 'have 5 tokens on average' in tokenized.describe(
    prepare(path, tmp_path), 'zh'
  )


def test_specials_that_the_tokenizer_lacks_are_refused(tmp_path):
  """None as an id would become a cryptic error in a worker."""

  class NoEos(tokenizers.Bytes):
    eos_id = None

  with pytest.raises(ValueError, match='data.eos=True, but the tokenizer has'):
    prepare(write(tmp_path), tmp_path, tokenizer=NoEos())


def test_everything_held_out_is_refused(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('only')
  with pytest.raises(ValueError, match='all of its documents are held out'):
    prepare(path, tmp_path, holdout=0.999999)


_CHILD = """
from lbe.data import build, shards, sources
from lbe.vocab import tokenizers
if __name__ == '__main__':
  shards.SHARD_BYTES = 2000
  build.prepare(
    sources.Source(name='zh', path={path!r}), tokenizers.Bytes(),
    cache_dir={cache!r}, num_workers={workers}, progress=False)
"""


_OTHER = """
import fcntl, pathlib, sys, time
with open(sys.argv[1], 'a') as file:
  fcntl.lockf(file, fcntl.LOCK_EX)
  print('has it', flush=True)
  time.sleep(0.5)
  pathlib.Path(sys.argv[1] + '.left').touch()
"""


def test_two_runs_that_share_a_cache_take_turns(tmp_path, monkeypatch, capsys):
  """Of two that began together one ended for want of the other's files."""
  path = write(tmp_path)
  prepare(path, tmp_path / 'cache')
  (folder,) = (tmp_path / 'cache').glob('zh-*')
  shutil.rmtree(folder / '1.0.0')
  other = subprocess.Popen(
    [sys.executable, '-c', _OTHER, folder / 'in_use'], stdout=subprocess.PIPE
  )
  assert other.stdout.readline() == b'has it\n'
  seen, make = [], build._make

  def look(*rest, **how):
    seen.append((folder / 'in_use.left').exists())
    make(*rest, **how)

  monkeypatch.setattr(build, '_make', look)
  prepare(path, tmp_path / 'cache')
  other.communicate()
  assert seen == [True]
  assert 'tokenizing zh: another process is at it' in capsys.readouterr().err


def test_data_without_its_checksums_is_not_taken_for_whole(
  tmp_path, monkeypatch
):
  """A kill behind the report left data that nothing was compared with."""

  def killed(*unused):
    raise KeyboardInterrupt

  path = write(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(checksums, 'write', killed)
    with pytest.raises(KeyboardInterrupt):
      prepare(path, tmp_path)
  whole = prepare(path, tmp_path)
  (folder,) = tmp_path.glob('zh-*/1.0.0')
  assert checksums.is_there(folder)
  for a, b in zip(
    stream(whole.train),
    stream(prepare(path, tmp_path / 'fresh').train),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('workers', [1, 2])
def test_a_killed_preparation_goes_on_behind_its_finished_shards(
  tmp_path, workers
):
  """An hour of tokenizing may not be lost, nor be done by half."""
  path = write(tmp_path, num_documents=6000)
  script = tmp_path / 'child.py'
  cache = tmp_path / 'cache'
  script.write_text(
    _CHILD.format(path=str(path), cache=str(cache), workers=workers)
  )
  process = subprocess.Popen(
    [sys.executable, script],
    env={**os.environ, 'PYTHONPATH': str(runs.ROOT)},
    start_new_session=True,
  )
  while len(finished := list(cache.glob('zh-*/*/work/??????.npz'))) < 5:
    assert process.poll() is None
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  (work,) = cache.glob('zh-*/*/work')
  times = {p.name: p.stat().st_mtime_ns for p in finished}
  written = []
  original = build._finish

  def look(folder, work, *rest):
    written.extend((p.name, p.stat().st_mtime_ns) for p in work.glob('*.npz'))
    original(folder, work, *rest)

  build._finish = look
  try:
    resumed = prepare(path, cache)
  finally:
    build._finish = original
  assert times.items() <= dict(written).items()
  assert len(written) > 100
  assert not work.exists()
  fresh = prepare(path, tmp_path / 'fresh')
  for a, b in zip(stream(resumed.train), stream(fresh.train), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_source_may_have_more_shards_than_files_may_be_open(tmp_path):
  """Twelve gigabytes of text ended, tokenized, in 'Too many open files'."""
  script = tmp_path / 'child.py'
  path, cache = write(tmp_path, num_documents=6000), tmp_path / 'cache'
  script.write_text(_CHILD.format(path=str(path), cache=str(cache), workers=1))
  limited = ['sh', '-c', 'ulimit -n 100; exec "$@"', 'sh']
  done = subprocess.run(
    [*limited, sys.executable, script],
    env={**os.environ, 'PYTHONPATH': str(runs.ROOT)},
    capture_output=True,
  )
  assert done.returncode == 0, done.stderr.decode()
  assert len(list(cache.glob('zh-*/1.0.0/tokens-train.*'))) > 200


_PREPARED = """
import sys
from lbe.data import build, shards, sources
from lbe.run import progress
from lbe.vocab import tokenizers
shards.SHARD_BYTES = 2000
progress._PATIENCE = 0.0
with progress.doing('preparing zh'):
  build.prepare(
    sources.Source('zh', sys.argv[1], max_documents=int(sys.argv[2]) or None),
    tokenizers.Bytes(),
    cache_dir=sys.argv[3],
    num_workers=1,
  )
"""


def test_bars_of_tokenizing_end_at_all_of_it_and_stand_alone(tmp_path):
  """'99%' where all is done, and two lines for one thing."""
  path = write(tmp_path)
  for limit, bars in (
    ('0', ['tokenizing zh']),
    ('9', ['choosing from zh', 'tokenizing zh']),
  ):
    screens = terminal.screens(
      _PREPARED, str(path), limit, str(tmp_path / limit)
    )
    last = [line for line in screens[-1][1] if line]
    assert [line.split(':')[0] for line in last] == bars
    assert all(': 100%|' in line for line in last), last
    for _, lines in screens:
      running = [x for x in lines if x and '100%' not in x]
      assert len(running) <= 1, lines
