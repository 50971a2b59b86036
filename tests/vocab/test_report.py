"""The report's figures, by hand."""

import json

import pytest

from lbe.vocab import extend
from lbe.vocab import report
from lbe.vocab import tokenizers

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
  found = report.measure(tokenizers.Bytes(), ['ab c', '雨'], context=14)
  assert found == {
    'texts': 2,
    'tokens': 7,
    'bytes_per_token': 1.0,
    'characters_per_token': 5 / 7,
    'tokens_per_word': 7 / 3,
    'byte_fallback': 1.0,
    'context_characters': 10,
    'round_trip_failures': 0,
    'pieces_used': 7,
    'longest_pieces': [],
  }


def extension(test_data, *pieces):
  """LLaMA's tokenizer and the same with pieces below its last merge."""
  base = tokenizers.load(test_data / 'tok_llama_32000')
  return base, extend.below(base, list(pieces))


def test_drift_is_told_in_texts_and_in_tokens(test_data):
  """Of a long text with one other word all tokens would look changed."""
  base, new = extension(test_data, '晋国', '国君')
  texts = ['old words', 'Here 晋国 is one.', 'He 国君 said']
  found = report.compare(base, new, texts)
  assert (found['texts_changed'], found['added_used']) == (2, 2)
  # 晋 is three bytes and 国 a piece; 国 and 君 are pieces.
  assert found['tokens_changed'] == 4 + 2
  assert found['longest_added'] == ['晋国', '国君']
  assert found['after']['longest_pieces'][0] == 'words'
  again = report.compare(new, new, texts)
  assert (again['texts_changed'], again['tokens_changed']) == (0, 0)


def test_scripts_are_counted_by_the_letters_of_each_token(test_data):
  """Bytes of a rare character belong to its script, spaces to none."""
  base, new = extension(test_data, '晋国')
  found = report.by_script(base, ['Here 晋国', '晋, 12'])
  assert list(found) == ['CJK', 'other', 'LATIN']
  assert found['CJK'] == {
    'tokens': 7,
    'bytes_per_token': 9 / 7,
    'characters_per_token': 3 / 7,
    'byte_fallback': 6 / 7,
  }
  assert found['LATIN'] == {
    'tokens': 1,
    'bytes_per_token': 5.0,
    'characters_per_token': 4.0,
    'byte_fallback': 0.0,
  }
  assert report.by_script(new, ['Here 晋国'])['CJK']['tokens'] == 1


def test_the_summary_counts_what_is_never_produced(test_data):
  """Rows of the embedding that no text trains."""
  base, new = extension(test_data, '晋国', '郑国君臣')
  assert report.summary(base)['unreachable'] == 0
  found = report.summary(new, base)
  # No two pieces join into the second.
  assert (found['added'], found['added_unreachable']) == (2, 1)
  assert (found['pieces'], found['unreachable']) == (32_002, 1)
  found = report.summary(extend.below(new, ['春季']), new)
  assert (found['unreachable'], found['added_unreachable']) == (1, 0)
  with pytest.raises(ValueError, match='swap --base and --tokenizer'):
    report.summary(base, new)


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
    '--per_script',
    *texts,
  )
  assert 'never produced by encoding → 49,346, 0; of the 17,346 added 0' in (
    output
  )
  assert '| 122,541 → 57,617 |' in output
  assert '| 1,996 of 1,997 |' in output and '| 0 of 1,997 |' in output
  assert (tmp_path / 'report' / 'report.png').stat().st_size > 10_000
  assert '| CJK |' in output and '| LATIN | 52,173 | 4.60 | 4.56 |' in output
  found = json.loads((tmp_path / 'report' / 'report.json').read_text())
  assert found['sets']['newstest2019-src.eng.txt']['tokens_changed'] == 0
  assert (tmp_path / 'report' / 'report.md').read_text().strip() in output
  copy = tmp_path / 'copy'
  runs.run('tokenizer', 'export', f'--tokenizer={extended}', f'--output={copy}')
  assert (
    tokenizers.load(copy).fingerprint == tokenizers.load(extended).fingerprint
  )


def test_sets_of_one_file_name_are_told_by_their_paths(tmp_path):
  """zh/test.txt and en/test.txt were one row, of the last."""
  texts = {'zh/test.txt': '下雨了', 'en/test.txt': 'it rains', 'own.txt': 'ab'}
  for name, text in texts.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
  output = runs.run(
    'tokenizer',
    'report',
    '--tokenizer=bytes',
    f'--output={tmp_path}/report',
    *(f'--texts={tmp_path / name}' for name in texts),
  )
  found = json.loads((tmp_path / 'report' / 'report.json').read_text())
  wanted = {
    str(tmp_path / 'zh/test.txt'): 9,
    str(tmp_path / 'en/test.txt'): 8,
    'own.txt': 2,
  }
  got = {name: row['before']['tokens'] for name, row in found['sets'].items()}
  assert got == wanted
  for name in wanted:
    assert f'| {name} |' in output


def test_commands_say_what_they_need(tmp_path):
  record = {'base': 'llama', 'corpus': ['x'], 'added': ['a', 'b']}
  (tmp_path / 'extension.json').write_text(json.dumps(record))
  held = tmp_path / 'held'
  held.mkdir()
  (held / 'tokenizer.json').write_text('{}')
  for arguments, words in (
    (('extnd',), "'extnd' is no command; take one of train, extend"),
    (('extend', '--base=x'), 'extend needs --output'),
    (
      ('export', 'tokenizer=x', '--output=y'),
      "'tokenizer=x' is no flag; write --tokenizer=x",
    ),
    (
      ('extend', '--base=x', f'--output={tmp_path}'),
      'extend needs --corpus (text to learn pieces from) or --add',
    ),
    (
      (
        'extend',
        '--base=x',
        '--corpus=x',
        '--num_pieces=1',
        '--score_mode=zero',
        f'--output={tmp_path}',
      ),
      '--score_mode=zero goes with --add',
    ),
    (
      (
        'extend',
        f'--base={tmp_path}',
        '--corpus=x',
        '--num_pieces=9',
        f'--output={tmp_path}/again',
      ),
      'was extended with x before, by 2 pieces',
    ),
    (
      ('export', '--tokenizer=bytes', f'--output={held}'),
      'held already holds tokenizer.json, which nothing writes over',
    ),
    (
      ('extend', '--base=bytes', '--add=bytes', f'--output={tmp_path}'),
      "--base=bytes is no SentencePiece model but of the kind 'bytes'",
    ),
  ):
    assert words in runs.run('tokenizer', *arguments, status=1)
