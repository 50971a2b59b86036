"""The `tokenizers` twin of a SentencePiece model: what tokenizer.json holds.

SentencePiece's BPE joins the neighbours whose joined piece has the best score,
the leftmost of equals; `tokenizers` joins by the rank of a pair, and each pair
has a rank of its own. With distinct scores both are the same. The published way
to extend LLaMA gives all new pieces one score above the others, and no ranking
of pairs is leftmost for every text (12 before 23 before 31 before 12). But a
rule that joins the leftmost pair of one group reads a text once, from left to
right: the piece that a text begins with is the longest of those that the rule
makes of their own characters. So a pre-tokenizer cuts these out, longest first,
and the ranks join the rest. In the same way it cuts out user-defined symbols.
"""

import re

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers

from lbe.vocab import sentencepiece

_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece
_SPACE = '▁'
# Noncharacters: between two marks, and before what stands alone.
_APART, _ALONE = '\ufdd0', '\ufdd1'


def variants(
  tokenizer: sentencepiece.SentencePiece, *, behind: str
) -> list[tokenizers.Tokenizer]:
  """`tokenizers.Tokenizer`s that stand for a SentencePiece model.

  More than one where its normaliser folds characters: `tokenizers` applies
  such a map to one character, or to a short cluster of them, SentencePiece to
  the longest text that the map knows. `behind` is one of added.PREFIXES; a
  text that begins with several spaces is wholly right with 'always' alone.
  """
  proto = tokenizer.proto
  trainer = proto.trainer_spec
  if trainer.model_type in (trainer.BPE, trainer.CHAR):  # no pair joins
    model, cuts = _bpe(tokenizer)
  elif trainer.model_type == trainer.UNIGRAM:
    model, cuts = _unigram(tokenizer)
  else:
    raise ValueError(
      'only BPE, Unigram and character models have a tokenizer.json; '
      f'this one has model_type {trainer.model_type}.'
    )
  result = []
  charsmap = proto.normalizer_spec.precompiled_charsmap
  for folding in _foldings(charsmap) if charsmap else [[]]:
    twin = tokenizers.Tokenizer(model)
    twin.normalizer = _normalizer(proto, folding, behind)
    steps = [] if behind == 'always' else _prefix(proto, behind)
    steps += [
      pre_tokenizers.Split(tokenizers.Regex(x), 'isolated') for x in cuts
    ]
    if steps:
      twin.pre_tokenizer = pre_tokenizers.Sequence(steps)
    twin.decoder = _decoder(proto.normalizer_spec)
    result.append(twin)
  return result


# ------------------------------------------------------------------- models


def _unigram(tokenizer):
  """(models.Unigram, the regular expressions that cut a text before it).

  Text that is written like a control or byte piece is cut before its first
  letter or digit, since this model would take the piece.
  """
  proto = tokenizer.proto
  symbols = _symbols(proto)
  scores = [p.score for p in proto.pieces if _is_joined(p)]
  scores += [proto.pieces[tokenizer.unk_id].score] if not scores else []
  silent, pieces = {}, []
  for p in proto.pieces:
    score = p.score
    if p.type == _Piece.UNUSED:
      score = min(scores) - 100
    elif not _is_joined(p) and p.piece not in symbols:
      score = min(scores)
      cut = next((i for i, c in enumerate(p.piece) if i and c.isalnum()), 1)
      silent.setdefault(p.piece[:cut], set()).add(p.piece[cut:])
    pieces.append((p.piece, score))
  model = models.Unigram(
    pieces, tokenizer.unk_id, proto.trainer_spec.byte_fallback
  )
  cuts = [_trie(symbols)] if symbols else []
  apart = [
    f'(?<={"".join(map(_escaped, first))})(?={_trie(rest)})'
    for first, rest in silent.items()
    if '' not in rest
  ]
  return model, [*cuts, '|'.join(apart)] if apart else cuts


def _bpe(tokenizer):
  """(models.BPE, the regular expressions that cut a text before it)."""
  proto = tokenizer.proto
  symbols = _symbols(proto)
  groups = ties(proto)
  whole = _whole(tokenizer, groups[0]) if groups else set()
  cuts = [_trie(symbols)] if symbols else []
  longest = symbols | whole
  several = any(len(piece) > 1 for piece in longest)
  if several:
    own = _trie(longest)
    rest = _spelt_out(tokenizer, own, longest)
    cuts = cuts[:1] if whole and symbols else []
    cuts.append(f'(?<own>{own}){rest}')
  model = models.BPE(
    vocab={p.piece: i for i, p in enumerate(proto.pieces)},
    merges=ranked_merges(proto, whole),
    unk_token=proto.pieces[tokenizer.unk_id].piece,
    fuse_unk=True,
    byte_fallback=proto.trainer_spec.byte_fallback,
    # What is cut out is one token, whatever its parts would be joined to.
    ignore_merges=several,
  )
  return model, cuts


