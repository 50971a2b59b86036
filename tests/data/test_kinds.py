"""What a file holds, whatever its name: read rightly, or refused by name."""

import bz2
import csv
import gzip
import io
import json
import tarfile
import zipfile

import pytest

from lbe.data import kinds
from lbe.data import sources
from lbe.text import files

RECORDS = [{'text': f'第{i}篇。\n天地玄黄', 'id': i} for i in range(3)]
TEXTS = [record['text'] for record in RECORDS]
LINES = ''.join(f'{json.dumps(r, ensure_ascii=False)}\n' for r in RECORDS)


def read(path, skipped=None, **fields):
  source = sources.Source(name='zh', path=str(path), **fields)
  return [text for text, _ in sources.documents(source, skipped)]


@pytest.mark.parametrize('kind', ['auto', 'text'])
@pytest.mark.parametrize(
  'name',
  'a.jsonl A.JSONL a.jl a.ndjson a.jsonl.1 a.jsonl.001 wiki_00 a.json a.txt '
  'a.csv a.tsv part-00000 a.jsonl-00000-of-00001 a.log a.parquet'.split(),
)
def test_json_lines_are_read_under_any_ending(tmp_path, name, kind):
  """As text each would be one document of JSON syntax."""
  path = tmp_path / name
  path.write_text(LINES, encoding='utf-8')
  assert read(path, kind=kind) == TEXTS
  assert read(tmp_path, kind=kind) == TEXTS  # a folder finds it
  with pytest.raises(ValueError, match="no text in the field 'body'.*text, id"):
    read(path, kind=kind, field='body')


@pytest.mark.parametrize('kind', ['auto', 'text', 'jsonl', 'json'])
@pytest.mark.parametrize(
  'write',
  [
    lambda: LINES.replace('\n', '\r\n'),
    lambda: '\ufeff' + LINES,
    lambda: '\n\n' + LINES,
    lambda: json.dumps(RECORDS),
    lambda: json.dumps(RECORDS, indent=2),
    lambda: '[\n' + ',\n'.join(LINES.splitlines()) + '\n]\n',
    lambda: '\ufeff' + json.dumps(RECORDS),
    lambda: '\n'.join(json.dumps(r, indent=1) for r in RECORDS),
    lambda: '{"text":"' + 'x' * 200_000 + '"}\n' + LINES,
  ],
)
@pytest.mark.parametrize('name', ['a.jsonl', 'a.json', 'a.txt', 'a'])
def test_json_is_read_however_it_is_laid_out(tmp_path, name, write, kind):
  """A dump of a program is lines, one array, or objects over many lines."""
  path = tmp_path / name
  path.write_text(write(), encoding='utf-8', newline='')
  assert read(path, kind=kind)[-3:] == TEXTS
  for pack, ending in ((gzip, '.gz'), (bz2, '.bz2'), (gzip, '')):
    packed = tmp_path / f'b{name}{ending}'
    packed.write_bytes(pack.compress(write().encode()))
    assert read(packed, kind=kind)[-3:] == TEXTS


@pytest.mark.parametrize('name', ['a.json', 'a.jsonl', 'a.txt', 'a'])
@pytest.mark.parametrize('indent', [None, 1])
@pytest.mark.parametrize('on_bad_record', ['fail', 'skip'])
def test_an_object_around_records_is_no_record(
  tmp_path, name, indent, on_bad_record
):
  """The whole file would be one bad record, or "invalid JSON"."""
  path = tmp_path / name
  path.write_text(json.dumps({'n': 3, 'data': RECORDS}, indent=indent))
  for fields in ({}, {'template': 'alpaca'}, {'kind': 'jsonl'}):
    words = "line 1: .*one object, not records: 'data' holds 3 of them"
    with pytest.raises(ValueError, match=words):
      read(path, on_bad_record=on_bad_record, **fields)


def test_where_all_are_skipped_the_first_reason_is_said(tmp_path):
  """ "Is cut right?" sends people after the wrong fault."""
  path = tmp_path / 'a.jsonl'
  path.write_text('{"body": "a"}\n{"body": "b"}\n')
  words = (
    "2 records were skipped, the first: .*line 1: no text in the field 'te"
  )
  with pytest.raises(ValueError, match=words):
    read(path, on_bad_record='skip')


def archive(make):
  data = io.BytesIO()
  make(data)
  return data.getvalue()


def zipped(data):
  with zipfile.ZipFile(data, 'w') as packed:
    # The hour stands in no test's name.
    packed.writestr(zipfile.ZipInfo('a.txt'), 'text')


