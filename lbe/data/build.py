"""Text, tokenized once: an ArrayRecord dataset with an index beside it.

A source becomes a TFDS folder with the splits `train` and `heldout` (a record
per document, or per piece of a very long one) and index arrays. Shards are
cut from the input by bytes of text, so they are the same whatever the number
of workers; a run that was killed goes on behind its finished shards, and the
metadata comes last. Documents lie in the order of the files; the order that
training sees is that of a seeded hash, computed from the index.

Of a source with a template a document is a conversation: its record, as JSON,
becomes ids with a loss weight each, and is never cut into several.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import pickle
import shutil
import uuid

import numpy as np
import tqdm

from lbe.data import cleaning
from lbe.data import contamination
from lbe.data import messages
from lbe.data import sources as sources_lib
from lbe.data import templates
from lbe.vocab import load as vocab

# Text of one shard, in bytes; and the longest record, in tokens.
SHARD_BYTES = 1 << 23
MAX_RECORD_TOKENS = 65_536
# A held-out document that shares so many characters in a row with a training
# document counts as overlapping.
OVERLAP = 50
_FORMAT = 5
_INDEX = {
  'lengths': np.int32,  # tokens of each record
  'learnt': np.int32,  # of these, with loss weight
  # UTF-8 bytes of its text (of a conversation, as its template writes it); at
  # a document's first record.
  'num_bytes': np.int64,
  'fallback': np.int32,  # byte-fallback tokens
  'hashes': np.uint64,  # of the document's text
  'documents': np.int64,  # number of the document, in the files' order
}


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A source on disk: its splits, its fingerprint, and what was seen."""

  train: 'TokenizedDataset'
  heldout: 'TokenizedDataset | None'
  fingerprint: str
  report: dict
  conversations: bool
  folder: pathlib.Path

  def heldout_documents(self):
    """The held-out documents in the seeded order, as they are scored.

    Their original texts; of conversations (ids, weights).
    """
    if self.heldout is None:
      return []
    if self.conversations:
      return [
        self.heldout.example(i) for i in range(self.heldout.num_documents)
      ]
    return self.heldout.texts()


# ------------------------------------------------------------------ hashes


def text_hash(text):
  """64 bits of a text that decide its place and its split."""
  digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
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


def _is_heldout(hashes, share):
  return (
    _mix(hashes, 1) < np.uint64(int(share * 2**64))
    if share
    else (np.zeros(len(hashes), bool))
  )


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
  places = np.arange(len(keys))
  documents = places if documents is None else np.asarray(documents)
  # Pieces of a document, and equal texts, keep the order of the files.
  order = np.lexsort((places, documents, keys))
  number = np.cumsum(np.diff(documents[order], prepend=-1) != 0) - 1
  if max_documents:
    order = order[number < max_documents]
  for limit, sizes in limits:
    if limit:
      sizes = np.asarray(sizes, np.int64)[order]
      begins = number[: len(order)][np.cumsum(sizes) - sizes < limit]
      order = order[number[: len(order)] <= begins[-1]]
  return order, number[: len(order)]


# ------------------------------------------------------------- preparation


