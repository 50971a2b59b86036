"""Sources, budget and loader that a config asks for."""

import json
import resource

import jax
import pytest

from lbe.assemble import data
from lbe.configs import common
from lbe.data import tokenized
from lbe.mesh import hosts
from lbe.run import checksums
from lbe.run import progress
from lbe.vocab import tokenizers

import tiny


def test_proportions_must_sum_to_one(tmp_path):
  """Shares that were renormalised silently would hide a typo."""
  config = tiny.config(tmp_path, a=dict(proportion=0.5), b=dict(proportion=0.6))
  with pytest.raises(ValueError, match='sum to 1.1'):
    data.make_sources(config)


def test_a_negative_proportion_is_refused(tmp_path):
  """-0.2 and 1.2 sum to one."""
  config = tiny.config(
    tmp_path, a=dict(proportion=-0.2), b=dict(proportion=1.2)
  )
  with pytest.raises(ValueError, match='a.proportion=-0.2 is negative'):
    data.make_sources(config)


def test_exactly_one_budget_is_asked_for(tmp_path):
  """Two budgets would leave it open which one ends the run."""
  config = tiny.config(tmp_path, a={})
  config.budget.tokens = 1000
  with pytest.raises(ValueError, match='set exactly one of'):
    data.count_steps(config, {}, None)


