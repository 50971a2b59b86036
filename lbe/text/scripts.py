"""Which Unicode script a character, or the letters of a text, belong to."""

import collections
import functools
import unicodedata

from fontTools import unicodedata as tables

NAMES = frozenset(tables.Scripts.NAMES.values())
_NO_SCRIPT = ('Common', 'Inherited', 'Unknown')


@functools.cache
def script(character):
  """The character's script by its Unicode name, as 'Han' or 'Latin'.

  What several scripts share is 'Common' (digits, punctuation, spaces) or
  'Inherited' (accents that combine); what is no character is 'Unknown'.
  """
  return tables.Scripts.NAMES[tables.script(character)]


@functools.cache
def letter_script(character):
  """The script of a letter, or of a mark that belongs to one; else ''."""
  # A letter that is newer than Python's own tables has category Cn there.
  is_letter = unicodedata.category(character) == 'Cn' or (
    unicodedata.category(character)[0] in 'LM'
  )
  name = script(character)
  return name if is_letter and name not in _NO_SCRIPT else ''


def shares(text):
  """{script: share of the text's letters}, the largest first."""
  counts = collections.Counter()
  for character, number in collections.Counter(text).items():
    counts[letter_script(character)] += number
  del counts['']
  total = counts.total()
  return {name: number / total for name, number in counts.most_common()}


def spans(text):
  """(start, stop, script) of runs with letters of one script only.

  A run begins and ends with a letter; digits, punctuation and spaces between
  letters of the same script lie inside it.
  """
  found = []
  start = stop = 0
  current = ''
  for i, character in enumerate(text):
    name = letter_script(character)
    if not name:
      continue
    if name != current:
      if current:
        found.append((start, stop, current))
      start, current = i, name
    stop = i + 1
  if current:
    found.append((start, stop, current))
  return found
