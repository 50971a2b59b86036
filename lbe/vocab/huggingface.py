"""A tokenizer.json, in the protocol of lbe.vocab.tokenizers.

And the letters in which byte-level vocabularies, as LLaMA 3's, write bytes.
"""

import dataclasses
import functools
import json

import numpy as np
import tokenizers

from lbe.text import lines
from lbe.vocab import added
from lbe.vocab import fingerprint
from lbe.vocab import folder


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


def spelled(piece: str) -> bytes:
  """The bytes of a piece of a byte-level vocabulary."""
  return bytes(_BYTES[letter] for letter in piece)


def is_partial(piece: str) -> bool:
  """Whether a piece of a byte-level vocabulary is no whole characters."""
  try:
    spelled(piece).decode()
  except UnicodeDecodeError:
    return True
  except KeyError:  # in other letters: it is never produced
    return False
  return False


def check(record):
  """Raises ValueError for what is no tokenizer.json."""
  try:
    tokenizers.Tokenizer.from_str(json.dumps(record))
  except BaseException as error:
    # The library has no class of its own, and its panics are no Exception.
    if not isinstance(error, Exception) and 'Panic' not in type(error).__name__:
      raise
    raise ValueError(
      f'it is no tokenizer.json ({error}); is it whole, and of a tokenizer?'
    ) from error


def pieces(record):
  """{text: id} of a tokenizer.json, without its added tokens."""
  vocabulary = record['model']['vocab']
  if isinstance(vocabulary, dict):
    return vocabulary
  return {piece: i for i, (piece, _) in enumerate(vocabulary)}


def added_tokens(record):
  """The added.Tokens of a tokenizer.json, by id; a piece keeps its own."""
  tokens, known = record.get('added_tokens') or (), pieces(record)
  ids = [known.get(token['content'], token['id']) for token in tokens]
  return tuple(
    sorted(
      added.Token(**{**token, 'id': i})
      for token, i in zip(tokens, ids, strict=True)
    )
  )


def _load(record):
  """(the library's tokenizer, the tokenizer.json that gives its ids).

  The library numbers added tokens from the vocabulary's end, whatever ids they
  have: where these have gaps they are made pieces.
  """
  loaded = tokenizers.Tokenizer.from_str(json.dumps(record))
  tokens = added_tokens(record)
  if all(loaded.token_to_id(t.content) == t.id for t in tokens):
    return loaded, record
  model = record['model']
  if not isinstance(model['vocab'], dict):
    raise ValueError(
      f'the tokenizer.json has gaps between the ids of its added tokens '
      f'({[t.id for t in tokens][-5:]}), which one of {model["type"]} cannot '
      'have; give them the next ids.'
    )
  vocabulary = {t.content: t.id for t in tokens} | model['vocab']
  record = {**record, 'model': {**model, 'vocab': vocabulary}}
  return tokenizers.Tokenizer.from_str(json.dumps(record)), record


def with_added(record, tokens):
  """A tokenizer.json with the added.Tokens that it lacks."""
  known = {token.content for token in added_tokens(record)}
  new = [dataclasses.asdict(t) for t in tokens if t.content not in known]
  if not new:
    return record
  return {**record, 'added_tokens': [*record.get('added_tokens', ()), *new]}


def append(record, new, known):
  """A tokenizer.json with pieces behind all its ids, and merges for each.

  A piece is joined from any two of `known`. The record is changed.
  """
  vocabulary, merges = record['model']['vocab'], record['model']['merges']
  for token in record['added_tokens']:
    # A loader numbers those that it does not find from the vocabulary's end.
    vocabulary.setdefault(token['content'], token['id'])
  as_text = bool(merges) and isinstance(merges[0], str)
  for i, piece in enumerate(new, 1 + max(vocabulary.values())):
    vocabulary[piece] = i
    cuts = ((piece[:k], piece[k:]) for k in range(1, len(piece)))
    merges += [
      ' '.join(parts) if as_text else list(parts)
      for parts in cuts
      if known.issuperset(parts)
    ]
  return record


