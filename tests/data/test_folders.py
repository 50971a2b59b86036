"""Which files a path names, and what is no data or not there."""

import json
import os
import pathlib

import pytest

from lbe.data import build
from lbe.data import folders
from lbe.data import sources
from lbe.data import tokenized
from lbe.vocab import tokenizers


def names(path, kind='auto'):
  chosen, others = folders.found('zh', str(path), kind)
  return [x.name for x in chosen], [x.name for x in others]


def write(folder, **texts):
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in texts.items():
    (folder / name.replace('__', '.')).write_text(text)


def test_hidden_files_and_what_lies_beside_are_no_data(tmp_path):
  """A backup would double its text, a Mac's shadow file is binary."""
  write(tmp_path, a__txt='a', B__TXT='b', c__jsonl='{"text": "c"}\n')
  write(tmp_path, **{'.DS_Store': 'x', '._a.txt': 'x', '_SUCCESS': ''})
  write(tmp_path / '.ipynb_checkpoints', a__txt='x')
  write(tmp_path / '__MACOSX', a__txt='x')
  write(tmp_path, README__txt='x', **{'c.jsonl.bak': '{"text": "c"}\n'})
  write(tmp_path, **{'d.jsonl.part': '{"text": "d"}\n', 'e.zip': 'PK\3\4'})
  assert names(tmp_path) == (
    ['B.TXT', 'a.txt', 'c.jsonl'],
    ['README.txt', '_SUCCESS', 'c.jsonl.bak', 'd.jsonl.part', 'e.zip'],
  )


def test_what_is_not_read_or_empty_is_said(tmp_path):
  """A folder of ten files of which nine are read looks whole."""
  write(tmp_path / 'zh', a__txt='a', b__txt='', c__log='log')
  source = sources.Source(name='zh', path=str(tmp_path / 'zh'))
  prepared = build.prepare(
    source,
    tokenizers.Bytes(),
    cache_dir=tmp_path / 'cache',
    num_workers=1,
    progress=False,
  )
  told = tokenized.describe(prepared, 'zh')
  assert 'zh: 2 files are not read: ' in told
  assert 'c.log' in told and 'b.txt (empty)' in told


def test_an_empty_file_is_told_as_one(tmp_path):
  """ "Is cut right?" sends people after the wrong fault."""
  write(tmp_path, a__txt='')
  source = sources.Source(name='zh', path=str(tmp_path / 'a.txt'))
  with pytest.raises(ValueError, match='holds no document; it is empty'):
    list(sources.documents(source))


def test_dead_links_are_errors(tmp_path):
  """A copied cache of the hub, whose files were links."""
  write(tmp_path / 'zh', a__txt='a')
  link = tmp_path / 'zh' / 'b.txt'
  link.symlink_to('../blobs/0f3a')
  for path in (tmp_path / 'zh', link, f'{tmp_path}/zh/*.txt'):
    with pytest.raises(ValueError, match='b.txt is a link to ../blobs/0f3a, w'):
      names(path)
  link.unlink()
  link.symlink_to(link)
  with pytest.raises(ValueError, match='b.txt is a link to'):
    names(tmp_path / 'zh')


def test_links_that_lead_back_are_not_followed(tmp_path):
  """Each file would be read forty times, or twice."""
  write(tmp_path / 'zh' / 'a', a__txt='a')
  write(tmp_path / 'zh' / 'b', b__txt='b')
  (tmp_path / 'zh' / 'a' / 'up').symlink_to('..')
  (tmp_path / 'zh' / 'b' / 'top').symlink_to(tmp_path)
  (tmp_path / 'zh' / 'latest').symlink_to('a')
  found = (['a.txt', 'b.txt'], ['up', 'top', 'latest'])
  assert names(tmp_path / 'zh') == found
  (tmp_path / 'to').symlink_to('zh')
  assert names(tmp_path / 'to') == found


def test_links_to_other_places_are_followed(tmp_path):
  write(tmp_path / 'big' / 'x', x__txt='x')
  (tmp_path / 'big' / 'x' / 'back').symlink_to('..')
  write(tmp_path / 'zh', a__txt='a')
  (tmp_path / 'zh' / 'x').symlink_to(tmp_path / 'big' / 'x')
  (tmp_path / 'zh' / 'y.txt').symlink_to(tmp_path / 'big' / 'x' / 'x.txt')
  assert names(tmp_path / 'zh')[0] == ['a.txt', 'x.txt', 'y.txt']


