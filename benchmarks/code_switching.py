"""Are parts in another language found, and is nothing else taken for one?

  PYTHONPATH=. python benchmarks/code_switching.py --data=NTREX_FOLDER

Into every second line of NTREX some words of the same line in another language
are planted, between two words; the other lines stay. A planted part is found
where the spans cover half of its letters; a span is right where half of its
letters were planted. Words of other scripts that the translators left in count
as wrong. Where scripts differ the other language changes from line to line;
pairs of one script are told apart by lingua as the evaluator does it, from all
languages of that script, or with --identifier by a fastText model.

`clean_flagged` is the share of lines without a planted part that are flagged
all the same: what the evaluator would report of a model that never switches.
`line_right` is the share of these lines that the line protocol finds in their
language, of those that it looks at.
"""

import pathlib
import random
import time

from absl import app
from absl import flags

from benchmarks import record
from lbe.evals import code_switching
from lbe.text import language_table
from lbe.text import languages
from lbe.text import scripts

_DATA = flags.DEFINE_string('data', None, 'The folder of newstest2019-*.txt.')
_IDENTIFIER = flags.DEFINE_string(
  'identifier', 'lingua', "Or a fastText model's path."
)
_WORDS = flags.DEFINE_integer('words', 4, 'Planted where scripts differ.')
_SAME_SCRIPT_WORDS = flags.DEFINE_integer('same_script_words', 8, 'Planted.')

LANGUAGES = tuple(sorted((*language_table.THIRTEEN, 'en', 'zh')))
SAME_SCRIPT = (
  ('id', 'en'), ('sw', 'en'), ('vi', 'en'), ('en', 'id'), ('id', 'vi'),
  ('hi', 'mr'), ('mr', 'hi'), ('ar', 'ur'), ('ur', 'ar'),
)  # fmt: skip


def some_words(line, number, rng):
  """`number` words in a row; of Chinese twice as many characters."""
  words = line.split()
  glue = ' '
  if scripts.shares(line).get('Han', 0) > 0.5:
    words, glue, number = list(line), '', 2 * number
  start = rng.randrange(max(1, len(words) - number + 1))
  return glue.join(words[start : start + number])


def plant(line, words, rng):
  """(line, start, stop) with the words between two of the line's own."""
  places = [i for i, c in enumerate(line) if c == ' ']
  if scripts.shares(line).get('Han', 0) > 0.5:
    places = range(1, len(line))
  at = rng.choice(places or [len(line)])
  start = at + 1
  return f'{line[:at]} {words} {line[at:]}', start, start + len(words)


def score(asked, lines_of, others, number, segment=None):
  """Precision, recall and F1 of spans over the lines of one language."""
  rng = random.Random(0)
  planted = found = spans = right = clean = clean_flagged = 0
  for i, line in enumerate(lines_of[asked]):
    if not line.strip():
      continue
    start = stop = 0
    other = others[i // 2 % len(others)]
    if i % 2:
      words = some_words(lines_of[other][i], number, rng)
      line, start, stop = plant(line, words, rng)
    # Without names and numbers that other languages write the same way.
    its_scripts = language_table.language(other).scripts
    inside = {
      k
      for k in range(start, stop)
      if scripts.letter_script(line[k]) in its_scripts
    }
    flagged = [
      {k for k in range(a, b) if scripts.letter_script(line[k])}
      for a, b, _ in languages.switches(
        line, language_table.language(asked).scripts, segment=segment
      )
    ]
    if not i % 2:
      clean += 1
      clean_flagged += bool(flagged)
    if inside:
      planted += 1
      found += len(inside & set().union(*flagged)) >= len(inside) / 2
    spans += len(flagged)
    right += sum(len(f & inside) >= len(f) / 2 for f in flagged)
  precision, recall = right / max(spans, 1), found / planted
  return {
    'planted': planted,
    'precision': round(precision, 4),
    'recall': round(recall, 4),
    'f1': round(2 * precision * recall / max(precision + recall, 1e-9), 4),
    'clean_flagged': round(clean_flagged / clean, 4),
  }


def lines_right(asked, lines, identifier):
  """The share of lines that are in their language, by the line protocol."""
  detector = code_switching.Detector(identifier, {asked}, english_words='')
  judged = [detector.judge(line, asked)['line_pass'] for line in lines]
  told = [x for x in judged if x is not None]
  return round(sum(told) / len(told), 4)


def main(argv):
  del argv
  folder = pathlib.Path(_DATA.value)
  lines_of = {
    code: language_table.file('ntrex', folder, code)
    .read_text(encoding='utf-8')
    .split('\n')
    for code in LANGUAGES
  }
  scripts_of = {
    code: set(language_table.language(code).scripts) for code in LANGUAGES
  }
  figures = {'scripts_differ': {}, 'same_script': {}}
  start = time.perf_counter()
  for asked in LANGUAGES:
    mine = scripts_of[asked]
    others = [c for c in LANGUAGES if not mine & scripts_of[c]]
    figures['scripts_differ'][asked] = score(
      asked, lines_of, others, _WORDS.value
    )
  figures['seconds_scripts_differ'] = round(time.perf_counter() - start, 1)
  start = time.perf_counter()
  identifier = _IDENTIFIER.value
  figures['identifier'] = pathlib.Path(identifier).name
  segments = {
    asked: languages.segment_of(identifier, asked)
    for asked in sorted({asked for asked, _ in SAME_SCRIPT})
  }
  for asked, other in SAME_SCRIPT:
    figures['same_script'][f'{other} in {asked}'] = score(
      asked,
      lines_of,
      [other],
      _SAME_SCRIPT_WORDS.value,
      segments[asked],
    )
  figures['seconds_same_script'] = round(time.perf_counter() - start, 1)
  figures['line_right'] = {
    asked: lines_right(asked, lines_of[asked], identifier)
    for asked in LANGUAGES
    if (asked, identifier) != ('ne', 'lingua')  # which does not know it
  }
  columns = ('precision', 'recall', 'f1', 'clean_flagged')
  for kind in ('scripts_differ', 'same_script'):
    print(f'| {kind} | {" | ".join(columns)} |\n| --- {"| ---: " * 4}|')
    for name, row in figures[kind].items():
      print(f'| {name} | {" | ".join(f"{row[k]:.3f}" for k in columns)} |')
  packages = ('fonttools', 'lingua-language-detector')
  record.write('code_switching', figures, packages=packages)


if __name__ == '__main__':
  flags.mark_flags_as_required(['data'])
  app.run(main)
