"""SentencePiece models, in the protocol of lbe.vocab.tokenizers."""

import functools
import hashlib

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from lbe.text import lines
from lbe.vocab import fingerprint


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
  added = ()  # all its tokens are pieces

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

  @property
  def model(self):
    """The SentencePiece itself, as in added.AddedTokens."""
    return self

  @property
  def adds_bos(self):
    return self.bos_id is not None

  def encode(self, text):
    return self._encode(text)

  def encode_batch(self, texts):
    # A list starts a thread, which takes a thousand times as long as a text.
    return [self._encode(texts[0])] if len(texts) == 1 else self._encode(texts)

  def encode_arrays(self, texts):
    return self._processor.encode(texts, num_threads=1, return_type='numpy')

  def _encode(self, texts):
    try:
      return self._processor.encode(texts, num_threads=1)
    except (RuntimeError, TypeError):  # of one text, of several
      lines.check_whole([texts] if isinstance(texts, str) else texts)
      raise

  def without_prefix(self):
    """The same model, which puts no space before a text."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(self._data)
    proto.normalizer_spec.add_dummy_prefix = False
    return SentencePiece(proto.SerializeToString())

  def verbatim(self):
    """The same model, for the text of a piece by itself.

    It puts no space before the text and keeps those that are there, which
    spm_train's defaults take away where a text begins.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(self._data)
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
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
    """The text; an id that has no piece decodes to nothing."""
    return self._processor.decode(
      [int(i) for i in ids if 0 <= int(i) < self.vocab_size]
    )

  def piece(self, token):
    known = 0 <= int(token) < self.vocab_size
    return self.proto.pieces[int(token)].piece if known else ''

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
    silent = (kinds.CONTROL, kinds.UNKNOWN, kinds.UNUSED)

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
    return fingerprint.digest(
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
