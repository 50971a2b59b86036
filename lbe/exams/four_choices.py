"""Exams in CSV files by subject: four choices, and the letter that is right."""

import pathlib

from lbe.exams import item
from lbe.exams import spreadsheet


def items(
  group_of: dict,
  *,
  file,
  columns: tuple,
  has_heads: bool,
  header,
  cue: str,
  space: str,
  strips: bool,
  split: str,
  num_shots: int,
  limit: int,
) -> list[item.Item]:
  """The Items of the subjects in `group_of`, `limit` of each; 0 is all.

  `file(split, subject)` is the path, `columns` are the names of question and
  answer there; without heads they stand first and last. `header(subject)` goes
  before the demonstrations, which are the first of the split 'dev' with `space`
  before their letter, `cue` behind the choices; the question may be stripped.
  """
  question, answer = columns
  columns = (question, *item.LETTERS, answer)

  def read(split, subject):
    path = pathlib.Path(file(split, subject))
    return path, spreadsheet.read(path, columns, header=has_heads)

  def ask(row):
    text = row[question].strip() if strips else row[question]
    return '\n'.join([text, *(f'{x}. {row[x]}' for x in item.LETTERS), cue])

  result = []
  for subject, group in group_of.items():
    shots = ()
    if num_shots:
      path, solved = read('dev', subject)
      if len(solved) < num_shots:
        raise ValueError(
          f'{path} has {len(solved)} demonstrations, and num_shots='
          f'{num_shots} asks for more.'
        )
      shots = tuple(
        f'{ask(row)}{space}'
        f'{item.LETTERS[item.letter(row[answer], 4, where)]}\n\n'
        for row, where in solved[:num_shots]
      )
    _, rows = read(split, subject)
    for i, (row, where) in enumerate(rows[: limit or None]):
      gold = item.letter(row[answer], 4, where)
      result.append(
        item.Item(
          id=f'{subject}/{i}',
          subject=subject,
          group=group,
          header=header(subject),
          shots=shots,
          question=ask(row),
          choices=tuple(f' {x}' for x in item.LETTERS),
          answers=item.LETTERS,
          gold=(gold,),
        )
      )
  return result
