"""Text, tokenized once: an ArrayRecord dataset with an index beside it.

A source becomes a TFDS folder with the splits `train` and `heldout` (a record
per document, or per piece of a very long one) and index arrays. A run that
was killed goes on behind its finished shards, and the metadata comes last.
Documents lie in the order of the files; training sees them in the seeded order
of their hashes, which stand in the index.

Of a source with a template a document is a conversation: its record, as JSON,
becomes ids with a loss weight each, and is never cut into several.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np

from lbe.data import chosen
from lbe.data import cleaning
from lbe.data import contamination
from lbe.data import shards as shards_lib
from lbe.data import sources as sources_lib
from lbe.data import tokenized
from lbe.data import workers
from lbe.run import checksums
from lbe.text import bars
from lbe.text import files

_FORMAT = 5


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
  in_text=False,
):
  """Opens the tokenized source, making it where it is not there yet.

  Where it may not be made the answer is None then.

  `seq_len` is the longest example of a source with a template, `in_text` says
  that a budget counts its text. `elsewhere`
  takes the shards to other machines: elsewhere(folder, numbers) calls
  write_stored(folder, number) for each, in any order, as often as it likes.

  The folder's name holds a fingerprint of the files' content, the tokenizer
  and the settings. Where `max_documents` takes some and the whole is not there,
  these alone are tokenized, into a folder of their own; what they are known by
  is the same. Raises ValueError for an empty source, a record that
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
  facts = _texts(source, cache_dir) | {
    'format': _FORMAT,
    'tokenizer': tokenizer.fingerprint,
    'bos': bos,
    'eos': eos,
    'holdout': source.holdout,
    'shard_bytes': shards_lib.SHARD_BYTES,
  }
  cache_dir = pathlib.Path(cache_dir)
  if source.template:
    if seq_len > shards_lib.MAX_RECORD_TOKENS:
      raise ValueError(
        f'data.seq_len={seq_len} with a template: an example is one record '
        f'of at most {shards_lib.MAX_RECORD_TOKENS} tokens; take shorter rows.'
      )
    if source.trim_turns:
      facts['trim_turns'] = True
    facts['template'] = [source.template, source.loss, source.too_long, seq_len]
    if source.template.endswith('.jinja'):
      facts['template'][0] = pathlib.Path(source.template).read_text('utf-8')
    # Says before any work why it cannot be.
    shards_lib.encoder(source, tokenizer)
  fingerprint = _hash(facts)
  folder = cache_dir / f'{source.name}-{fingerprint}' / '1.0.0'
  taken = None
  if source.max_documents:
    told = f'{fingerprint}, {source.max_documents} by {seed}'
    part = hashlib.sha256(told.encode()).hexdigest()[:16]
    part = cache_dir / f'{source.name}-{part}' / '1.0.0'
    if _is_made(part) or not _is_made(folder):
      folder, taken = part, (source.max_documents, seed)
  if not _is_made(folder):
    if not may_make:
      return None
    with files.alone(folder.parent / 'in_use', f'tokenizing {source.name}'):
      # Another run may have made it while this one waited.
      if not _is_made(folder):
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
          taken=taken,
        )
  tokenized.check(folder)
  counted = None
  report = tokenized.read_report(folder)
  left_out = report['dropped'] or report.get('unwritten')
  limited = source.max_bytes or (source.max_documents and left_out)
  if source.template and (limited or in_text):
    counted = chosen.counted(folder, source, may_make)
    if counted is None:
      return None
    if limited:
      fingerprint += ', counted before its tokens'
  return tokenized.load(folder, source, fingerprint, seed, counted)


def texts_fingerprint(source: sources_lib.Source, cache_dir) -> str:
  """What the texts of a source are known by, before any is tokenized.

  By the content of its files and how they are read, wherever they lie. Digests
  are kept in the folder, where `prepare` finds them.
  """
  return _hash(_texts(source, cache_dir) | {'talks': bool(source.template)})


def _hash(facts):
  record = json.dumps(facts, sort_keys=True)
  return hashlib.sha256(record.encode()).hexdigest()[:16]


def _texts(source, cache_dir):
  """What decides a source's documents: content, and how it is read."""
  if '://' in str(cache_dir):
    raise ValueError(
      f'data.cache_dir={str(cache_dir)!r}: ArrayRecord is read from a disk; '
      'mount the store as a folder, or name one here.'
    )
  cache_dir = pathlib.Path(cache_dir)
  cache_dir.mkdir(parents=True, exist_ok=True)
  facts = {
    'files': _file_digests(source, cache_dir),
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
  }
  kinds = sources_lib.kinds(source)
  if kinds:
    facts['kinds'] = kinds
  if source.cleaning is not None:
    facts['cleaning'] = dataclasses.asdict(source.cleaning)
    facts['benchmarks'] = [
      hashlib.sha256(path.read_bytes()).hexdigest()
      for b in source.cleaning.benchmarks.values()
      for path in contamination.files(b['path'])
    ]
  return facts


