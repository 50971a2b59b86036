"""Trains a SentencePiece model with the settings of LLaMA's own."""

import io

import sentencepiece

from lbe.text import bars
from lbe.text import files

# SentencePiece drops a line that holds this, its mark of unknown characters,
_RESERVED = '\u2585'
# and one of more bytes than this, without a word.
_MAX_BYTES = 1 << 20


def train_sentencepiece(
  texts,
  path,
  *,
  vocab_size,
  model_type='bpe',
  character_coverage=0.9995,
  required_characters='',
  progress=False,
):
  """Writes a model to `path`, a .model file: 'bpe' or 'unigram'.

  LLaMA's settings: identity normaliser, dummy prefix, byte fallback, digits
  split, white space kept; ids 0, 1, 2 are <unk>, <s>, </s>. Each of the
  required characters is a piece, however rare. The same texts give the same
  model. Raises ValueError where the texts hold too little for `vocab_size`
  pieces.
  """
  if vocab_size < 300:
    raise ValueError(
      f'vocab_size={vocab_size} leaves nothing beside 3 special pieces and '
      '256 bytes; take at least 300.'
    )
  required = ''.join(dict.fromkeys(''.join(required_characters.split())))
  lines = (line for text in texts for line in _lines(text))
  model = io.BytesIO()  # a file's name would become a part of the model
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(
        bars.make(lines, desc='reading', unit='line', disable=not progress)
      ),
      model_writer=model,
      model_type=model_type,
      vocab_size=vocab_size,
      character_coverage=character_coverage,
      required_chars=required,
      normalization_rule_name='identity',
      add_dummy_prefix=True,
      remove_extra_whitespaces=False,
      byte_fallback=True,
      split_digits=True,
      allow_whitespace_only_pieces=True,
      max_sentence_length=_MAX_BYTES,
      num_threads=1,
      minloglevel=2,
    )
  except RuntimeError as error:
    raise ValueError(
      f'no SentencePiece model of {vocab_size} pieces can be made of these '
      f'texts ({error}); change the number of pieces or the text.'
    ) from error
  files.write_whole(path, model.getvalue())


def _lines(text):
  """The sentences of a text, none of which SentencePiece drops.

  A line is one; U+2028 and the like end one, too, and never lie inside of a
  piece.
  """
  longest = _MAX_BYTES // 4  # of UTF-8 for a character, at most
  for line in text.splitlines():
    for part in line.split(_RESERVED):
      for start in range(0, len(part), longest):
        yield part[start : start + longest]
