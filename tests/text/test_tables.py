"""Tables in Markdown."""

import pytest

from lbe.text import tables


def test_a_table_as_it_stands_in_a_file():
  rows = [['a|b', 1], ['two\nlines', '']]
  assert tables.markdown(['what', 'N'], 'lr', rows) == (
    '| what | N |\n| --- | ---: |\n| a\\|b | 1 |\n| two lines |  |'
  )


def test_a_row_that_lacks_a_cell_is_our_mistake():
  """Nobody sees it in the text of a table."""
  with pytest.raises(AssertionError):
    tables.markdown(['a', 'b'], 'lr', [['one']])
