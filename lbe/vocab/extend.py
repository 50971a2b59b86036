"""Adds the pieces of another SentencePiece model to LLaMA's, safely.

SentencePiece's BPE joins, again and again, the neighbouring symbols whose
joined piece has the highest score. A piece whose score lies below all of the
base's is joined only when no base piece can be any more, so text without it
keeps its segmentation. The published recipe ('zero') gives every new piece
score 0, above all others, which changes old text; it is kept to reproduce the
published files byte for byte.
"""

import collections
import dataclasses
import functools
import re
import unicodedata

from sentencepiece import sentencepiece_model_pb2

from lbe.text import scripts
from lbe.vocab import added as added_lib
from lbe.vocab import sentencepiece

_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece
# LLaMA gives runs of spaces this score; they are no merges by rank.
_SPACES_SCORE = -1e8
# Why pieces are left out that --keep_latin takes.
LATIN = 'with Latin letters or digits'


@dataclasses.dataclass(frozen=True)
class Extension:
  """An extended model, and what was done with each candidate.

  `added` are the new pieces in the order of their ids; the last ones of them,
  `intermediates`, are none of the target's but lead to some that are.
  `left_out` holds, by reason, the candidates that were not taken.
  """

  tokenizer: sentencepiece.SentencePiece
  added: list
  intermediates: list
  left_out: dict
  notices: list


def extend(
  base: sentencepiece.SentencePiece,
  target: sentencepiece.SentencePiece,
  *,
  score_mode: str = 'below_base',
  keep_latin: bool = False,
) -> Extension:
  """The pieces of `target` that `base` lacks, behind the ids of `base`.

  Both are vocab.SentencePiece, the base also with added tokens, which keep
  their ids; `base` must be BPE. 'below_base' leaves out
  pieces with Latin letters, digits or nothing but punctuation (unless
  `keep_latin`) and pieces that join text of the new script with other
  characters; where no two pieces join into one that is added, the missing
  ones between are added as well. 'zero' takes all and nothing else, as
  the published recipe does. Raises ValueError where nothing is left to add,
  and for models that do not go together.
  """
  given, base, target = base, added_lib.in_model(base), target.model
  check_base(base)
  if score_mode not in ('below_base', 'zero'):
    raise ValueError(
      f"score_mode={score_mode!r} is unknown; take 'below_base' or 'zero'."
    )
  _check_symbols(base, target)
  notices = _compare_normalizers(base, target)
  known = {p.piece for p in base.proto.pieces}
  left_out = collections.defaultdict(list)
  candidates = []
  for p in target.proto.pieces:
    reason = _reason_against(p, known)
    if score_mode == 'below_base':
      reason = reason or _reason_by_text(p.piece, keep_latin)
    if reason:
      left_out[reason].append(p.piece)
    else:
      candidates.append(p.piece)
  intermediates = []
  if score_mode == 'zero':
    tokenizer = _append(base, candidates, [0.0] * len(candidates))
  elif candidates:
    candidates, intermediates, tokenizer = make_reachable(
      base, candidates, left_out
    )
  added = candidates + intermediates
  if not added:
    raise ValueError(
      f'the target adds nothing to the base: of its {target.vocab_size} pieces '
      f'{_counted(left_out)}; was the base extended with it before?'
    )
  tokenizer = added_lib.with_model(given, tokenizer)
  return Extension(tokenizer, added, intermediates, dict(left_out), notices)


def check_base(base: sentencepiece.SentencePiece):
  """Raises ValueError for a base that is not BPE."""
  trainer = base.proto.trainer_spec
  if trainer.model_type != trainer.BPE:
    raise ValueError(
      'the base is no BPE model (model_type '
      f'{trainer.model_type}); pieces of other models cannot be added by score.'
    )


def _counted(left_out):
  return ', '.join(f'{len(v)} {k}' for k, v in left_out.items()) or 'none'


def _check_symbols(base, target):
  kinds = {p.piece: p.type for p in base.proto.pieces}
  clashing = [
    p.piece
    for p in target.proto.pieces
    if p.type == _Piece.USER_DEFINED
    and kinds.get(p.piece) != _Piece.USER_DEFINED
  ]
  if clashing:
    raise ValueError(
      f'the target has user-defined symbols that the base has not, as '
      f'{clashing[0]!r} ({len(clashing)} in all): they would be cut out of the '
      'text before any merge, and old text would change; train the target '
      'without them.'
    )


def _compare_normalizers(base, target):
  a, b = base.proto.normalizer_spec, target.proto.normalizer_spec
  notices = []
  if a.precompiled_charsmap != b.precompiled_charsmap:
    notices.append(
      f'normalisers differ: {b.name or "?"} in the target, '
      f'{a.name or "identity"} in the base, which stays. Text reaches the new '
      'pieces as it is: full-width letters, compatibility forms and the like '
      'are no longer folded before.'
    )
  if a.add_dummy_prefix != b.add_dummy_prefix:
    notices.append('the dummy prefix differs; the base decides.')
  return notices


