"""Tables in Markdown, and cells of tables that spreadsheets open."""

import re

# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def markdown(heads, align: str, rows) -> str:
  """Rows of cells under their heads; `align` has 'l' or 'r' for each column.

  In a cell '|' is escaped, and white space, which may end a line, is one space.
  """
  rules = [{'l': '---', 'r': '---:'}[side] for side in align]
  lines = [[_cell(x) for x in heads], rules]
  lines += [[_cell(x) for x in row] for row in rows]
  assert {len(cells) for cells in lines} == {len(rules)}, (heads, align)
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def _cell(value):
  return ' '.join(str(value).split()).replace('|', '\\|')


def as_text(value):
  """A cell of a CSV that no spreadsheet runs: a text behind an apostrophe.

  Where it would be a formula; `as_it_was` takes the apostrophe away.
  """
  if isinstance(value, str) and _FORMULA.match(value):
    return f"'{value}"
  return value


def as_it_was(value):
  """What `as_text` was given."""
  if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value[1:]):
    return value[1:]
  return value
