"""Rows of the embedding and of the head for pieces that are new.

The paper's models started new rows from noise; others start them from the old
rows that spell the piece. Old rows are never touched.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lbe.text import files
from lbe.text import lines
from lbe.vocab import byte_level
from lbe.vocab import tokenizers

METHODS = ('pieces_mean', 'dictionary', 'mean', 'gaussian', 'normal')
# Of 'normal', the published recipe: what transformers 4.30 filled in.
NORMAL_STD = 0.02
# Rows that are drawn at a time.
_BLOCK = 256


def check(method: str, dictionary: str):
  """Raises ValueError for a method that is none, or not of a dictionary."""
  if method not in METHODS:
    raise ValueError(
      f'new_rows.method={method!r} is unknown; take one of '
      f'{", ".join(METHODS)}.'
    )
  if (method == 'dictionary') != bool(dictionary):
    raise ValueError(
      f'new_rows.method={method!r} with dictionary={dictionary!r}: the method '
      "'dictionary' needs a file, and only it does."
    )


def spell(
  base: tokenizers.Tokenizer, extended: tokenizers.Tokenizer
) -> list[list[list[int]]]:
  """For each new piece, [the ids of the base that spell it].

  The piece's text is encoded alone, with its own spaces. `make` takes several
  spellings of a piece; this is the one that every piece has.
  """
  if base.kind == extended.kind == 'hf' and base.byte_level:
    return [[ids] for ids in byte_level.spell(base, extended)]
  if base.kind != extended.kind or base.kind == 'bytes':
    raise ValueError(
      'new rows are made where both tokenizers are a tokenizer.model or both '
      f'a tokenizer.json; these are of the kinds {base.kind!r} and '
      f'{extended.kind!r}.'
    )
  pieces = [
    extended.piece(i) for i in range(base.vocab_size, extended.vocab_size)
  ]
  spellings = base.verbatim().encode_batch(
    [piece.replace('▁', ' ') for piece in pieces]
  )
  return [[ids] for ids in spellings]


def translate(
  base: tokenizers.Tokenizer, extended: tokenizers.Tokenizer, path
) -> tuple[list[list[list[int]]], int]:
  """(spellings, how many pieces have a translation) by a dictionary.

  A line of the file is a word of the new language, a tab, and a word of the
  old one; a word may have several lines. A piece that is such a word is
  spelled by its translations, each as the base writes that word, behind a space
  where the piece begins with one; any other piece by itself. Raises ValueError
  for a line of another form, where no piece is found, and where many more are
  in the second column.
  """
  words, turned = {}, set()
  text = files.text(path)
  for number, line in enumerate(lines.split(text), 1):
    if not line.strip():
      continue
    fields = [field.strip() for field in line.split('\t')]
    if len(fields) != 2 or not all(fields):
      raise ValueError(
        f'{path}, line {number}: {line!r} is not a word, a tab, and its '
        'translation.'
      )
    words.setdefault(fields[0], []).append(fields[1])
    turned.add(fields[1])
  spellings, verbatim = spell(base, extended), base.verbatim()
  num_found = num_turned = 0
  for i in range(len(spellings)):
    piece = extended.piece(base.vocab_size + i)
    if extended.kind == 'hf' and extended.byte_level:
      piece = byte_level.readable(piece)
    own = piece.replace('▁', ' ')
    word = own.strip()
    num_turned += word in turned
    if word in words:
      translations = words[word]
      if own[:1] == ' ':  # which not every base puts before a text
        spaced = [f' {x}' for x in translations]
        spellings[i] = verbatim.encode_batch(spaced)
      else:
        spellings[i] = base.encode_batch(translations)
      num_found += 1
  if num_turned > 2 * num_found or not num_found:
    told = f'{num_found:,} of the {len(spellings):,} new pieces are words'
    if not num_found:
      told = f'none of the {len(spellings):,} new pieces is a word'
    raise ValueError(
      f'{path}: {told} of its first column, where the new language is, and '
      f'{num_turned:,} of its second'
      + '; turn the columns round: they are the wrong way.' * bool(num_turned)
      + '; is it of another language?' * (not num_turned)
    )
  return spellings, num_found


def make(
  old_VD,
  spellings,
  *,
  method,
  key,
  match_norms=False,
  constrain=lambda x, dims: x,
):
  """float32 [X, D] rows of the X pieces that old rows spell.

  'pieces_mean' and 'dictionary' take the mean over a piece's spellings of the
  mean of the rows in each, 'mean' that of all old rows, 'gaussian' draws from
  mean and covariance of all, 'normal' from N(0, 0.02²). With `match_norms`
  every new row gets the mean norm of the old ones. `check` takes the method.
  """
  assert method in METHODS
  old_VD = old_VD.astype(jnp.float32)
  X, D = len(spellings), old_VD.shape[1]
  if method in ('pieces_mean', 'dictionary'):
    rows_XD = _means(old_VD, spellings, constrain)
  elif method == 'normal':
    rows_XD = jax.random.normal(key, (X, D), jnp.float32)
    rows_XD = NORMAL_STD * constrain(rows_XD, (None, 'embed'))
  else:
    mean_D = jnp.mean(old_VD, axis=0)
    rows_XD = jnp.broadcast_to(mean_D, (X, D))
    if method == 'gaussian':
      rows_XD = rows_XD + _noise(old_VD, mean_D, X, key, constrain)
  if match_norms:
    norm = jnp.mean(jnp.linalg.norm(old_VD, axis=1))
    own_X1 = jnp.linalg.norm(rows_XD, axis=1, keepdims=True)
    rows_XD = rows_XD * (norm / jnp.maximum(own_X1, 1e-12))
  return rows_XD


def _means(old_VD, spellings, constrain):
  """One old row of each piece at a time: no more than the result in memory."""
  longest = max(sum(map(len, ways)) for ways in spellings)
  ids_PX = np.zeros((longest, len(spellings)), np.int32)
  weights_PX = np.zeros((longest, len(spellings)), np.float32)
  for i, ways in enumerate(spellings):
    flat = [(t, 1 / len(ids) / len(ways)) for ids in ways for t in ids]
    ids_PX[: len(flat), i] = [token for token, _ in flat]
    weights_PX[: len(flat), i] = [weight for _, weight in flat]

  def add(rows_XD, one):
    ids_X, weights_X = one
    return rows_XD + old_VD[ids_X] * weights_X[:, None], None

  zeros_XD = jnp.zeros((len(spellings), old_VD.shape[1]), jnp.float32)
  zeros_XD = constrain(zeros_XD, (None, 'embed'))
  return jax.lax.scan(add, zeros_XD, (ids_PX, weights_PX))[0]


def _noise(old_VD, mean_D, num, key, constrain):
  """[num, D] draws with the covariance of the old rows, without making it."""
  V = old_VD.shape[0]

  def block(key):
    noise_BV = jax.random.normal(key, (_BLOCK, V), jnp.float32) / np.sqrt(V)
    noise_BV = constrain(noise_BV, (None, 'embed'))  # each draws its part
    return noise_BV @ old_VD - noise_BV.sum(axis=1, keepdims=True) * mean_D

  blocks = jax.lax.map(block, jax.random.split(key, -(-num // _BLOCK)))
  return blocks.reshape(-1, old_VD.shape[1])[:num]


def extend(matrix, name, spellings, *, num_old, num_rows, constrain, **how):
  """`embed_VD` or `head_DV` with new rows behind `num_old`, then zeros.

  `num_rows` in all; old rows are bit-identical. `constrain` places an array
  by its logical dims, `how` goes to `make`.
  """
  rows_VD = matrix if name == 'embed_VD' else matrix.T
  # Whole rows, so that each device makes its part of the width alone.
  old_VD = constrain(rows_VD[:num_old], (None, 'embed'))
  new_XD = make(old_VD, spellings, constrain=constrain, **how)
  num_padding = num_rows - num_old - len(spellings)
  zeros = jnp.zeros((num_padding, old_VD.shape[1]), matrix.dtype)
  whole_VD = jnp.concatenate([old_VD, new_XD.astype(matrix.dtype), zeros])
  return whole_VD if name == 'embed_VD' else whole_VD.T