def _reason_against(p, known):
  """Why a piece is never added, or ''."""
  if p.piece in known:
    return 'already in the base'
  if p.type != _Piece.NORMAL:
    return 'no ordinary piece'
  return ''


@functools.cache
def _is_latin_or_digit(character):
  if unicodedata.category(character)[0] == 'N':
    return True
  name = unicodedata.name(character, '')
  return name.startswith(('LATIN ', 'FULLWIDTH LATIN '))


def has_latin(piece: str) -> bool:
  """Whether --keep_latin alone takes it."""
  return any(map(_is_latin_or_digit, piece))


@functools.cache
def is_new_letter(character):
  """Whether a character belongs to a piece that may be added by default."""
  return scripts.is_letter(character) and not _is_latin_or_digit(character)


def letter_rule(keep_latin):
  """The letters that pieces are learnt from: all, or all but Latin ones."""
  if keep_latin:
    return scripts.is_letter
  return is_new_letter


def _reason_by_text(piece, keep_latin):
  """Why a piece's text keeps it out by default, or ''.

  A space before a word belongs to it where words are written with spaces;
  before a Chinese character it is a token of its own and stays one.
  """
  if has_latin(piece):
    return '' if keep_latin else LATIN
  if not any(scripts.is_letter(c) for c in piece):
    return 'only punctuation, symbols or space'
  body = piece.removeprefix('▁')
  space_belongs = body == piece or (
    body[0].isalpha() and scripts.has_spaces(body[0])
  )
  if not (space_belongs and all(map(scripts.is_letter, body))):
    return 'the script joined with other characters'
  return ''


def lowest_score(base):
  """The score of the base's last merge."""
  return min(p.score for p in base.proto.pieces if p.score > _SPACES_SCORE)


def _append(base, pieces, scores):
  proto = sentencepiece_model_pb2.ModelProto()
  proto.ParseFromString(base.to_bytes())
  for piece, score in zip(pieces, scores, strict=True):
    # Field by field, as the published files were written.
    new = sentencepiece_model_pb2.ModelProto().SentencePiece()
    new.piece = piece
    new.score = score
    proto.pieces.append(new)
  if any(scores):
    proto.trainer_spec.vocab_size = len(proto.pieces)
  return sentencepiece.SentencePiece(proto.SerializeToString())


def below(base, pieces):
  first = lowest_score(base) - 1
  return _append(base, pieces, [first - i for i in range(len(pieces))])


def make_reachable(base, candidates, left_out):
  """(candidates, pieces between, tokenizer) in which all are produced.

  A piece whose text ends as several tokens gets the joins that lead to it,
  from the left. They come last, so that they join only what would have stayed
  apart. What is not produced even so is left out.
  """
  between = []
  while True:
    tokenizer = below(base, candidates + between)
    lost = unreachable(tokenizer, first_id=base.vocab_size)
    if not lost:
      return candidates, between, tokenizer
    known = {p.piece for p in tokenizer.proto.pieces}
    new = []
    for parts in lost.values():
      for end in range(2, len(parts)):
        joined = ''.join(parts[:end]).replace(' ', '\u2581')
        if joined not in known:
          known.add(joined)
          new.append(joined)
    between += new
    if not new:
      left_out['never produced by encoding'] += [
        p for p in candidates if p in lost
      ]
      candidates = [p for p in candidates if p not in lost]
      between = [p for p in between if p not in lost]


def unreachable(tokenizer, *, first_id=0):
  """{piece: what its text gives} of pieces that are never produced.

  The text of each ordinary piece from `first_id` on is encoded alone, with its
  own spaces; a piece is reachable when that gives its one id.
  """
  plain, joined = tokenizer.verbatim(), r'(?!)'
  if tokenizer.proto.normalizer_spec.remove_extra_whitespaces:
    joined = ' {2,}'  # of several spaces in a text one is left

  def text(piece):
    return re.sub(joined, ' ', piece.replace('▁', ' '))

  pieces = [
    (i, p.piece)
    for i, p in enumerate(tokenizer.proto.pieces)
    if i >= first_id and p.type == _Piece.NORMAL
  ]
  encoded = plain.encode_batch([text(piece) for _, piece in pieces])
  return {
    piece: plain.split(text(piece))
    for (i, piece), ids in zip(pieces, encoded, strict=True)
    if ids != [i]
  }


def changed(base, extended, texts):
  """(texts cut otherwise, tokens before, tokens after) of old-language text."""
  before, after = base.encode_batch(texts), extended.encode_batch(texts)
  return (
    sum(a != b for a, b in zip(before, after, strict=True)),
    sum(map(len, before)),
    sum(map(len, after)),
  )
