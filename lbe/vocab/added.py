"""Tokens that a folder adds to its SentencePiece model, behind one protocol.

ChatML's `<|im_start|>`, Alpaca's `[PAD]` and the like stand in no .model. An
ordinary added token is cut out of a text before anything else is, as
transformers does it; a special one is a control string, which no text encodes
to.
"""

import base64
import dataclasses
import functools
import json
import re

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from lbe.vocab import fingerprint
from lbe.vocab import sentencepiece

_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece
ROLES = ('bos', 'eos', 'unk', 'pad')
# When the space before a text is put: for each, for none, or where the text
# begins with none.
PREFIXES = ('always', 'never', 'missing')


@dataclasses.dataclass(frozen=True, order=True)
class Token:
  """An added token: its id, its text, and the flags of `tokenizers`."""

  id: int
  content: str
  special: bool
  normalized: bool
  single_word: bool = False
  lstrip: bool = False
  rstrip: bool = False


class AddedTokens:
  """A SentencePiece model and the tokens that are added to it.

  `added` are the Tokens by id. `behind` says whether text behind one of them
  gets the space of a text's beginning, one of PREFIXES; `adds_bos` whether
  a text to go on from begins with BOS where nobody says otherwise. An id that
  is neither a piece nor a token has the piece '' and decodes to nothing.
  """

  kind = 'sentencepiece'

  def __init__(
    self, model, *, added=(), roles=None, behind='never', adds_bos=True
  ):
    """`roles` are ids for the model's own: 'bos', 'eos', 'unk' or 'pad'."""
    self.model, self.added = model, tuple(sorted(added))
    self.behind, self.adds_bos = behind, adds_bos
    self._first = 'always'
    self.roles = {role: getattr(model, f'{role}_id') for role in ROLES}
    self.roles |= roles or {}
    self.bos_id, self.eos_id, self.unk_id, self.pad_id = self.roles.values()
    ids = [token.id for token in self.added]
    self.vocab_size = max([model.vocab_size, *(i + 1 for i in ids)])
    self._tokens = {token.id: token for token in self.added}
    self._counted = [t for t in self.added if changes(model, t)]
    ordinary = [t for t in self._counted if not t.special]
    texts = [re.escape(token.content) for token in ordinary]
    self._any = re.compile('|'.join(texts) or r'(?!)')
    self._cutter = _cutter(ordinary)
    # The cutter's own ids; 0 is all other text.
    self._ids = {self._cutter.token_to_id(t.content): t.id for t in ordinary}
    encoder = unwritten(model, [t for t in self._counted if t.special])
    bare = encoder.without_prefix()
    self._encoders = {'always': encoder, 'never': bare}

  def encode(self, text):
    return self.encode_batch([text])[0]

  def encode_batch(self, texts):
    """Ids of each; texts without an added token go to the model as one."""
    plain = [not self._any.search(text) for text in texts]
    whole = iter(
      self._encode(
        [text for text, one in zip(texts, plain, strict=True) if one],
        self._first,
      )
    )
    return [
      next(whole) if one else self._encode_parts(text)
      for text, one in zip(texts, plain, strict=True)
    ]

  def encode_arrays(self, texts):
    batch = self.encode_batch([text.decode() for text in texts])
    return [np.asarray(ids, np.int32) for ids in batch]

  def _encode(self, texts, prefix):
    if prefix != 'missing':
      return self._encoders[prefix].encode_batch(texts)
    return [
      self._encoders[_missing(text)].encode_batch([text])[0] for text in texts
    ]

  def _encode_parts(self, text):
    cut = self._cutter.encode(text, add_special_tokens=False)
    ids = []
    for found, (begin, end) in zip(cut.ids, cut.offsets, strict=True):
      if found:
        ids.append(self._ids[found])
      else:
        prefix = self.behind if begin else self._first
        ids += self._encode([text[begin:end]], prefix)[0]
    return ids

  def decode(self, ids):
    parts, run, model = [], [], self.model
    for token in [*map(int, ids), None]:
      known = self._tokens.get(token)
      if token is not None and known is None:
        run.append(token)
      elif token is None or not known.special:
        parts.append(model.decode(run))
        parts.append(known.content if known else '')
        run = []
        if any(parts):  # the space of a text's beginning is gone
          model = self._encoders['never']
    return ''.join(parts)

  def piece(self, token):
    known = self._tokens.get(int(token))
    return known.content if known else self.model.piece(token)

  def to_bytes(self):
    facts = {
      'model': base64.b64encode(self.model.to_bytes()).decode(),
      'added': [dataclasses.astuple(token) for token in self.added],
      'roles': self.roles,
      'behind': self.behind,
      'adds_bos': self.adds_bos,
    }
    return json.dumps(facts).encode()

  def without_prefix(self):
    """The same tokenizer, which puts no space before a text."""
    return self._with_first('never')

  def verbatim(self):
    """The same tokenizer, for the text of a piece by itself."""
    return with_model(self, self.model.verbatim())

  def after_special(self):
    """The same tokenizer for a text that stands behind a special token."""
    return self._with_first(self.behind)

  def _with_first(self, first):
    other = with_model(self, self.model)
    other._first = first
    return other

  @functools.cached_property
  def specials(self):
    return self.model.specials | {
      t.content: t.id for t in self.added if t.special
    }

  @functools.cached_property
  def is_byte(self):
    more = self.vocab_size - self.model.vocab_size
    return np.pad(self.model.is_byte, (0, more))

  @functools.cached_property
  def byte_lengths(self):
    more = self.vocab_size - self.model.vocab_size
    lengths = np.pad(self.model.byte_lengths, (0, more))
    for t in self.added:
      lengths[t.id] = 0 if t.special else len(t.content.encode())
    return lengths

  @functools.cached_property
  def fingerprint(self):
    """That of the model, where no text has other ids than the model gives."""
    roles = {role: self.roles[role] for role in ('bos', 'eos', 'unk')}
    own = {role: getattr(self.model, f'{role}_id') for role in roles}
    if not self._counted and roles == own:
      return self.model.fingerprint
    return fingerprint.digest(
      {
        'kind': self.kind,
        'model': self.model.fingerprint,
        # Of two that overlap those that are not normalized are found first;
        # a tokenizer.json cannot always say so.
        'added': [
          (t.id, t.content, t.special, t.single_word, t.lstrip, t.rstrip)
          for t in self._counted
        ],
        'behind': self.behind,
        'roles': roles,
      }
    )


