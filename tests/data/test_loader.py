"""Batches by step: the same whoever asks, and what the table says of them."""

import re

import numpy as np
import pytest

from lbe.data import build
from lbe.data import loader as loader_lib
from lbe.data import report
from lbe.data import skipped
from lbe.data import sources
from lbe.text import lines
from lbe.vocab import tokenizers


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  found = {}
  for name, text in (('zh', '中文 {} 。'), ('en', 'English {} . ')):
    path = folder / f'{name}.txt'
    path.write_text(
      '\n\n'.join(text.format(i) * (1 + i % 7) for i in range(300))
    )
    found[name] = build.prepare(
      sources.Source(name=name, path=str(path)),
      tokenizers.Bytes(),
      cache_dir=folder,
      num_workers=1,
      progress=False,
    )
  return found


def make(prepared, **changes):
  settings = dict(seq_len=32, batch_size=8, seed=0) | changes
  return loader_lib.Loader(
    prepared, {'zh': 0.8, 'en': 0.2}, tokenizer=tokenizers.Bytes(), **settings
  )


def test_iterating_from_a_step_equals_asking_for_it(prepared):
  """A resumed run must see the batches that it has not seen."""
  loader = make(prepared)
  for first in (0, 7):
    for step, batch in enumerate(loader.iterator(first, 3), first):
      for name, x in loader.rows(step).items():
        np.testing.assert_array_equal(batch[name], x, err_msg=name)
  assert list(loader.iterator(5, 0)) == []


def test_hosts_rows_are_slices_of_the_batch(prepared):
  """Hosts that draw by their own number would repeat rows."""
  loader = make(prepared)
  whole = loader.rows(3)
  parts = [loader.rows(3, slice(0, 4)), loader.rows(3, slice(4, 8))]
  for name, x in whole.items():
    np.testing.assert_array_equal(
      np.concatenate([part[name] for part in parts]), x
    )


def test_what_a_skipped_step_read_is_written_with_its_documents(
  prepared, tmp_path
):
  """A spike whose text nobody can find."""
  loader = make(prepared)
  skipped.write(tmp_path, loader, [2, 3])
  told = lines.rows(tmp_path / 'skipped.jsonl')
  assert [(x['step'], x['row']) for x in told] == [
    (step, row) for step in (2, 3) for row in range(8)
  ]
  texts = {'zh': '中文 {} 。', 'en': 'English {} . '}
  for x in told:
    first, last = x['documents'][0], x['documents'][-1]
    whole = ''.join(
      texts[x['source']].format(i) * (1 + i % 7) for i in x['documents']
    )
    assert x['epoch'] == 0 and x['text']
    # Rows cut characters in two, and documents at both ends.
    assert first == last or len(x['documents']) < 4
    inside = x['text'].strip('\ufffd ').replace('<s>', '').replace('</s>', '')
    assert set(inside) <= set(whole) | set('\x01\x02\ufffd'), x
    for number in re.findall(r'(?<= )\d+(?= )', inside):
      assert int(number) in x['documents']


def test_digests_tell_batches_apart(prepared):
  """They prove that another run saw the same rows."""
  digests = {make(prepared).digest(step) for step in range(50)}
  assert len(digests) == 50
  assert make(prepared).digest(0) in digests
  assert make(prepared, seed=1).digest(0) not in digests


def test_an_epoch_of_a_source_takes_each_of_its_rows_once(prepared):
  """Across blocks and batches, at its share of the places."""
  loader = make(prepared)
  places = [loader.locate(k) for k in range(4000)]
  for i, share in enumerate((0.8, 0.2)):
    mine = [(epoch, row) for source, epoch, row in places if source == i]
    assert len(mine) == 4000 * share
    num_rows = loader.num_rows[i]
    for epoch in range(len(mine) // num_rows):
      part = mine[epoch * num_rows : (epoch + 1) * num_rows]
      assert sorted(part) == [(epoch, row) for row in range(num_rows)]


def test_bytes_are_those_of_the_scored_targets(prepared):
  """Bits per byte divides by them; specials stand for no byte."""
  batch = make(prepared).rows(2)
  scored = batch['weights_BT'] > 0
  expected = (scored & (batch['targets_BT'] >= 3)).sum(axis=1)
  np.testing.assert_array_equal(batch['num_bytes_B'], expected)
  assert (scored & (batch['targets_BT'] < 3)).any(), 'EOS is a target, too'


def test_the_table_says_what_is_there_and_what_will_be_made(prepared):
  """The first thing that a run prints."""
  table = report.table(make(prepared), num_steps=250)
  lines = table.splitlines()
  assert lines[0].split('  ')[0].strip() == 'source'
  zh = next(line for line in lines if line.startswith('zh')).split()
  data = prepared['zh'].train
  assert zh[1] == '300'
  assert zh[2] == f'{data.num_bytes:,}'
  assert zh[3] == f'{data.num_tokens:,}'
  assert zh[4:6] == ['80.0%', '80.0%']
  num_rows = -(-(data.num_tokens - 1) // 32)
  assert zh[6] == f'{1600 / num_rows:.2f}'
  assert zh[-1] == f'{data.document_lengths.max():,}'


def test_a_table_fits_the_terminal_and_loses_nothing(prepared):
  """Lines of 150 characters are no table on a screen of 80."""
  loader = make(prepared)
  whole = report.table(loader, 250).splitlines()[:3]
  cut = report.table(loader, 250, 80).splitlines()[:6]
  assert max(map(len, whole)) > 100 and max(map(len, cut)) <= 80
  assert 'epochs' in cut[0] and cut[3].startswith('source')
  below = [line.split(maxsplit=1)[1] for line in cut[3:]]
  for a, b, c in zip(whole, cut[:3], below, strict=True):
    assert a.split() == b.split() + c.split()


def test_less_than_an_epoch_and_a_row_that_is_half_empty_are_no_zeros(prepared):
  """Epochs of 0.00, and no padding where most of a short text's row is."""
  (_, zh, _), loader = _cells(make(prepared)), make(prepared)
  used = loader.rows_used(1)[0] / loader.num_rows[0]
  assert used < 0.1 and zh[6] == f'{used:.2g}'
  long = make(prepared, seq_len=1 << 14)
  _, zh, _ = _cells(long)
  padding = 1 - prepared['zh'].train.num_tokens / (long.num_rows[0] << 14)
  assert float(zh[11].rstrip('%')) == pytest.approx(100 * padding, abs=0.06)


def _cells(loader):
  lines = report.table(loader, num_steps=1).splitlines()
  return [line.split() for line in lines[:3]]


def test_a_decoded_row_shows_where_documents_end(prepared):
  loader = make(prepared, seq_len=100)
  text = report.row(loader, 0, 0)
  segments = loader.rows(0)['segments_BT'][0].max()
  assert segments > 1
  assert text.count('┃') == segments
  assert '⟦' not in text  # what is learnt


def test_an_example_of_a_text_shows_what_is_learnt(prepared):
  """All but its first token, which nothing predicts; a long one is cut."""
  shown = report.examples(make(prepared))
  zh, en = shown.split('\n\nan example of en:\n')
  text = zh.removeprefix('an example of zh:\n')
  assert text.startswith('<s>⟦中文 ') and en.startswith('<s>⟦English ')
  for part, name in ((text, 'zh'), (en, 'en')):
    length = prepared[name].train.document_lengths[0]
    assert part.endswith('⟧…' if length > 200 else '</s>⟧')
