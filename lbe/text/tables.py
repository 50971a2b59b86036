"""Tables in Markdown."""


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
