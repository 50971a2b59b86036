"""What a tokenizer makes of texts: compression, fallback, drift."""

from lbe.vocab import extend


def count_words(text):
  """Words between spaces, and single characters where none are written."""
  rest, single = extend.NO_SPACES.subn(' ', text)
  words = (w for w in rest.split() if any(c.isalnum() for c in w))
  return single + sum(1 for _ in words)


def measure(tokenizer, texts, *, context=2048):
  """One set of texts under one tokenizer, as a dictionary.

  `bytes_per_token`, `characters_per_token`, `tokens_per_word` (characters
  count as words in scripts without spaces), `byte_fallback` (share of the
  tokens that are single bytes), `context_characters` (characters that fit
  into `context` tokens) and `round_trip_failures` (texts that decoding does
  not give back).
  """
  encoded = tokenizer.encode_batch(texts)
  num_tokens = sum(map(len, encoded))
  num_characters = sum(map(len, texts))
  fallback = sum(int(tokenizer.is_byte[ids].sum()) for ids in encoded if ids)
  failures = sum(
    tokenizer.decode(ids) != text
    for ids, text in zip(encoded, texts, strict=True)
  )
  return {
    'texts': len(texts),
    'tokens': num_tokens,
    'bytes_per_token': sum(len(t.encode()) for t in texts) / num_tokens,
    'characters_per_token': num_characters / num_tokens,
    'tokens_per_word': num_tokens / max(sum(map(count_words, texts)), 1),
    'byte_fallback': fallback / num_tokens,
    'context_characters': round(context * num_characters / num_tokens),
    'round_trip_failures': failures,
  }


def compare(before, after, texts, *, context=2048):
  """`measure` of both, and how many texts are cut otherwise (`changed`)."""
  return {
    'before': measure(before, texts, context=context),
    'after': measure(after, texts, context=context),
    'changed': extend.changed(before, after, texts)[0],
  }


_COLUMNS = (
  ('tokens', '{:,}'),
  ('bytes_per_token', '{:.2f}'),
  ('characters_per_token', '{:.2f}'),
  ('tokens_per_word', '{:.2f}'),
  ('byte_fallback', '{:.1%}'),
  ('context_characters', '{:,}'),
  ('round_trip_failures', '{}'),
)


def markdown(rows, *, context=2048):
  """A table of {set's name: compare(...) or {'before': measure(...)}}."""
  heads = ['texts', *(name.replace('_', ' ') for name, _ in _COLUMNS)]
  heads[6] = f'characters in {context:,} tokens'
  lines = [
    '| ' + ' | '.join([*heads, 'texts changed']) + ' |',
    '| --- |' + ' ---: |' * (len(_COLUMNS) + 1),
  ]
  for name, row in rows.items():
    cells = [name]
    for column, form in _COLUMNS:
      parts = [
        form.format(row[side][column])
        for side in ('before', 'after')
        if side in row
      ]
      cells.append(' → '.join(dict.fromkeys(parts)))
    changed = row.get('changed')
    total = row['before']['texts']
    cells.append('' if changed is None else f'{changed:,} of {total:,}')
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def plot(rows, path):
  """Tokens per word, before and after, as a picture."""
  try:
    import matplotlib.pyplot as plt  # an extra: only reports draw
  except ImportError as error:
    raise ValueError(
      f"{path} cannot be drawn: pip install 'lbe[plot]' (matplotlib)."
    ) from error

  names = list(rows)
  figure, axes = plt.subplots(figsize=(7, 0.4 * len(names) + 1.5))
  sides = [s for s in ('before', 'after') if s in rows[names[0]]]
  height = 0.8 / len(sides)
  for i, side in enumerate(sides):
    axes.barh(
      [k + i * height for k in range(len(names))],
      [rows[name][side]['tokens_per_word'] for name in names],
      height=height,
      label=side,
    )
  axes.set_yticks([k + 0.4 - height / 2 for k in range(len(names))], names)
  axes.invert_yaxis()
  axes.set_xlabel('tokens per word (per character without spaces)')
  if len(sides) > 1:
    axes.legend()
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  plt.close(figure)
