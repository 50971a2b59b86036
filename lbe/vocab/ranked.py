"""Extends a tokenizer.json with byte fallback, as transformers saves LLaMA 2.

Its merges by rank are those of a SentencePiece BPE model by score. So the
pieces are found with that model, and the tokenizer.json gets them.
"""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from lbe.vocab import extend as extend_lib
from lbe.vocab import huggingface
from lbe.vocab import sentencepiece

_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece
# Texts on which the two are compared, each of so many pieces.
_NUM_TEXTS, _NUM_PIECES = 2_000, 12


def extend(
  base: huggingface.HuggingFace,
  find: Callable[[sentencepiece.SentencePiece], extend_lib.Extension],
) -> extend_lib.Extension:
  """The Extension that `find` makes of the base's model, as a tokenizer.json.

  Raises ValueError for a base that is no such tokenizer.json, or that cuts
  texts otherwise than its model does.
  """
  model = to_model(base)
  _compare(base, model)
  extension = find(model)
  tokenizer = _append(base, extension.tokenizer)
  _compare(tokenizer, extension.tokenizer)
  return dataclasses.replace(extension, tokenizer=tokenizer)


def to_model(base: huggingface.HuggingFace) -> sentencepiece.SentencePiece:
  """The SentencePiece model whose scores are the ranks of the merges.

  Added tokens are control pieces, as no text has them there.
  """
  record = base.record['model']
  if record.get('type') != 'BPE' or not record.get('byte_fallback'):
    raise ValueError(
      f'the base is a tokenizer.json of {record.get("type")!r} without byte '
      'fallback; give one of BPE as LLaMA 2 or LLaMA 3 have, or a '
      'tokenizer.model.'
    )
  if base.unk_id is None:
    raise ValueError(
      'the tokenizer.json has no <unk>; give its tokenizer.model.'
    )
  rank = {}
  for i, (left, right) in enumerate(map(_pair, record['merges'])):
    rank.setdefault(left + right, i)
  proto = sentencepiece_model_pb2.ModelProto()
  added = {token.id for token in base.added}
  for i in range(base.vocab_size):
    text = base.piece(i)
    piece = proto.pieces.add()
    piece.piece = text or f'<|no_piece_{i}|>'
    piece.score = -float(rank.get(text, -1) + 1)
    piece.type = _Piece.NORMAL
    if i == base.unk_id:
      piece.type = _Piece.UNKNOWN
    elif i in added or not text:
      piece.type = _Piece.CONTROL
    elif base.is_byte[i]:
      piece.type = _Piece.BYTE
  trainer, prefixed = proto.trainer_spec, base.encode('a')
  trainer.model_type, trainer.byte_fallback = trainer.BPE, True
  trainer.vocab_size, trainer.unk_id = base.vocab_size, base.unk_id
  for role in ('bos', 'eos', 'unk', 'pad'):
    token = getattr(base, f'{role}_id')
    setattr(trainer, f'{role}_id', -1 if token is None else token)
    if token is not None:
      setattr(trainer, f'{role}_piece', base.piece(token))
  proto.normalizer_spec.name = 'identity'
  proto.normalizer_spec.remove_extra_whitespaces = False
  proto.normalizer_spec.add_dummy_prefix = (
    prefixed != base.without_prefix().encode('a')
  )
  return sentencepiece.SentencePiece(proto.SerializeToString())


def _pair(merge):
  return merge.split(' ') if isinstance(merge, str) else merge


def _append(base, model):
  """The base with the model's pieces behind all its ids, and their merges."""
  record = copy.deepcopy(base.record)
  pieces = model.proto.pieces
  known = {p.piece for p in pieces if p.type == _Piece.NORMAL}
  new = [p.piece for p in pieces[base.vocab_size :]]
  return base.with_record(huggingface.append(record, new, known))


def _compare(tokenizer, model):
  """Raises ValueError where the two cut a text otherwise.

  The texts are drawn pieces side by side; all but a space at their beginning,
  which transformers takes for that of the beginning itself.
  """
  normal = [p.piece for p in model.proto.pieces if p.type == _Piece.NORMAL]
  drawn = np.random.default_rng(0).integers(
    len(normal), size=(_NUM_TEXTS, _NUM_PIECES)
  )
  texts = [''.join(normal[i] for i in row) for row in drawn]
  texts = [
    text.replace('▁', ' ').strip(' ') for text in texts + normal[-_NUM_TEXTS:]
  ]
  pairs = zip(
    tokenizer.encode_batch(texts), model.encode_batch(texts), strict=True
  )
  differ = [t for t, (a, b) in zip(texts, pairs, strict=True) if a != b]
  if differ:
    raise ValueError(
      f'the tokenizer.json cuts {len(differ)} of {len(texts)} texts otherwise '
      'than a SentencePiece model with its merges does, as '
      f'{differ[0]!r:.60}; give its tokenizer.model as the base.'
    )
