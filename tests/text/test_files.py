"""Files that are not what their name says."""

import bz2
import gzip
import lzma
import os
import socket
import subprocess

import pytest

from lbe.chat import jinja
from lbe.chat import prompts
from lbe.data import contamination
from lbe.data import dataset_info
from lbe.exams import spreadsheet
from lbe.judging import questions
from lbe.text import files
from lbe.text import lines
from lbe.text import packed
from lbe.vocab import rows
from lbe.vocab import tokenizers

import runs


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (b'', 'is empty; copy it again'),
    (
      b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n',
      'pointer of Git LFS.*git lfs pull',
    ),
    (b'\xef\xbb\xbf{"a": 1}', r'byte order mark \(BOM\); save it as UTF-8'),
    ('{"a": 1}'.encode('utf-16'), 'the mark of UTF-16; save it as UTF-8'),
    ('{"a": 1}'.encode('utf-16-be'), 'no JSON'),
    ('{"a": "é"}'.encode('latin-1'), 'line 1: invalid UTF-8'),
    (b'{"a": 1,\n "b', 'x.json:2: no JSON.*it is truncated: copy it again'),
    (b'{"a": 1,\n "b": [1, 2', 'x.json:2: no JSON.*it is truncated'),
    (b'{"a": 1,\n}\n{', 'x.json:2: no JSON.*mend that line'),
    (b'<html>404</html>', 'x.json:1: no JSON'),
    (b'[1, 2]', 'a JSON list, not an object'),
    (b'null', 'a JSON NoneType, not an object'),
  ],
)
def test_a_file_that_is_no_json_object_is_told_as_what_it_is(
  tmp_path, data, words
):
  """ "Expecting value: line 1 column 1" sends people after the wrong fault."""
  path = tmp_path / 'x.json'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=words):
    files.read_json(path)


def test_a_dead_link_is_told_with_its_target(tmp_path):
  """As a copied cache of the hub, whose files are links."""
  path = tmp_path / 'x.json'
  path.symlink_to(tmp_path / 'blobs' / 'abc')
  with pytest.raises(ValueError, match='is a link to .*abc, which is not'):
    files.check(path)


def test_an_object_is_read(tmp_path):
  path = tmp_path / 'x.json'
  path.write_text('{"a": [1, "é"]}\n', encoding='utf-8')
  assert files.read_json(path) == {'a': [1, 'é']}


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n'


@pytest.mark.parametrize(
  'name, read',
  [
    ('a.csv', lambda path: spreadsheet.read(path, ('question',))),
    ('a.jsonl', lambda path: prompts.read(path, template='')),
    ('a.jsonl', questions.read),
    ('a.jinja', lambda path: jinja.load(str(path), tokenizers.Bytes())),
    (
      'a.tsv',
      lambda path: rows.translate(tokenizers.Bytes(), tokenizers.Bytes(), path),
    ),
    ('a.json', lambda path: dataset_info.read(f'dataset_info:{path}@a')),
    ('a.csv', lambda path: list(contamination.items('a', path, ('q',)))),
    ('a.json', lambda path: list(contamination.items('a', path, ('q',)))),
  ],
)
@pytest.mark.parametrize('encoding', ['gb18030', 'utf-16'])
def test_an_encoding_is_told_with_its_file(tmp_path, name, read, encoding):
  """A codec's own error names neither the file nor the way out."""
  path = tmp_path / name
  path.write_bytes('{"question": "哪个对?这是一道题"}\n'.encode(encoding))
  words = f'{name}.*{"GB18030" if encoding == "gb18030" else "UTF-16"}.*iconv'
  with pytest.raises(ValueError, match=words):
    read(path)
  path.write_bytes(POINTER)
  with pytest.raises(ValueError, match=f'{name} is a pointer .*git lfs *pull'):
    read(path)


@pytest.mark.parametrize(
  'codec, name',
  [
    ('gb18030', 'GB18030'),
    ('big5', 'BIG5'),
    ('shift_jis', 'SHIFT_JIS'),
    ('cp1252', 'WINDOWS-1252'),
    ('utf-16-le', 'UTF-16'),
  ],
)
def test_the_encoding_is_guessed(tmp_path, codec, name):
  """iconv needs to be told from what."""
  text = {
    'cp1252': 'Il fait déjà froid, et nous restons ici.',
    'big5': '這個問題是什麼?請選擇答案。',
    'shift_jis': 'これは問題です。答えはどれですか。',
  }.get(codec, 'question 问题是什么?')
  (tmp_path / 'a.txt').write_bytes(f'\n{text}\n'.encode(codec) + b'\n')
  with pytest.raises(files.Refused, match=f'a.txt, line [12]: .* is {name}:'):
    files.text(tmp_path / 'a.txt')