def test_patterns_name_files(tmp_path):
  """Quoted, a pattern reaches the program as it is."""
  write(tmp_path / 'b', a__txt='a', b__jsonl='{"text": "b"}\n')
  write(tmp_path, c__txt='c')
  assert names(f'{tmp_path}/*/*.txt')[0] == ['a.txt']
  assert names(f'{tmp_path}/*')[0] == ['a.txt', 'b.jsonl', 'c.txt']
  assert names(f'{tmp_path}/**/*.txt')[0] == ['a.txt', 'c.txt']
  with pytest.raises(ValueError, match=r'zh: no file matches .*/\*\.parquet'):
    names(f'{tmp_path}/*.parquet')


def test_a_kind_that_is_not_there_is_told_with_what_is(tmp_path):
  write(tmp_path, a__jsonl='{"text": "a"}\n', b__csv='text\nb\n')
  with pytest.raises(ValueError, match=r'parquet .its files: a.jsonl, b.csv.;'):
    names(tmp_path, 'parquet')
  # Texts in records are texts.
  assert names(tmp_path, 'text')[0] == ['a.jsonl', 'b.csv']
  write(tmp_path, c__txt='c')
  assert names(tmp_path, 'text')[0] == ['c.txt']
  write(tmp_path / 'wiki', wiki_00='text', **{'train.zh': 'text'})
  assert names(tmp_path / 'wiki', 'text')[0] == ['train.zh', 'wiki_00']
  with pytest.raises(ValueError, match="train.zh, wiki_00.*kind='text' for te"):
    names(tmp_path / 'wiki')


def test_a_data_set_saved_by_datasets_is_read(tmp_path):
  """Its folder has JSON files of its own, and caches beside the data."""
  datasets = pytest.importorskip('datasets')
  rows = {'text': [f'第{i}篇' for i in range(5)], 'id': list(range(5))}
  data = datasets.Dataset.from_dict(rows)
  data.save_to_disk(tmp_path / 'one', num_shards=2)
  (tmp_path / 'one' / 'cache-0123456789abcdef.arrow').write_text('old')
  source = sources.Source(name='zh', path=str(tmp_path / 'one'))
  assert [text for text, _ in sources.documents(source)] == rows['text']
  kept = data.filter(lambda row: row['id'] % 2 == 1)
  kept.save_to_disk(tmp_path / 'kept')
  source = sources.Source(name='zh', path=str(tmp_path / 'kept'))
  assert [text for text, _ in sources.documents(source)] == ['第1篇', '第3篇']
  splits = datasets.DatasetDict({'train': data, 'test': data})
  splits.save_to_disk(tmp_path / 'splits')
  words = 'holds the splits train, test .*name one: path=.*splits/train'
  with pytest.raises(ValueError, match=words):
    names(tmp_path / 'splits')
  assert len(names(tmp_path / 'splits' / 'train')[0]) == 1
  (tmp_path / 'one' / 'data-00001-of-00002.arrow').unlink()
  with pytest.raises(
    ValueError, match='state.json names data-00001.*not there'
  ):
    names(tmp_path / 'one')


def test_a_data_set_of_tfds_is_named_as_one(tmp_path):
  write(tmp_path, **{'dataset_info.json': '{}', 'features.json': '{}'})
  with pytest.raises(ValueError, match="path='tfds:.*@train'"):
    names(tmp_path)


def test_what_may_not_be_read_is_told_with_the_way_out(tmp_path, monkeypatch):
  """ "Is the file whole?" sends people after the wrong fault."""
  write(tmp_path, a__txt='a')

  def refused(self, *arguments, **more):
    raise PermissionError(13, 'Permission denied', str(self))

  monkeypatch.setattr(pathlib.Path, 'open', refused)
  source = sources.Source(name='zh', path=str(tmp_path))
  with pytest.raises(
    ValueError, match=r'a\.txt cannot be read: .*chmod -R a\+'
  ):
    list(sources.documents(source))


def test_pipes_are_no_files(tmp_path):
  """To open one waits for ever."""
  write(tmp_path, a__txt='a')
  os.mkfifo(tmp_path / 'pipe')
  assert names(tmp_path) == (['a.txt'], ['pipe'])


def test_the_state_of_a_data_set_is_read_where_there_is_one(tmp_path):
  """A state.json of another program is no list of files."""
  write(tmp_path, state__json=json.dumps({'text': 'a'}), a__txt='a')
  assert names(tmp_path)[0] == ['a.txt', 'state.json']
