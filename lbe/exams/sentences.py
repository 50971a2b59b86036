"""Sentences that are the same in many languages: SIB-200, NTREX, one's own.

A folder of SIB-200 or NTREX, or one with CODE.txt for each language, a sentence
a line.
"""

import pathlib
from collections.abc import Sequence

from lbe.exams import sib200
from lbe.text import files as files_lib
from lbe.text import language_table
from lbe.text import lines

_SPLITS = ('train', 'dev', 'test')


def read(
  path, languages: Sequence[str], *, also: str = '', split: str = ''
) -> dict[str, list[tuple[str, str]]]:
  """{code: [(id, sentence)]} of the languages, of all that are there for ().

  `also` is one more language. `split` is one of SIB-200, '' all of them. Raises
  ValueError for a language that the table or the folder has not, a split that
  is not there, and, with the line, for what is no sentence.
  """
  _, read_one, there = _layout(pathlib.Path(path), split)
  return {code: read_one(code) for code in _codes(languages or there, also)}


def files(
  path, languages: Sequence[str], *, also: str = '', split: str = ''
) -> list[pathlib.Path]:
  """The files that `read` reads; raises ValueError where one is not there."""
  files_of, _, there = _layout(pathlib.Path(path), split)
  codes = _codes(languages or there, also)
  return [file for code in codes for file in files_of(code)]


def _codes(languages, also):
  return dict.fromkeys([*languages, *filter(None, [also])])


def _layout(root, split):
  """(code → its files, code → [(id, sentence)], codes there) of a folder."""
  sib = language_table.there('sib200', root, split='*')
  ntrex = language_table.there('ntrex', root)
  if split and not sib:
    raise ValueError(
      f'split={split!r}, but {root} has no splits, as SIB-200 has; take '
      "split=''."
    )
  if sib:
    splits = (split,) if split else _SPLITS

    def sib_files(code):
      return [
        language_table.file('sib200', root, code, split=x) for x in splits
      ]

    def sib_sentences(code):
      read = [s for x in splits for s in sib200.sentences(root, code, x)]
      return [(s.id, s.text.strip()) for s in read]

    return sib_files, sib_sentences, sib
  if ntrex:

    def ntrex_files(code):
      return [language_table.file('ntrex', root, code)]

    return ntrex_files, lambda code: _lines(*ntrex_files(code)), ntrex
  own = sorted(
    x for x in language_table.LANGUAGES if (root / f'{x}.txt').is_file()
  )
  if not own:
    raise ValueError(
      f'path={str(root)!r} has no sentences by language: neither the folders '
      'of SIB-200, nor the files of NTREX, nor CODE.txt as en.txt, a sentence '
      'a line.'
    )

  def own_files(code):
    language_table.language(code)
    if code not in own:
      raise ValueError(f'{root} has no {code}.txt; it has {", ".join(own)}.')
    return [root / f'{code}.txt']

  return own_files, lambda code: _lines(*own_files(code)), own


def _lines(path):
  """[('LINE', sentence)], lines counted from 1; ValueError for an empty one."""
  found = []
  for number, line in enumerate(lines.split(files_lib.text(path)), 1):
    if not line.strip():
      raise ValueError(
        f'{path}:{number}: an empty line; the same line is the same sentence '
        'in each language.'
      )
    found.append((str(number), line.strip()))
  return found
