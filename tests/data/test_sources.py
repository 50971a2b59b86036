"""Documents and records of sources: what is read where, and what is refused."""

import gzip
import json
import sys

import fsspec
import fsspec.implementations.memory
import pytest
from array_record.python import array_record_module
from etils import epath

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
    (dict(kind='xml'), "kind='xml' is unknown; take one of auto, text"),
    (dict(on_bad_record='drop'), "on_bad_record='drop' is unknown"),
    (dict(holdout=1.0), 'holdout=1.0 is no share'),
    (dict(path='tfds:wiki'), 'zh: tfds:wiki names no split'),
    (dict(path='http://a/b.txt'), 'http:// is not read; .* one of gs://, s3'),
  ):
    with pytest.raises(ValueError, match=words):
      read(**{'path': tmp_path, **fields})


def records(path, skipped=None, **fields):
  source = sources.Source(name='zh', path=str(path), **fields)
  return [record for record, _ in sources.records(source, skipped)]


def test_columns_rename_and_leave_the_rest(tmp_path):
  """Two names that change places must not overwrite each other."""
  path = tmp_path / 'a.jsonl'
  path.write_text('{"input": "in", "output": "out", "id": 7, "q": null}\n')
  columns = {'input': 'output', 'output': 'input', 'instruction': 'q'}
  assert records(path, columns=columns) == [
    {'input': 'out', 'output': 'in', 'instruction': None, 'id': 7}
  ]
  assert read(path, columns={'text': 'input'}) == ['in']
  words = r"a\.jsonl, line 1: no field 'body', .*: input, output, id, q"
  with pytest.raises(ValueError, match=words):
    records(path, columns={'text': 'body'})


def test_half_a_character_is_refused_with_its_place(tmp_path):
  """A lone surrogate would end the tokenizing with a cryptic error."""
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": "\\ud83d"}\n{"text": "\\ud83d\\ude00"}\n')
  with pytest.raises(ValueError, match='line 1: half a character'):
    read(path)
  assert read(path, on_bad_record='skip') == ['😀']


def test_files_of_a_folder_are_read_by_their_endings(tmp_path):
  """`auto` goes by the ending within folders as well."""
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'a.csv').write_text('text\na\n')
  (tmp_path / 'b.tsv-00000-of-00001').write_text('text\tid\nb\t1\n')
  (tmp_path / 'c.json').write_text('[{"text": "c"}]')
  (tmp_path / 'd.json').write_text('{"text": "d"}\n{"text": "e"}\n')
  (tmp_path / 'README.md').write_text('no text of ours')
  assert read(tmp_path) == ['a', 'b', 'c', 'd', 'e']
  assert read(tmp_path, kind='csv') == ['a']


def test_tfds_datasets_are_read_by_name_and_by_folder(tmp_path, monkeypatch):
  """The split, or the part of one, is what is read and digested."""
  import tensorflow_datasets as tfds

  features = tfds.features.FeaturesDict(
    {
      'text': tfds.features.Text(),
      'tags': tfds.features.Sequence(tfds.features.Text()),
    }
  )
  folder = tmp_path / 'tiny' / 'zh' / '1.0.0'
  folder.mkdir(parents=True)
  shard = folder / 'tiny-train.array_record-00000-of-00001'
  serializer = tfds.core.example_serializer.ExampleSerializer(
    features.get_serialized_info()
  )
  writer = array_record_module.ArrayRecordWriter(str(shard), 'group_size:1')
  for text in ('一', '二', '三'):
    example = features.encode_example({'text': text, 'tags': [text, 'x']})
    writer.write(serializer.serialize_example(example))
  writer.close()
  info = tfds.core.SplitInfo(name='train', shard_lengths=[3], num_bytes=0)
  tfds.folder_dataset.write_metadata(
    data_dir=str(folder),
    features=features,
    split_infos=[info],
    filename_template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
    check_data=False,
  )
  monkeypatch.setattr(tfds.core.constants, 'DATA_DIR', str(tmp_path))
  for name in ('tiny/zh:1.0.0', str(folder)):
    path = f'tfds:{name}@train'
    assert records(path)[1] == {'text': '二', 'tags': ['二', 'x']}
    assert read(f'tfds:{name}@train[1:]') == ['二', '三']
    assert sources.files(sources.Source(name='zh', path=path)) == [shard]
  with pytest.raises(ValueError, match='tfds:absent@train cannot be read: Dat'):
    read('tfds:absent@train')
  with pytest.raises(ValueError, match='@dev cannot be read: .*dev'):
    read(f'tfds:{folder}@dev')