def prepare(
  source,
  tokenizer,
  *,
  cache_dir,
  num_workers=0,
  bos=True,
  eos=True,
  seed=0,
  seq_len=None,
  progress=True,
  may_make=True,
  elsewhere=None,
):
  """Opens the tokenized source, making it where it is not there yet.

  Where it may not be made the answer is None then.

  `seq_len` is the longest example of a source with a template. `elsewhere`
  takes the shards to other machines: elsewhere(folder, numbers) calls
  write_stored(folder, number) for each, in any order, as often as it likes.

  The folder's name holds a fingerprint of the files' content, the tokenizer
  and the settings. Raises ValueError for an empty source, a record that
  cannot be read, and BOS or EOS that the tokenizer does not have.
  """
  for name, asked, token in (
    ('bos', bos, tokenizer.bos_id),
    ('eos', eos, tokenizer.eos_id),
  ):
    if asked and token is None:
      raise ValueError(
        f'data.{name}=True, but the tokenizer has no such id; set '
        f'--config.data.{name}=False.'
      )
  if '://' in str(cache_dir):
    raise ValueError(
      f'data.cache_dir={str(cache_dir)!r}: ArrayRecord is read from a disk; '
      'mount the store as a folder, or name one here.'
    )
  cache_dir = pathlib.Path(cache_dir)
  cache_dir.mkdir(parents=True, exist_ok=True)
  facts = {
    'format': _FORMAT,
    'files': _file_digests(source, cache_dir),
    'tokenizer': tokenizer.fingerprint,
    'cut': [
      source.kind,
      source.cut,
      source.heading if source.cut == 'heading' else '',
      source.field,
      source.on_bad_record,
      source.columns,
      dataclasses.asdict(source.entry) if source.entry else None,
      # Of one folder of TFDS there may be several parts.
      source.path if source.path.startswith('tfds:') else '',
    ],
    'bos': bos,
    'eos': eos,
    'holdout': source.holdout,
    'shard_bytes': SHARD_BYTES,
  }
  if source.cleaning is not None:
    facts['cleaning'] = dataclasses.asdict(source.cleaning)
    facts['benchmarks'] = [
      hashlib.sha256(path.read_bytes()).hexdigest()
      for b in source.cleaning.benchmarks.values()
      for path in contamination.files(b['path'])
    ]
  if source.template:
    if seq_len > MAX_RECORD_TOKENS:
      raise ValueError(
        f'data.seq_len={seq_len} with a template: an example is one record '
        f'of at most {MAX_RECORD_TOKENS} tokens; take shorter rows.'
      )
    facts['template'] = [source.template, source.loss, source.too_long, seq_len]
    if source.template.endswith('.jinja'):
      facts['template'][0] = pathlib.Path(source.template).read_text('utf-8')
    _encoder(source, tokenizer)  # says before any work why it cannot be
  fingerprint = hashlib.sha256(
    json.dumps(facts, sort_keys=True).encode()
  ).hexdigest()[:16]
  folder = cache_dir / f'{source.name}-{fingerprint}' / '1.0.0'
  if not (folder / 'report.json').exists():
    if not may_make:
      return None
    _make(
      folder,
      source,
      tokenizer,
      num_workers=num_workers or os.cpu_count(),
      bos=bos,
      eos=eos,
      seq_len=seq_len,
      progress=progress,
      elsewhere=elsewhere,
    )
  return _open(folder, source, fingerprint, seed)


def _file_digests(source, cache_dir):
  """sha256 of every file; remembered by path and version."""
  memory = cache_dir / 'digests.json'
  known = json.loads(memory.read_text()) if memory.exists() else {}
  result, changed = [], False
  for path in sources_lib.files(source):
    version = sources_lib.version(path)
    key = f'{os.path.abspath(path)}:{version}'
    if version is None or key not in known:
      known[key] = sources_lib.digest(path)
      changed = True
    result.append(known[key])
  if changed:
    _write_whole(memory, json.dumps(known))
  return result


def _temporary(path):
  """A name beside it that no other process takes, on whatever machine."""
  return path.with_name(f'{uuid.uuid4().hex}.tmp{path.suffix}')


def _write_whole(path, text):
  temporary = _temporary(path)
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)


def _dtype(vocab_size):
  # Half the bytes take half the time to compress.
  return np.uint16 if vocab_size <= 1 << 16 else np.int32


def _features(vocab_size):
  import tensorflow_datasets as tfds  # takes seconds to import

  tensor = tfds.features.Tensor(
    shape=(None,),
    dtype=_dtype(vocab_size),
    encoding=tfds.features.Encoding.BYTES,
  )
  weights = tfds.features.Tensor(
    shape=(None,), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
  )
  return tfds.features.FeaturesDict(
    # Weights are kept of conversations; of texts every token is learnt. The
    # text is kept of held-out documents, which evaluation scores.
    {'ids': tensor, 'weights': weights, 'text': tfds.features.Text()}
  )


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

  temporary = _temporary(path)
  writer = array_record_module.ArrayRecordWriter(str(temporary), 'group_size:1')
  for example in examples:
    writer.write(serialized(example))
  writer.close()
  os.replace(temporary, path)


_worker = {}


def _start_worker(kind, data):
  _worker['tokenizer'] = vocab.from_bytes(kind, data)


