"""Pairs of texts of which one is right: BLiMP's, one's own, and made ones.

A made pair is a sentence and the same one with two neighbours exchanged. Units
are words, with what white space parts, and in scripts that write no spaces
characters, with the marks that combine with them. Exchanged are two units of
one kind that begin and end with a letter and differ, none of them the first of
its sentence: so no punctuation mark and no capital letter gives away which
text is which, and the rule is the same in every language. Which two, and which
sentences come first, depends on the sentence and a seed alone.
"""

import hashlib
import itertools
import pathlib
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from lbe.exams import item
from lbe.exams import spreadsheet
from lbe.text import language_table
from lbe.text import lines
from lbe.text import scripts

# BLiMP's fields: the two sides, and the parts that a pair belongs to.
BLIMP_SIDES = ('sentence_good', 'sentence_bad')
BLIMP_PARTS = ('field', 'linguistics_term', 'UID')

# Sentences with fewer units hardly have two to exchange; longer ones, in
# characters, cost more than they tell.
FEWEST_UNITS = 4
MOST_CHARACTERS = 200


class Pair(NamedTuple):
  """`parts` are values by the fields that scores are told by."""

  id: str
  good: str
  bad: str
  parts: tuple = ()


def blimp(path, *, limit: int) -> list[Pair]:
  """The pairs of BLiMP's folder `data`, or of one of its files.

  Of each file the first `limit`; 0 is all. Two equal sides, which BLiMP itself
  has seven of, are kept. Raises ValueError for what is none.
  """
  files = [pathlib.Path(path)]
  if not files[0].is_file():
    root = item.folder(path, "BLiMP's files, one a paradigm")
    files = sorted(root.glob('*.jsonl')) or sorted(root.glob('data/*.jsonl'))
    if not files:
      raise ValueError(
        f'{root} has no file PARADIGM.jsonl, and none in {root / "data"}; give '
        "the folder of BLiMP's files."
      )
  return [
    Pair(f'{pair.parts[-1]}/{i}', *pair[1:])
    for file in files
    for i, (pair, _) in enumerate(
      _pairs(file, BLIMP_SIDES, BLIMP_PARTS)[: limit or None]
    )
  ]


def own(path, *, sides, parts, limit: int) -> list[Pair]:
  """The first pairs of a file: JSON lines, or a table with a header.

  `sides` are the fields, or columns, of the right text and of the wrong one,
  `parts` those that scores are told by. Raises ValueError with file and line
  for what is missing, empty, no text, or twice the same text.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise ValueError(
      f'path={str(path)!r} is no file; give one of pairs, as .jsonl or .tsv.'
    )
  found = _pairs(file, sides, parts)
  for pair, where in found:
    if pair.good == pair.bad:
      raise ValueError(
        f'{where}: {sides[0]!r} and {sides[1]!r} are the same text, '
        f'{pair.good[:60]!r}; mend the pair, or take it out.'
      )
  return [pair for pair, _ in found[: limit or None]]


def _pairs(path, sides, parts):
  """[(Pair, 'FILE:LINE')]; the id is the place in the file."""
  if path.suffix in ('.tsv', '.csv'):
    records = spreadsheet.sniffed(spreadsheet.text(path), path)
  else:
    records = lines.records(path)
  if not records:
    raise ValueError(f'{path} has no pairs.')
  found, before = [], f'{path.parent}/'
  for record, where in records:
    lines.require(record, (*sides, *parts), where)
    texts = [lines.text(record, side, where) for side in sides]
    # Names of scores are parted by slashes.
    named = tuple(
      lines.name(record, part, where).replace('/', '_') for part in parts
    )
    found.append((Pair(where.removeprefix(before), *texts, named), where))
  return found


# ----------------------------------------------------------------- made ones

_UNIT = re.compile(
  f'{scripts.NO_SPACES.pattern}|(?:(?!{scripts.NO_SPACES.pattern})\\S)+'
)
# A sentence ends with its line, and behind a final mark of any language: before
# white space, or where it is a mark of those without spaces alone, anywhere.
_BEFORE_SPACE, _ANYWHERE = (
  {
    mark
    for language in language_table.LANGUAGES.values()
    if language.spaces is spaces
    for mark in language.final_marks
  }
  for spaces in (True, False)
)
_END = re.compile(
  rf'\n|(?<=[{"".join(_BEFORE_SPACE)}])(?=\s)'
  rf'|(?<=[{"".join(_ANYWHERE - _BEFORE_SPACE)}])(?![」』”’）])'
)


def swapped(texts: Iterable[str], *, limit: int, seed: int) -> list[Pair]:
  """A pair of each sentence that has neighbours to exchange.

  Sentences, each once, in a seeded order that their contents alone decide; the
  first `limit`, 0 is all. Raises ValueError where none has any.

  >>> swapped(['The big dog sees us.'], limit=0, seed=0)[0][1:3]
  ('The big dog sees us.', 'The dog big sees us.')
  """
  sentences = {
    sentence: hashlib.blake2b(f'{seed} {sentence}'.encode()).digest()
    for text in texts
    for sentence in map(str.strip, _END.split(text))
    if len(sentence) <= MOST_CHARACTERS
  }
  found = []
  for sentence, digest in sorted(sentences.items(), key=lambda x: x[1]):
    if limit and len(found) == limit:
      break
    ways = _exchanges(sentence)
    if ways:
      bad = ways[int.from_bytes(digest[:8]) % len(ways)]
      found.append(Pair(digest[:8].hex(), sentence, bad))
  if not found:
    raise ValueError(
      f'no sentence of at most {MOST_CHARACTERS} characters has '
      f'{FEWEST_UNITS} units and two neighbours of them to exchange, words or, '
      'where a script writes no spaces, characters; give more text.'
    )
  return found


def _exchanges(sentence):
  """The sentence with two neighbours exchanged, in all ways that are fair."""
  units = []  # (start, stop, is a character)
  for match in _UNIT.finditer(sentence):
    start, stop = match.span()
    alone = not scripts.has_spaces(match[0][0])
    joins = alone and units and units[-1][1:] == (start, True)
    if joins and unicodedata.category(match[0])[0] == 'M':
      units[-1] = (units[-1][0], stop, True)
    else:
      units.append((start, stop, alone))
  if len(units) < FEWEST_UNITS:
    return []
  ways = []
  for (a, b, alone), (c, d, also) in itertools.pairwise(units[1:]):
    left, right = sentence[a:b], sentence[c:d]
    ends = (left[0], left[-1], right[0], right[-1])
    if alone == also and left != right and all(map(scripts.is_letter, ends)):
      ways.append(sentence[:a] + right + sentence[b:c] + left + sentence[d:])
  return ways
