"""What a run says of its data: the table of the sources, and decoded rows."""

import pathlib
import shutil
import sys
from collections.abc import Callable

import jax
import numpy as np

from lbe.data import loader as loader_lib
from lbe.data import tokenized
from lbe.text import tables

# Of a text, in the examples that a run shows.
_SHOWN_TOKENS = 200


def show(
  loader: loader_lib.Loader,
  num_steps: int,
  folder: pathlib.Path,
  say: Callable[[str], None],
):
  """The table, a row and examples as they are read: said, and in data.txt."""
  rows, first = table(loader, num_steps), row(loader, 0, 0)
  on_screen = sys.stdout.isatty()
  width = shutil.get_terminal_size().columns if on_screen else None
  say(table(loader, num_steps, width))
  say(f'\nrow 0 of step 0:\n{first}\n')
  # What is learnt is green on a terminal, and in brackets in a file.
  green = {'mark': ('\033[32m', '\033[0m')} if on_screen else {}
  say(examples(loader, **green))
  if jax.process_index() == 0:
    shown = (rows, first, examples(loader))
    (folder / 'data.txt').write_text('\n\n'.join(shown), encoding='utf-8')


def table(
  loader: loader_lib.Loader, num_steps: int, width: int | None = None
) -> str:
  """The table that a run prints first, and its warnings.

  What is looked at first comes first; with a `width` it is cut to it.
  """
  rows_used, num_rows = loader.rows_used(num_steps), np.array(loader.num_rows)
  head = (
    'source',
    'documents',
    'bytes',
    'tokens',
    'asked',
    'achieved',
    'epochs',
    'bytes/token',
    'byte fallback',
    '<unk>',
    'learnt',
    'padding',
    'mean',
    'median',
    'longest',
  )
  rows = [head]
  # Of a text that is shorter than its rows, too.
  num_tokens = np.array([d.num_tokens for d in loader.data])
  fills = np.minimum(num_tokens / (num_rows * loader.seq_len), 1.0)
  achieved = rows_used * fills / max((rows_used * fills).sum(), 1)
  for i, name in enumerate(loader.names):
    d = loader.data[i]
    rows.append(
      (
        name,
        f'{d.num_documents:,}',
        f'{d.num_bytes:,}',
        f'{d.num_tokens:,}',
        f'{loader.asked[i]:.1%}',
        f'{achieved[i]:.1%}',
        _epochs(rows_used[i] / num_rows[i]),
        f'{d.num_bytes / d.num_tokens:.2f}',
        f'{d.num_fallback / d.num_tokens:.1%}',
        '-' if d.num_unknown is None else f'{d.num_unknown:,}',
        f'{d.num_learnt / d.num_tokens:.1%}',
        f'{1 - fills[i]:.1%}',
        f'{d.document_lengths.mean():.0f}',
        f'{np.median(d.document_lengths):.0f}',
        f'{d.document_lengths.max():,}',
      )
    )
  notes = [
    tokenized.describe(loader.prepared[name], name) for name in loader.names
  ]
  notes.append(_examples_a_step(loader, rows_used, num_steps))
  return '\n'.join([tables.columns(rows, width), *filter(None, notes)])


def _examples_a_step(loader, rows_used, num_steps):
  """A line on what packing makes of the batch, or ''.

  Published batches count examples, and a row holds several.
  """
  if not any(loader.packed):
    return ''
  of_rows = [
    used * data.num_documents / num_rows
    for used, data, num_rows, packed in zip(
      rows_used, loader.data, loader.num_rows, loader.packed, strict=True
    )
    if packed
  ]
  return (
    f'a step of {loader.batch_size:,} rows has '
    f'{sum(of_rows) / max(num_steps, 1):,.0f} examples on average'
  )


def _epochs(epochs):
  """Two decimals, and of less than a tenth two digits: 0.0031."""
  return f'{epochs:.2f}' if epochs >= 0.1 or not epochs else f'{epochs:.2g}'


def examples(loader: loader_lib.Loader, mark=('⟦', '⟧')) -> str:
  """One example of each source, what is learnt of it between marks.

  A whole conversation, or the first tokens of a text.
  """
  parts = []
  for i, name in enumerate(loader.names):
    data = loader.data[i]
    if loader.packed[i]:
      text = _marked(loader, *data.example(0), mark)
    else:
      ids, documents = data.tokens(0, _SHOWN_TOKENS)
      ids = ids[documents == documents[0]]
      # The first token of a document is nobody's target.
      text = _marked(loader, ids, np.arange(len(ids)) > 0, mark)
      if len(ids) < data.document_lengths[0]:
        text += '…'
    parts.append(f'an example of {name}:\n{text}')
  return '\n\n'.join(parts)


def _marked(loader, ids, weights, mark):
  """The text of ids, special ones by name, runs of weight 1 in marks."""
  result, held, shown, inside = '', [], '', False
  for token, learnt in zip(ids.tolist(), weights.tolist(), strict=True):
    if bool(learnt) != inside:
      result += mark[inside]
      inside = bool(learnt)
    if not loader.byte_lengths[token]:
      result += loader.tokenizer.piece(token)
      held, shown = [], ''
      continue
    held.append(token)
    text = loader.tokenizer.decode(held)
    if not text.endswith('\ufffd'):  # else a character is not whole yet
      result += text[len(shown) :]
      shown = text
  return result + mark[1] * inside


def row(
  loader: loader_lib.Loader,
  step: int,
  number: int,
  *,
  max_characters: int = 1000,
) -> str:
  """A row of a step as text, ┃ where a document's part begins."""
  decoded = loader.row(step * loader.batch_size + number)
  parts = []
  for segment in range(1, decoded['segments'].max() + 1):
    ids = decoded['ids'][decoded['segments'] == segment]
    parts.append(f'┃{loader.tokenizer.decode(ids.tolist())}')
  padding = int((decoded['segments'] == 0).sum())
  text = '\n'.join(parts)
  if len(text) > max_characters:
    text = f'{text[:max_characters]}… ({len(parts)} documents in all)'
  return text + (f' + {padding} padding' if padding else '')