def _symbols(proto):
  return {p.piece for p in proto.pieces if p.type == _Piece.USER_DEFINED}


def ranked_merges(proto, whole=()):
  """Pairs of pieces in the order in which SentencePiece's BPE joins them.

  For each piece, but those that are cut out `whole`, every split into two
  others, best score first; of one score those whose left part is longer, since
  a leftmost piece grows before others begin; then by the ids of the parts.
  """
  ids = {p.piece: i for i, p in enumerate(proto.pieces) if _is_joined(p)}
  merges = []
  for piece, i in ids.items():
    if piece in whole:
      continue
    for cut in range(1, len(piece)):
      left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
      if left is not None and right is not None:
        score = proto.pieces[i].score
        order = (-score, -cut, left, right)
        merges.append((order, piece[:cut], piece[cut:]))
  merges.sort()
  return [(left, right) for _, left, right in merges]


def _is_joined(p):
  return p.type == _Piece.NORMAL


def ties(proto):
  """Sets of pieces of one score, each with its own, the best score first.

  Runs of spaces do not count; each is joined in one way only.
  """
  groups = {}
  for p in proto.pieces:
    if _is_joined(p) and len(p.piece) > 1 and p.piece.strip(_SPACE):
      groups.setdefault(p.score, set()).add(p.piece)
  return [
    groups[score]
    for score in sorted(groups, reverse=True)
    if len(groups[score]) > 1
  ]


def _whole(tokenizer, group):
  """The tied pieces that can be cut out of a text before all joins.

  Those that the leftmost rule makes, if nothing joins them with a neighbour
  later. Nothing where other pieces have better scores than the tied.
  """
  pieces = [
    p for p in tokenizer.proto.pieces if _is_joined(p) and len(p.piece) > 1
  ]
  best = max(p.score for p in pieces)
  if any(p.piece not in group for p in pieces if p.score == best):
    return set()
  made = {piece for piece in group if _leftmost(piece, group) == [piece]}
  encoded = _alone(tokenizer, [p.piece for p in pieces])
  produced = {piece for piece, tokens in encoded.items() if tokens == [piece]}
  parts = produced | {p.piece for p in tokenizer.proto.pieces if _is_single(p)}
  for piece in produced - made:
    for cut in range(1, len(piece)):
      if piece[:cut] in parts and piece[cut:] in parts:
        made -= {piece[:cut], piece[cut:]}
  return made


def _is_single(p):
  return _is_joined(p) and len(p.piece) == 1


def _leftmost(text, group):
  """The parts of a text of which the leftmost two of a group are joined."""
  parts = []
  for character in text:
    parts.append(character)
    while len(parts) > 1 and parts[-2] + parts[-1] in group:
      parts[-2:] = [parts[-2] + parts[-1]]
  return parts


def _alone(tokenizer, pieces):
  """{piece: the pieces that its text is encoded to, by itself}."""
  plain = tokenizer.verbatim()
  encoded = plain.encode_batch([p.replace(_SPACE, ' ') for p in pieces])
  return {
    piece: [plain.piece(token) for token in ids]
    for piece, ids in zip(pieces, encoded, strict=True)
  }


# --------------------------------------------------- cutting before the model


def _trie(words):
  """A regular expression that matches the longest of the words."""
  root = {}
  for word in words:
    node = root
    for character in word:
      node = node.setdefault(character, {})
    node[''] = {}
  return _matched(root)


def _matched(node):
  """What goes on from a node of the trie; nothing, where a word may end."""
  children = sorted((c, x) for c, x in node.items() if c)
  if not children:
    return ''
  return f'(?:{_branches(children)})' + '?' * ('' in node)


def _branches(children):
  """Alternatives; many are halved by their first character, to be quick."""
  if len(children) > 6:
    half = len(children) // 2
    first, last = (_escaped(children[i][0]) for i in (0, half - 1))
    return (
      f'(?=[{first}-{last}])(?:{_branches(children[:half])})|'
      f'{_branches(children[half:])}'
    )
  ends = [c for c, x in children if list(x) == ['']]
  more = [_escaped(c) + _matched(x) for c, x in children if list(x) != ['']]
  if ends:
    more.append(f'[{"".join(map(_escaped, ends))}]')
  return '|'.join(more)


