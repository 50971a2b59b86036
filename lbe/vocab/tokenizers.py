"""Tokenizers on disk: SentencePiece, tokenizer.json, and plain bytes.

All follow one protocol. `encode` adds no special ids and reads control
strings in a text as text; who makes a document puts BOS and EOS around it.
"""

import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lbe.text import files
from lbe.text import hub
from lbe.text import lines
from lbe.vocab import added as added_lib
from lbe.vocab import fingerprint as fingerprint_lib
from lbe.vocab import folder as folder_lib
from lbe.vocab import huggingface
from lbe.vocab import sentencepiece


class Tokenizer(Protocol):
  """What everything else knows of a tokenizer.

  `byte_lengths` is int32 [V], the UTF-8 bytes that a token stands for (byte
  pieces 1, specials and unused ones 0); `is_byte` is bool [V], the
  byte-fallback pieces, and in byte-level vocabularies those that are no whole
  characters.
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
  # Tokens beside the pieces, with their flags: special ones are control
  # strings, ordinary ones are cut out of a text before all else.
  added: Sequence[added_lib.Token]
  adds_bos: bool  # whether a text to go on from begins with BOS by habit

  def encode(self, text: str) -> list[int]: ...
  def encode_batch(self, texts: list[str]) -> list[list[int]]: ...
  # Of texts in UTF-8, as int32.
  def encode_arrays(self, texts: list[bytes]) -> list[np.ndarray]: ...
  def decode(self, ids: list[int]) -> str: ...
  def piece(self, token: int) -> str: ...
  def to_bytes(self) -> bytes: ...
  def without_prefix(self) -> 'Tokenizer': ...
  # For the text of a piece by itself: all its spaces stay.
  def verbatim(self) -> 'Tokenizer': ...
  def after_special(self) -> 'Tokenizer': ...


class Bytes:
  """UTF-8 bytes at ids 3 to 258, behind <unk>, <s> and </s>."""

  kind = 'bytes'
  vocab_size = 259
  unk_id, bos_id, eos_id, pad_id = 0, 1, 2, None
  specials = {'<s>': 1, '</s>': 2}
  added, adds_bos = (), True

  def without_prefix(self):
    return self

  def verbatim(self):
    return self

  def after_special(self):
    return self

  def encode(self, text):
    lines.check_whole([text])
    return [b + 3 for b in text.encode()]

  def encode_batch(self, texts):
    return [self.encode(text) for text in texts]

  def encode_arrays(self, texts):
    return [
      np.frombuffer(text, np.uint8).astype(np.int32) + 3 for text in texts
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

  fingerprint = fingerprint_lib.digest({'kind': 'bytes', 'first': 3})


def from_bytes(kind: str, data: bytes) -> Tokenizer:
  """The tokenizer that `to_bytes` of the same `kind` wrote."""
  if kind == 'sentencepiece':
    return added_lib.from_bytes(data)
  if kind == 'hf':
    return huggingface.HuggingFace(data)
  if kind == 'bytes':
    return Bytes()
  raise ValueError(
    f"tokenizer kind {kind!r} is unknown; take one of 'sentencepiece', 'hf' "
    "and 'bytes'."
  )


def find(folder) -> pathlib.Path | None:
  """The tokenizer file of a folder, or None; SentencePiece comes first."""
  for name in ('tokenizer.model', 'tokenizer.json'):
    path = pathlib.Path(folder) / name
    if files.is_there(path) and not (
      name == 'tokenizer.model' and _is_tiktoken(path)
    ):
      return path
  return None


def _is_tiktoken(path):
  """Meta's LLaMA-3 folders call a tiktoken file tokenizer.model, too."""
  return path.exists() and path.read_bytes()[:8] == b'IQ== 0\nI'


def load(path) -> Tokenizer:
  """A tokenizer from a .model, .json, folder, name on the hub, or 'bytes'.

  Raises ValueError where nothing of that kind is there.
  """
  if str(path) == 'bytes':
    return Bytes()
  path = pathlib.Path(hub.local(path, weights=False))
  if path.is_dir():
    if (path / files.UNFINISHED).exists():
      raise ValueError(
        f'{path} is unfinished: who writes it has not ended, or was killed; '
        'give that command again.'
      )
    file = find(path)
    if file is None:
      raise ValueError(
        f'{path} holds neither tokenizer.model nor tokenizer.json; name the '
        'tokenizer file itself.'
      )
    path = file
  if not files.is_there(path):
    raise ValueError(
      f'there is no tokenizer at {path}; give a .model, a tokenizer.json, a '
      "folder with either, or 'bytes'."
    )
  files.check(path)
  record = files.read_json(path) if path.suffix == '.json' else None
  try:
    return _load_json(path, record) if record else _load_model(path)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  except (AttributeError, IndexError, KeyError, TypeError) as error:
    if record is None:
      raise
    raise ValueError(
      f'{path}: a part of it is not of the form that `tokenizers` writes '
      f'({type(error).__name__}: {error}); save it anew, or copy it again.'
    ) from error