def _write_here(shard):
  _write_shard(shard, _worker['tokenizer'])


def _store(path, value):
  temporary = _temporary(path)
  temporary.write_bytes(pickle.dumps(value))
  os.replace(temporary, path)


@functools.lru_cache(maxsize=1)
def _stored_tokenizer(work):
  return vocab.from_bytes(*pickle.loads((work / 'tokenizer').read_bytes()))


def write_stored(work, number):
  """Tokenizes one of the shards that `_make` stored in its folder."""
  work = pathlib.Path(work)
  if not (work / f'{number:06}.npz').exists():
    shard = pickle.loads((work / f'{number:06}.shard').read_bytes())
    _write_shard(shard, _stored_tokenizer(work))


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A part of a source, and how it becomes records."""

  work: pathlib.Path
  number: int
  texts: list
  where: list  # 'FILE, line N' of each
  first_document: int
  source: sources_lib.Source
  bos: bool
  eos: bool
  seq_len: int | None


def _encoder(source, tokenizer):
  """What makes ids and weights of a source's conversations."""
  template = source.template
  if template.endswith('.jinja'):
    text = pathlib.Path(template).read_text('utf-8')
    template = templates.ChatTemplate(text, tokenizer)
  return templates.Encoder(template, tokenizer, loss=source.loss)


def _encode(shard, tokenizer):
  """(ids, weights or None) of each text; None of an example left out.

  And how many of the too long were 'dropped' and 'cut'.
  """
  report = {'dropped': 0, 'cut': 0}
  if not shard.source.template:
    bos = np.array([tokenizer.bos_id] * shard.bos, np.int32)
    eos = np.array([tokenizer.eos_id] * shard.eos, np.int32)
    found = [
      (np.concatenate((bos, ids, eos)), None)
      for ids in tokenizer.encode_arrays(shard.texts)
    ]
    return found, report
  encode = _encoder(shard.source, tokenizer)
  found = []
  for text, where in zip(shard.texts, shard.where, strict=True):
    ids, weights = encode(messages.conversation(json.loads(text), where=where))
    try:
      kept = templates.fit(
        ids,
        weights,
        shard.seq_len,
        policy=shard.source.too_long,
        bos_id=tokenizer.bos_id,
      )
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from error
    report['dropped'] += kept is None
    report['cut'] += kept is not None and len(kept[0]) < len(ids)
    found.append(kept)
  return found, report


def _write_shard(shard, tokenizer):
  """Tokenizes one shard's texts: its training records and its index.

  Held-out texts go to a file of their own, tokenized, with their index.
  """
  work, number, texts = shard.work, shard.number, shard.texts
  is_byte, byte_lengths = tokenizer.is_byte, tokenizer.byte_lengths
  hashes = np.array([text_hash(text) for text in texts], np.uint64)
  heldout = _is_heldout(hashes, shard.source.holdout)
  records = {'train': [], 'heldout': []}
  index = {
    split: {name: [] for name in _INDEX} for split in ('train', 'heldout')
  }
  encoded, report = _encode(shard, tokenizer)
  dtype = _dtype(tokenizer.vocab_size)
  for i, example in enumerate(encoded):
    if example is None:
      continue
    split = 'heldout' if heldout[i] else 'train'
    ids, weights = example
    ids = np.asarray(ids, dtype)
    if weights is None:
      num_bytes = len(texts[i].encode())
    else:  # what it was read from has the names of fields as well
      num_bytes = int(byte_lengths[ids].sum())
    for start in range(0, len(ids), MAX_RECORD_TOKENS):
      piece = ids[start : start + MAX_RECORD_TOKENS]
      first = start == 0
      keep = first and split == 'heldout'
      kept = np.asarray(weights or (), np.uint8)
      record = {'ids': piece.tobytes(), 'weights': kept.tobytes()}
      record['text'] = texts[i].encode() if keep else b''
      records[split].append(record)
      for name, value in (
        ('lengths', len(piece)),
        ('learnt', len(piece) if weights is None else int(kept.sum())),
        ('num_bytes', num_bytes if first else 0),
        ('fallback', int(is_byte[piece].sum())),
        ('hashes', hashes[i]),
        ('documents', shard.first_document + i),
      ):
        index[split][name].append(value)
  for split, examples in records.items():
    if examples:
      path = work / f'{split}-{number:06}.array_record'
      _write_records(path, examples)
  arrays = {
    f'{split}_{name}': np.asarray(values, _INDEX[name])
    for split, columns in index.items()
    for name, values in columns.items()
  }
  arrays |= {name: np.asarray(found) for name, found in report.items()}
  # The index comes last: a shard with an index is finished.
  done = work / f'{number:06}.npz'
  temporary = _temporary(done)
  np.savez(temporary, **arrays)
  os.replace(temporary, done)


