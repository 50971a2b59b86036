"""Instruction data, from records to batches, runs and scores."""

import json
import math
import os
import shutil

import jax
import numpy as np
import pytest

from lbe.assemble import data
from lbe.configs import common
from lbe.data import build
from lbe.data import cleaning
from lbe.data import loader as loader_lib
from lbe.data import report
from lbe.data import sources
from lbe.data import tokenized
from lbe.run import checkpoint
from lbe.vocab import tokenizers

import runs


def records(num, word):
  """Alpaca records, each with a text of its own; some have an input."""
  return [
    {
      'instruction': f'{word} {i}',
      'input': 'in' * (i % 3),
      'output': f'{i} ' * (1 + i * 7 % 11),
    }
    for i in range(num)
  ]


def prepare(folder, found, *, seq_len=256, **changes):
  path = folder / 'a.json'
  path.write_text(json.dumps(found, ensure_ascii=False), encoding='utf-8')
  return build.prepare(
    sources.Source(
      **{'name': 'a', 'path': str(path), 'template': 'plain'} | changes
    ),
    tokenizers.Bytes(),
    cache_dir=folder / 'cache',
    num_workers=1,
    seq_len=seq_len,
    progress=False,
  )


def make(prepared, seq_len=256, batch_size=8, packed=('a',)):
  return loader_lib.Loader(
    {'a': prepared},
    {'a': 1.0},
    seq_len=seq_len,
    batch_size=batch_size,
    seed=0,
    tokenizer=tokenizers.Bytes(),
    packed=packed,
  )


def test_every_example_is_in_an_epoch_once_and_only_responses_are_learnt(
  tmp_path,
):
  """Whole examples, each a segment; weights are those of the response."""
  loader = make(prepare(tmp_path, records(200, 'say')), batch_size=1)
  num_rows = round(1 / loader.fill('a') * loader.data[0].num_tokens / 256)
  seen = []
  for epoch in range(2):
    found = set()
    for place in range(epoch * num_rows, (epoch + 1) * num_rows):
      row = loader.row(place)
      for segment in range(1, row['segments'].max() + 1):
        of = row['segments'] == segment
        assert row['positions'][of].tolist() == list(range(of.sum()))
        text = tokenizers.Bytes().decode(row['ids'][of].tolist())
        learnt = row['targets'][of][row['weights'][of] > 0]
        assert learnt[-1] == tokenizers.Bytes.eos_id
        response = tokenizers.Bytes().decode(learnt.tolist())
        assert text.endswith(response) and response.strip()
        found.add(text)
      assert row['num_bytes'] == sum(
        t >= 3 for t in row['targets'][row['weights'] > 0]
      )
    assert len(found) == 200
    seen.append(found)
  assert seen[0] == seen[1]
  assert loader.fill('a') > 0.97
  a, b = (loader.row(p)['ids'].tolist() for p in (0, num_rows))
  assert a != b, 'epochs pack anew'


def test_the_table_and_an_example_show_what_is_learnt(tmp_path):
  """A mask that is off by one is seen here before an hour is spent."""
  found = records(50, 'say')
  found[7]['output'] = ''
  loader = make(prepare(tmp_path, found, on_bad_record='skip'))
  table = report.table(loader, 10)
  assert '1 records of a were skipped' in table
  assert "a.json, record 8: the field 'output' is empty" in table
  head, row = (line.split('  ') for line in table.splitlines()[:2])
  cells = dict(
    zip(
      *([c.strip() for c in r if c.strip()] for r in (head, row)), strict=True
    )
  )
  assert cells['documents'] == '49'
  # Of the text, not of the JSON; BOS and EOS stand for no byte.
  data = loader.data[0]
  assert cells['bytes'] == f'{data.num_tokens - 2 * 49:,}'
  assert 0 < float(cells['learnt'].rstrip('%')) < 100
  assert float(cells['padding'].rstrip('%')) == pytest.approx(
    100 * (1 - loader.fill('a')), abs=0.06
  )
  # Published batches count examples, and a row holds several.
  mean = 8 * 49 / loader.num_rows[0]
  assert f'\na step of 8 rows has {mean:,.0f} examples on average' in table
  assert mean > 16
  shown = report.examples(loader)
  assert shown.startswith('an example of a:\n<s>say ')
  assert shown.endswith('</s>⟧') and shown.count('⟦') == 1