class HuggingFace:
  """A tokenizer.json, encoded by the tokenizers library.

  Its special ids are those that the files beside it name; from the .json
  alone they are told by the common names of the LLaMA family.
  """

  kind = 'hf'

  def __init__(self, data, specials=None, adds_bos=None):
    """`data` is a tokenizer.json, or what `to_bytes` gave.

    `adds_bos` is the habit where the .json says none.
    """
    record = json.loads(data)
    if 'lbe_specials' in record:
      specials = record['lbe_specials']
      adds_bos = record.get('lbe_adds_bos')
      record = record['tokenizer']
    self._tokenizer, record = _load(record)
    self._record, self._adds_bos = record, adds_bos
    self.added = added_tokens(record)
    self._tokens = {token.id: token for token in self.added}
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
    return self.encode_batch([text])[0]

  def encode_batch(self, texts):
    try:
      batch = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    except TypeError:
      lines.check_whole(texts)
      raise
    return [encoding.ids for encoding in batch]

  def encode_arrays(self, texts):
    batch = self.encode_batch([text.decode() for text in texts])
    return [np.asarray(ids, np.int32) for ids in batch]

  def decode(self, ids):
    return self._tokenizer.decode([int(i) for i in ids])

  def piece(self, token):
    """Of an added token its text as it was added, not as it is normalised."""
    known = self._tokens.get(int(token))
    if known:
      return known.content
    return self._tokenizer.id_to_token(int(token)) or ''

  def to_bytes(self):
    facts = {'tokenizer': self._record, 'lbe_specials': self._specials}
    if self._adds_bos is not None:
      facts['lbe_adds_bos'] = self._adds_bos
    return json.dumps(facts).encode()

  @property
  def adds_bos(self):
    """As the post-processor does it; else as was said; else where there is."""
    told = folder.adds_bos({'add_bos_token': self._adds_bos}, self._record)
    return told in (None, True) and self.bos_id is not None

  @property
  def record(self):
    """The tokenizer.json as a dictionary."""
    return self._record

  def with_record(self, record):
    """The tokenizer of another tokenizer.json, with the same roles."""
    return HuggingFace(json.dumps(record), self._specials, self._adds_bos)

  @functools.cached_property
  def specials(self):
    return {t.content: t.id for t in self.added if t.special}

  def without_prefix(self):
    """The same tokenizer, which puts no space before a text."""
    return self._with_prefix(())

  def verbatim(self):
    """The same tokenizer, for the text of a piece by itself.

    It puts no space before the text and keeps those that are there.
    """
    plain = self.without_prefix()
    kept = _keep_spaces(plain.record.get('normalizer'))
    if kept == plain.record.get('normalizer'):
      return plain
    return plain.with_record({**plain.record, 'normalizer': kept})

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
    return self.with_record(record)

  @functools.cached_property
  def byte_level(self):
    """Whether pieces are written in GPT-2's letters for bytes."""
    return 'ByteLevel' in json.dumps(
      [self._record.get('pre_tokenizer'), self._record.get('decoder')]
    )

  @functools.cached_property
  def is_byte(self):
    def of_byte(i):
      piece = self.piece(i)
      if self.byte_level:
        return i not in self._tokens and is_partial(piece)
      return len(piece) == 6 and piece.startswith('<0x') and piece[5] == '>'

    return np.array([of_byte(i) for i in range(self.vocab_size)])

  @functools.cached_property
  def byte_lengths(self):
    def length(i):
      piece = self.piece(i)
      if i in self._tokens:
        return 0 if self._tokens[i].special else len(piece.encode())
      if self.byte_level:
        return len(piece)
      if self.is_byte[i]:
        return 1
      return len(piece.replace('▁', ' ').encode())

    return np.array([length(i) for i in range(self.vocab_size)], np.int32)

  @functools.cached_property
  def fingerprint(self):
    model = self._record['model']
    return fingerprint.digest(
      {
        'kind': self.kind,
        'model': model,
        'added_tokens': self._record.get('added_tokens'),
        'normalizer': self._record.get('normalizer'),
        'pre_tokenizer': self._record.get('pre_tokenizer'),
        'specials': [self.bos_id, self.eos_id, self.unk_id, self.pad_id],
      }
    )


def _keep_spaces(part):
  """A normalizer without its steps that take spaces away."""
  if not part:
    return None
  if part['type'] == 'Sequence':
    kept = [_keep_spaces(p) for p in part['normalizers']]
    return {**part, 'normalizers': [p for p in kept if p]}
  empty = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
  record = json.dumps({**empty, 'normalizer': part})
  step = tokenizers.Tokenizer.from_str(record).normalizer
  return None if len(step.normalize_str('  ')) < 2 else part


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