def _shards(source, skipped, cleaned):
  """(size, number of the first document, texts, their places) of each shard."""
  texts, where, size, first = [], [], 0, 0
  for text, place in sources_lib.documents(source, skipped, cleaned):
    texts.append(text)
    where.append(place)
    size += len(text.encode())
    if size >= SHARD_BYTES:
      yield size, first, texts, where
      first += len(texts)
      texts, where, size = [], [], 0
  if texts:
    yield size, first, texts, where


def _make(
  folder,
  source,
  tokenizer,
  *,
  num_workers,
  bos,
  eos,
  seq_len,
  progress,
  elsewhere,
):
  work = folder / 'work'
  work.mkdir(parents=True, exist_ok=True)
  for path in work.glob('*.tmp*'):
    path.unlink()
  skipped, sizes, cleaned = [], [], cleaning.Report()
  bar = tqdm.tqdm(
    total=sum(map(sources_lib.size, sources_lib.files(source))),
    unit='B',
    unit_scale=True,
    desc=f'tokenizing {source.name}',
    disable=not progress,
  )

  def unfinished():
    """The shards that are not there yet; `sizes` gets that of each."""
    for number, (size, first, *found) in enumerate(
      _shards(source, skipped, cleaned)
    ):
      sizes.append(size)
      if (work / f'{number:06}.npz').exists():
        bar.update(size)
      else:
        yield _Shard(work, number, *found, first, source, bos, eos, seq_len)

  stored = (tokenizer.kind, tokenizer.to_bytes())
  with bar:  # else an error would stand behind its last state
    if elsewhere is not None:
      numbers = []
      _store(work / 'tokenizer', stored)
      for shard in unfinished():
        _store(work / f'{shard.number:06}.shard', shard)
        numbers.append(shard.number)
        bar.update(sizes[shard.number])
      elsewhere(work, numbers)
      lost = [i for i in numbers if not (work / f'{i:06}.npz').exists()]
      if lost:
        raise ValueError(
          f'{len(lost)} of {len(numbers)} shards did not come back to {work}; '
          'the workers write there, so data.cache_dir must be a folder that '
          'all of them share.'
        )
    else:
      for number in _written(unfinished(), stored, num_workers):
        bar.update(sizes[number])
  if source.cleaning is not None:
    cleaned.write(folder)
  features = _features(tokenizer.vocab_size)
  _finish(folder, work, source, len(sizes), skipped, cleaned, features)


def _written(shards, tokenizer, num_workers):
  """Writes the shards in `num_workers` processes; the number of each."""
  head = list(itertools.islice(shards, 2))
  shards = itertools.chain(head, shards)
  if num_workers == 1 or len(head) < 2:
    # Starting processes would take longer than the work.
    _start_worker(*tokenizer)
    for shard in shards:
      _write_here(shard)
      yield shard.number
    return
  running = {}

  def finished(done):
    for future in done:
      future.result()
      yield running.pop(future)

  with concurrent.futures.ProcessPoolExecutor(
    num_workers,
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_start_worker,
    initargs=tokenizer,
  ) as pool:
    for shard in shards:
      running[pool.submit(_write_here, shard)] = shard.number
      # What is read ahead stays small.
      while len(running) > 2 * num_workers:
        yield from finished(
          concurrent.futures.wait(
            running, return_when=concurrent.futures.FIRST_COMPLETED
          ).done
        )
    yield from finished(list(concurrent.futures.as_completed(running)))