def test_examples_longer_than_a_row_follow_the_policy(tmp_path):
  """Counted, never cut at the response's end."""
  found = records(20, 'say')
  found[3]['instruction'] = 'long ' * 100
  found[4]['output'] = 'long ' * 100
  words = r'a\.json, record 4: an example has 5.. tokens'
  with pytest.raises(ValueError, match=words):
    prepare(tmp_path, found)
  # What is too long is one of the records that cannot be used.
  skipped = prepare(tmp_path, found, on_bad_record='skip')
  assert skipped.report['skipped'] == 2 and skipped.report['dropped'] == 0
  told = tokenized.describe(skipped, 'a')
  assert 'a.json, record 4: an example has 5' in told
  dropped = prepare(tmp_path, found, too_long='drop')
  assert dropped.report['dropped'] == 2
  assert dropped.train.num_documents == 18
  cut = prepare(tmp_path, found, too_long='cut_prompt')
  assert (cut.report['dropped'], cut.report['cut']) == (1, 1)
  assert 'a: 1 examples longer than a row were left out, of 1' in (
    tokenized.describe(cut, 'a')
  )


TALK = [
  {'from': 'human', 'value': 'Hi'},
  {'from': 'gpt', 'value': 'Hello'},
]
# Refuses a system message.
REFUSES = (
  '{% if messages[0].role == "system" %}{{ raise_exception("no system") }}'
  '{% endif %}{% for m in messages %}{% if m.role == "user" %}[{{ m.content }}]'
  '{% else %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}'
  '{% endfor %}'
)


def test_what_a_template_cannot_write_is_skipped_with_its_place(tmp_path):
  """The run ended, without file and line, whatever on_bad_record said."""
  jinja = tmp_path / 'chat_template.jinja'
  jinja.write_text(REFUSES)
  system = [{'from': 'system', 'value': 'Be kind.'}, *TALK]
  for template, bad, why in (
    ('alpaca', [*TALK, *TALK], "template 'alpaca' is for one question"),
    ('belle', system, "template 'belle' has no place for a system message"),
    (str(jinja), system, 'the chat_template refuses the conversation: no sys'),
  ):
    found = [{'conversations': bad}, {'conversations': TALK}]
    where = r'a\.json, record 1: '
    with pytest.raises(ValueError, match=where + why):
      prepare(tmp_path, found, template=template)
    made = prepare(tmp_path, found, template=template, on_bad_record='skip')
    assert made.train.num_documents == 1
    assert made.report['skipped'] == 1
    told = tokenized.describe(made, 'a')
    assert '1 records of a were skipped, the first: ' in told and why in told
    kept = (made.folder / 'skipped.txt').read_text().splitlines()
    assert len(kept) == 1 and why in kept[0]
    with pytest.raises(ValueError, match=r'skipped \(1\), the first: .*' + why):
      prepare(tmp_path, found[:1], template=template, on_bad_record='skip')


def test_the_longest_part_of_a_conversation_is_kept_and_counted(tmp_path):
  """trim_turns: another data set, and every turn that it lacks is told."""
  found = [
    {'conversations': [TALK[1], *TALK, TALK[0]]},
    {'conversations': TALK, 'system': 'Be kind.'},
    {'conversations': TALK[:1]},
  ]
  words = r'record 1: turn 1 is of the assistant.*\(trim_turns=True keeps'
  with pytest.raises(ValueError, match=words):
    prepare(tmp_path, found, template='chatml')
  settings = dict(template='chatml', on_bad_record='skip')
  assert prepare(tmp_path, found, **settings).train.num_documents == 1
  made = prepare(tmp_path, found, trim_turns=True, **settings)
  assert made.train.num_documents == 2
  assert 'a: 1 conversations lack 2 turns' in tokenized.describe(made, 'a')
  assert made.report['skipped'] == 1
  texts = {
    tokenizers.Bytes().decode(made.train.example(i)[0].tolist())
    for i in range(2)
  }
  talk = '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello'
  assert {t.rpartition('<|im_end|>')[0] for t in texts} == {
    talk,
    '<|im_start|>system\nBe kind.<|im_end|>\n' + talk,
  }


