"""Formats of files: records as they stand, and broken files told apart."""

import bz2
import gzip
import io
import json
import sys

import pytest
from array_record.python import array_record_module

from lbe.data import kinds
from lbe.data import readers
from lbe.data import sources
from lbe.text import lines

RECORDS = [{'text': '好', 'n': 1}, {'text': 'b "c",\nd', 'n': 2}]


def read(path, skipped=None, **fields):
  source = sources.Source(name='zh', path=str(path), **fields)
  return [record for record, _ in sources.records(source, skipped)]


def write_parquet(path):
  pa = pytest.importorskip('pyarrow')
  import pyarrow.parquet

  pyarrow.parquet.write_table(pa.Table.from_pylist(RECORDS), path)


def write_arrow(path, *, stream):
  pa = pytest.importorskip('pyarrow')
  table = pa.Table.from_pylist(RECORDS)
  new = pa.ipc.new_stream if stream else pa.ipc.new_file
  with new(str(path), table.schema) as writer:
    for batch in table.to_batches(max_chunksize=1):
      writer.write_batch(batch)


def write_arrayrecord(path):
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
  for record in RECORDS:
    writer.write(json.dumps(record, ensure_ascii=False).encode())
  writer.close()


@pytest.mark.parametrize(
  ('name', 'write'),
  [
    (
      'a.json',
      lambda p: p.write_text('\ufeff' + json.dumps(RECORDS, indent=1)),
    ),
    ('a.jsonl', lambda p: p.write_text('\n'.join(map(json.dumps, RECORDS)))),
    ('a.parquet', write_parquet),
    ('a.arrow', lambda p: write_arrow(p, stream=True)),
    ('a.feather', lambda p: write_arrow(p, stream=False)),
    ('a.array_record', write_arrayrecord),
  ],
)
def test_every_format_gives_the_same_records(tmp_path, name, write):
  """`auto` knows each by its ending, with numbers and line breaks kept."""
  path = tmp_path / name
  write(path)
  assert read(path) == RECORDS
  source = sources.Source(name='zh', path=str(path), field='text')
  assert [text for text, _ in sources.documents(source)] == ['好', 'b "c",\nd']


def test_tables_keep_quoted_lines_and_say_where_a_row_begins(tmp_path):
  """In TSV a quote is text: a stray one must not swallow what follows."""
  path = tmp_path / 'a.csv'
  path.write_bytes(
    b'\xef\xbb\xbftext,n\r\n"b ""c"",\nd",2\r\n\r\n\xff,3\r\ne,4,5\r\nf,6\r\n'
  )
  skipped = []
  found = read(path, skipped, on_bad_record='skip')
  assert found == [{'text': 'b "c",\nd', 'n': '2'}, {'text': 'f', 'n': '6'}]
  assert [told.removeprefix(str(path)) for told in skipped] == [
    ', line 5: invalid UTF-8 (invalid start byte)',
    ', line 6: 3 fields, and the head has 2',
  ]
  path.write_text('text\n"never closed\n')
  with pytest.raises(ValueError, match=r'a\.csv, line 2: invalid CSV'):
    read(path)
  path.write_text('text,text\na,b\n')
  with pytest.raises(ValueError, match="line 1: the head has the field 'text'"):
    read(path)
  path = tmp_path / 'a.tsv'
  path.write_text('text\tn\n"b\t2\nc"\t3\n')
  assert read(path) == [{'text': '"b', 'n': '2'}, {'text': 'c"', 'n': '3'}]


def test_a_field_may_hold_a_book(tmp_path):
  """csv's own limit is 131,072 characters."""
  path = tmp_path / 'a.csv'
  path.write_text(f'text\n{"x" * 200_000}\n')
  assert len(read(path)[0]['text']) == 200_000


def zstd_of(data):
  compressor = pytest.importorskip('zstandard').ZstdCompressor()
  half = len(data) // 2
  return compressor.compress(data[:half]) + compressor.compress(data[half:])


@pytest.mark.parametrize(
  ('ending', 'pack'),
  [('.gz', gzip.compress), ('.bz2', bz2.compress), ('.zst', zstd_of)],
)
def test_packed_files_are_read_and_cut_ones_refused(tmp_path, ending, pack):
  """A cut download must not pass for a shorter text."""
  path = tmp_path / f'a.jsonl{ending}'
  written = [json.dumps({'text': f'{i} 好'}) for i in range(5000)]
  packed = pack('\n'.join(written).encode())
  path.write_bytes(packed)
  assert read(path) == [json.loads(line) for line in written]
  assert kinds.of_file(path, 'auto', ['text']) == 'jsonl'
  for broken in (packed[:-20], b'no such thing'):
    path.write_bytes(broken)
    words = rf'a\.jsonl{ending} cannot be read: .*is the file whole'
    with pytest.raises(ValueError, match=words):
      read(path, on_bad_record='skip')


