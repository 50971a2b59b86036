"""Tokenizer files that transformers, tokenizers, and SentencePiece load."""

import collections
import json
import pathlib

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import processors

from lbe.text import lines

_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece


def write(tokenizer, folder, *, max_positions: int):
  """Writes the tokenizer's files into an existing folder.

  tokenizer.json and tokenizer_config.json, special_tokens_map.json, and
  tokenizer.model where it is a SentencePiece model. The config names
  PreTrainedTokenizerFast: under LlamaTokenizer transformers 5 replaces the
  normaliser and loses leading spaces. It says that text behind a special
  token gets the dummy prefix again (`legacy`), and names a padding token or
  says that there is none.
  """
  folder = pathlib.Path(folder)
  if tokenizer.kind == 'sentencepiece':
    (folder / 'tokenizer.model').write_bytes(tokenizer.to_bytes())
    text = from_sentencepiece(tokenizer).to_str(pretty=True)
  elif tokenizer.kind == 'bytes':
    text = from_bytes(tokenizer).to_str(pretty=True)
  else:
    text = json.dumps(tokenizer.record, ensure_ascii=False, indent=2)
  (folder / 'tokenizer.json').write_text(text, encoding='utf-8')
  specials = {
    f'{role}_token': tokenizer.piece(token)
    for role, token in (
      ('bos', tokenizer.bos_id),
      ('eos', tokenizer.eos_id),
      ('unk', tokenizer.unk_id),
      ('pad', tokenizer.pad_id),
    )
    if token is not None
  }
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'add_bos_token': tokenizer.bos_id is not None,
    'add_eos_token': False,
    'legacy': True,
    'pad_token': None,
    'padding_side': 'right',
    'clean_up_tokenization_spaces': False,
    'model_max_length': max_positions,
    **specials,
  }
  for name, record in (
    ('tokenizer_config.json', config),
    ('special_tokens_map.json', specials),
  ):
    (folder / name).write_text(
      json.dumps(record, ensure_ascii=False, indent=2), encoding='utf-8'
    )


def ranked_merges(proto):
  """Pairs of pieces in the order in which SentencePiece's BPE joins them.

  For each piece every split into two others, best score first; ties by the
  ids of the parts. Pieces of equal score cannot be told apart by a rank:
  only a model with distinct scores is encoded alike by both (see `compare`).
  """
  mergeable = (_Piece.NORMAL, _Piece.USER_DEFINED)
  ids = {p.piece: i for i, p in enumerate(proto.pieces) if p.type in mergeable}
  merges = []
  for piece, i in ids.items():
    for cut in range(1, len(piece)):
      left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
      if left is not None and right is not None:
        score = proto.pieces[i].score
        merges.append((-score, left, right, piece[:cut], piece[cut:]))
  merges.sort()
  return [(left, right) for *_, left, right in merges]


def tied(tokenizer):
  """Pieces of a BPE model that ranks cannot tell apart: of one score.

  Runs of spaces do not count; each is joined in one way only.
  """
  if tokenizer.kind != 'sentencepiece':
    return []
  proto = tokenizer.proto
  if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
    return []
  pieces = [
    p
    for p in proto.pieces
    if p.type == _Piece.NORMAL and len(p.piece) > 1 and p.piece.strip('▁')
  ]
  counts = collections.Counter(p.score for p in pieces)
  return [p.piece for p in pieces if counts[p.score] > 1]


