"""Rows of the embedding and of the head for pieces that are new.

The paper's models started new rows from noise; others start them from the old
rows that spell the piece. Old rows are never touched.
"""

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ('pieces_mean', 'mean', 'gaussian', 'normal')
# Of 'normal', the published recipe: what transformers 4.30 filled in.
NORMAL_STD = 0.02


def spell(base, extended):
  """For each new piece, the ids of the base that spell it (at least one).

  The piece's text is encoded alone, without the dummy prefix.
  """
  if base.kind != 'sentencepiece' or extended.kind != 'sentencepiece':
    raise ValueError(
      'new rows are made for SentencePiece tokenizers; these are of the kinds '
      f'{base.kind!r} and {extended.kind!r}.'
    )
  pieces = [
    extended.piece(i) for i in range(base.vocab_size, extended.vocab_size)
  ]
  return base.without_prefix().encode_batch(
    [piece.replace('▁', ' ') for piece in pieces]
  )


def make(old_VD, parts, *, method, key, match_norms=False):
  """float32 [X, D] rows of the X pieces that `parts` spell by old rows.

  'pieces_mean' is the mean of the rows that spell the piece, 'mean' that of
  all, 'gaussian' draws from mean and covariance of all, 'normal' from
  N(0, 0.02²). With `match_norms` every new row gets the mean norm of the old
  ones. Raises ValueError for another method.
  """
  if method not in METHODS:
    raise ValueError(
      f'new_rows.method={method!r} is unknown; take one of '
      f'{", ".join(METHODS)}.'
    )
  old_VD = old_VD.astype(jnp.float32)
  X, (V, D) = len(parts), old_VD.shape
  if method == 'pieces_mean':
    lengths = np.array([len(ids) for ids in parts])
    flat = np.concatenate([np.asarray(ids, np.int32) for ids in parts])
    owner = np.repeat(np.arange(X), lengths)
    sums_XD = jax.ops.segment_sum(old_VD[flat], owner, num_segments=X)
    rows_XD = sums_XD / lengths[:, None]
  elif method == 'normal':
    rows_XD = NORMAL_STD * jax.random.normal(key, (X, D), jnp.float32)
  else:
    mean_D = jnp.mean(old_VD, axis=0)
    rows_XD = jnp.broadcast_to(mean_D, (X, D))
    if method == 'gaussian':
      # Noise over the old rows has their covariance, without making it.
      noise_XV = jax.random.normal(key, (X, V), jnp.float32) / np.sqrt(V)
      rows_XD = rows_XD + noise_XV @ (old_VD - mean_D)
  if match_norms:
    norm = jnp.mean(jnp.linalg.norm(old_VD, axis=1))
    own_X1 = jnp.linalg.norm(rows_XD, axis=1, keepdims=True)
    rows_XD = rows_XD * (norm / jnp.maximum(own_X1, 1e-12))
  return rows_XD


def extend(matrices, parts, *, num_old, num_rows, method, seed, match_norms):
  """Embedding and head with new rows behind `num_old`, padded to `num_rows`.

  `matrices` is {'embed_VD'} or {'embed_VD', 'head_DV'}; each gets its own
  rows. Old rows are bit-identical, padding rows zero.
  """
  result = {}
  for i, (name, matrix) in enumerate(sorted(matrices.items())):
    rows_VD = matrix if name == 'embed_VD' else matrix.T
    old_VD = rows_VD[:num_old]
    new_XD = make(
      old_VD,
      parts,
      method=method,
      key=jax.random.fold_in(jax.random.key(seed), i),
      match_norms=match_norms,
    ).astype(matrix.dtype)
    whole_VD = jnp.zeros((num_rows, old_VD.shape[1]), matrix.dtype)
    whole_VD = whole_VD.at[:num_old].set(old_VD)
    whole_VD = whole_VD.at[num_old : num_old + len(parts)].set(new_XD)
    result[name] = whole_VD if name == 'embed_VD' else whole_VD.T
  return result