def tarred(data):
  with tarfile.open(fileobj=data, mode='w') as packed:
    packed.addfile(tarfile.TarInfo('a.txt'))


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (b'<!DOCTYPE html>\n<html>404', 'is an HTML page'),
    (b'\n <HTML><body>', 'is an HTML page'),
    (b'\xef\xbb\xbf<?xml version="1.0"?>', 'is XML'),
    (b'<mediawiki xmlns="x">', 'is XML'),
    (b'<doc id="1" url="u" title="t">', "is WikiExtractor's markup"),
    (b'%PDF-1.7 ...', 'is a PDF'),
    (
      gzip.compress(gzip.compress(b'text', mtime=0), mtime=0),
      'is packed twice',
    ),
    (b'\x80\x04\x95\x00\x00\x00\x00', "is a pickle of Python's"),
    (archive(zipped), 'is a zip archive, .*; unpack it'),
    (archive(tarred), 'is a tar archive'),
    (b'7z\xbc\xaf\x27\x1c', 'is a 7z archive'),
    (b'Rar!\x1a\x07\x00\xcf\x90', 'is a rar archive'),
    (b'Rar!\x1a\x07\x01\x00\x33', 'is a rar archive'),
    (b'Obj\x01\x04\x14avro.codec', 'is an Avro file'),
    (b'ORC\n\x0b\n\x03\x00\x00\x00', 'is an ORC file'),
    (b'%PDF-2.0\n', 'is a PDF'),
    (b'SQLite format 3\x00', 'is an SQLite database'),
    ('文'.encode('utf-16'), 'mark of UTF-16; .*iconv -f UTF-16'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'pointer of Git LFS'),
    (b'one\rtwo\rthree\r', 'ends its lines with CR alone'),
  ],
)
@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl', 'a', 'a.txt.gz'])
@pytest.mark.parametrize('fields', [{}, {'on_bad_record': 'skip'}])
def test_what_is_no_text_is_refused_by_name(
  tmp_path, name, data, words, fields
):
  """An error page of a mirror, or an archive, is trained on elsewhere."""
  path = tmp_path / name
  path.write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
  with pytest.raises(files.Refused, match=rf'{name} .*{words}'):
    read(path, **fields)


@pytest.mark.parametrize('name', ['a.parquet', 'a.arrow', 'a.array_record'])
def test_a_pointer_is_no_table(tmp_path, name):
  path = tmp_path / name
  path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid x\n')
  with pytest.raises(files.Refused, match='is a pointer of Git LFS'):
    read(path)


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl', 'b', 'a.csv', 'a.data.1'])
def test_tables_are_known_under_any_name(tmp_path, name):
  """A row group read as text is garbage with a line number."""
  pa = pytest.importorskip('pyarrow')
  import pyarrow.parquet

  path = tmp_path / name
  table = pa.Table.from_pylist(RECORDS)
  pyarrow.parquet.write_table(table, path)
  assert read(path) == TEXTS == read(path, kind='text')
  for new in (pa.ipc.new_stream, pa.ipc.new_file):
    with new(str(path), table.schema) as writer:
      writer.write_table(table)
    assert read(path) == TEXTS


@pytest.mark.parametrize(
  ('name', 'text', 'words'),
  [
    ('a.txt', 'id,text\n1,a\n2,b\n', "a table .*','.*set kind='csv'"),
    ('a.txt', 'id\ttext\n1\ta\n2\tb\n', "a table .*set kind='tsv'"),
    ('a.jsonl', 'id,text\n1,a\n2,b\n', "a table .*set kind='csv'"),
    ('a.csv', 'id\ttext\n1\ta\n2\tb\n', "a table .*set kind='tsv'"),
    ('a.tsv', 'id,text\n1,a\n2,b\n', "a table .*set kind='csv'"),
    (
      'a.csv',
      'id;text\n1;a\n2;b\n',
      "a table .*parted by ';'.*write it with",
    ),
    ('a.jsonl', 'A text.\n\nOne more.\n', "text, not JSON: .*kind='text'"),
    ('a.json', 'A text.\n', 'text, not JSON: it begins with A text'),
  ],
)
def test_a_text_of_another_kind_is_refused_with_its_kind(
  tmp_path, name, text, words
):
  """Trained on, a table is a text full of commas."""
  path = tmp_path / name
  path.write_text(text)
  for how in ('fail', 'skip'):
    with pytest.raises(files.Refused, match=rf'{name} is {words}'):
      read(path, on_bad_record=how)


@pytest.mark.parametrize(
  'text',
  [
    '[1] Note\n\n{"text": "a line of JSON in a text"}\n',
    '{a} set\nnotation\n',
    '"Well, text, and more," he said.\n\nNext, text, and so on.\n',
    '<p>Markup inside</p>\n',
    '{"a": 1}\nis an object, {"text": 2} another\n',
  ],
)
def test_texts_stay_texts(tmp_path, text):
  """A text that begins as JSON does is no JSON."""
  path = tmp_path / 'a.txt'
  path.write_text(text)
  assert '\n\n'.join(read(path)) + '\n' == text


