"""One shard of a source: its texts as records of token ids, and an index.

Shards are cut from the input by bytes of text, so they are the same whatever
the number of workers. A shard is finished when it has its index.
"""

import dataclasses
import functools
import json
import os
import pathlib
import pickle
import uuid

import numpy as np

from lbe.chat import jinja
from lbe.chat import templates
from lbe.data import order
from lbe.data import sources as sources_lib
from lbe.vocab import tokenizers

# Text of one shard, in bytes; and the longest record, in tokens.
SHARD_BYTES = 1 << 23
MAX_RECORD_TOKENS = 65_536
_RECORDS = 'group_size:1,uncompressed'
INDEX = {
  'lengths': np.int32,  # tokens of each record
  'learnt': np.int32,  # of these, with loss weight
  # UTF-8 bytes of its text (of a conversation, as its template writes it); at
  # a document's first record.
  'num_bytes': np.int64,
  'fallback': np.int32,  # byte-fallback tokens
  'unknown': np.int32,  # tokens of what no piece covers
  'hashes': np.uint64,  # of the document's text
  'documents': np.int64,  # number of the document, in the files' order
}

# What a shard says beside its index: conversations that lack turns (trim_turns)
# and how many these are; examples that were too long, and those whose prompt
# was cut; tokens of the longest example, before that; records that no template
# could write, each with its place.
_REPORT = ('trimmed', 'turns', 'dropped', 'cut', 'longest', 'skipped')


@dataclasses.dataclass(frozen=True)
class Shard:
  """A part of a source, and how it becomes records."""

  work: pathlib.Path
  number: int
  texts: list  # in UTF-8: handed to another process as they are
  where: list  # 'FILE, line N' of each
  first_document: int
  source: sources_lib.Source
  bos: bool
  eos: bool
  seq_len: int | None


def encoder(source, tokenizer):
  """What makes ids and weights of a source's conversations."""
  template = jinja.load(source.template, tokenizer)
  return templates.Encoder(template, tokenizer, loss=source.loss)


def _encode(shard, tokenizer):
  """(ids as stored, weights or None) of each text; None of one left out.

  And {name: what it says} of _REPORT.
  """
  report = {**dict.fromkeys(_REPORT, 0), 'skipped': []}
  dtype = dtype_of(tokenizer.vocab_size)
  if not shard.source.template:
    found = []
    for ids in tokenizer.encode_arrays(shard.texts):
      framed = np.empty(shard.bos + len(ids) + shard.eos, dtype)
      framed[shard.bos : shard.bos + len(ids)] = ids
      if shard.bos:
        framed[0] = tokenizer.bos_id
      if shard.eos:
        framed[-1] = tokenizer.eos_id
      found.append((framed, None))
    return found, report
  encode = encoder(shard.source, tokenizer)
  found = []
  for text, where in zip(shard.texts, shard.where, strict=True):
    try:
      told, left_out = sources_lib.conversation(
        shard.source, json.loads(text), where
      )
      ids, weights = encode(told)
      report['longest'] = max(report['longest'], len(ids))
      kept = templates.fit(
        ids,
        weights,
        shard.seq_len,
        policy=shard.source.too_long,
        bos_id=tokenizer.bos_id,
      )
    except ValueError as error:
      why = str(error).removeprefix(f'{where}: ')
      sources_lib.bad(shard.source, report['skipped'], where, why)
      found.append(None)
      continue
    report['trimmed'] += left_out > 0
    report['turns'] += left_out
    report['dropped'] += kept is None
    report['cut'] += kept is not None and len(kept[0]) < len(ids)
    found.append(kept and (np.array(kept[0], dtype), kept[1]))
  return found, report


