"""The report's figures, by hand."""

import json

import pytest

from lbe.vocab import load as vocab
from lbe.vocab import report

import runs


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('It rained, twice.', 3),
    ('下雨了。', 3),
    ('GPU 训练 2 次 — ok', 6),
    ('हिन्दी में लिखा', 3),  # vowel signs do not end a word
    (' ... ', 0),
  ],
)
def test_words_are_counted_as_each_script_writes_them(text, words):
  """A fertility over wrong words compares nothing."""
  assert report.count_words(text) == words


def test_figures_of_bytes_are_known():
  """One token a byte, whatever the text."""
  found = report.measure(vocab.Bytes(), ['ab c', '雨'], context=14)
  assert found == {
    'texts': 2,
    'tokens': 7,
    'bytes_per_token': 1.0,
    'characters_per_token': 5 / 7,
    'tokens_per_word': 7 / 3,
    'byte_fallback': 1.0,
    'context_characters': 10,
    'round_trip_failures': 0,
  }


def test_the_commands_extend_measure_and_export(test_data, tmp_path):
  """From two models to a folder, a table, and a picture."""
  base = test_data / 'tok_llama_32000' / 'tokenizer.model'
  added = test_data / 'tok_chinese_sp_20000' / 'chinese_sp.model'
  texts = [
    f'--texts={test_data}/text_ntrex/newstest2019-{name}.txt'
    for name in ('ref.zho-CN', 'src.eng')
  ]
  extended = tmp_path / 'extended'
  output = runs.run(
    'tokenizer',
    'extend',
    f'--base={base}',
    f'--add={added}',
    f'--output={extended}',
  )
  assert 'notice: normalisers differ' in output
  assert '17,346 pieces added, 317 of them to lead to others' in output
  record = json.loads((extended / 'extension.json').read_text())
  assert len(record['added']) == 17_346 and record['unreachable'] == []
  output = runs.run(
    'tokenizer',
    'report',
    f'--base={base}',
    f'--tokenizer={extended}',
    f'--output={tmp_path}/report',
    *texts,
  )
  assert '| 122,541 → 57,617 |' in output
  assert '| 1,996 of 1,997 |' in output and '| 0 of 1,997 |' in output
  assert (tmp_path / 'report' / 'report.png').stat().st_size > 10_000
  assert (tmp_path / 'report' / 'report.md').read_text().strip() in output
  copy = tmp_path / 'copy'
  runs.run('tokenizer', 'export', f'--tokenizer={extended}', f'--output={copy}')
  assert vocab.load(copy).fingerprint == vocab.load(extended).fingerprint


def test_commands_say_what_they_need(tmp_path):
  for arguments, words in (
    (('extnd',), "'extnd' is no command; take one of train, extend"),
    (('extend', '--base=x'), 'extend needs --output'),
    (
      ('extend', '--base=x', f'--output={tmp_path}'),
      'extend needs --corpus (text to learn pieces from) or --add',
    ),
    (
      ('extend', '--base=bytes', '--add=bytes', f'--output={tmp_path}'),
      "--base=bytes is no SentencePiece model but of the kind 'bytes'",
    ),
  ):
    assert words in runs.run('tokenizer', *arguments, status=1)
