"""Two models beside each other: scores, and differences item by item.

  lbe compare runs/a runs/b

Each is the workdir of a run, or a folder of scores as WORKDIR/evaluations/NAME.
Of runs the steps are compared at which both have read the same bytes of text,
as nearly as they were scored.
"""

import pathlib

from lbe.run import program
from lbe.run import progress
from lbe.studies import compared


def main(argv):
  if len(argv) != 3:
    raise ValueError(
      'two models are compared: lbe compare runs/a runs/b; there '
      f'{"is" if len(argv) == 2 else "are"} {len(argv) - 1}.'
    )
  with progress.doing('comparing'):
    told = compared.tell(*map(pathlib.Path, argv[1:]))
  print(told)


if __name__ == '__main__':
  program.run(main, goes_on=False, num_words=2)