def around(model, facts):
  """The model with a folder.Facts; itself, where they say nothing new."""
  ids = {p.piece: i for i, p in enumerate(model.proto.pieces)}
  ids |= {token.content: token.id for token in facts.tokens}
  roles = {role: ids[text] for role, text in facts.roles.items()}
  own = {role: getattr(model, f'{role}_id') for role in ROLES}
  # A role's piece is a control string, whatever it was before.
  listed = {token.content for token in facts.tokens}
  said = facts.tokens + [
    Token(ids[text], text, special=True, normalized=False)
    for text in dict.fromkeys(facts.roles.values())
    if text not in listed
  ]
  told = [t for t in said if changes(model, t) or t.lstrip or t.rstrip]
  adds_bos = facts.adds_bos in (None, True) and (own | roles)['bos'] is not None
  if not told and own | roles == own and adds_bos == model.adds_bos:
    return model
  return AddedTokens(
    model,
    added=told,
    roles=roles,
    # Alone, the model is what it is without a folder.
    behind=facts.behind if any(changes(model, t) for t in told) else 'never',
    adds_bos=adds_bos,
  )


def from_bytes(data):
  """The AddedTokens that `to_bytes` wrote; of other data the model itself."""
  if not data.startswith(b'{'):  # no .model does
    return sentencepiece.SentencePiece(data)
  facts = json.loads(data)
  model = sentencepiece.SentencePiece(base64.b64decode(facts.pop('model')))
  tokens = [Token(*values) for values in facts.pop('added')]
  return AddedTokens(model, added=tokens, **facts)


def changes(model, token):
  """Whether a Token gives or keeps an id that the model alone does not.

  Control pieces and user-defined symbols of the model are what a special and
  an ordinary token would be.
  """
  pieces = model.proto.pieces
  if token.id >= len(pieces) or pieces[token.id].piece != token.content:
    return True
  kind = pieces[token.id].type
  if kind in (_Piece.CONTROL, _Piece.UNKNOWN):
    roles = [getattr(model, f'{role}_id') for role in ROLES]
    return not token.special and token.id not in roles
  return token.special or kind != _Piece.USER_DEFINED


def with_model(tokenizer, model):
  """The tokenizer with another model, whose first ids are its own."""
  if isinstance(tokenizer, sentencepiece.SentencePiece):
    return model
  return AddedTokens(
    model,
    added=tokenizer.added,
    roles=tokenizer.roles,
    behind=tokenizer.behind,
    adds_bos=tokenizer.adds_bos,
  )


def in_model(tokenizer):
  """A SentencePiece with a piece for each id: added tokens as control pieces.

  So the ids of pieces that are added behind them follow. Ids without anything
  get control pieces, too.
  """
  if tokenizer.vocab_size == tokenizer.model.vocab_size:
    return tokenizer.model
  proto = sentencepiece_model_pb2.ModelProto()
  proto.ParseFromString(tokenizer.model.to_bytes())
  for i in range(len(proto.pieces), tokenizer.vocab_size):
    piece = proto.pieces.add()
    piece.piece = tokenizer.piece(i) or f'<|no_piece_{i}|>'
    piece.score, piece.type = 0, _Piece.CONTROL
  return sentencepiece.SentencePiece(proto.SerializeToString())


def _cutter(ordinary):
  """A `tokenizers.Tokenizer` that finds the tokens, and one for what is left.

  Its normaliser is none, as that of transformers' LLaMA is.
  """
  import tokenizers  # a twentieth of a second, and few folders need it

  # No text has Unicode's noncharacters.
  rest = '\ufdd3'
  cutter = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({rest: 0}, unk_token=rest)
  )
  cutter.add_tokens(
    [
      tokenizers.AddedToken(
        t.content,
        normalized=t.normalized,
        single_word=t.single_word,
        lstrip=t.lstrip,
        rstrip=t.rstrip,
      )
      for t in ordinary
    ]
  )
  return cutter


def unwritten(model, specials):
  """The model, in which no text encodes to the pieces of special Tokens."""
  pieces = [t.id for t in specials if t.id < model.vocab_size]
  pieces = [
    i for i in pieces if model.piece(i) in {t.content for t in specials}
  ]
  if not pieces:
    return model
  proto = sentencepiece_model_pb2.ModelProto()
  proto.ParseFromString(model.to_bytes())
  for i in pieces:
    proto.pieces[i].type = _Piece.CONTROL
  return sentencepiece.SentencePiece(proto.SerializeToString())


def _missing(text):
  return 'never' if text[:1] in (' ', '▁') else 'always'
