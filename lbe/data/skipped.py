"""What steps read that changed nothing: WORKDIR/skipped.jsonl."""

import pathlib

import jax

from lbe.text import lines

_CHARACTERS = 200


def write(workdir: pathlib.Path, loader, steps: list[int]):
  """Adds a line for each row of these steps' batches, on process 0.

  {step, row, source, epoch, documents (their numbers, from 0 in the order of
  the files), text (how the row begins)}.
  """
  if jax.process_index() != 0:
    return
  told = []
  for step in steps:
    for row in range(loader.batch_size):
      position = (step - 1) * loader.batch_size + row
      source, epoch, documents = loader.documents(position)
      ids = loader.row(position)['ids'][:_CHARACTERS].tolist()
      told.append(
        {
          'step': step,
          'row': row,
          'source': source,
          'epoch': epoch,
          'documents': documents,
          'text': loader.tokenizer.decode(ids)[:_CHARACTERS],
        }
      )
  lines.append(workdir / 'skipped.jsonl', told)
