"""Documents of text files and JSONL: how they are cut, and what is refused."""

import json

import pytest

from lbe.data import sources


def read(path, skipped=None, **fields):
  source = sources.Source(name='zh', path=str(path), **fields)
  return [text for text, _ in sources.documents(source, skipped)]


TEXT = '\ufeff one\ntwo  \n\n\n三\r\n \n\n= not =\n'


@pytest.mark.parametrize(
  ('cut', 'documents'),
  [
    ('blank_line', [' one\ntwo  ', '三', '= not =']),
    ('line', [' one', 'two  ', '三', '= not =']),
    ('file', [' one\ntwo  \n\n\n三\n \n\n= not =']),
  ],
)
def test_text_is_cut_as_the_source_says(tmp_path, cut, documents):
  """Inner white space is text; a byte order mark is not."""
  path = tmp_path / 'a.txt'
  path.write_bytes(TEXT.encode())
  assert read(path, cut=cut) == documents


def test_headings_start_documents(tmp_path):
  """WikiText's ` = Title = ` does, its sections ` = = Title = = ` do not."""
  path = tmp_path / 'a.txt'
  path.write_text(' = A = \n\n a \n\n = = A1 = = \n a1 \n = B = \n b \n')
  assert read(path, cut='heading') == [
    ' = A = \n\n a \n\n = = A1 = = \n a1 ',
    ' = B = \n b ',
  ]


def test_wikitext_has_its_articles(test_data):
  """The validation set has 60 articles (Merity et al. 2016, table 1)."""
  path = test_data / 'text_en_wikitext2' / 'wiki.validation.raw.txt'
  assert len(read(path, cut='heading')) == 60


def test_folders_are_read_in_order_and_jsonl_by_its_field(tmp_path):
  """Hidden files are no text."""
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'c.txt').write_text('c')
  (tmp_path / 'a.jsonl').write_text(
    json.dumps({'body': 'a\n\nb'}) + '\n\n' + json.dumps({'body': ' '}) + '\n'
  )
  (tmp_path / '.hidden.txt').write_text('x')
  assert read(tmp_path, field='body') == ['a\n\nb', 'c']


def test_invalid_utf8_fails_with_file_and_line_or_is_counted(tmp_path):
  """A bad byte would become a replacement character in a thousand texts."""
  path = tmp_path / 'a.txt'
  path.write_bytes(
    '好\n\nbad '.encode() + b'\xff\nrest\n\n' + '好了\n'.encode()
  )
  with pytest.raises(ValueError, match=r'a\.txt, line 3: invalid UTF-8'):
    read(path)
  skipped = []
  assert read(path, skipped, on_bad_record='skip') == ['好', '好了']
  assert len(skipped) == 1 and 'line 3' in skipped[0]


@pytest.mark.parametrize(
  ('line', 'words'),
  [
    ('{"text": "cut', r'a\.jsonl, line 2: invalid JSON'),
    (
      '{"body": "x", "id": 3}',
      r"line 2: no text in the field 'text' .*body, id",
    ),
    ('["x"]', 'line 2: a record is an object with fields'),
    ('{"text": 3}', "line 2: no text in the field 'text'"),
  ],
)
def test_bad_records_fail_or_are_counted(tmp_path, line, words):
  """Line N of file F, and how to go on without it."""
  path = tmp_path / 'a.jsonl'
  path.write_text(f'{{"text": "a"}}\n{line}\n{{"text": "b"}}\n')
  with pytest.raises(ValueError, match=words):
    read(path)
  with pytest.raises(ValueError, match="set on_bad_record='skip'"):
    read(path)
  skipped = []
  assert read(path, skipped, on_bad_record='skip') == ['a', 'b']
  assert len(skipped) == 1


def test_sources_without_text_are_refused(tmp_path):
  """An empty source would be epochs of nothing."""
  with pytest.raises(ValueError, match='zh: there is nothing at'):
    read(tmp_path / 'absent')
  with pytest.raises(ValueError, match='has no file that ends in .txt'):
    read(tmp_path)
  (tmp_path / 'a.txt').write_text(' \n\n')
  with pytest.raises(ValueError, match='zh: .* holds no document'):
    read(tmp_path)


def test_settings_are_checked(tmp_path):
  """A misspelt cut must not fall back to another."""
  for fields, words in (
    (dict(cut='lines'), "cut='lines' is unknown; take one of blank_line"),
    (dict(kind='csv'), "kind='csv' is unknown"),
    (dict(on_bad_record='drop'), "on_bad_record='drop' is unknown"),
    (dict(holdout=1.0), 'holdout=1.0 is no share'),
  ):
    with pytest.raises(ValueError, match=words):
      read(tmp_path, **fields)
