"""More merges on top of a byte-level BPE, as LLaMA-3's tokenizer.json is.

The base cuts the text, and its merges are followed by the new ones: those of
the base are all done before the first new one is tried. So a text changes only
where two of its tokens are joined by a new merge, and a merge is learnt only
where its bytes cannot be in a text without a letter of the scripts that are
learnt from: it holds such a letter whole, or begins what can be nothing else.
"""

import codecs
import collections
import copy
import functools
import itertools
import json
import unicodedata

from tokenizers import Tokenizer

from lbe.text import bars
from lbe.text import scripts
from lbe.vocab import continued
from lbe.vocab import extend as extend_lib
from lbe.vocab import huggingface
from lbe.vocab import tokenizers

_ALPHABET = frozenset(huggingface.LETTERS)


def readable(piece):
  """A piece as text; bytes that are no whole character as \\x and digits.

  Added tokens, which are written in no such letters, stay as they are.
  """
  if not _ALPHABET.issuperset(piece):
    return piece
  return huggingface.spelled(piece).decode(errors='backslashreplace')


def extend(
  base,
  texts,
  *,
  num_pieces,
  coverage=0.9995,
  keep_latin=False,
  progress=True,
):
  """An extend.Extension of `base` by `num_pieces` pieces of the texts.

  Letters of scripts other than Latin (of all with `keep_latin`), of the
  frequent scripts that make up `coverage` of the corpus's letters: a stray
  word must not change the texts of its script. The new ids lie behind all
  present ones, special tokens included. `intermediates` are the pieces that
  only begin a character. Fewer pieces come where the corpus has no more.
  Raises ValueError where it has none, and for a base of another kind.
  """
  check_base(base)
  is_letter = extend_lib.letter_rule(keep_latin)
  texts = bars.make(texts, desc='reading', unit='text', disable=not progress)
  units, letters = _units(base, texts, is_letter)
  continued.check_units(units)
  frequent = _frequent_scripts(letters, coverage)

  def is_added(letter):
    return is_letter(letter) and scripts.first_word(letter) in frequent

  model = _model(base)
  bar = bars.make(
    units.items(), desc='cutting', unit='word', disable=not progress
  )
  learnt = continued.learn(
    {
      unit: ([token.value for token in model.tokenize(unit)], n)
      for unit, n in bar
    },
    _pieces(base),
    num_pieces,
    allowed=functools.cache(
      lambda piece: _is_safe(huggingface.spelled(piece), is_added)
    ),
    progress=progress,
  )
  left_out = collections.defaultdict(list)
  stuck = [c for c in letters if is_added(c) and _is_stuck(c, model, is_added)]
  if stuck:
    left_out['letters whose first bytes begin other text'] = stuck
  while True:
    tokenizer = _append(base, learnt)
    # Alone a piece would be found whole; inside a word only by its merges.
    lost = unreachable(_merging(tokenizer), first_id=base.vocab_size)
    if not lost:
      break
    left_out['never produced by encoding'] += map(readable, lost)
    learnt = [piece for piece in learnt if piece not in lost]
  if not learnt:
    raise ValueError(
      'the corpus gives no join that the base has not and that other text '
      'cannot hold; there is nothing to add.'
    )
  return extend_lib.Extension(
    tokenizer,
    [readable(piece) for piece in learnt],
    [readable(piece) for piece in learnt if huggingface.is_partial(piece)],
    dict(left_out),
    [
      f'learnt from {", ".join(frequent)}; text without letters of these is '
      'cut as before.'
    ],
  )


def check_base(base):
  """Raises ValueError for what is no byte-level BPE tokenizer.json."""
  model = base.record['model'] if base.kind == 'hf' else {}
  cut = base.record.get('pre_tokenizer') if model else None
  if model.get('type') != 'BPE' or 'ByteLevel' not in json.dumps(cut):
    raise ValueError(
      f'the base is no byte-level BPE (kind {base.kind!r}, model '
      f'{model.get("type")!r}); give the tokenizer.json of a model as LLaMA-3, '
      'or the tokenizer.model of one as LLaMA-1 and 2.'
    )
  ids = collections.Counter(model['vocab'].values())
  twice = [piece for piece, i in model['vocab'].items() if ids[i] > 1]
  if twice or '' in model['vocab']:
    raise ValueError(
      f'the base has {"pieces of one id" if twice else "an empty piece"}, as '
      f'{(twice or [""])[:2]}; each needs a text and an id of its own: repair '
      'the tokenizer.json.'
    )
  missing = [
    i for i in range(256) if huggingface.LETTERS[i] not in model['vocab']
  ]
  if missing:
    raise ValueError(
      f'the base has no piece for {len(missing)} of the 256 bytes, as '
      f'{missing[0]:#04x}; text with them would be lost.'
    )


def _pieces(base):
  """The ordinary vocabulary, without added tokens."""
  added = {token['content'] for token in base.record['added_tokens']}
  pieces = base.record['model']['vocab'].keys() - added
  return {piece for piece in pieces if _ALPHABET.issuperset(piece)}