def compare(tokenizer, texts=()):
  """What tokenizer.json loses of a model with ties; None where it has none.

  The lines of the texts, or lines of eight tied pieces each where none are
  given, are encoded by both: {'sample', 'lines', 'differing', 'truth'}.
  """
  pieces = tied(tokenizer)
  if not pieces:
    return None
  samples = [line for text in texts for line in lines.split(text)]
  sample = (
    'the texts given' if samples else 'pieces of equal score, eight a line'
  )
  if not samples:
    pieces = [piece.replace('▁', ' ') for piece in pieces]
    samples = [''.join(pieces[i : i + 8]) for i in range(0, len(pieces), 8)]
  twin = from_sentencepiece(tokenizer)
  theirs = twin.encode_batch_fast(samples, add_special_tokens=False)
  pairs = zip(tokenizer.encode_batch(samples), theirs, strict=True)
  return {
    'sample': sample,
    'lines': len(samples),
    'differing': sum(ours != their.ids for ours, their in pairs),
    'truth': 'tokenizer.model',
  }


def warning(compared):
  """A line that says what `compare` gave."""
  return (
    f'warning: pieces of equal score cannot be written as ranked merges: '
    f'{compared["differing"]:,} of {compared["lines"]:,} lines '
    f'({compared["sample"]}) differ between tokenizer.model, which is the '
    'truth, and tokenizer.json.'
  )


def from_sentencepiece(tokenizer):
  """The `tokenizers` twin of a SentencePiece model, BPE or Unigram."""
  proto = tokenizer.proto
  trainer, norm = proto.trainer_spec, proto.normalizer_spec
  if trainer.model_type == trainer.BPE:
    model = models.BPE(
      vocab={p.piece: i for i, p in enumerate(proto.pieces)},
      merges=ranked_merges(proto),
      unk_token=proto.pieces[tokenizer.unk_id].piece,
      fuse_unk=True,
      byte_fallback=trainer.byte_fallback,
    )
  elif trainer.model_type == trainer.UNIGRAM:
    model = models.Unigram(
      [(p.piece, p.score) for p in proto.pieces],
      tokenizer.unk_id,
      trainer.byte_fallback,
    )
  else:
    raise ValueError(
      'only BPE and Unigram SentencePiece models have a tokenizer.json; '
      f'this one has model_type {trainer.model_type}.'
    )
  result = tokenizers.Tokenizer(model)
  steps = []
  if norm.precompiled_charsmap:
    steps.append(normalizers.Precompiled(norm.precompiled_charsmap))
  if norm.remove_extra_whitespaces:
    steps += [
      normalizers.Strip(),
      normalizers.Replace(tokenizers.Regex(' {2,}'), ' '),
    ]
  if norm.add_dummy_prefix:
    steps.append(normalizers.Prepend('▁'))
  steps.append(normalizers.Replace(' ', '▁'))
  result.normalizer = normalizers.Sequence(steps)
  parts = [
    decoders.Replace('▁', ' '),
    decoders.ByteFallback(),
    decoders.Fuse(),
  ]
  if norm.add_dummy_prefix:
    parts.append(decoders.Strip(' ', 1, 0))
  result.decoder = decoders.Sequence(parts)
  specials = [
    p.piece for p in proto.pieces if p.type in (_Piece.CONTROL, _Piece.UNKNOWN)
  ]
  return _finish(result, tokenizer, specials)


def from_bytes(tokenizer):
  """The `tokenizers` twin of plain bytes: every character falls back."""
  vocab = {tokenizer.piece(i): i for i in range(tokenizer.vocab_size)}
  result = tokenizers.Tokenizer(
    models.BPE(vocab=vocab, merges=[], unk_token='<unk>', byte_fallback=True)
  )
  result.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
  return _finish(result, tokenizer, ['<unk>', '<s>', '</s>'])


def _finish(result, tokenizer, specials):
  result.add_special_tokens(
    [
      tokenizers.AddedToken(piece, special=True, normalized=False)
      for piece in specials
    ]
  )
  if tokenizer.bos_id is not None:
    bos = tokenizer.piece(tokenizer.bos_id)
    result.post_processor = processors.TemplateProcessing(
      single=f'{bos} $A',
      pair=f'{bos} $A {bos}:1 $B:1',
      special_tokens=[(bos, tokenizer.bos_id)],
    )
  return result