def test_where_nothing_fits_the_longest_is_named(tmp_path):
  """It said that all documents are held out."""
  found = records(3, 'say ' * 40)
  words = 'all of its documents are longer than a row of 64 tokens, the longest'
  with pytest.raises(ValueError, match=words + ' of 184; take longer'):
    prepare(tmp_path, found, seq_len=64, too_long='drop')


def test_what_is_empty_is_counted_by_the_cleaning_that_drops_it(tmp_path):
  """The run stopped at a record that a rule was to leave out."""
  found = records(3, 'say')
  found[1]['output'] = ' '
  found += [{'conversations': [*TALK, TALK[0], {'from': 'gpt', 'value': ''}]}]
  rules = cleaning.Rules(drop_empty=True)
  made = prepare(tmp_path, found, cleaning=rules)
  assert made.report['cleaned'] == [4, 2] and not made.report['skipped']
  found[1]['output'] = None
  with pytest.raises(ValueError, match="record 2: the field 'output' is None"):
    prepare(tmp_path, found, cleaning=rules)


def test_columns_of_other_types_beside_a_conversation_do_no_harm(tmp_path):
  """A table's column of times broke the run without file and line."""
  import datetime

  import pyarrow
  import pyarrow.parquet

  found = {'instruction': 'say', 'output': 'yes', 'system': None}
  found['made'] = datetime.datetime(2023, 5, 1)
  path = tmp_path / 'a.parquet'
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist([found]), path)
  made = prepare(tmp_path, [], path=str(path))
  assert made.train.num_documents == 1


def weighted(num, weight):
  return [
    {
      'messages': [
        {'role': 'user', 'content': f'Count to {i}.'},
        {'role': 'assistant', 'content': 'one', 'weight': weight},
      ]
    }
    for i in range(num)
  ]


@pytest.mark.parametrize(
  ('found', 'words'),
  [
    (
      weighted(6, 0),
      'sources.a: nothing is learnt of its 6 documents: ',
    ),
    (weighted(40, 0) + weighted(1, 1), 'no target of the 1 rows of this run'),
  ],
)
def test_a_run_that_learns_nothing_is_refused(tmp_path, found, words):
  """Its loss was 0.0000, and it ended well."""
  config = common.base()
  config.data.sources.a = common.source(path='a', template='plain')
  loader = make(prepare(tmp_path, found, seq_len=32), seq_len=32, batch_size=1)
  with pytest.raises(ValueError, match=words):
    data.check_learnt(config, loader, 1)
  if len(found) > 6:
    assert 'of 40 of 41 conversations of a nothing is' in report.table(
      loader, 1
    )
    data.check_learnt(config, loader, 100)


def test_a_source_too_small_to_be_read_is_refused(tmp_path):
  """It stood in the table with 0.0%, and no step saw it."""
  config = common.base()
  made = {}
  for name in 'ab':
    config.data.sources[name] = common.source(path=name, template='plain')
    made[name] = prepare(tmp_path, weighted(6, 1), seq_len=32)

  def of(share):
    return loader_lib.Loader(
      made,
      {'a': 1 - share, 'b': share},
      seq_len=32,
      batch_size=1,
      seed=0,
      tokenizer=tokenizers.Bytes(),
    )

  data.check_learnt(config, of(0.001), 1)
  with pytest.raises(ValueError, match=r'sources.b: its share .* 0.0004, and'):
    data.check_learnt(config, of(0.0004), 1)
  data.check_learnt(config, of(0.0004), 1, begins=False)  # it trained so


