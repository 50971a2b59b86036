"""Files that are not what their name says."""

import pytest

from lbe.text import files


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
    ('{"a": "é"}'.encode('latin-1'), 'no UTF-8 .byte 7'),
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
