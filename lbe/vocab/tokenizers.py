"""Tokenizers on disk: SentencePiece, tokenizer.json, and plain bytes.

All follow one protocol. `encode` adds no special ids and reads control
strings in a text as text; who makes a document puts BOS and EOS around it.
"""

import functools
import hashlib
import json
import pathlib
from typing import Protocol

import numpy as np
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2


class Tokenizer(Protocol):
  """What everything else knows of a tokenizer.

  `byte_lengths` is int32 [V], the UTF-8 bytes that a token stands for (byte
  pieces 1, specials 0); `is_byte` is bool [V], the byte-fallback pieces, and
  in byte-level vocabularies those that are no whole characters.
  """

  kind: str  # 'sentencepiece', 'hf' or 'bytes'
  vocab_size: int
  bos_id: int | None
  eos_id: int | None
  unk_id: int | None
  pad_id: int | None
  fingerprint: str
  byte_lengths: np.ndarray
  is_byte: np.ndarray
  specials: dict[str, int]  # control strings, which no text encodes to

  def encode(self, text: str) -> list[int]: ...
  def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
  def encode_arrays(self, texts: list[str]) -> list[np.ndarray]: ...  # int32
  def decode(self, ids: list[int]) -> str: ...
  def piece(self, token: int) -> str: ...
  def to_bytes(self) -> bytes: ...
  def without_prefix(self) -> 'Tokenizer': ...
  def after_special(self) -> 'Tokenizer': ...


def _digest(facts):
  text = json.dumps(facts, ensure_ascii=True, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _check_pieces(proto):
  """Raises ValueError for a piece without text, or two of one text."""
  first = {}
  for i, p in enumerate(proto.pieces):
    if not p.piece:
      raise ValueError(
        f'the SentencePiece model has an empty piece at id {i}; each needs a '
        'text: train or extend the model again.'
      )
    if p.piece in first:
      raise ValueError(
        f'the SentencePiece model has the piece {p.piece!r} twice, at the ids '
        f'{first[p.piece]} and {i}; each text can have one id: train or extend '
        'the model again.'
      )
    first[p.piece] = i


class SentencePiece:
  """A SentencePiece .model, encoded by the sentencepiece library itself."""

  kind = 'sentencepiece'

  def __init__(self, data):
    self._data = bytes(data)
    self.proto = sentencepiece_model_pb2.ModelProto()
    try:
      self.proto.ParseFromString(self._data)
    except Exception as error:
      raise ValueError(
        f'the SentencePiece model cannot be read ({error}); is the file whole?'
      ) from error
    _check_pieces(self.proto)
    try:
      self._processor = sentencepiece.SentencePieceProcessor(
        model_proto=self._data
      )
    except Exception as error:
      raise ValueError(
        f'the SentencePiece model cannot be read ({error}); is the file whole?'
      ) from error

    def special(token):
      return None if token < 0 else token

    p = self._processor
    self.vocab_size = p.get_piece_size()
    self.bos_id = special(p.bos_id())
    self.eos_id = special(p.eos_id())
    self.unk_id = special(p.unk_id())
    self.pad_id = special(p.pad_id())

  def encode(self, text):
    return self._processor.encode(text)

  def encode_batch(self, texts):
    return self._processor.encode(texts, num_threads=1)

  def encode_arrays(self, texts):
    return self._processor.encode(texts, num_threads=1, return_type='numpy')

  def without_prefix(self):
    """The same model, which puts no space before a text."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(self._data)
    proto.normalizer_spec.add_dummy_prefix = False
    return SentencePiece(proto.SerializeToString())

  def after_special(self):
    """The same model for a text that stands behind a special token.

    As transformers reads it with legacy=False: without a space before it.
    """
    return self.without_prefix()

  def split(self, text):
    """The parts of the text behind its tokens; a character of bytes is one."""
    parts, held = [], b''
    for token in self.encode(text):
      piece = self.piece(token)
      if not self.is_byte[token]:
        parts.append(piece.replace('▁', ' '))
        continue
      held += bytes([int(piece[3:5], 16)])
      try:
        parts.append(held.decode())
        held = b''
      except UnicodeDecodeError:
        pass  # the character goes on
    return parts

  def decode(self, ids):
    return self._processor.decode([int(i) for i in ids])

  def piece(self, token):
    return self.proto.pieces[int(token)].piece

  def to_bytes(self):
    return self._data

  @property
  def add_dummy_prefix(self):
    return self.proto.normalizer_spec.add_dummy_prefix

  @functools.cached_property
  def specials(self):
    control = sentencepiece_model_pb2.ModelProto.SentencePiece.CONTROL
    return {
      p.piece: i for i, p in enumerate(self.proto.pieces) if p.type == control
    }

  @functools.cached_property
  def is_byte(self):
    byte = sentencepiece_model_pb2.ModelProto.SentencePiece.BYTE
    return np.array([p.type == byte for p in self.proto.pieces])

  @functools.cached_property
  def byte_lengths(self):
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    silent = (kinds.CONTROL, kinds.UNKNOWN)

    def length(p):
      if p.type == kinds.BYTE:
        return 1
      if p.type in silent:
        return 0
      return len(p.piece.replace('▁', ' ').encode())

    return np.array([length(p) for p in self.proto.pieces], np.int32)

  @functools.cached_property
  def fingerprint(self):
    """Pieces, types, the order of scores, normaliser and special ids."""
    pieces = self.proto.pieces
    scores = np.array([p.score for p in pieces])
    ranks = np.unique(-scores, return_inverse=True)[1]
    n, t = self.proto.normalizer_spec, self.proto.trainer_spec
    return _digest(
      {
        'kind': self.kind,
        'pieces': [p.piece for p in pieces],
        'types': [p.type for p in pieces],
        'ranks': ranks.tolist(),
        'algorithm': t.model_type,
        'byte_fallback': t.byte_fallback,
        'whitespace_as_suffix': t.treat_whitespace_as_suffix,
        'normalizer': [
          hashlib.sha256(n.precompiled_charsmap).hexdigest(),
          n.add_dummy_prefix,
          n.remove_extra_whitespaces,
          n.escape_whitespaces,
        ],
        'specials': [self.bos_id, self.eos_id, self.unk_id, self.pad_id],
      }
    )


def _letters():
  """GPT-2's letters for the bytes: printable ones stand for themselves."""
  shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
  hidden = [byte for byte in range(256) if byte not in shown]
  return [
    chr(byte) if byte in shown else chr(256 + hidden.index(byte))
    for byte in range(256)
  ]


# In byte-level vocabularies, by byte.
LETTERS = _letters()
_BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}