def test_texts_of_which_nothing_can_be_predicted_are_refused(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('a\n\nb\n')
  config = common.base()
  config.data.sources.a = common.source(path='a')
  made = build.prepare(
    sources.Source(name='a', path=str(path)),
    tokenizers.Bytes(),
    cache_dir=tmp_path / 'cache',
    num_workers=1,
    bos=False,
    eos=False,
    progress=False,
  )
  with pytest.raises(ValueError, match='its documents are of one token'):
    data.check_learnt(config, make(made, packed=()), 1)


def test_a_chat_template_is_given_by_its_path(tmp_path):
  """Its text counts, not its name: an edited template is another dataset."""
  path = tmp_path / 'chat_template.jinja'
  text = (
    '{% for m in messages %}{% if m.role == "assistant" %}{% generation %}'
    '{{ m.content }}!{% endgeneration %}{% else %}[{{ m.content }}]'
    '{% endif %}{% endfor %}'
  )
  path.write_text(text)
  found = [{'instruction': 'say', 'output': 'yes'}]
  made = prepare(tmp_path, found, template=str(path))
  ids, weights = made.train.example(0)
  assert tokenizers.Bytes().decode(ids.tolist()) == '[say]yes!'
  assert tokenizers.Bytes().decode(ids[weights > 0].tolist()) == 'yes!'
  path.write_text(text.replace('!', '?'))
  again = prepare(tmp_path, found, template=str(path))
  assert again.fingerprint != made.fingerprint


def test_each_epoch_packs_anew(tmp_path):
  """The same examples side by side in every epoch would be seen so only."""
  loader = make(prepare(tmp_path, records(200, 'say')), batch_size=1)
  num_rows = round(1 / loader.fill('a') * loader.data[0].num_tokens / 256)

  def rows(epoch):
    places = range(epoch * num_rows, (epoch + 1) * num_rows)
    return {loader.row(place)['ids'].tobytes() for place in places}

  assert len(rows(0)) == len(rows(1)) == num_rows
  assert rows(0) != rows(1)


def test_a_malformed_file_is_named_with_its_line(test_data):
  """One of the published pieces of Chinese Alpaca ends in the middle."""
  folder = test_data / 'sft_alpaca_en_zh' / 'zh_translated'
  (broken,) = folder.glob('*9407-12345*')
  source = sources.Source(name='zh', path=str(broken), template='alpaca')
  words = r'未完成\.json, line 14007: invalid JSON .*column 1'
  with pytest.raises(ValueError, match=words):
    list(sources.documents(source))


def test_fields_are_renamed(tmp_path):
  """Other people's names; a missing one is told with what is there."""
  found = [{'q': 'say', 'a': 'yes', 'id': 3}]
  columns = {'instruction': 'q', 'output': 'a'}
  made = prepare(tmp_path, found, columns=columns)
  ids, weights = made.train.example(0)
  assert tokenizers.Bytes().decode(ids[weights > 0].tolist()) == 'yes'
  with pytest.raises(ValueError, match=r"no field 'answer'.*fields: "):
    prepare(tmp_path, found, columns={'output': 'answer'})


def test_what_cleaning_leaves_out_is_not_trained_on_and_told(tmp_path):
  """Also in forms that the rules do not know; samples lie beside the data."""
  found = [
    {
      'conversations': [
        {'from': 'human', 'value': r['instruction']},
        {'from': 'gpt', 'value': r['output']},
      ]
    }
    for r in records(30, 'say')
  ]
  found += [found[4]] * 3
  rules = cleaning.Rules(drop_duplicates=True, min_characters=3)
  prepared = prepare(tmp_path, found, cleaning=rules)
  short = sum(len(r['output'].strip()) < 3 for r in records(30, 'say'))
  assert short and prepared.train.num_documents == 30 - short
  assert prepared.report['cleaned'] == [33, 30 - short]
  told = tokenized.describe(prepared, 'a')
  assert f'a: cleaning left {30 - short} of 33 records' in told
  table = (prepared.folder / 'cleaning.md').read_text()
  assert '| duplicate | 3 |' in table
  stricter = cleaning.Rules(drop_duplicates=True, min_characters=4)
  other = prepare(tmp_path, found, cleaning=stricter)
  assert other.train.num_documents < prepared.train.num_documents
  other = prepare(tmp_path, found)
  assert other.fingerprint != prepared.fingerprint
  assert other.train.num_documents == 33


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(template='alpacca'), 'alpaca, '),
    (dict(loss='both'), "loss='both' is unknown"),
    (dict(too_long='cut'), "too_long='cut' is unknown"),
  ],
)
def test_unknown_settings_are_refused(tmp_path, changes, words):
  found = records(3, 'say') + [{'instruction': 'x' * 300, 'output': 'y'}]
  with pytest.raises(ValueError, match=words):
    prepare(tmp_path, found, **changes)


# ------------------------------------------------------------ whole runs

CONFIG = """
from lbe.configs import common
from lbe.configs import quickstart


def get_config():
  config = quickstart.get_config()
  for name in ('en', 'zh'):
    config.data.sources[name].proportion = 0.2
  for name, template in (('a', 'alpaca'), ('b', 'belle'), ('c', 'plain')):
    config.data.sources[name] = common.source(
      path='FOLDER/' + name + '.json',
      template=template,
      proportion=0.2,
      holdout=0.1,
    )
  config.evals.a = common.perplexity(source='a', at_start=False)
  return config
"""