def _finish(folder, work, source, num_shards, skipped, cleaned, features):
  """Joins the shards' indices, moves the shards, writes the metadata."""
  import tensorflow_datasets as tfds

  parts = [np.load(work / f'{i:06}.npz') for i in range(num_shards)]
  split_infos = []
  for split in ('train', 'heldout'):
    for name in _INDEX:
      joined = np.concatenate([part[f'{split}_{name}'] for part in parts])
      np.save(folder / f'{split}_{name}.npy', joined)
    sizes = [len(part[f'{split}_lengths']) for part in parts]
    full = [i for i, size in enumerate(sizes) if size]
    if not full:
      continue
    for k, i in enumerate(full):
      target = folder / (
        f'tokens-{split}.array_record-{k:05}-of-{len(full):05}'
      )
      shard = work / f'{split}-{i:06}.array_record'
      if shard.exists():  # else an earlier, killed attempt moved it
        os.replace(shard, target)
    split_infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[sizes[i] for i in full],
        num_bytes=0,
      )
    )
  if not any(info.name == 'train' for info in split_infos):
    raise ValueError(
      f'source {source.name}: all of its documents are held out; lower '
      f'holdout={source.holdout}.'
    )
  tfds.folder_dataset.write_metadata(
    data_dir=str(folder),
    features=features,
    split_infos=split_infos,
    filename_template=None,
    check_data=False,
  )
  report = {
    'skipped': len(skipped),
    'skipped_examples': skipped[:20],
    'heldout_overlapping': _count_overlaps(
      source, {int(h) for part in parts for h in _kept(part)}
    ),
    'cleaned': [cleaned.total, cleaned.kept],
  }
  for name in ('dropped', 'cut'):
    report[name] = int(sum(part[name] for part in parts))
  _write_whole(folder / 'report.json', json.dumps(report, indent=2))
  shutil.rmtree(work)


def _kept(part):
  """The hashes of a shard's documents."""
  return np.concatenate([part['train_hashes'], part['heldout_hashes']])


def _count_overlaps(source, kept):
  """Held-out documents that share OVERLAP characters with a training one.

  A run of OVERLAP characters holds a whole block of half that length at a
  multiple of it, wherever it lies: blocks of the training text are looked up
  among all windows of the held-out text. `kept` are the hashes of what the
  cleaning left.
  """
  if not source.holdout:
    return 0
  half = OVERLAP // 2
  heldout, windows = [], {}

  whole = dataclasses.replace(source, cleaning=None)

  def texts():
    found = sources_lib.documents(whole, [])
    return (text for text, _ in found if text_hash(text) in kept)

  def held(text):
    return bool(
      _is_heldout(np.array([text_hash(text)], np.uint64), source.holdout)[0]
    )

  for text in texts():
    if held(text):
      for i in range(len(text) - half + 1):
        windows.setdefault(text[i : i + half], []).append((len(heldout), i))
      heldout.append(text)
  found = set()
  for text in texts():
    if held(text):
      continue
    for start in range(0, len(text) - half + 1, half):
      for number, i in windows.get(text[start : start + half], ()):
        if number not in found and (
          _common_run(text, start, heldout[number], i, half) >= OVERLAP
        ):
          found.add(number)
  return len(found)


def _common_run(a, i, b, j, length):
  """Characters that a around i and b around j share in a row."""
  left = 0
  while i - left > 0 and j - left > 0 and a[i - left - 1] == b[j - left - 1]:
    left += 1
  right = length
  while (
    i + right < len(a) and j + right < len(b) and a[i + right] == b[j + right]
  ):
    right += 1
  return left + right


# ------------------------------------------------------------------ reading


def _open(folder, source, fingerprint, seed):
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(str(folder))

  def dataset(split):
    if split not in builder.info.splits:
      return None
    index = {
      name: np.load(folder / f'{split}_{name}.npy', mmap_mode='r')
      for name in _INDEX
    }
    limits = {}
    if split == 'train':
      limits = dict(
        max_documents=source.max_documents,
        max_bytes=source.max_bytes,
        max_tokens=source.max_tokens,
      )
    return TokenizedDataset(
      builder.as_data_source(split), index, seed=seed, **limits
    )

  report = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
  return Prepared(
    dataset('train'),
    dataset('heldout'),
    fingerprint,
    report,
    bool(source.template),
    folder,
  )


