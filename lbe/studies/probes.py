"""Probes that a small model can pass: invented facts, and words left out.

Exams say nothing of a model at chance. Facts that were made for it can be
learnt, kept and lost by a model of a million parameters; and which of four
words of like frequency goes on is a question that text alone teaches. Both are
records of a user's own exam (lbe/exams/own.py), for `choices@continuation`.
"""

import collections
import random
import re
from collections.abc import Iterator
from collections.abc import Sequence

from lbe.text import scripts

NUM_CHOICES = 4
# Each in English and in Chinese; names stay in Latin letters in both, so that a
# model need not know how Chinese would write them.
_RELATIONS = (
  ('The capital of {} is', '{}的首都是'),
  ('The longest river of {} is', '{}的最长河流是'),
  ('The first king of {} was', '{}的第一位国王是'),
  ('The old language of {} is', '{}的古老语言是'),
  ('The highest mountain of {} is', '{}的最高山峰是'),
)
_CONSONANTS = 'b d f g k l m n p r s t v z'.split()
_VOWELS = 'a e i o u'.split()
# A word is asked for behind so many characters of its document.
_LEAST_BEFORE, _MOST_BEFORE = 40, 60
# The most frequent units, without those that stand everywhere.
_RANKS = (10, 210)
# Wrong answers are that near to the right one in rank.
_NEAR = 8


def _names(draw: random.Random) -> Iterator[str]:
  """Invented names of three syllables, each once."""
  syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
  seen = set()
  while True:
    name = ''.join(draw.choice(syllables) for _ in range(3)).capitalize()
    if name not in seen:
      seen.add(name)
      yield name


def facts(number: int, *, seed: int = 0) -> dict[str, list[dict]]:
  """{'': sentences, 'en': questions, 'zh': questions} of invented facts.

  Of each fact a sentence in English to learn it from ({'text': …}), and a
  question in English and in Chinese. Its choices are four things of which the
  same is told as often, in a seeded order. Raises ValueError for so few facts
  that a relation has none to be mistaken for.

  >>> facts(20)['zh'][0]['question']
  'Tovodi的首都是'
  """
  if number < NUM_CHOICES * len(_RELATIONS):
    raise ValueError(
      f'facts={number}: each of {len(_RELATIONS)} relations has '
      f'{NUM_CHOICES} at least; ask for {NUM_CHOICES * len(_RELATIONS)}.'
    )
  draw = random.Random(seed)
  names = _names(draw)
  made = [
    (i % len(_RELATIONS), next(names), next(names)) for i in range(number)
  ]
  told = {'': [], 'en': [], 'zh': []}
  by_relation = collections.defaultdict(list)
  for relation, _, thing in made:
    by_relation[relation].append(thing)
  for relation, subject, thing in made:
    others = [x for x in by_relation[relation] if x != thing]
    choices = [thing, *draw.sample(others, NUM_CHOICES - 1)]
    draw.shuffle(choices)
    english, chinese = (x.format(subject) for x in _RELATIONS[relation])
    told[''].append({'text': f'{english} {thing}.'})
    for language, question in (('en', english), ('zh', chinese)):
      told[language].append(
        {
          'question': question,
          'choices': choices,
          'answer': choices.index(thing),
          'subject': 'facts',
        }
      )
  return told


_UNITS = re.compile(
  f'{scripts.NO_SPACES.pattern}|(?:(?!{scripts.NO_SPACES.pattern})\\w)+'
)


def _units(text: str) -> list[re.Match]:
  """Words, and characters of scripts that write no spaces."""
  return [m for m in _UNITS.finditer(text) if all(map(scripts.is_letter, m[0]))]


def cloze(
  counted: Sequence[str], asked: Sequence[str], *, number: int, seed: int = 0
) -> list[dict]:
  """So many questions: which of four frequent units goes on in a document.

  Units are words or, of scripts that write no spaces, characters. Frequencies
  are those of the texts `counted`; of each document of `asked` as many are
  asked for, at places that are drawn. The wrong ones are near in rank to what
  the document has. Raises ValueError where the texts have too few.
  """
  counts = collections.Counter(m[0] for text in counted for m in _units(text))
  # Of equal counts the order is that of the units themselves.
  ranked = sorted(counts, key=lambda unit: (-counts[unit], unit))
  ranked = ranked[slice(*_RANKS)]
  place = {unit: i for i, unit in enumerate(ranked)}
  draw = random.Random(seed)
  of_each, questions = -(-number // max(len(asked), 1)), []
  for text in asked if len(ranked) > NUM_CHOICES else ():
    sites = [
      m
      for m in _units(text)
      if m[0] in place and _LEAST_BEFORE <= m.start() and _is_parted(text, m)
    ]
    for site in draw.sample(sites, min(of_each, len(sites))):
      at = place[site[0]]
      near = ranked[max(0, at - _NEAR) : at + _NEAR + 1]
      others = [unit for unit in near if unit != site[0]]
      choices = [site[0], *draw.sample(others, NUM_CHOICES - 1)]
      draw.shuffle(choices)
      questions.append(
        {
          'question': text[: site.start()][-_MOST_BEFORE:].strip(),
          'choices': choices,
          'answer': choices.index(site[0]),
          'subject': 'cloze',
        }
      )
  if len(questions) < number:
    raise ValueError(
      f'cloze={number}: {len(asked)} documents have places for '
      f'{len(questions)} questions, frequent words behind {_LEAST_BEFORE} '
      'characters, and as many a document are asked for; give more or longer '
      'documents, or ask for fewer.'
    )
  return questions[:number]


def _is_parted(text, site):
  """Whether it stands behind its prompt as a choice will."""
  before = text[: site.start()]
  if scripts.has_spaces(site[0][0]):
    return before.endswith(' ') and scripts.has_spaces(before.rstrip()[-1:])
  return not before[-1:].isspace()