@pytest.fixture(scope='module')
def five(tmp_path_factory):
  """The flags of a run over two texts and three sets of instructions."""
  folder = tmp_path_factory.mktemp('five')
  for name in 'abc':
    text = json.dumps(records(60, name))
    (folder / f'{name}.json').write_text(text)
  path = folder / 'five.py'
  path.write_text(CONFIG.replace('FOLDER', str(folder)))
  return (
    f'--config={path}',
    *runs.TINY[1:],
    '--config.data.seq_len=384',
    '--config.model.max_positions=384',
    '--config.budget.steps=12',
    '--config.checkpoint.every=6',
    f'--config.data.cache_dir={folder / "cache"}',
    '--log_batches',
  )


def test_a_mixture_of_five_sources_resumes_bit_for_bit(five, tmp_path):
  """Packed rows are a function of the step, as all others are."""
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  output = runs.run('train', *five, f'--workdir={whole}', num_devices=8)
  digests = runs.digests(output)
  assert (whole / 'data.txt').read_text().count('an example of') == 5
  # As after a kill behind step 6: what was written later is lost.
  shutil.copytree(whole, broken)
  shutil.rmtree(broken / 'checkpoints' / '12')
  again = runs.run('train', *five, f'--workdir={broken}', num_devices=8)
  assert 'resuming at step 6' in again
  later = runs.digests(again)
  assert later == {k: v for k, v in digests.items() if k[0] > 6}
  assert runs.losses(broken) == runs.losses(whole)
  jax.tree.map(
    np.testing.assert_array_equal,
    runs.load(broken),
    runs.load(whole),
  )
  two = tmp_path / 'two'
  shutil.copytree(whole, two)
  shutil.rmtree(two / 'checkpoints' / '12')
  address = f'--coordinator_address=localhost:{runs.free_port()}'
  both = [
    runs.start(
      'train',
      *five,
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
  parts = [runs.digests(o) for o in outputs]
  assert {**parts[0], **parts[1]} == later
  np.testing.assert_allclose(
    list(runs.losses(two).values()),
    list(runs.losses(whole).values()),
    rtol=0,
    atol=1e-5,
  )


def test_the_real_job_small_tunes_and_scores_responses(test_data, tmp_path):
  """LoRA on the trained model; held-out responses in bits per byte."""
  environment = os.environ | {'LBE_TEST_DATA': str(test_data)}
  old = dict(os.environ)
  os.environ.update(environment)
  try:
    output = runs.run(
      'train',
      '--config=configs/small_instruct.py:lora',
      f'--workdir={tmp_path}',
      '--config.data.sources.en.path='
      + str(test_data / 'sft_alpaca_en_zh' / 'alpaca_5000.json'),
      '--config.data.sources.en.proportion=1.0',
      '--config.data.sources.zh.proportion=0.0',
      '--config.data.sources.zh.path='
      + str(test_data / 'sft_alpaca_en_zh' / 'alpaca_5000.json'),
      '--config.data.sources.en.max_documents=200',
      '--config.evals.en.limit=8',
      '--config.evals.zh.limit=8',
      '--config.data.batch_size=2',
      '--config.budget.epochs=0',
      '--config.budget.steps=8',
      '--config.log_every=4',
    )
  finally:
    os.environ.clear()
    os.environ.update(old)
  assert 'parameters learn' in output and 'body: ' in output
  rows = [
    json.loads(line)
    for line in (tmp_path / 'results.jsonl').read_text().splitlines()
  ]
  of_context = [r for r in rows if r['evaluator'] == 'in_context']
  assert {r['step'] for r in of_context} == {0, 8}
  copied = [r for r in of_context if r['name'] == 'copy']
  assert copied[0]['start'] == copied[1]['start'] == copied[0]['value']
  assert 'in_context/copy' in output and 'warning: in_context: copy' in output
  en = [r for r in rows if r['evaluator'] == 'en']
  assert {r['protocol'] for r in en} == {'perplexity@responses'}
  before, after = (r['value'] for r in en if r['name'] == 'bits_per_byte')
  assert after < before and math.isfinite(after)
  meta = checkpoint.read_meta(tmp_path)
  assert len(meta['model']['lora']['weights']) == 7
