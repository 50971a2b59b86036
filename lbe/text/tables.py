"""Tables in Markdown and on a screen, sizes, and cells for spreadsheets."""

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


def columns(rows: list, width: int | None = None) -> str:
  """Rows of cells, all but the first column to the right, the first a head.

  Where they are wider than `width` the last columns stand below, as a table of
  their own behind the same first column.
  """
  sizes = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
  blocks, taken = [[0]], sizes[0]
  for i, size in list(enumerate(sizes))[1:]:
    if width and taken + 2 + size > width and len(blocks[-1]) > 1:
      blocks.append([0])
      taken = sizes[0]
    blocks[-1].append(i)
    taken += 2 + size
  return '\n'.join(
    '  '.join(
      cells[i].rjust(sizes[i]) if i else cells[i].ljust(sizes[i]) for i in block
    )
    for block in blocks
    for cells in rows
  )


def size(num_bytes: float) -> str:
  """'12.80 GiB', or below one '3.4 MiB'."""
  if num_bytes >= 2**30:
    return f'{num_bytes / 2**30:.2f} GiB'
  return f'{num_bytes / 2**20:.1f} MiB'


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
