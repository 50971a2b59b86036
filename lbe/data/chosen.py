"""Which documents of a source its limits take, before any is tokenized."""

import os

import numpy as np

from lbe.data import order
from lbe.data import shards
from lbe.data import sources


def choose(found, source, max_documents, seed, bar):
  """(numbers of what is held out or among the first, bytes of these)."""
  numbers, hashes, sizes = [], [], []
  for number, text, _ in found:
    numbers.append(number)
    hashes.append(order.text_hash(text))
    sizes.append(len(text.encode()))
    bar.update(sizes[-1])
  hashes, sizes = np.array(hashes, np.uint64), np.array(sizes, np.int64)
  taken = order.is_heldout(hashes, source.holdout)
  train = np.flatnonzero(~taken)
  if len(train):
    first, _ = order.subset(
      hashes[train], seed=seed, max_documents=max_documents
    )
    taken[train[first]] = True
  return set(np.array(numbers)[taken].tolist()), int(sizes[taken].sum())


def counted(folder, source, may_make):
  """Hashes and bytes of a source's training examples, as its limits count.

  Of all of them, before a tokenizer makes some too long. None where that is not
  there and may not be made.
  """
  path = folder / 'counted.npz'
  if not path.exists():
    if not may_make:
      return None
    hashes, sizes = [], []
    for document, _ in sources.documents(source, []):
      hashes.append(order.text_hash(document))
      sizes.append(len(sources.plain(source, document).encode()))
    hashes, sizes = np.array(hashes, np.uint64), np.array(sizes, np.int64)
    train = ~order.is_heldout(hashes, source.holdout)
    temporary = shards.beside(path)
    np.savez(temporary, hashes=hashes[train], num_bytes=sizes[train])
    os.replace(temporary, path)
  return dict(np.load(path))
