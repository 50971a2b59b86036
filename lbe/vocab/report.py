"""What a tokenizer makes of texts: compression, fallback, drift, scripts."""

import json
import pathlib

import numpy as np

from lbe.text import scripts
from lbe.text import tables
from lbe.vocab import byte_level
from lbe.vocab import extend
from lbe.vocab import tokenizers

_NUM_LONGEST = 5


def count_words(text):
  """Words between spaces, and single characters where none are written."""
  rest, single = scripts.NO_SPACES.subn(' ', text)
  words = (w for w in rest.split() if any(c.isalnum() for c in w))
  return single + sum(1 for _ in words)


def measure(
  tokenizer: tokenizers.Tokenizer, texts: list[str], *, context: int = 2048
) -> dict:
  """One set of texts under one tokenizer, as a dictionary.

  `bytes_per_token`, `characters_per_token`, `tokens_per_word` (characters
  count as words in scripts without spaces), `byte_fallback` (share of the
  tokens that are no whole character), `context_characters` (characters that
  fit into `context` tokens), `round_trip_failures` (texts that decoding does
  not give back), `pieces_used` and the longest of these.
  """
  encoded = tokenizer.encode_batch(texts)
  num_tokens = sum(map(len, encoded))
  num_characters = sum(map(len, texts))
  fallback = sum(int(tokenizer.is_byte[ids].sum()) for ids in encoded if ids)
  failures = sum(
    tokenizer.decode(ids) != text
    for ids, text in zip(encoded, texts, strict=True)
  )
  used = set().union(*encoded)
  return {
    'texts': len(texts),
    'tokens': num_tokens,
    'bytes_per_token': sum(len(t.encode()) for t in texts) / num_tokens,
    'characters_per_token': num_characters / num_tokens,
    'tokens_per_word': num_tokens / max(sum(map(count_words, texts)), 1),
    'byte_fallback': fallback / num_tokens,
    'context_characters': round(context * num_characters / num_tokens),
    'round_trip_failures': failures,
    'pieces_used': len(used),
    'longest_pieces': longest(tokenizer, used),
  }


def longest(tokenizer, ids):
  """The texts of the pieces with most characters, but for runs of symbols."""
  byte = tokenizer.is_byte
  texts = [_text(tokenizer, i) for i in sorted(ids) if not byte[i]]
  words = [text for text in texts if any(c.isalnum() for c in text)]
  return sorted(words, key=len, reverse=True)[:_NUM_LONGEST]


def _text(tokenizer, token):
  piece = tokenizer.piece(token)
  if getattr(tokenizer, 'byte_level', False) and tokenizer.byte_lengths[token]:
    return byte_level.readable(piece).strip()
  return piece.replace('▁', ' ').strip()


def compare(
  before: tokenizers.Tokenizer,
  after: tokenizers.Tokenizer,
  texts: list[str],
  *,
  context: int = 2048,
) -> dict:
  """`measure` of both, and what changed between them.

  `texts_changed` are cut otherwise; `tokens_changed` are those tokens of
  `before` that `after` has not at the same place; `added_used` is how many
  pieces the texts use that only `after` has, `longest_added` some of them.
  """
  pairs = list(
    zip(before.encode_batch(texts), after.encode_batch(texts), strict=True)
  )
  changed = [(a, b) for a, b in pairs if a != b]
  used = set().union(*(b for _, b in pairs))
  added = {i for i in used if i >= before.vocab_size}
  return {
    'before': measure(before, texts, context=context),
    'after': measure(after, texts, context=context),
    'texts_changed': len(changed),
    'tokens_changed': sum(
      len(_placed(before, a) - _placed(after, b)) for a, b in changed
    ),
    'added_used': len(added),
    'longest_added': longest(after, added),
  }


def _placed(tokenizer, ids):
  """{(where the token ends, in bytes, token)}."""
  return set(zip(np.cumsum(tokenizer.byte_lengths[ids]), ids, strict=True))