FILE_SYSTEMS = sys.modules['fsspec.registry']._registry


class Cloud(fsspec.implementations.memory.MemoryFileSystem):
  """Files in memory behind gs://, as gcsfs has them behind it."""

  protocol = ('gcs', 'gs')
  store, pseudo_dirs = {}, ['']
  error = None

  @classmethod
  def _strip_protocol(cls, path):
    path = str(path).removeprefix('gcs://').removeprefix('gs://')
    return '/' + path.strip('/')

  def info(self, path, **kwargs):
    if self.error:
      raise self.error
    return super().info(path, **kwargs)


@pytest.fixture
def cloud(monkeypatch):
  for name in ('gcs', 'gs'):
    monkeypatch.setitem(FILE_SYSTEMS, name, Cloud)
  backend = epath.backend.fsspec_backend
  monkeypatch.setattr(backend, '_get_filesystem', lambda name: Cloud())
  monkeypatch.setattr(Cloud, 'store', {})
  return Cloud


def test_remote_files_and_folders_are_read_like_local_ones(cloud, tmp_path):
  """Compressed, nested, and digested; hidden files are left out."""
  system = cloud()
  system.pipe('/bucket/zh/b/a.jsonl.gz', gzip.compress(b'{"text": "a"}\n'))
  system.pipe('/bucket/zh/c.txt', '好\n好\n\n\nc'.encode())
  system.pipe('/bucket/zh/.hidden.txt', b'x')
  assert read('gs://bucket/zh') == ['a', '好\n好', 'c']
  assert read('gs://bucket/zh/c.txt', cut='line')[:2] == ['好', '好']
  found = sources.files(sources.Source(name='zh', path='gs://bucket/zh'))
  assert [str(path) for path in found] == [
    'gs://bucket/zh/b/a.jsonl.gz',
    'gs://bucket/zh/c.txt',
  ]
  local = tmp_path / 'c.txt'
  local.write_bytes(system.cat('/bucket/zh/c.txt'))
  assert sources.digest(found[1]) == sources.digest(local)
  assert sources.size(found[1]) == local.stat().st_size
  assert sources.version(found[1]) is None  # no ETag: hashed every time
  with pytest.raises(ValueError, match='there is nothing at gs://bucket/no'):
    read('gs://bucket/no')


def test_a_remote_path_without_credentials_says_what_to_set(cloud, monkeypatch):
  """Each cloud's library has errors of its own, none of which says how."""

  class DefaultCredentialsError(Exception):
    pass

  error = DefaultCredentialsError('Your default credentials were not found.')
  monkeypatch.setattr(cloud, 'error', error)
  words = (
    'gs://b/a.txt cannot be read: DefaultCredentialsError: Your default .*; '
    'without credentials, run `gcloud auth application-default login`'
  )
  with pytest.raises(ValueError, match=words):
    read('gs://b/a.txt')


def test_a_remote_path_without_its_package_says_what_to_install(monkeypatch):
  """fsspec's own error does not know of our extra."""
  monkeypatch.setitem(sys.modules, 's3fs', None)
  monkeypatch.delitem(FILE_SYSTEMS, 's3', raising=False)
  epath.backend.fsspec_backend._get_filesystem.cache_clear()
  words = r"s3://b/a\.txt: .*s3fs.*; pip install 'lbe\[remote\]'"
  with pytest.raises(ImportError, match=words):
    read('s3://b/a.txt')
