"""Which Unicode script a character, or the letters of a text, belong to."""

import collections
import functools
import re
import unicodedata

from fontTools import unicodedata as tables

NAMES = frozenset(tables.Scripts.NAMES.values())
_NO_SCRIPT = ('Common', 'Inherited', 'Unknown')


@functools.cache
def script(character: str) -> str:
  """The character's script by its Unicode name, as 'Han' or 'Latin'.

  What several scripts share is 'Common' (digits, punctuation, spaces) or
  'Inherited' (accents that combine); what is no character is 'Unknown'.
  """
  return tables.Scripts.NAMES[tables.script(character)]


@functools.cache
def is_letter(character: str) -> bool:
  """A letter, or a mark that belongs to one (vowel signs, tones)."""
  return unicodedata.category(character)[0] in 'LM'


@functools.cache
def first_word(character: str) -> str:
  """The first word of a letter's name in Unicode, as 'CJK' or 'LATIN'.

  Tokenizers and their reports tell scripts apart by it, not by `script`:
  half-width kana are 'HALFWIDTH', accents that combine 'COMBINING'.
  Digits, punctuation, symbols and spaces have none: ''.
  """
  if not is_letter(character):
    return ''
  return unicodedata.name(character, '').partition(' ')[0]


# Han, kana, Thai, Lao, Burmese, Khmer: no spaces between words.
NO_SPACES = re.compile(
  '[\u2e80-\u2fff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff'
  '\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]'
)


def has_spaces(character: str) -> bool:
  """Whether words of the character's script are written with spaces."""
  return NO_SPACES.match(character) is None


@functools.cache
def letter_script(character: str) -> str:
  """The script of a letter, or of a mark that belongs to one; else ''."""
  # A letter that is newer than Python's own tables has category Cn there.
  counts = is_letter(character) or unicodedata.category(character) == 'Cn'
  name = script(character)
  return name if counts and name not in _NO_SCRIPT else ''


def shares(text: str) -> dict[str, float]:
  """{script: share of the text's letters}, the largest first."""
  counts = collections.Counter()
  for character, number in collections.Counter(text).items():
    counts[letter_script(character)] += number
  del counts['']
  total = counts.total()
  return {name: number / total for name, number in counts.most_common()}


def spans(text: str) -> list[tuple[int, int, str]]:
  """(start, stop, script) of runs with letters of one script only.

  A run begins and ends with a letter; digits, punctuation and spaces between
  letters of the same script lie inside it.
  """
  runs = []
  start = stop = 0
  current = ''
  for i, character in enumerate(text):
    name = letter_script(character)
    if not name:
      continue
    if name != current:
      if current:
        runs.append((start, stop, current))
      start, current = i, name
    stop = i + 1
  if current:
    runs.append((start, stop, current))
  return runs