def _escaped(character):
  return re.escape(character) if character.isascii() else character


def _spelt_out(tokenizer, own, longest):
  """Alternatives for what stands between and is spelt like a whole piece.

  Such a text would be taken whole, and SentencePiece does not join it (text
  that is written like a piece for bytes, or a piece that nothing makes): its
  first token is cut off.
  """
  cut = pre_tokenizers.Split(tokenizers.Regex(own), 'isolated')
  pieces = [p.piece for p in tokenizer.proto.pieces if len(p.piece) > 1]
  encoded = _alone(tokenizer, [p for p in pieces if p not in longest])
  alternatives = []
  for piece, tokens in encoded.items():
    if len(tokens) > 1 and len(cut.pre_tokenize_str(piece)) == 1:
      first = tokens[0]
      if not piece.startswith(first):
        first = piece[0]
      rest = ''.join(map(_escaped, piece[len(first) :]))
      first = ''.join(map(_escaped, first))
      alternatives.append(rf'|\G{first}(?={rest}(?:\z|\g<own>))')
  return ''.join(alternatives)


# -------------------------------------------------------------- normalising


def _prefix(proto, behind):
  """Pre-tokenizers: they know where a text begins, as no normaliser does.

  Metaspace puts a space before a text only where none is; with the mark of
  the normaliser, which is cut out again, none is.
  """
  marked = proto.normalizer_spec.add_dummy_prefix
  steps = [
    pre_tokenizers.Metaspace(
      _SPACE, 'first' if marked else 'never', split=False
    ),
    pre_tokenizers.Split(_ALONE, 'removed'),
  ]
  if marked and behind == 'missing':
    steps.append(pre_tokenizers.Metaspace(_SPACE, 'always', split=False))
  return steps


def _normalizer(proto, folding, behind):
  norm = proto.normalizer_spec
  space = _SPACE if norm.escape_whitespaces else ' '

  def replace(pattern, content):
    return normalizers.Replace(tokenizers.Regex(pattern), content)

  steps = list(folding)
  if norm.remove_extra_whitespaces:
    steps += [
      replace(r'\A +', ''),
      replace(' {2,}', ' '),
      replace(rf'[ {space}]+\z', ''),
    ]
  if behind != 'always':
    steps.append(replace(r'\A(?=[ ▁])', _ALONE))
    return normalizers.Sequence(steps)
  if norm.escape_whitespaces:
    steps.append(normalizers.Replace(' ', _SPACE))
  if norm.add_dummy_prefix:
    if proto.trainer_spec.treat_whitespace_as_suffix:
      steps.append(replace(r'\z', space))
    elif norm.remove_extra_whitespaces:
      steps.append(normalizers.Prepend(space))
    else:  # also where nothing is left of the text
      steps.insert(0, normalizers.Prepend(space))
  return normalizers.Sequence(steps)


def _foldings(charsmap):
  """Steps that apply a precompiled map of characters, two ways.

  Alone, it loses what is composed of more bytes than a short cluster has (half
  width and voice marks, Korean letters), and what follows a character that it
  maps in one cluster (a line feed behind a carriage return). So for maps after
  NFKC marks are composed before and after, and apart within.
  """
  plain = normalizers.Precompiled(charsmap)

  def put(mark, pattern):
    return normalizers.Replace(tokenizers.Regex(pattern), mark)

  # NFC would bring marks of one letter into another order, which the map does
  # not. It composes two at a time for Latin and Greek letters alone, those
  # below a letter before those above.
  below = r'\u0316-\u0319\u031b-\u0333\u0339-\u033c'
  other = r'(?<=\p{M})(?=\p{M})(?!(?<=[\u0300-\u036f])(?=[\u0300-\u036f]))'
  later = rf'(?<=[^\x00-\x7fơưƠƯ{below}])(?=[{below}])'
  return [
    [plain],
    [
      put(_APART, f'{other}|{later}'),
      normalizers.NFC(),
      put(_ALONE, r'(?<!\A)(?=[\p{M}\u200c\u200d\uff9e\uff9f])|(?<=\r)(?=\n)'),
      plain,
      normalizers.Replace(_ALONE, ''),
      normalizers.NFC(),
      normalizers.Replace(_APART, ''),
    ],
  ]


def _decoder(norm):
  parts = [
    decoders.Replace(_SPACE, ' '),
    decoders.ByteFallback(),
    decoders.Fuse(),
  ]
  if norm.add_dummy_prefix or norm.remove_extra_whitespaces:
    parts.append(decoders.Strip(' ', 1, 0))
  return decoders.Sequence(parts)
