"""The seeded order of documents, and which are held out, by their hashes."""

import hashlib

import numpy as np


def text_hash(text):
  """64 bits of a text that decide where it lies and its split."""
  return utf8_hash(text.encode())


def utf8_hash(text: bytes):
  """As `text_hash`, of a text in UTF-8."""
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return int.from_bytes(digest, 'little')


def _mix(hashes, salt):
  """Another uniform 64 bits for each hash: splitmix64's finisher."""
  with np.errstate(over='ignore'):
    x = np.asarray(hashes, np.uint64) + np.uint64(salt) * np.uint64(
      0x9E3779B97F4A7C15
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def is_heldout(hashes, share):
  """Which of the documents belong to the held-out share."""
  if not share:
    return np.zeros(len(hashes), bool)
  return _mix(hashes, 1) < np.uint64(int(share * 2**64))


def document_order(texts, *, seed):
  """Indices that put texts into the seeded order."""
  hashes = np.array([text_hash(text) for text in texts], np.uint64)
  return np.argsort(_mix(hashes, seed + 2), kind='stable')


def subset(hashes, *, seed, documents=None, max_documents=None, limits=()):
  """(indices, numbers of their documents): the first ones in the seeded order.

  `documents` tells which records are pieces of one document; without it each
  is its own. A limit is a pair of a number and the records' sizes, as bytes
  or tokens: the document that reaches it is the last. Subsets of one seed are
  nested: each is a prefix of the larger ones.
  """
  keys = _mix(hashes, seed + 2)
  indices = np.arange(len(keys))
  documents = indices if documents is None else np.asarray(documents)
  # Pieces of a document, and equal texts, keep the order of the files.
  order = np.lexsort((indices, documents, keys))
  number = np.cumsum(np.diff(documents[order], prepend=-1) != 0) - 1
  if max_documents:
    order = order[number < max_documents]
  for limit, sizes in limits:
    if limit:
      sizes = np.asarray(sizes, np.int64)[order]
      begins = number[: len(order)][np.cumsum(sizes) - sizes < limit]
      order = order[number[: len(order)] <= begins[-1]]
  return order, number[: len(order)]