def _model(tokenizer):
  """What cuts one pre-token, in GPT-2's letters, into pieces."""
  return Tokenizer.from_str(json.dumps(tokenizer.record)).model


def _units(base, texts, is_letter):
  """({pre-token with letters: count}, {letter: count})."""
  whole = Tokenizer.from_str(json.dumps(base.record))
  units, letters = collections.Counter(), collections.Counter()
  for text in texts:
    if whole.normalizer is not None:
      text = whole.normalizer.normalize_str(text)
    own = [c for c in text if is_letter(c)]
    letters.update(own)
    if own:
      units.update(u for u, _ in whole.pre_tokenizer.pre_tokenize_str(text))
  units = {u: n for u, n in units.items() if any(map(is_letter, readable(u)))}
  return units, letters


def _frequent_scripts(letters, coverage):
  counts = collections.Counter()
  for letter, n in letters.items():
    counts[scripts.first_word(letter)] += n
  taken, covered = [], 0
  for script, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])):
    if covered >= coverage * counts.total():
      break
    covered += n
    taken.append(script)
  return taken


def _is_safe(data, is_added):
  """Whether bytes may be a new piece.

  Letters that are added, whole ones, behind a space where words have one; or
  the first bytes of a character, if every character that begins so is added.
  """
  decoder = codecs.getincrementaldecoder('utf-8')()
  try:
    text = decoder.decode(data)
  except UnicodeDecodeError:
    return False  # begins inside a character
  beginning, _ = decoder.getstate()
  letters = text.removeprefix(' ')
  if beginning:
    if letters:
      return False
    letters = _characters(beginning)
  return (
    len(text) <= continued.MAX_LENGTH
    and all(map(is_added, letters))
    and (text[:1] != ' ' or all(map(scripts.has_spaces, letters)))
  )


@functools.cache
def _characters(beginning):
  """All characters of Unicode whose UTF-8 begins with these bytes."""
  length = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}[beginning[0] >> 4]
  tails = itertools.product(range(0x80, 0xC0), repeat=length - len(beginning))
  characters = ((beginning + bytes(x)).decode(errors='ignore') for x in tails)
  return [c for c in characters if c and unicodedata.category(c) != 'Cn']


def _is_stuck(letter, model, is_added):
  """Whether no safe join leads from the base's pieces to the letter."""
  data = letter.encode()
  parts = model.tokenize(''.join(huggingface.LETTERS[byte] for byte in data))
  ends = itertools.accumulate(len(token.value) for token in parts)
  return len(parts) > 2 and not all(
    _is_safe(data[:end], is_added) for end in list(ends)[1:]
  )


def _append(base, pieces):
  """The base with pieces behind all its ids, and merges for each of them."""
  record = huggingface.append(
    copy.deepcopy(base.record), pieces, _pieces(base) | set(pieces)
  )
  tokenizer = base.with_record(record)
  for token in record['added_tokens']:
    name, ids = token['content'], [token['id']]
    if tokenizer.encode(name) == ids != base.encode(name):
      raise ValueError(
        f'the control token {name!r} is one word to the pre-tokenizer: text '
        'that has this word would be read as the token; rename it in the '
        'tokenizer.json.'
      )
  return tokenizer


def _merging(tokenizer):
  """The same without ignore_merges, which takes known words whole."""
  record = copy.deepcopy(tokenizer.record)
  record['model']['ignore_merges'] = False
  return tokenizer.with_record(record)


def unreachable(tokenizer, *, first_id=0):
  """{piece: the pieces of its bytes} of pieces that are never produced.

  Of the ordinary pieces from `first_id` on: one that is text is encoded alone;
  one that is no whole character goes through the merges.
  """
  model = _model(_merging(tokenizer))
  vocabulary = tokenizer.record['model']['vocab']
  lost = {}
  for piece in sorted(_pieces(tokenizer), key=vocabulary.get):
    if vocabulary[piece] < first_id:
      continue
    if huggingface.is_partial(piece):
      ids = [token.id for token in model.tokenize(piece)]
    else:
      ids = tokenizer.encode(readable(piece))
    if ids != [vocabulary[piece]]:
      lost[piece] = [tokenizer.piece(i) for i in ids]
  return lost


def spell(base, extended):
  """For each new piece, the ids of the base that spell it (at least one).

  The piece's bytes as the base's merges join them. Raises ValueError where
  `extended` does not continue `base`.
  """
  check_base(base)
  tokenizers.check_extension(extended, base)
  model = _model(base)
  ordinary = _pieces(extended)

  def letters(piece):
    if piece in ordinary:
      return piece
    return ''.join(huggingface.LETTERS[byte] for byte in piece.encode())

  return [
    [token.id for token in model.tokenize(letters(extended.piece(i)))]
    for i in range(base.vocab_size, extended.vocab_size)
  ]