def test_a_text_is_what_python_reads(tmp_path):
  """Ends of lines and the byte order mark as in text mode."""
  path = tmp_path / 'a.txt'
  path.write_bytes('\ufeffa\r\nb\rc\n'.encode())
  assert files.text(path) == path.read_text('utf-8-sig') == 'a\nb\nc\n'
  assert files.stream(path).getvalue() == 'a\r\nb\rc\n'
  with pytest.raises(files.Refused, match='b.txt cannot be read: No such file'):
    files.text(tmp_path / 'b.txt')


@pytest.mark.parametrize('pack', [gzip, bz2, lzma])
@pytest.mark.parametrize('name', ['a.jsonl', 'a.JSONL.GZ'])
def test_packed_files_are_known_by_their_beginning(tmp_path, pack, name):
  """A browser or a mirror drops an ending, or writes it large."""
  path = tmp_path / name
  path.write_bytes(pack.compress(b'{"a": 1}\n'))
  assert [record for record, _ in lines.records(path)] == [{'a': 1}]
  path.write_bytes(pack.compress(POINTER))
  with pytest.raises(files.Refused, match='is a pointer'), packed.opened(path):
    pass


@pytest.mark.parametrize('log', [27, 28, 31])
def test_a_long_window_of_zstandard_is_read(tmp_path, log):
  """'Is the file whole?' of what `zstd --long=31` wrote."""
  zstandard = pytest.importorskip('zstandard')
  text = b'{"a": 1}\n' * 1000
  # A head that tells the window alone, and a block that is not packed.
  window = bytes([0, (log - 10) << 3])
  data = zstandard.FRAME_HEADER + window
  data += (len(text) << 3 | 1).to_bytes(3, 'little') + text
  assert zstandard.get_frame_parameters(data).window_size == 1 << log
  path = tmp_path / 'a.jsonl.zst'
  path.write_bytes(data)
  assert len(lines.records(path)) == 1000


def test_an_empty_file_of_bzip2_is_known_by_its_beginning(tmp_path):
  """It has no block, so it begins with its end."""
  path = tmp_path / 'a.jsonl'
  path.write_bytes(bz2.compress(b''))
  assert lines.records(path) == []


@pytest.mark.parametrize('pack', [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_that_was_cut_off_is_told_by_its_name(pack, tmp_path):
  """An EOFError of a library, with a traceback, after an hour of reading."""
  path = tmp_path / 'a.jsonl'
  random = os.urandom(300_000).hex()
  path.write_bytes(pack(lines.line({'text': random}).encode())[:-5000])
  with pytest.raises(ValueError, match='a.jsonl cannot be read: .*is the file'):
    lines.records(path)


def test_what_a_killed_process_left_goes_with_the_next_write(
  tmp_path, monkeypatch
):
  """Temporary files that nobody takes away, one a kill."""
  path = tmp_path / 'a.json'
  gone = subprocess.Popen(['true'])
  gone.wait()
  host = socket.gethostname()
  for name in (f'{host}-{gone.pid}-0', f'{host}-{os.getppid()}-0', 'other-1-0'):
    (tmp_path / f'a.json.{name}.tmp').touch()
  files.write_whole(path, 'x')
  assert path.read_text() == 'x'
  left = {x.name for x in tmp_path.glob('*.tmp')}
  lives = f'a.json.{host}-{os.getppid()}-0.tmp'
  assert left == {lives, 'a.json.other-1-0.tmp'}

  def interrupted(*unused):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'replace', interrupted)
  with pytest.raises(KeyboardInterrupt):
    files.write_whole(path, 'y')
  assert {x.name for x in tmp_path.glob('*.tmp')} == left


def test_a_tokenizer_that_was_killed_half_way_is_written_over_and_not_read(
  tmp_path,
):
  """A folder that the same command refused, and others took for whole."""
  folder = tmp_path / 'tokenizer'
  with pytest.raises(KeyError), files.unfinished(folder):
    raise KeyError
  assert not folder.exists()
  with pytest.raises(KeyboardInterrupt), files.unfinished(folder):
    (folder / 'tokenizer.model').write_bytes(b'x')
    raise KeyboardInterrupt
  with pytest.raises(ValueError, match='tokenizer is unfinished'):
    tokenizers.load(folder)
  runs.run('tokenizer', 'export', '--tokenizer=bytes', f'--output={folder}')