def _is_made(folder):
  return (folder / 'report.json').exists() and not (folder / 'work').exists()


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
    files.write_whole(memory, json.dumps(known))
  return result


def _features(vocab_size):
  import tensorflow_datasets as tfds  # takes seconds to import

  tensor = tfds.features.Tensor(
    shape=(None,),
    dtype=shards_lib.dtype_of(vocab_size),
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
  taken,
):
  work = folder / 'work'
  work.mkdir(parents=True, exist_ok=True)
  for path in (*work.glob('*.tmp*'), *folder.glob('*.tmp*')):
    path.unlink()
  skipped, sizes, cleaned = [], [], cleaning.Report()
  total = sum(map(sources_lib.size, sources_lib.files(source)))

  def progress_bar(what, total):
    return bars.make(
      total=total,
      unit='B',
      unit_scale=True,
      desc=f'{what} {source.name}',
      disable=not progress,
    )

  if taken is None:
    documents = sources_lib.documents(source, skipped, cleaned)
  else:
    with progress_bar('choosing from', total) as bar:
      found = sources_lib.numbered(source, skipped, cleaned)
      numbers, total = chosen.choose(found, source, *taken, bar)
      bars.finish(bar)
    documents = sources_lib.chosen(source, numbers)
  bar = progress_bar('tokenizing', total)

  def unfinished():
    """The shards that are not there yet; `sizes` gets that of each."""
    for number, (size, first, *found) in enumerate(shards_lib.cut(documents)):
      sizes.append(size)
      if shards_lib.is_done(work, number):
        bar.update(size)
      else:
        how = (source, bos, eos, seq_len)
        yield shards_lib.Shard(work, number, *found, first, *how)

  stored = (tokenizer.kind, tokenizer.to_bytes())
  with bar:  # else an error would stand behind its last state
    if elsewhere is not None:
      numbers = []
      shards_lib.store(work / 'tokenizer', stored)
      for shard in unfinished():
        shards_lib.store(work / f'{shard.number:06}.shard', shard)
        numbers.append(shard.number)
        bar.update(sizes[shard.number])
      elsewhere(work, numbers)
      lost = [i for i in numbers if not shards_lib.is_done(work, i)]
      if lost:
        raise ValueError(
          f'{len(lost)} of {len(numbers)} shards did not come back to {work}; '
          'the workers write there, so data.cache_dir must be a folder that '
          'all of them share.'
        )
    else:
      for number in workers.written(unfinished(), stored, num_workers):
        bar.update(sizes[number])
    # Files hold more than their texts, and packed ones less.
    bars.finish(bar)
  if source.cleaning is not None:
    cleaned.write(folder)
  features = _features(tokenizer.vocab_size)
  parts = [shards_lib.load(work, i) for i in range(len(sizes))]
  _check_left(source, parts, skipped, seq_len)
  _finish(folder, work, source, parts, skipped, cleaned, features)


def _check_left(source, parts, skipped, seq_len):
  """Raises ValueError where no document is left to train on, and says why."""
  if any(len(part['train_lengths']) for part in parts):
    return
  told = shards_lib.told(parts)
  skipped, longest = skipped + told['skipped'], told['longest']
  why = []
  if any(len(part['heldout_lengths']) for part in parts):
    why.append(f'are held out; lower holdout={source.holdout}')
  if told['dropped']:
    why.append(
      f'are longer than a row of {seq_len} tokens, the longest of {longest}; '
      'take longer rows (data.seq_len)'
      + (", or too_long='cut_prompt'" if source.too_long == 'drop' else '')
    )
  if skipped:
    why.append(
      f'were skipped ({len(skipped)}), the first: {skipped[0]}'
      + (f'; the longest has {longest} tokens' if longest else '')
    )
  raise ValueError(
    f'source {source.name}: all of its documents {"; or ".join(why)}.'
  )


def _finish(folder, work, source, parts, skipped, cleaned, features):
  """Joins the shards' indices, moves the shards, writes the metadata."""
  import tensorflow_datasets as tfds

  split_infos = []
  for split in ('train', 'heldout'):
    for name in shards_lib.INDEX:
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
  tfds.folder_dataset.write_metadata(
    data_dir=str(folder),
    features=features,
    split_infos=split_infos,
    filename_template=None,
    check_data=False,
  )
  told = shards_lib.told(parts)
  unwritten = told.pop('skipped')
  skipped = skipped + unwritten
  if skipped:
    files.write_whole(folder / 'skipped.txt', '\n'.join(skipped) + '\n')
  report = {
    **told,
    'unwritten': len(unwritten),
    'unread': sources_lib.unread(source),
    'skipped': len(skipped),
    'skipped_examples': skipped[:20],
    'cleaned': [cleaned.total, cleaned.kept],
  }
  files.write_whole(folder / 'report.json', json.dumps(report, indent=2))
  # Without `work` it is whole: nobody may take it before it has checksums.
  names = checksums.files(folder)
  checksums.write(folder, [n for n in names if n.split('/')[0] != work.name])
  shutil.rmtree(work)