def write(shard: Shard, tokenizer):
  """Tokenizes one shard's texts: its training records and its index.

  Held-out texts go to a file of their own, tokenized, with their index.
  """
  work, number, texts = shard.work, shard.number, shard.texts
  is_byte, byte_lengths = tokenizer.is_byte, tokenizer.byte_lengths
  hashes = np.array([order.utf8_hash(text) for text in texts], np.uint64)
  heldout = order.is_heldout(hashes, shard.source.holdout)
  records = {'train': [], 'heldout': []}
  index = {
    split: {name: [] for name in INDEX} for split in ('train', 'heldout')
  }
  encoded, report = _encode(shard, tokenizer)
  # Where one token has both roles, it is what the text asks for.
  ends = (tokenizer.bos_id, tokenizer.eos_id)
  unknown = -1 if tokenizer.unk_id in (None, *ends) else tokenizer.unk_id
  for i, example in enumerate(encoded):
    if example is None:
      continue
    split = 'heldout' if heldout[i] else 'train'
    ids, weights = example
    if weights is None:
      num_bytes = len(texts[i])
    else:  # what it was read from has the names of fields as well
      num_bytes = int(byte_lengths[ids].sum())
    for start in range(0, len(ids), MAX_RECORD_TOKENS):
      piece = ids[start : start + MAX_RECORD_TOKENS]
      first = start == 0
      keep = first and split == 'heldout'
      kept = np.asarray(weights or (), np.uint8)
      record = {'ids': piece.tobytes(), 'weights': kept.tobytes()}
      record['text'] = texts[i] if keep else b''
      records[split].append(record)
      for name, value in (
        ('lengths', len(piece)),
        ('learnt', len(piece) if weights is None else int(kept.sum())),
        ('num_bytes', num_bytes if first else 0),
        ('fallback', np.count_nonzero(is_byte.take(piece))),
        ('unknown', np.count_nonzero(piece == unknown)),
        ('hashes', hashes[i]),
        ('documents', shard.first_document + i),
      ):
        index[split][name].append(value)
  for split, examples in records.items():
    if examples:
      path = work / f'{split}-{number:06}.array_record'
      _write_records(path, examples)
  arrays = {
    f'{split}_{name}': np.asarray(values, INDEX[name])
    for split, columns in index.items()
    for name, values in columns.items()
  }
  arrays |= {name: np.asarray(report[name]) for name in _REPORT[:-1]}
  arrays['skipped'] = np.asarray(report['skipped'], str)
  done = work / f'{number:06}.npz'
  temporary = beside(done)
  np.savez(temporary, **arrays)
  os.replace(temporary, done)


def is_done(work: pathlib.Path, number: int) -> bool:
  """Whether a shard is finished; one of an earlier version is made again."""
  path = work / f'{number:06}.npz'
  return path.exists() and {'train_unknown', *_REPORT} <= {*np.load(path).files}


def load(work: pathlib.Path, number: int) -> dict[str, np.ndarray]:
  """The index and the report of a finished shard."""
  # A source may have more shards than a process may have files open.
  with np.load(work / f'{number:06}.npz') as part:
    return dict(part)


def told(parts: list) -> dict:
  """The reports of shards as one: sums, the longest, all that were skipped."""
  result = {
    name: sum(int(part[name]) for part in parts)
    for name in _REPORT
    if name not in ('longest', 'skipped')
  }
  result['longest'] = max(int(part['longest']) for part in parts)
  result['skipped'] = [x for part in parts for x in part['skipped'].tolist()]
  return result


def cut(documents):
  """(size, number of the first document, texts, their places) of each shard."""
  texts, where, size, first = [], [], 0, 0
  for text, place in documents:
    texts.append(text.encode())
    where.append(place)
    size += len(texts[-1])
    if size >= SHARD_BYTES:
      yield size, first, texts, where
      first += len(texts)
      texts, where, size = [], [], 0
  if texts:
    yield size, first, texts, where


# ----------------------------------------------------------------- records


def dtype_of(vocab_size):
  """The dtype of stored ids."""
  # Half the bytes to write and to read.
  return np.uint16 if vocab_size <= 1 << 16 else np.int32


def _proto(number, data):
  """A field of a protocol buffer that holds bytes: its tag, length, content."""
  size, length = len(data), b''
  while size > 0x7F:
    length += bytes([size & 0x7F | 0x80])
    size >>= 7
  return bytes([number << 3 | 2]) + length + bytes([size]) + data


def serialized(example):
  """{field: bytes} as the tf.train.Example that TFDS reads.

  The fields in the order of their names. Written here because TFDS takes a
  second to import, in each of the processes that tokenize.
  """
  entries = (
    # A feature is a list of bytes, of one.
    _proto(1, name.encode()) + _proto(2, _proto(1, _proto(1, example[name])))
    for name in sorted(example)
  )
  return _proto(1, b''.join(_proto(1, entry) for entry in entries))


def _write_records(path, examples):
  """An ArrayRecord file of {field: bytes}; there whole, or not at all."""
  from array_record.python import array_record_module

  temporary = beside(path)
  # Ids are as small as uint16 makes them: compression takes a third of the time
  # of SentencePiece and halves a file.
  writer = array_record_module.ArrayRecordWriter(str(temporary), _RECORDS)
  for example in examples:
    writer.write(serialized(example))
  writer.close()
  os.replace(temporary, path)


def beside(path):
  """A name beside the path that no other process takes, on any machine."""
  return path.with_name(f'{uuid.uuid4().hex}.tmp{path.suffix}')


# ---------------------------------------------------------- other machines


def store(path, value):
  """Writes what `write_stored` reads on another machine."""
  temporary = beside(path)
  temporary.write_bytes(pickle.dumps(value))
  os.replace(temporary, path)


@functools.lru_cache(maxsize=1)
def _stored_tokenizer(work):
  return tokenizers.from_bytes(*pickle.loads((work / 'tokenizer').read_bytes()))


def write_stored(work, number):
  """Tokenizes one of the shards that build stored in its folder."""
  work = pathlib.Path(work)
  if not is_done(work, number):
    shard = pickle.loads((work / f'{number:06}.shard').read_bytes())
    write(shard, _stored_tokenizer(work))