@pytest.mark.parametrize(
  'word',
  [
    'ORCID',
    'ORCHESTRA',
    'PAR1',
    'ARROW1',
    '%PDF',
    'Rar!',
    'SQLite format 3',
    'BZh9',
    'Obj',
    'PK',
    '7z',
  ],
)
def test_a_word_at_the_beginning_makes_no_binary_file(tmp_path, word):
  """A table whose first column is ORCID was refused as an ORC file."""
  path = tmp_path / 'a.txt'
  path.write_text(f'{word} begins it.\n\nAnd ends it.')
  assert read(path) == [f'{word} begins it.', 'And ends it.']
  for name in ('a.csv', 'b.jsonl', 'b'):
    path = tmp_path / name
    path.write_text(f'{word},text\n1,a\n2,b\n')
    assert read(path, kind='csv') == ['a', 'b']
  path = tmp_path / 'c.txt'
  text = word + ' ' * (257 - len(word)) + 'ustar is a format.'
  path.write_text(text)
  assert read(path) == [text]


@pytest.mark.parametrize('compression', ['uncompressed', 'zlib', 'zstd'])
def test_tables_of_orc_are_refused_by_name(tmp_path, compression):
  """As a text it is told as a broken encoding."""
  orc = pytest.importorskip('pyarrow.orc')
  import pyarrow as pa

  path = tmp_path / 'a.txt'
  for size in (1, 3000):
    table = pa.Table.from_pylist([{'text': 'a' * 100}] * size)
    orc.write_table(table, path, compression=compression)
    with pytest.raises(files.Refused, match='a.txt is an ORC file, not text'):
      read(path)


@pytest.fixture
def short_fields():
  """The limit of the module csv as it is before anybody has read a table."""
  before = csv.field_size_limit(131_072)
  yield
  csv.field_size_limit(before)


def test_a_long_line_that_is_broken_is_told_by_the_line(tmp_path, short_fields):
  """'field larger than field limit (131072)', and no way around it."""
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "' + 'x' * 200_000 + '"\n' + LINES)
  with pytest.raises(ValueError, match=r'line 1: invalid JSON \(.*mend the fi'):
    read(path)
  assert read(path, on_bad_record='skip') == TEXTS


def test_a_very_long_object_around_records_is_told(
  tmp_path, short_fields, monkeypatch
):
  """All of a data set in one line, longer than what is looked at."""
  monkeypatch.setattr(kinds, '_LINE', 1 << 18)
  path = tmp_path / 'a.json'
  path.write_text(json.dumps({'data': [{'text': 'x' * 1000}] * 500}))
  words = "one object, not records: 'data' holds 500 of them"
  with pytest.raises(ValueError, match=words):
    read(path)


def test_a_return_within_a_line_is_text(tmp_path):
  """'new-line character seen in unquoted field' of a text."""
  path = tmp_path / 'a.txt'
  path.write_bytes(b'one\rtwo\n\nthree\n')
  assert read(path) == ['one\rtwo', 'three']


def test_nul_bytes_are_told_by_the_line(tmp_path):
  """A disk that was full leaves them; as text they are trained on."""
  path = tmp_path / 'a.txt'
  path.write_bytes(b'good\n\nbad\0\0\0\n\nwell\n')
  with pytest.raises(ValueError, match='a.txt, line 3: a NUL byte'):
    read(path)
  assert read(path, on_bad_record='skip') == ['good', 'well']


def test_ordinary_files_need_no_word_in_a_fingerprint(tmp_path):
  """What runs of before have prepared is found again; what was wrong is not."""
  for name, text in {
    'a.txt': 'a',
    'b.jsonl': LINES,
    'c.json': LINES,
    'd.json': json.dumps(RECORDS),
    'e.csv': 'text,id\na,1\n',
  }.items():
    (tmp_path / name).write_text(text)
  assert sources.kinds(sources.Source(name='zh', path=str(tmp_path))) == {}
  for name in ('wiki_00', 'A.JSONL', 'a.jsonl.1'):
    path = tmp_path / 'others' / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(LINES)
    source = sources.Source(name='zh', path=str(path))
    assert sources.kinds(source) == {'0': 'jsonl'}


def test_a_field_that_is_no_text_is_told_with_what_it_holds(tmp_path):
  """A table by its columns, a text that is null."""
  path = tmp_path / 'a.json'
  for text, words in (
    (
      '{"text": ["a", "b"], "id": [1, 2]}',
      r"holds \['a', 'b'\]",
    ),
    ('{"text": null}\n' + LINES, 'which holds None'),
    (' \n\n', 'holds no document'),
    ('"a"\n"b"\n', "a record is an object with fields, not 'a'"),
    (
      '{"features": [{"name": "text"}], "rows": [{"row": 1}, {"row": 2}]}',
      "'rows' holds 2 of them",
    ),
  ):
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
      read(path)


def test_binary_is_given_no_encoding(tmp_path):
  """iconv would make a text of it."""
  path = tmp_path / 'a.txt'
  path.write_bytes(b'\x80\x03}q\x00X\x04\x00\x00\x00\xff\xfe text')
  with pytest.raises(ValueError, match='line 1: invalid UTF-8') as raised:
    read(path)
  assert 'iconv' not in str(raised.value)