def spelled(piece):
  """The bytes of a piece of a byte-level vocabulary."""
  return bytes(_BYTES[letter] for letter in piece)


def is_partial(piece):
  """Whether a piece of a byte-level vocabulary is no whole characters."""
  try:
    spelled(piece).decode()
  except UnicodeDecodeError:
    return True
  except KeyError:  # in other letters: it is never produced
    return False
  return False


class HuggingFace:
  """A tokenizer.json, encoded by the tokenizers library.

  Its special ids are those that the files beside it name; from the .json
  alone they are told by the common names of the LLaMA family.
  """

  kind = 'hf'

  def __init__(self, data, specials=None):
    """`data` is a tokenizer.json, or what `to_bytes` gave."""
    record = json.loads(data)
    if 'lbe_specials' in record:
      specials = record['lbe_specials']
      record = record['tokenizer']
    self._record = record
    self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(record))
    # Nothing but the text itself is encoded, and nothing is cut or padded.
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    self._tokenizer.encode_special_tokens = True
    self.vocab_size = 1 + max(
      self._tokenizer.get_vocab(with_added_tokens=True).values()
    )
    names = {
      'bos': ('<s>', '<|begin_of_text|>'),
      'eos': ('</s>', '<|end_of_text|>'),
      'unk': ('<unk>',),
      'pad': ('<pad>', '<|finetune_right_pad_id|>'),
    }
    specials = specials or {}

    def find(role):
      for name in (specials.get(role), *names[role]):
        token = name and self._tokenizer.token_to_id(name)
        if token is not None and name:
          return token
      return None

    self._specials = specials
    self.bos_id, self.eos_id = find('bos'), find('eos')
    self.unk_id, self.pad_id = find('unk'), find('pad')

  def encode(self, text):
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def encode_batch(self, texts):
    batch = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in batch]

  def encode_arrays(self, texts):
    return [np.asarray(ids, np.int32) for ids in self.encode_batch(texts)]

  def decode(self, ids):
    return self._tokenizer.decode([int(i) for i in ids])

  def piece(self, token):
    return self._tokenizer.id_to_token(int(token)) or ''

  def to_bytes(self):
    return json.dumps(
      {'tokenizer': self._record, 'lbe_specials': self._specials}
    ).encode()

  @property
  def record(self):
    """The tokenizer.json as a dictionary."""
    return self._record

  @property
  def roles(self):
    """Role → token, as the files beside the tokenizer.json name them."""
    return self._specials

  @functools.cached_property
  def specials(self):
    return {
      t['content']: t['id']
      for t in self._record.get('added_tokens', ())
      if t['special']
    }

  def without_prefix(self):
    """The same tokenizer, which puts no space before a text."""
    return self._with_prefix(())

  def after_special(self):
    """The same tokenizer for a text that stands behind a special token.

    Some put the space before the first text only, others before each.
    """
    return self._with_prefix(('always',))

  def _with_prefix(self, schemes):
    record = self._record
    for part in ('normalizer', 'pre_tokenizer'):
      record = {**record, part: _keep_prefix(record.get(part), schemes)}
    if record == self._record:
      return self
    return HuggingFace(json.dumps(record), self._specials)

  @functools.cached_property
  def byte_level(self):
    """Whether pieces are written in GPT-2's letters for bytes."""
    return 'ByteLevel' in json.dumps(
      [self._record.get('pre_tokenizer'), self._record.get('decoder')]
    )

  @functools.cached_property
  def is_byte(self):
    added = {t['id'] for t in self._record.get('added_tokens', ())}

    def of_byte(i):
      piece = self.piece(i)
      if self.byte_level:
        return i not in added and is_partial(piece)
      return len(piece) == 6 and piece.startswith('<0x') and piece[5] == '>'

    return np.array([of_byte(i) for i in range(self.vocab_size)])

  @functools.cached_property
  def byte_lengths(self):
    special = {
      t['id'] for t in self._record.get('added_tokens', ()) if t['special']
    }

    def length(i):
      if i in special:
        return 0
      piece = self.piece(i)
      if self.byte_level:
        return len(piece)
      if self.is_byte[i]:
        return 1
      return len(piece.replace('▁', ' ').encode())

    return np.array([length(i) for i in range(self.vocab_size)], np.int32)

  @functools.cached_property
  def fingerprint(self):
    model = self._record['model']
    return _digest(
      {
        'kind': self.kind,
        'model': model,
        'added_tokens': self._record.get('added_tokens'),
        'normalizer': self._record.get('normalizer'),
        'pre_tokenizer': self._record.get('pre_tokenizer'),
        'specials': [self.bos_id, self.eos_id, self.unk_id, self.pad_id],
      }
    )


