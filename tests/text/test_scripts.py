"""Scripts of characters and texts."""

import pytest

from lbe.text import scripts

# Every code point that can stand in a text.
EVERY = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]


def test_every_character_has_the_script_that_another_library_says():
  """Catches tables of another edition, and names that are no scripts."""
  regex = pytest.importorskip('regex')
  by_script = {}
  for character in EVERY:
    by_script.setdefault(scripts.script(character), []).append(character)
  for name, characters in by_script.items():
    pattern = rf'\p{{Script={name}}}+'
    assert regex.fullmatch(pattern, ''.join(characters)), name


def test_the_names_of_scripts_are_those_of_unicode():
  """Catches the four-letter codes, and spaces in names."""
  assert [scripts.script(c) for c in '汉aяاहí𐌀'] == (
    'Han Latin Cyrillic Arabic Devanagari Latin Old_Italic'.split()
  )
  assert [scripts.script(c) for c in '1。 \u0301\u0378'] == (
    'Common Common Common Inherited Unknown'.split()
  )


def test_shares_count_letters_and_their_marks_only():
  """Digits, punctuation and spaces must not thin a script out."""
  assert scripts.shares('汉字 ab, 1234 ... 汉') == {'Han': 0.6, 'Latin': 0.4}
  # Two consonants, two vowel signs and a virama.
  assert scripts.shares('हिन्दी a') == {'Devanagari': 6 / 7, 'Latin': 1 / 7}
  assert scripts.shares('12 + 30 = 42; ٣') == scripts.shares('') == {}


def test_spans_hold_letters_of_one_script_and_end_with_them():
  """Catches offsets that are off by one, and spans cut at every space."""
  text = '“Hello, you” 世界 2024 好。 привет'
  found = [(text[i:j], name) for i, j, name in scripts.spans(text)]
  assert found == [
    ('Hello, you', 'Latin'),
    ('世界 2024 好', 'Han'),
    ('привет', 'Cyrillic'),
  ]
  assert scripts.spans('1 + 1 = 2') == []