def test_budgets_in_text_count_the_source_they_name(tmp_path):
  """Half the epochs of a source with half the share take as many steps."""
  config = tiny.config(
    tmp_path, a=dict(proportion=0.25), b=dict(proportion=0.75)
  )
  tokenizer = tokenizers.load('bytes')
  prepared = data.prepare(config, tokenizer, tmp_path)
  loader = data.make_loader(config, prepared, tokenizer)
  num_tokens = prepared['a'].train.num_tokens
  config.budget.steps = 0
  config.budget.update(epochs=2.0, of='a')
  steps = -(-num_tokens * 2 * 4 // (32 * 4))
  assert data.count_steps(config, prepared, loader) == steps
  config.budget.update(epochs=0.0, documents=40)
  assert data.count_steps(config, prepared, loader) == steps
  config.budget.update(documents=0, bytes=2 * prepared['a'].train.num_bytes)
  assert data.count_steps(config, prepared, loader) == steps


def test_the_bytes_of_a_source_are_compared_once(tmp_path, monkeypatch):
  """A start that reads a gigabyte twice; seconds of hundreds of sources."""
  config = tiny.config(tmp_path, a=dict(proportion=0.5), b=dict(proportion=0.5))
  tokenizer = tokenizers.load('bytes')
  looked, check = [], checksums.check
  monkeypatch.setattr(
    checksums,
    'check',
    lambda *of, **how: looked.append(of) or check(*of, **how),
  )
  for _ in 'made', 'found':
    looked.clear()
    data.prepare(config, tokenizer, tmp_path)
    assert len(looked) == 2


def test_a_source_that_runs_dry_is_refused(tmp_path):
  """A small source with a large share would be seen over and over."""
  config = tiny.config(tmp_path, a={'proportion': 0.5}, b={'proportion': 0.5})
  config.data.sources.b.max_epochs = 2.5
  prepared = data.prepare(config, tokenizers.load('bytes'), tmp_path)
  loader = data.make_loader(config, prepared, tokenizers.load('bytes'))
  few = next(n for n in range(1, 999) if loader.epochs(n)['b'] > 2.4)
  data.check_epochs(config, loader, few)
  many = next(n for n in range(1, 999) if loader.epochs(n)['b'] > 2.6)
  with pytest.raises(ValueError, match='sources.b would be seen 2.6.*runs dry'):
    data.check_epochs(config, loader, many)
  config.data.sources.b.max_epochs = 0.0
  data.check_epochs(config, loader, many)


@pytest.fixture
def narrow(test_data):
  """A vocabulary whose words are fewer tokens than bytes."""
  return tokenizers.load(test_data / 'ckpt_stories260K' / 'hf')


def texts_read(config, tokenizer, folder, name='a'):
  """The documents that the rows of a run hold, and the steps of it."""
  prepared = data.prepare(config, tokenizer, folder)
  loader = data.make_loader(config, prepared, tokenizer)
  num_steps = data.count_steps(config, prepared, loader)
  data.check_epochs(config, loader, num_steps)
  i = loader.names.index(name)
  train = prepared[name].train
  read = set()
  for position in range(num_steps * config.data.batch_size):
    source, epoch, row = loader.locate(position)
    if source != i:
      continue
    if loader.packed[i]:
      starts, examples = loader._packing(i, epoch)
      read |= {int(x) for x in examples[starts[row] : starts[row + 1]]}
    else:
      start = row * config.data.seq_len
      read |= set(train.tokens(start, start + config.data.seq_len)[1].tolist())
  return [train.hashes[k] for k in sorted(read)], num_steps


def write_talks(path, num=60):
  path.write_text(
    '\n'.join(
      json.dumps({'instruction': f'say {i}', 'output': 'once ' * (1 + i % 19)})
      for i in range(num)
    )
  )


@pytest.mark.parametrize('template', ['', 'plain'])
@pytest.mark.parametrize('unit, amount', [('documents', 12), ('bytes', 700)])
def test_a_budget_below_an_epoch_takes_the_first_documents(
  tmp_path, narrow, template, unit, amount
):
  """Two vocabularies would share one document in seventy."""
  config = tiny.config(tmp_path, a={})
  config.data.seq_len = 80
  config.data.batch_size = 2
  if template:
    write_talks(tmp_path / 'a.jsonl')
    config.data.sources.a.update(
      path=str(tmp_path / 'a.jsonl'), template=template, too_long='drop'
    )
  else:
    config.data.sources.a.cut = 'line'
    (tmp_path / 'a.txt').write_text(
      '\n'.join(f'{i} ' + 'once ' * (i % 19 + 1) for i in range(60))
    )
  wide = tokenizers.load('bytes')
  config.data.sources.a.max_epochs = 1.0
  whole = data.prepare(config, narrow, tmp_path)['a']
  config.budget.steps = 0
  config.budget[unit] = amount
  few, steps = texts_read(config, narrow, tmp_path)
  other, more = texts_read(config, wide, tmp_path)
  assert few == whole.train.hashes[: len(few)].tolist() and len(few) > 6
  assert unit == 'bytes' or len(few) == 12
  if template:
    # What is too long for one vocabulary is counted in both.
    assert set(other) < set(few)
  else:
    assert other == few and more > steps
  prepared = data.prepare(config, narrow, tmp_path)['a']
  assert prepared.fingerprint != whole.fingerprint  # another run
  told = tokenized.describe(prepared, 'a')
  assert f'the budget takes the first {len(few)} of ' in told
  config.budget[unit] = 10**6
  prepared = data.prepare(config, narrow, tmp_path)['a']
  assert prepared.fingerprint == whole.fingerprint
  assert prepared.whole is None


@pytest.mark.parametrize('unit', ['documents', 'bytes'])
def test_a_budget_of_an_epoch_is_one_whatever_is_too_long(tmp_path, unit):
  """All examples decided whether it is less, and what is left the steps."""
  config = tiny.config(tmp_path, a={})
  config.data.seq_len = 80
  config.data.batch_size = 1
  write_talks(tmp_path / 'a.jsonl', num=400)
  config.data.sources.a.update(
    path=str(tmp_path / 'a.jsonl'), template='plain', too_long='drop'
  )
  config.budget.steps = 0

  config.budget[unit] = 10**6
  tokenizer = tokenizers.load('bytes')
  config.data.seq_len = 1024
  whole = data.prepare(config, tokenizer, tmp_path)['a'].train
  config.data.seq_len = 80
  for times in 1, 3:
    epoch = {'documents': 400, 'bytes': whole.num_bytes}[unit]
    config.budget[unit] = epoch * times
    prepared = data.prepare(config, tokenizer, tmp_path)
    left = prepared['a'].train
    assert left.num_documents < 300 and left.num_counted == 400
    loader = data.make_loader(config, prepared, tokenizer)
    num_steps = data.count_steps(config, prepared, loader)
    assert loader.epochs(num_steps)['a'] == pytest.approx(times, abs=0.05)
  # Where all fit, a run has the steps that it had.
  assert whole.epoch_documents == whole.num_documents == 400
  assert whole.epoch_bytes == whole.num_bytes


def test_a_seed_of_the_data_is_no_negative_number(tmp_path):
  config = tiny.config(tmp_path, a={})
  config.data.seed = -5
  with pytest.raises(ValueError, match='data.seed=-5 is negative'):
    data.prepare(config, tokenizers.load('bytes'), tmp_path)


def test_a_budget_of_a_mixture_reads_each_source_from_its_beginning(tmp_path):
  """What is seen in part is the first part, also of what is not counted."""
  config = tiny.config(
    tmp_path, a=dict(proportion=0.25), b=dict(proportion=0.75)
  )
  tokenizer = tokenizers.load('bytes')
  config.budget.steps = 0
  config.budget.update(documents=4, of='a')
  prepared = data.prepare(config, tokenizer, tmp_path)
  assert prepared['a'].train.num_documents == 4
  assert 12 <= prepared['b'].train.num_documents <= 14
  read, _ = texts_read(config, tokenizer, tmp_path, 'b')
  assert read == prepared['b'].whole.hashes[: len(read)].tolist()
  config.budget.of = ''
  prepared = data.prepare(config, tokenizer, tmp_path)
  assert prepared['a'].train.num_documents in (1, 2)
  assert prepared['b'].train.num_documents in (3, 4)


@pytest.mark.parametrize(
  'limits',
  [
    {'max_documents': 20},
    {'max_bytes': 900},
    {'max_documents': 20, 'too_long': 'fail', 'on_bad_record': 'skip'},
  ],
)
def test_a_limit_on_examples_is_counted_before_their_tokens(
  tmp_path, narrow, limits
):
  """Ten thousand examples of one vocabulary would be others of another."""
  config = tiny.config(tmp_path, a={})
  write_talks(tmp_path / 'a.jsonl')
  config.data.seq_len = 60
  config.data.sources.a.update(
    path=str(tmp_path / 'a.jsonl'),
    template='plain',
    **{'too_long': 'drop', **limits},
  )
  wide = data.prepare(config, tokenizers.load('bytes'), tmp_path)['a']
  few = data.prepare(config, narrow, tmp_path)['a']
  assert few.train.num_counted == wide.train.num_counted >= 12
  assert set(wide.train.hashes) < set(few.train.hashes)
  assert wide.train.num_documents < wide.train.num_counted
  again = data.prepare(config, narrow, tmp_path)['a']
  assert again.train.hashes.tolist() == few.train.hashes.tolist()
  config.data.sources.a.update(max_documents=0, max_bytes=0)
  whole = data.prepare(config, tokenizers.load('bytes'), tmp_path)['a']
  assert set(wide.train.hashes) < set(whole.train.hashes)
  assert wide.fingerprint != whole.fingerprint


@pytest.mark.parametrize('scored', ['', 'held out', 'evaluator', 'swap'])
def test_all_hosts_wait_while_one_compares(tmp_path, monkeypatch, scored):
  """Hosts that waited ten minutes at the next barrier ended the run."""
  config = tiny.config(tmp_path, a=dict(holdout=0.3 * (scored == 'held out')))
  path = config.data.sources.a.path
  config.evals.source = common.perplexity(source='a')
  if scored == 'evaluator':
    config.evals.wiki = common.perplexity(path=path)
  if scored == 'swap':
    config.evals.pairs = common.pairs(path=path)
  waits = []

  def wait(name, *, limit_seconds):
    done = len(list((tmp_path / 'data').glob('shared-*')))
    waits.append((name, limit_seconds, done))

  monkeypatch.setattr(hosts, 'wait_for_others', wait)
  for process in 0, 1:
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    waits.clear()
    data.prepare(config, tokenizers.load('bytes'), tmp_path)
    compared = [('compared', hosts.DAY, 1)] * bool(scored)
    assert waits == [('data', hosts.DAY, process * bool(scored)), *compared]


def test_a_comparison_that_a_full_disk_ended_is_made_again(
  tmp_path, monkeypatch
):
  """What it left, empty, said from then on that nothing is shared."""
  config = tiny.config(tmp_path, a=dict(holdout=0.3))
  tokenizer = tokenizers.load('bytes')
  data.prepare(config, tokenizer, tmp_path, compare=False)
  # A line of it could not be written either.
  monkeypatch.setattr(progress, '_PATIENCE', 600.0)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
  try:
    with pytest.raises(OSError, match='File too large'):
      data.prepare(config, tokenizer, tmp_path)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  found = data.prepare(config, tokenizer, tmp_path)['a']
  assert found.shared['']['of'] == found.heldout.num_documents > 3