def _keep_prefix(part, schemes):
  """A normalizer or pre-tokenizer; its prefix only where it is in `schemes`."""
  kind = part and part['type']
  if kind == 'Sequence':
    key = 'normalizers' if 'normalizers' in part else 'pretokenizers'
    kept = [_keep_prefix(p, schemes) for p in part[key]]
    return {**part, key: [p for p in kept if p]}
  if (
    kind == 'Metaspace' and part.get('prepend_scheme', 'always') not in schemes
  ):
    rest = {k: v for k, v in part.items() if k != 'add_prefix_space'}
    return {**rest, 'prepend_scheme': 'never'}
  if 'always' in schemes:
    return part
  if kind == 'Prepend':
    return None
  return {**part, 'add_prefix_space': False} if kind == 'ByteLevel' else part


class Bytes:
  """UTF-8 bytes at ids 3 to 258, behind <unk>, <s> and </s>."""

  kind = 'bytes'
  vocab_size = 259
  unk_id, bos_id, eos_id, pad_id = 0, 1, 2, None
  specials = {'<s>': 1, '</s>': 2}

  def without_prefix(self):
    return self

  def after_special(self):
    return self

  def encode(self, text):
    return [b + 3 for b in text.encode()]

  def encode_batch(self, texts):
    return [self.encode(text) for text in texts]

  def encode_arrays(self, texts):
    return [
      np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 3
      for text in texts
    ]

  def decode(self, ids):
    data = bytes(int(i) - 3 for i in ids if 3 <= int(i) < 259)
    return data.decode(errors='replace')

  def piece(self, token):
    token = int(token)
    return (
      ('<unk>', '<s>', '</s>')[token] if token < 3 else (f'<0x{token - 3:02X}>')
    )

  def to_bytes(self):
    return b''

  @property
  def byte_lengths(self):
    return np.array([0] * 3 + [1] * 256, np.int32)

  @property
  def is_byte(self):
    return np.arange(259) >= 3

  fingerprint = _digest({'kind': 'bytes', 'first': 3})


def from_bytes(kind, data):
  """The tokenizer that `to_bytes` of the same `kind` wrote."""
  if kind == 'sentencepiece':
    return SentencePiece(data)
  if kind == 'hf':
    return HuggingFace(data)
  if kind == 'bytes':
    return Bytes()
  raise ValueError(
    f"tokenizer kind {kind!r} is unknown; take one of 'sentencepiece', 'hf' "
    "and 'bytes'."
  )


