"""More merges on top of a SentencePiece BPE model, learnt from a corpus.

The corpus is cut by the base first, so every new piece is the join of two
that are there already: none can be unreachable for want of a part. Characters
that the base only has as bytes come first, because byte pieces never join.
"""

import collections
import heapq

from lbe.text import bars
from lbe.text import scripts
from lbe.vocab import added as added_lib
from lbe.vocab import extend as extend_lib

# As SentencePiece: no piece of more characters, none that is seen only once.
MAX_LENGTH = 16
MIN_COUNT = 2


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

  Letters of scripts other than Latin (of all with `keep_latin`); first
  characters that the base lacks, the frequent ones up to `coverage` of the
  corpus's characters, then joins. Fewer pieces come where the corpus has no
  more. Raises ValueError where it has none, and for a base that is not BPE.
  """
  given, base = base, added_lib.in_model(base)
  extend_lib.check_base(base)
  known = {p.piece for p in base.proto.pieces}
  texts = bars.make(texts, desc='reading', unit='text', disable=not progress)
  units = _units(texts, extend_lib.letter_rule(keep_latin))
  check_units(units)
  characters = _missing_characters(units, known, coverage)[:num_pieces]
  start = extend_lib.below(base, characters) if characters else base
  start = start.verbatim()
  letters = known | set(characters)
  bar = bars.make(
    units.items(), desc='cutting', unit='word', disable=not progress
  )
  merges = learn(
    {
      unit: ([_marked(part) for part in start.split(_spaced(unit))], n)
      for unit, n in bar
    },
    letters,
    num_pieces - len(characters),
    # A character that is no piece, too rare for `coverage`, is bytes in a
    # tokenizer.json, which none of its merges can join.
    allowed=lambda piece: (
      len(piece) <= MAX_LENGTH and letters.issuperset(piece)
    ),
    progress=progress,
  )
  if not characters + merges:
    raise ValueError(
      'the corpus has no letter that the base lacks and no join of its pieces '
      f'that stands there twice{"" if keep_latin else ", but for Latin ones"}; '
      'there is nothing to add.'
    )
  left_out = collections.defaultdict(list)
  added, between, tokenizer = extend_lib.make_reachable(
    base, characters + merges, left_out
  )
  return extend_lib.Extension(
    added_lib.with_model(given, tokenizer),
    added + between,
    between,
    dict(left_out),
    [],
  )


def check_units(units):
  """Raises ValueError where a corpus had nothing to learn from."""
  if not units:
    raise ValueError(
      'the corpus has no letter of a script other than Latin; there is '
      'nothing to learn (--keep_latin takes Latin letters as well).'
    )


def _spaced(unit):
  return unit.replace('▁', ' ')


def _marked(part):
  return part.replace(' ', '▁')


def _units(texts, is_letter):
  """{run of letters, with the space before it where words have one: count}."""
  counts = collections.Counter()
  for text in texts:
    start = None
    for i, character in enumerate(text + '\n'):
      inside = is_letter(character)
      if inside and start is None:
        start = i
      elif not inside and start is not None:
        counts[_with_space(text, start, i)] += 1
        start = None
  return counts


def _with_space(text, start, end):
  before = text[start - 1] if start else ' '
  if before == ' ' and scripts.has_spaces(text[start]):
    return '▁' + text[start:end]
  return text[start:end]


def _missing_characters(units, known, coverage):
  counts = collections.Counter()
  for unit, n in units.items():
    for character in unit:
      counts[character] += n
  total = sum(counts.values())
  taken, covered = [], 0
  for character, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])):
    if covered >= coverage * total:
      break
    covered += n
    if character not in known:
      taken.append(character)
  return taken


def learn(units, known, num_merges, *, allowed, progress=True):
  """The next `num_merges` joins, most frequent first.

  `units` maps a unit to (its parts, how often it is seen). Joins are counted
  by the text that they give, whatever the two parts, as SentencePiece joins
  them; only `allowed` texts are joined. Ties go to the text that sorts first.
  """
  text, following, previous, weight = [], [], [], []
  pairs = {}  # joined text: [count, places]

  def count(i, j):
    key = text[i] + text[j]
    if not allowed(key):
      return None
    entry = pairs.setdefault(key, [0, []])
    entry[0] += weight[i]
    entry[1].append(i)
    return key

  for parts, n in units.values():
    first = len(text)
    for k, part in enumerate(parts):
      text.append(part)
      weight.append(n)
      previous.append(first + k - 1 if k else -1)
      following.append(first + k + 1 if k + 1 < len(parts) else -1)
    for i in range(first, len(text) - 1):
      count(i, i + 1)
  queue = [(-entry[0], key) for key, entry in pairs.items()]
  heapq.heapify(queue)
  known, added = set(known), []
  bar = bars.make(
    total=num_merges, unit='piece', desc='merging', disable=not progress
  )
  while queue and len(added) < num_merges:
    minus, key = heapq.heappop(queue)
    entry = pairs.get(key)
    if entry is None:
      continue
    if entry[0] != -minus:  # counted down since it was put there
      if entry[0] >= MIN_COUNT:
        heapq.heappush(queue, (-entry[0], key))
      continue
    if entry[0] < MIN_COUNT:
      break
    if key not in known:
      known.add(key)
      added.append(key)
      bar.update()
    del pairs[key]
    touched = set()
    for i in sorted(entry[1]):
      j = following[i]
      if text[i] is None or j < 0 or text[i] + text[j] != key:
        continue  # joined with another since
      p, n = previous[i], following[j]
      for left, right in ((p, i), (j, n)):
        if left >= 0 and right >= 0:
          other = pairs.get(text[left] + text[right])
          if other is not None:
            other[0] -= weight[i]
      text[i], text[j], following[i] = key, None, n
      if n >= 0:
        previous[n] = i
        touched.add(count(i, n))
      if p >= 0:
        touched.add(count(p, i))
    for other in touched - {None}:
      heapq.heappush(queue, (-pairs[other][0], other))
  bar.close()
  return added