class Counted(str):
  """A text that knows how many of its characters were counted through."""

  read = 0

  def count(self, part, start, end):
    self.read += end - start
    return super().count(part, start, end)


def test_objects_over_many_lines_are_told_by_the_line_and_counted_once():
  """Each counted from the beginning: hours of a file of a gigabyte."""
  written = '\n' + '{\n "text": "a\\n"\n}\n\n' * 2000 + '{"text": ' + '9' * 5000
  text = Counted(written + '}')

  class Data(bytes):
    def decode(self, encoding):
      return text

  file = io.BytesIO()
  file.read = Data
  *found, (bad, last) = readers.json_objects(file)
  assert len(found) == 2000
  for i, (record, place) in enumerate(found):
    assert record == {'text': 'a\n'} and place == f'line {2 + 4 * i}'
  assert isinstance(bad, lines.Bad) and last == 'line 8002'
  assert text.read <= len(text)


@pytest.mark.parametrize('ending', ['.parquet', '.arrow', '.array_record'])
def test_files_of_another_format_are_refused_by_name(tmp_path, ending):
  """An error of Arrow's names no file."""
  path = tmp_path / f'a{ending}'
  path.write_bytes(b'{"text": "no"}' * 100)
  with pytest.raises(ValueError, match=rf'a\{ending} cannot be read: '):
    read(path)


def test_arrayrecords_without_json_are_refused_by_number(tmp_path):
  """Protos of another program, for instance."""
  path = tmp_path / 'a.array_record'
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
  writer.write(b'{"text": "a"}')
  writer.write(b'\n\xff')
  writer.close()
  with pytest.raises(ValueError, match='record 2: it holds no JSON object in'):
    read(path)


@pytest.mark.parametrize(
  ('name', 'package'),
  [('a.parquet', 'pyarrow'), ('a.arrow', 'pyarrow'), ('a.zst', 'zstandard')],
)
def test_a_missing_package_is_named_with_its_extra(
  tmp_path, monkeypatch, name, package
):
  """An optional package may not be needed before it is used."""
  for module in (package, f'{package}.parquet', f'{package}.ipc'):
    monkeypatch.setitem(sys.modules, module, None)
  (tmp_path / name).write_bytes(b'x')
  words = rf"{package} is needed to read this; pip install 'lbe\[data\]'"
  with pytest.raises(ImportError, match=words):
    read(tmp_path / name)


def test_the_malformed_piece_of_alpaca_is_named_to_the_column(test_data):
  """Real data: 3,000 records end in the middle of one."""
  (path,) = test_data.glob('sft_alpaca_en_zh/zh_*/*-9407-12345-*')
  # Python 3.13 names the comma, older ones what comes behind it.
  line = 14006 if sys.version_info >= (3, 13) else 14007
  words = rf'未完成\.json, line {line}: invalid JSON \(.*, column \d+\); mend'
  with pytest.raises(ValueError, match=words):
    read(path)


def test_wikitext_as_arrow_is_wikitext(test_data):
  """Hugging Face's cache has Arrow's stream format."""
  (path,) = test_data.glob('text_en_wikitext2/**/*validation.arrow')
  pytest.importorskip('pyarrow')
  texts = [record['text'] for record in read(path)]
  assert len(texts) == 3760
  text = (
    test_data / 'text_en_wikitext2' / 'wiki.validation.raw.txt'
  ).read_text()
  assert ''.join(texts).split() == text.split()


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (b'[{"text": "a"},\n {"text": "b"', r'line 2: invalid JSON \(Expecting'),
    (b'[{"text": "a"},\n "\xff"]', 'line 2: invalid UTF-8'),
    (b'[1]', 'record 1: a record is an object with fields, not 1'),
    (b'\xef\xbb\xbf{"text": "a"}\n{]', r'line 2: invalid JSON \(.*column 2\)'),
  ],
)
def test_broken_json_is_told_to_the_line(tmp_path, data, words):
  """An array of a hundred thousand lines is not searched by hand."""
  path = tmp_path / 'a.json'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=rf'a\.json, {words}'):
    read(path)


def test_an_object_where_an_array_is_asked_for_is_refused():
  """kind='json' is one array; lines of objects are 'jsonl'."""
  ((record, place),) = readers.json_array(io.BytesIO(b'{"text": "a"}'))
  assert isinstance(record, lines.Bad) and place == 'line 1'
