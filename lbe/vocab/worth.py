"""What an extension brings and what it costs, in a few lines for people."""

import importlib.resources
from collections.abc import Iterable

from lbe.text import scripts
from lbe.vocab import extend
from lbe.vocab import tokenizers

# Of a corpus so much is looked at, from its beginning.
_CHARACTERS = 2_000_000
_NUM_PIECES = 10


def head(texts: Iterable[str]) -> list[str]:
  """The first texts, up to 2,000,000 characters, one at least."""
  taken, size = [], 0
  for text in texts:
    taken.append(text)
    size += len(text)
    if size > _CHARACTERS:
      break
  return taken


def english() -> list[str]:
  """The lines of the English sample that comes with lbe."""
  path = importlib.resources.files('lbe') / 'data' / 'sample' / 'en.txt'
  return [x for x in path.read_text(encoding='utf-8').splitlines() if x]


def latin_share(texts: list[str]) -> float:
  """The share of Latin letters among all letters."""
  return scripts.shares(''.join(texts)).get('Latin', 0.0)


def bytes_per_token(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> float:
  num_tokens = sum(map(len, tokenizer.encode_batch(texts)))
  return sum(len(text.encode()) for text in texts) / max(num_tokens, 1)


def told(
  base: tokenizers.Tokenizer,
  extension: extend.Extension,
  texts: list[str],
) -> str:
  """Bytes per token before and after, and ten of the new pieces.

  Of `texts`, where there are any, and of English.
  """
  lines = []
  for name, some in (('the new text', texts), ('English', english())):
    if some:
      a, b = (bytes_per_token(x, some) for x in (base, extension.tokenizer))
      lines.append(f'bytes per token of {name}: {a:.2f} before, {b:.2f} after')
  every = max(len(extension.added) // _NUM_PIECES, 1)
  shown = extension.added[::every][:_NUM_PIECES]
  return '\n'.join([*lines, f'new pieces, as {"  ".join(shown)}'])


def latin_offer(
  base: tokenizers.Tokenizer,
  kept: extend.Extension,
  texts: list[str],
) -> str:
  """What is left out without `--keep_latin`, what it brings, and its price.

  `kept` is the extension that has it; what it brings is told of `texts`, where
  there are any, and the price of English.
  """
  latin = [piece for piece in kept.added if extend.has_latin(piece)]
  changed, before, after = extend.changed(base, kept.tokenizer, english())
  brings = ''
  if texts:
    a, b = (bytes_per_token(x, texts) for x in (base, kept.tokenizer))
    brings = f' ({a:.2f} → {b:.2f} bytes per token of the new text)'
  return (
    f'{len(latin):,} candidates are left out because they have Latin letters, '
    f'as {"  ".join(latin[:5])}. --keep_latin takes them{brings}. Its price: '
    'English may be cut otherwise, too, where the model then has tokens that '
    f'it does not know: {changed:,} of the {len(english()):,} lines of English '
    f'that come with lbe ({before:,} → {after:,} tokens).'
  )