class TokenizedDataset:
  """One split in the seeded order, as one stream of tokens.

  `num_documents`, `num_tokens` (BOS and EOS counted), of these `num_learnt`,
  `num_bytes` of text, `num_fallback` tokens; `document_lengths` int64 in
  tokens. Of conversations each is one record: `example` reads it.
  """

  def __init__(
    self,
    records,
    index,
    *,
    seed,
    max_documents=None,
    max_bytes=None,
    max_tokens=None,
  ):
    self._records = records
    order, number = subset(
      index['hashes'],
      seed=seed,
      documents=index['documents'],
      max_documents=max_documents,
      limits=(
        (max_bytes, index['num_bytes']),
        (max_tokens, index['lengths']),
      ),
    )
    self._order = order
    self._number = number
    # Rows in a row share a document; one record is read once.
    self._read = functools.lru_cache(maxsize=256)(self._read_record)
    lengths = np.asarray(index['lengths'], np.int64)[order]
    self._ends = np.cumsum(lengths)
    self.num_documents = int(number[-1]) + 1
    self.num_tokens = int(self._ends[-1])
    self.num_learnt = int(np.asarray(index['learnt'], np.int64)[order].sum())
    self.num_bytes = int(np.asarray(index['num_bytes'])[order].sum())
    self.num_fallback = int(
      np.asarray(index['fallback'], np.int64)[order].sum()
    )
    self.document_lengths = np.bincount(number, weights=lengths).astype(
      np.int64
    )

  def tokens(self, start, stop):
    """(ids, document numbers) of the stream's tokens [start, stop)."""
    stop = min(stop, self.num_tokens)
    first = int(np.searchsorted(self._ends, start, side='right'))
    last = int(np.searchsorted(self._ends, stop, side='left'))
    ids = [self._read(i) for i in range(first, last + 1)]
    begin = int(self._ends[first]) - len(ids[0])
    numbers = np.repeat(
      self._number[first : last + 1], [len(piece) for piece in ids]
    )
    cut = slice(start - begin, stop - begin)
    return np.concatenate(ids)[cut], numbers[cut]

  def _read_record(self, i):
    return np.asarray(self._records[int(self._order[i])]['ids'], np.int32)

  def example(self, i):
    """(ids int32, weights uint8) of the i-th conversation."""
    record = self._records[int(self._order[i])]
    ids, weights = record['ids'], record['weights']
    return np.asarray(ids, np.int32), np.asarray(weights, np.uint8)

  def texts(self):
    """The documents' texts, where the split keeps them (`heldout`)."""
    found = self._records.__getitems__([int(i) for i in self._order])
    texts = [record['text'] for record in found]
    starts = np.flatnonzero(np.diff(self._number, prepend=-1))
    return [
      t.decode() if isinstance(t, bytes) else str(t)
      for t in (texts[i] for i in starts)
    ]


def describe(prepared, name):
  """Lines about what was skipped, cut short, or overlaps, or ''."""
  lines = []
  data = prepared.train
  mean = data.num_tokens / data.num_documents
  if mean < 64 and data.num_learnt == data.num_tokens:
    lines.append(
      f'warning: documents of {name} have {mean:.0f} tokens on average; is '
      'each line really a document? See `cut` of the source.'
    )
  total, kept = prepared.report['cleaned']
  if kept < total:
    lines.append(
      f'{name}: cleaning left {kept:,} of {total:,} records; '
      f'{prepared.folder}/cleaning.md says what went'
    )
  dropped, cut = prepared.report['dropped'], prepared.report['cut']
  if dropped or cut:
    lines.append(
      f'{name}: {dropped:,} examples longer than a row were left out, of '
      f'{cut:,} the prompt was cut from the left (too_long)'
    )
  if prepared.report['skipped']:
    lines.append(
      f'warning: {prepared.report["skipped"]} records of {name} were '
      f'skipped, the first: {prepared.report["skipped_examples"][0]}'
    )
  if prepared.heldout is not None:
    overlapping = prepared.report['heldout_overlapping']
    total = prepared.heldout.num_documents
    share = overlapping / total if total else math.nan
    lines.append(
      f'held out of {name}: {total:,} documents, {overlapping:,} of them '
      f'({share:.1%}) share {OVERLAP} characters with a training document'
    )
  return '\n'.join(lines)