def by_script(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> dict:
  """{script: tokens, bytes and characters per token, byte fallback}.

  A token counts for the script of the letters that it holds a part of, as
  scripts.first_word names it; without letters it counts for 'other', and so
  does a text with unknown pieces, whose places are not known. A character
  counts for the token of its first byte. Most tokens first.
  """
  known = {'': 0}  # script: number
  numbers, lengths, begun, fallback = [], [], [], []
  for ids in tokenizer.encode_batch(texts):
    if not ids:
      continue
    sizes = tokenizer.byte_lengths[ids]
    text = tokenizer.decode(ids)
    of_byte = np.repeat(
      [known.setdefault(scripts.first_word(c), len(known)) for c in text],
      [len(c.encode()) for c in text],
    )
    first = np.frombuffer(text.encode(), np.uint8) & 0xC0 != 0x80
    before = sizes.sum() - len(of_byte)  # the dummy prefix is one byte
    if before not in (0, 1):
      of_byte, before = np.zeros(sizes.sum(), int), 0
      first = np.zeros(sizes.sum(), bool)
    of_byte, first = (np.pad(x, (before, 1)) for x in (of_byte, first))
    starts = np.cumsum(sizes) - sizes
    numbers.append(np.maximum.reduceat(of_byte, starts))
    begun.append(np.add.reduceat(first, starts, dtype=int))
    lengths.append(sizes)
    fallback.append(tokenizer.is_byte[ids])
  if not numbers:
    return {}
  numbers = np.concatenate(numbers)
  tokens = np.bincount(numbers, minlength=len(known))
  size = np.bincount(numbers, np.concatenate(lengths), len(known))
  characters = np.bincount(numbers, np.concatenate(begun), len(known))
  fell = np.bincount(numbers, np.concatenate(fallback), len(known))
  return {
    script or 'other': {
      'tokens': int(tokens[i]),
      'bytes_per_token': size[i] / tokens[i],
      'characters_per_token': characters[i] / tokens[i],
      'byte_fallback': fell[i] / tokens[i],
    }
    for script, i in sorted(known.items(), key=lambda x: -tokens[x[1]])
    if tokens[i]
  }


def summary(
  tokenizer: tokenizers.Tokenizer, base: tokenizers.Tokenizer | None = None
) -> dict:
  """How many pieces there are, and how many encoding never produces.

  Of all, and of those behind the base's. Not told (None) for a tokenizer.json
  that is not byte-level. Raises ValueError where `base` is the extended one.
  """
  if base is not None and tokenizers.is_extension(base, tokenizer):
    raise ValueError(
      f'the base ({base.vocab_size} pieces) extends the tokenizer '
      f'({tokenizer.vocab_size}): swap --base and --tokenizer.'
    )
  first = tokenizer.vocab_size
  if base is not None and tokenizers.is_extension(tokenizer, base):
    first = base.vocab_size
  return {
    'pieces': tokenizer.vocab_size,
    'unreachable': _count_unreachable(tokenizer, 0),
    'added': tokenizer.vocab_size - first,
    'added_unreachable': _count_unreachable(tokenizer, first),
    'longest_pieces': longest(tokenizer, range(tokenizer.vocab_size)),
  }


def _count_unreachable(tokenizer, first_id):
  if tokenizer.kind == 'sentencepiece':
    return len(extend.unreachable(tokenizer.model, first_id=first_id))
  if tokenizer.kind == 'hf' and tokenizer.byte_level:
    return len(byte_level.unreachable(tokenizer, first_id=first_id))
  return 0 if tokenizer.kind == 'bytes' else None


_COLUMNS = (
  ('tokens', '{:,}'),
  ('bytes_per_token', '{:.2f}'),
  ('characters_per_token', '{:.2f}'),
  ('tokens_per_word', '{:.2f}'),
  ('byte_fallback', '{:.1%}'),
  ('context_characters', '{:,}'),
  ('round_trip_failures', '{}'),
  ('pieces_used', '{:,}'),
)


def markdown(report: dict) -> str:
  """The whole report as text: pieces, sets, scripts, longest pieces.

  `report` holds `context`, a `summary` as `before` and maybe one as `after`,
  and `sets`, by name: compare(...) or {'before': measure(...)}, where
  `scripts` may hold by_script(...) of both sides.
  """
  sets = report['sets']
  parts = [_pieces_line(report), _table(sets, report['context'])]
  if any('scripts' in row for row in sets.values()):
    parts.append(_script_table(sets))
  parts.append('\n'.join(_longest_lines(sets)))
  return '\n\n'.join(parts)


def _longest_lines(sets):
  yield from ('Longest pieces used, and longest of the added ones:', '')
  for name, row in sets.items():
    side = row.get('after', row['before'])
    added = ' · '.join(row.get('longest_added', ())) or 'none'
    yield f'- {name}: {" · ".join(side["longest_pieces"])}; {added}'


def _pieces_line(report):
  def counted(count):
    return 'unknown' if count is None else f'{count:,}'

  before, after = report['before'], report.get('after')
  line = (
    f'{before["pieces"]:,} pieces, {counted(before["unreachable"])} of them '
  )
  line += 'never produced by encoding'
  if after:
    line += (
      f' → {after["pieces"]:,}, {counted(after["unreachable"])}; of the '
      f'{after["added"]:,} added {counted(after["added_unreachable"])}'
    )
  return line + '.'


def _arrow(form, row, column):
  """A figure before and after, once where they are alike."""
  values = [
    form.format(row[side][column])
    for side in ('before', 'after')
    if column in row.get(side, ())
  ]
  return ' → '.join(dict.fromkeys(values))


def _table(sets, context):
  heads = ['texts', *(name.replace('_', ' ') for name, _ in _COLUMNS)]
  heads[6] = f'characters in {context:,} tokens'
  heads += ['added used', 'texts changed', 'tokens changed']
  rows = []
  for name, row in sets.items():
    cells = [name, *(_arrow(form, row, column) for column, form in _COLUMNS)]
    if 'after' in row:
      cells.append(f'{row["added_used"]:,}')
      for what in ('texts', 'tokens'):
        total = row['before'][what]
        cells.append(f'{row[f"{what}_changed"]:,} of {total:,}')
    else:
      cells += [''] * 3
    rows.append(cells)
  return tables.markdown(heads, 'l' + 'r' * (len(heads) - 1), rows)


def _script_table(sets):
  forms = *_COLUMNS[:3], _COLUMNS[4]
  heads = ['texts', 'script', *(name.replace('_', ' ') for name, _ in forms)]
  rows = []
  for name, row in sets.items():
    sides = row['scripts']
    for script in dict.fromkeys(s for side in sides.values() for s in side):
      both = {side: own.get(script, {}) for side, own in sides.items()}
      cells = [_arrow(form, both, column) for column, form in forms]
      rows.append([name, script, *cells])
  return tables.markdown(heads, 'll' + 'r' * len(forms), rows)


def save(report: dict, folder: pathlib.Path):
  """report.md, report.json and report.png in an existing folder."""
  (folder / 'report.md').write_text(markdown(report) + '\n', encoding='utf-8')
  (folder / 'report.json').write_text(
    json.dumps(report, ensure_ascii=False, indent=1), encoding='utf-8'
  )
  plot(report['sets'], folder / 'report.png')


def plot(sets, path):
  """Tokens per word and byte fallback of each set, most tokens first.

  One line a set: from before (hollow) to after (full).
  """
  try:
    import matplotlib.pyplot as plt  # an extra: only reports draw
  except ImportError as error:
    raise ValueError(
      f"{path} cannot be drawn: pip install 'lbe[plot]' (matplotlib)."
    ) from error

  names = sorted(sets, key=lambda name: sets[name]['before']['tokens_per_word'])
  figure, (left, right) = plt.subplots(
    1, 2, sharey=True, figsize=(9, 0.32 * len(names) + 1.4), width_ratios=(2, 1)
  )
  for axes, column, scale in (
    (left, 'tokens_per_word', 1),
    (right, 'byte_fallback', 100),
  ):
    for y, name in enumerate(names):
      values = [
        scale * sets[name][side][column]
        for side in ('before', 'after')
        if side in sets[name]
      ]
      axes.plot(values, [y] * len(values), color='0.75', zorder=1)
      for side, x in enumerate(values):
        color = 'C0' if side or len(values) == 1 else 'white'
        axes.scatter(x, y, color=color, edgecolor='C0', zorder=2)
      text = ' → '.join(dict.fromkeys(f'{x:.1f}' for x in values))
      axes.annotate(
        text, (max(values), y), (8, -3), textcoords='offset points', fontsize=8
      )
    axes.set_xlim(0, 1.4 * max(axes.dataLim.xmax, 1))
    axes.grid(axis='y', color='0.92')
    axes.spines[['top', 'right']].set_visible(False)
  left.set_yticks(range(len(names)), names)
  left.set_xlabel('tokens per word (per character without spaces)')
  right.set_xlabel('byte fallback, % of the tokens')
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  plt.close(figure)