def _load_json(path, record):
  huggingface.check(record)
  facts = folder_lib.read(path.parent, huggingface.pieces(record), record)
  record = huggingface.with_added(record, facts.tokens)
  return huggingface.HuggingFace(
    json.dumps(record), facts.roles, facts.adds_bos
  )


def _load_model(path):
  """A .model; one called tokenizer.model with what lies beside it."""
  model = sentencepiece.SentencePiece(path.read_bytes())
  if path.name != 'tokenizer.model':
    return model
  ids = {p.piece: i for i, p in enumerate(model.proto.pieces)}
  record, beside = None, path.with_name('tokenizer.json')
  if beside.is_file():
    record = files.read_json(beside)
    huggingface.check(record)
    theirs = huggingface.pieces(record)
    new = theirs.keys() - ids - {t['content'] for t in record['added_tokens']}
    if new and ids.items() <= theirs.items():
      return _load_json(beside, record)  # the .model is of before an extension
  facts = folder_lib.read(path.parent, ids, record)
  if not facts.spaced:
    model = model.without_prefix()
  return added_lib.around(model, facts)


def check_rows(tokenizer: Tokenizer, vocab_size: int) -> str:
  """A line that compares the tokenizer's pieces with the model's rows.

  Raises ValueError where rows are fewer: some ids would have none.
  """
  pieces = tokenizer.vocab_size
  if pieces > vocab_size:
    beyond = [t for t in tokenizer.added if t.id >= vocab_size]
    raise ValueError(
      f'the tokenizer has {pieces} pieces but the model only {vocab_size} '
      'rows'
      + ''.join(
        f'; the added token {t.content!r} has the id {t.id}' for t in beyond[:3]
      )
      + '; give the tokenizer that the model was trained with.'
    )
  if pieces < vocab_size:
    return (
      f'notice: the model has {vocab_size} rows for {pieces} pieces; the '
      f'last {vocab_size - pieces} are kept and never produced by encoding.'
    )
  return f'tokenizer: {pieces} pieces, each with a row of the model'


@functools.lru_cache(maxsize=8)
def without_piece(tokenizer: Tokenizer, num_rows: int) -> tuple[int, ...]:
  """The rows of a model that stand for no text and no control string."""
  size = min(tokenizer.vocab_size, num_rows)
  gaps = [i for i in range(size) if not tokenizer.piece(i)]
  return (*gaps, *range(size, num_rows))


def is_extension(tokenizer: Tokenizer, base: Tokenizer) -> bool:
  """Whether `tokenizer` has all pieces of `base` at their ids, and more."""
  more = tokenizer.vocab_size > base.vocab_size
  return more and _first_other(tokenizer, base) is None


def _first_other(tokenizer, base):
  """The first id at which `tokenizer` lacks a piece of `base`, or None."""
  return next(
    (
      i
      for i in range(base.vocab_size)
      if base.piece(i) not in ('', tokenizer.piece(i))
    ),
    None,
  )


def check_extension(tokenizer: Tokenizer, base: Tokenizer):
  """Raises ValueError where `tokenizer` does not continue `base`."""
  if tokenizer.vocab_size <= base.vocab_size:
    raise ValueError(
      f'the extended tokenizer has {tokenizer.vocab_size} pieces, its base '
      f'{base.vocab_size}: it must have more; were the two swapped?'
    )
  i = _first_other(tokenizer, base)
  if i is not None:
    raise ValueError(
      f'the tokenizer does not extend the base: id {i} is '
      f'{tokenizer.piece(i)!r} in it and {base.piece(i)!r} in the base; extend '
      'the base itself.'
    )


def check_same(
  fingerprint: str,
  tokenizer: Tokenizer,
  *,
  where: str,
  base: Tokenizer | None = None,
):
  """Raises ValueError where `tokenizer` is not the one of `where`.

  With the tokenizer of `where` as `base`, an extension of it (its first ids
  are the base's) is refused by that name.
  """
  if tokenizer.fingerprint == fingerprint:
    return
  differs = (
    f'the tokenizer (fingerprint {tokenizer.fingerprint[:12]}, '
    f'{tokenizer.vocab_size} pieces) differs from that of {where} '
    f'({fingerprint[:12]}'
  )
  if base is not None:
    differs += f', {base.vocab_size} pieces'
    if is_extension(tokenizer, base):
      raise ValueError(
        f'{differs}): it is an extension of it by '
        f'{tokenizer.vocab_size - base.vocab_size} pieces, for which the '
        'weights have no rows; train makes them (new_rows.method), or use the '
        'base tokenizer, or weights that were extended with it.'
      )
  raise ValueError(
    f'{differs}); ids would mean other pieces. Leave the tokenizer empty to '
    'use the one that came with the weights.'
  )


def start_ids(tokenizer: Tokenizer, bos: bool | None = None) -> list[int]:
  """BOS, or nothing: as is said or, with None, by the tokenizer's habit."""
  wanted = tokenizer.adds_bos if bos is None else bos
  return [tokenizer.bos_id] * (wanted and tokenizer.bos_id is not None)


def prompt_ids(
  tokenizer: Tokenizer, text: str, *, bos: bool | None = None
) -> list[int]:
  """`start_ids` and the text's."""
  return start_ids(tokenizer, bos) + tokenizer.encode(text)