def find(folder):
  """The tokenizer file of a folder, or None; SentencePiece comes first."""
  for name in ('tokenizer.model', 'tokenizer.json'):
    path = pathlib.Path(folder) / name
    if path.is_file() and not (
      name == 'tokenizer.model' and _is_tiktoken(path)
    ):
      return path
  return None


def _is_tiktoken(path):
  """Meta's LLaMA-3 folders call a tiktoken file tokenizer.model, too."""
  with open(path, 'rb') as f:
    return f.read(8) == b'IQ== 0\nI'


def load(path):
  """A tokenizer from a .model, a tokenizer.json, a folder, or 'bytes'.

  Raises ValueError where nothing of that kind is there.
  """
  if str(path) == 'bytes':
    return Bytes()
  path = pathlib.Path(path)
  if path.is_dir():
    found = find(path)
    if found is None:
      raise ValueError(
        f'{path} holds neither tokenizer.model nor tokenizer.json; name the '
        'tokenizer file itself.'
      )
    path = found
  if not path.is_file():
    raise ValueError(
      f'there is no tokenizer at {path}; give a .model, a tokenizer.json, a '
      "folder with either, or 'bytes'."
    )
  try:
    if path.suffix == '.json':
      return HuggingFace(path.read_text(encoding='utf-8'), _specials(path))
    return SentencePiece(path.read_bytes())
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error


def _specials(path):
  """Role → token as the files beside a tokenizer.json name them."""
  specials = {}
  for name in ('special_tokens_map.json', 'tokenizer_config.json'):
    beside = path.parent / name
    if beside.is_file():
      record = json.loads(beside.read_text(encoding='utf-8'))
      for role in ('bos', 'eos', 'unk', 'pad'):
        token = record.get(f'{role}_token')
        if isinstance(token, dict):
          token = token.get('content')
        if token:
          specials[role] = token
  return specials


def check_rows(tokenizer, vocab_size):
  """A line that compares the tokenizer's pieces with the model's rows.

  Raises ValueError where rows are fewer: some ids would have none.
  """
  pieces = tokenizer.vocab_size
  if pieces > vocab_size:
    raise ValueError(
      f'the tokenizer has {pieces} pieces but the model only {vocab_size} '
      'rows; give the tokenizer that the model was trained with.'
    )
  if pieces < vocab_size:
    return (
      f'notice: the model has {vocab_size} rows for {pieces} pieces; the '
      f'last {vocab_size - pieces} are kept and never produced by encoding.'
    )
  return f'tokenizer: {pieces} pieces, each with a row of the model'


def is_extension(tokenizer, base):
  """Whether `tokenizer` has all pieces of `base` at their ids, and more."""
  return tokenizer.vocab_size > base.vocab_size and all(
    tokenizer.piece(i) == base.piece(i) for i in range(base.vocab_size)
  )


def check_extension(tokenizer, base):
  """Raises ValueError where `tokenizer` does not continue `base`."""
  if is_extension(tokenizer, base):
    return
  if tokenizer.vocab_size <= base.vocab_size:
    raise ValueError(
      f'the extended tokenizer has {tokenizer.vocab_size} pieces, its base '
      f'{base.vocab_size}: it must have more; were the two swapped?'
    )
  i = next(
    i for i in range(base.vocab_size) if tokenizer.piece(i) != base.piece(i)
  )
  raise ValueError(
    f'the tokenizer does not extend the base: id {i} is {tokenizer.piece(i)!r} '
    f'in it and {base.piece(i)!r} in the base; extend the base itself.'
  )


def check_same(fingerprint, tokenizer, *, where, base=None):
  """Raises ValueError where `tokenizer` is not the one of `where`.

  With the tokenizer of `where` as `base`, an extension of it (its first ids
  are the base's) is refused by that name.
  """
  if tokenizer.fingerprint == fingerprint:
    return
  told = (
    f'the tokenizer (fingerprint {tokenizer.fingerprint[:12]}, '
    f'{tokenizer.vocab_size} pieces) differs from that of {where} '
    f'({fingerprint[:12]}'
  )
  if base is not None:
    told += f', {base.vocab_size} pieces'
    if is_extension(tokenizer, base):
      raise ValueError(
        f'{told}): it is an extension of it by '
        f'{tokenizer.vocab_size - base.vocab_size} pieces, for which the '
        'weights have no rows; train makes them (new_rows.method), or use the '
        'base tokenizer, or weights that were extended with it.'
      )
  raise ValueError(
    f'{told}); ids would mean other pieces. Leave the tokenizer empty to '
    'use the one that came with the weights.'
  )


def prompt_ids(tokenizer, text):
  """BOS, where the tokenizer has one, and the text's ids."""
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  return bos + tokenizer.encode(text)
