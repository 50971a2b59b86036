"""The table of languages, held against real files and other libraries."""

import importlib.util
import pathlib
import re

import pytest

from lbe.text import language_table
from lbe.text import scripts

FIFTEEN = (*language_table.THIRTEEN, 'en', 'zh')
# Where the tests' copies of data sets lie, and their splits.
FOLDERS = {
  'ntrex': ('text_ntrex', ['']),
  'udhr': ('text_udhr', ['']),
  'sib200': ('bench_sib200', ['train', 'dev', 'test']),
  'xcopa': ('bench_xcopa', ['val', 'test']),
  'mgsm': ('bench_mgsm', ['']),
}
# What is no language of ours: licences, and Chinese in its other letters.
STRANGE = {'token_counts_derived.tsv', 'LANGUAGES.tsv', 'DOCUMENT_IDS.tsv'}
STRANGE |= {'newstest2019-ref.zho-TW.txt', 'cmn_hant.txt'}


@pytest.mark.parametrize('data', FOLDERS)
def test_codes_are_those_of_the_files(test_data, data):
  """Catches a code that names no file, and a language that is overlooked."""
  folder, splits = FOLDERS[data]
  root = test_data / folder
  codes = [
    code for code in FIFTEEN if data in language_table.language(code).codes
  ]
  paths = [
    language_table.file(data, root, code, split=split)
    for code in codes
    for split in splits
  ]
  assert len(set(paths)) == len(codes) * len(splits)
  suffix = paths[0].suffix
  there = {x for x in root.rglob(f'*{suffix}') if x.name not in STRANGE}
  assert set(paths) == there


@pytest.mark.parametrize('code', FIFTEEN)
def test_how_a_language_is_written_is_seen_in_its_sentences(test_data, code):
  """Catches a script, a final mark or spaces of another language."""
  known = language_table.language(code)
  path = language_table.file('ntrex', test_data / 'text_ntrex', code)
  lines = path.read_text('utf-8').split('\n')[:-1]
  shares = scripts.shares(''.join(lines))
  assert sum(shares.get(x, 0) for x in known.scripts) > 0.9
  assert next(iter(shares)) == known.scripts[0]
  assert known.name == known.english or (
    next(iter(scripts.shares(known.name))) in known.scripts
  )
  # Without quotes and brackets; of ten lines nearly one is a heading.
  ends = [x.rstrip(' \u200f"”\'’»“」』)')[-1:] for x in lines]
  assert sum(x in known.final_marks for x in ends) > 0.87 * len(lines)
  assert known.final_marks[0] == max(set(ends), key=ends.count)
  spaces = sum(line.count(' ') for line in lines) / sum(map(len, lines))
  assert known.spaces == (spaces > 0.05)


def test_names_and_labels_are_those_of_lingua():
  lingua = pytest.importorskip('lingua')
  theirs = {x.iso_code_639_1.name.lower(): x for x in lingua.Language.all()}
  for code, known in language_table.LANGUAGES.items():
    if code not in ('ml', 'ne'):  # which lingua has not
      assert known.english.upper() == theirs[code].name
      assert theirs[code].iso_code_639_3.name.lower() in known.labels
    assert known.flores.split('_')[0] in known.labels


def test_the_harness_has_the_tasks():
  """By its files: its own index of them takes half a minute."""
  harness = importlib.util.find_spec('lm_eval')
  if harness is None:
    pytest.skip('without lm_eval')
  theirs = set()
  for path in (pathlib.Path(harness.origin).parent / 'tasks').rglob('*.yaml'):
    text = path.read_text('utf-8')
    theirs.update(re.findall(r'^(?:task|group): *(\S+)', text, re.M))
  for known in language_table.LANGUAGES.values():
    assert set(known.harness) <= theirs, known.code
    assert list(known.harness) == sorted(set(known.harness)), known.code


def test_an_unknown_language_is_answered_with_the_nearest():
  for asked, nearest in (
    ('Tamil', "'ta' \\(Tamil\\)"),
    ('zh-CN', "'zh' \\(Chinese\\)"),
    ('fil', "'tl' \\(Tagalog\\)"),
    ('ben_Beng', "'bn' \\(Bengali\\)"),
  ):
    message = f"language '{asked}' is unknown; the nearest is {nearest}"
    with pytest.raises(ValueError, match=message):
      language_table.language(asked)


def test_a_folder_without_the_language_or_the_split_says_what_it_has(tmp_path):
  for name in ('ta/val.ta.jsonl', 'sw/test.sw.jsonl'):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
  for code, split, message in (
    ('ta', 'test', 'no ta/test.ta.jsonl.*Tamil; it has ta/val.ta.jsonl'),
    ('vi', 'test', 'no vi/test.vi.jsonl.*Vietnamese; it has sw, ta'),
    ('gu', 'test', "XCOPA has no Gujarati .'gu'.; it has id, sw, ta, vi, zh"),
    ('xx', 'test', "language 'xx' is unknown"),
  ):
    with pytest.raises(ValueError, match=message):
      language_table.file('xcopa', tmp_path, code, split=split)
  with pytest.raises(ValueError, match='it has none of its languages'):
    language_table.file('mgsm', tmp_path, 'sw')
  with pytest.raises(ValueError, match="/no' is no folder; give that of MGSM"):
    language_table.file('mgsm', tmp_path / 'no', 'sw')
