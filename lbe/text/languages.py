"""Which language a text is in, and which parts of it are in another.

Scripts tell most languages apart; an identifier (lingua) those that share one.
"""

import functools
import pathlib
import re
from collections.abc import Callable

from lbe.text import language_table
from lbe.text import scripts

# Shorter texts are not judged: single words are told apart badly.
FEWEST_LETTERS = 20
# Nor are those where the best language leads the next by less, of 1: of 13,203
# English answers of Alpaca 53 are then none, without it 142, mostly lists.
LEAD = 0.5
# A part with fewer letters in words without capitals is names. On the first
# 1,000 lines of NTREX-128 in Indonesian, Swahili and Vietnamese 0.2%, 0 and 0
# of the clean lines are then flagged, without it 7%, 5% and 6%.
_FEWEST_LOWER = 12


def _lingua(why):
  try:
    import lingua  # an extra: 96 MB of language models
  except ImportError as error:
    raise ValueError(
      f"{why} needs a language identifier: pip install 'lbe[clean]' "
      '(lingua-language-detector).'
    ) from error
  return lingua


def _lingua_languages(why):
  """{ISO 639-1 code: lingua's language} of all that it knows."""
  return {
    language.iso_code_639_1.name.lower(): language
    for language in _lingua(why).Language.all()
  }


def _detector(codes, *, lead=LEAD):
  why = f'language={codes[0]!r}'
  lingua, known = _lingua(why), _lingua_languages(why)
  for code in codes:
    if code not in known:
      raise ValueError(
        f'language {code!r} is not known to lingua; it knows '
        f'{", ".join(sorted(known))}.'
      )
  builder = lingua.LanguageDetectorBuilder
  if len(codes) == 1:
    builder = builder.from_all_languages()
  else:
    builder = builder.from_languages(*(known[code] for code in codes))
  return builder.with_minimum_relative_distance(lead).build()


def num_letters(text: str) -> int:
  """How many letters a text has, marks that belong to them included."""
  return sum(1 for c in text if scripts.letter_script(c))


def identifier(
  codes, *, fewest_letters: int = FEWEST_LETTERS, lead: float = LEAD
) -> Callable[[str], str]:
  """A function from a text to its ISO 639-1 code, one of `codes`, or ''.

  One code alone is told from all that lingua knows, which takes about 1 GB.
  '' is for texts of fewer letters, and where the best language leads the next
  by less (0 to 1). Raises ValueError for an unknown code, and where lingua is
  not installed.
  """
  detector = _detector(codes, lead=lead)

  def identify(text):
    if num_letters(text) < fewest_letters:
      return ''
    language = detector.detect_language_of(text)
    return language.iso_code_639_1.name.lower() if language else ''

  return identify


def segmenter(language: str, others) -> Callable[[str], list[tuple]]:
  """A function from a text to its (start, stop, code) in one of `others`.

  For languages of one script. Left out are parts of fewer than FEWEST_LETTERS
  letters, and what is not surely in the other language without its names.
  Raises ValueError as `identifier` does.
  """
  detector = _detector((language, *others))
  identify = identifier((language, *others), fewest_letters=_FEWEST_LOWER)

  def segment(text):
    parts = []
    for part in detector.detect_multiple_languages_of(text):
      code = part.language.iso_code_639_1.name.lower()
      start, stop = part.start_index, part.end_index
      if (
        code != language
        and num_letters(text[start:stop]) >= FEWEST_LETTERS
        and identify(_without_names(text[start:stop])) == code
      ):
        parts.append((start, stop, code))
    return parts

  return segment


def _without_names(text):
  """The words that have no capital."""
  return ' '.join(w for w in text.split() if not any(map(str.isupper, w)))


_BY_LABEL = {
  label: known.code
  for known in language_table.LANGUAGES.values()
  for label in known.labels
}
# Of a fastText model; as in the language confusion benchmark.
_FASTTEXT_SCORE = 0.3


def fasttext_identifier(path) -> Callable[[str], str]:
  """A function from a text to its code, by a fastText model on disk.

  As lid.176.bin (labels as __label__zh) and GlotLID (__label__zho_Hans); ''
  for texts without letters and where the score is too low. Raises ValueError
  where the file or the library is missing, or the file is no such model.
  """
  if not pathlib.Path(path).is_file():
    raise ValueError(
      f"language_identifier={path!r}: take 'scripts', 'lingua', or the path of "
      'a fastText model, which this is not.'
    )
  model = _fasttext(str(path))

  def identify(text):
    if not num_letters(text):
      return ''
    labels, scores = model.predict(' '.join(text.split()))
    if not labels or scores[0] <= _FASTTEXT_SCORE:
      return ''
    code = labels[0].removeprefix('__label__').split('_')[0]
    return _BY_LABEL.get(code, code)

  return identify


# GlotLID is 1.7 GB; it is asked for every language of an evaluator.
@functools.lru_cache(maxsize=1)
def _fasttext(path):
  try:
    import fasttext  # an extra
  except ImportError as error:
    raise ValueError(
      "a fastText model needs its library: pip install 'lbe[fasttext]'."
    ) from error
  try:
    return fasttext.load_model(path)
  except ValueError as error:
    raise ValueError(
      f'{path} is no fastText model ({error}); take one as lid.176.bin.'
    ) from error


def _sharing(language):
  """The other languages of the table that share a script with one."""
  own = set(language_table.language(language).scripts)
  return [
    other.code
    for other in language_table.LANGUAGES.values()
    if other.code != language and own & set(other.scripts)
  ]


def _known_to_lingua(codes):
  known = _lingua_languages("language_identifier='lingua'")
  return [code for code in codes if code in known]


def _check_lingua(asked):
  for code in asked:
    if not _known_to_lingua([code]):
      raise ValueError(
        f"language_identifier='lingua': lingua does not know {code!r}; take "
        "the path of a fastText model, or 'scripts' for this language."
      )


def is_told(name: str, language: str) -> bool:
  """Whether what `name`, as of `choose`, says of a text means something.

  Scripts alone take English, and every other language with Latin letters, for
  Indonesian or Vietnamese, and these for English.
  """
  latin = 'Latin' in language_table.language(language).scripts
  return name != 'scripts' or not latin


def untold(codes) -> dict:
  """The warning of a row, where scripts alone were to tell these languages."""
  if not codes:
    return {}
  return {
    'warning': (
      f'scripts alone do not tell {", ".join(sorted(codes))} from other '
      'languages with Latin letters, so no rate of it is given; set '
      "language_identifier='lingua', or the path of a fastText model"
    )
  }


def choose(
  name: str, asked, *, fewest_letters: int = 0
) -> Callable[[str, str], str]:
  """A function (text, asked language) → the language that the text is in.

  `name` is 'scripts', 'lingua', or the path of a fastText model; `asked` are
  the languages that it will be asked for. A fastText model says what it says.
  Else a text most of whose letters are in other scripts is in none of its
  languages: the script's name is returned, and '' for a text without letters.
  By 'scripts' alone languages that share one are not told apart; lingua is
  asked where the script is shared, and gives the likeliest. Where one of these
  would be asked, a text of fewer letters is ''. Raises ValueError for
  languages that the table has not, and Nepali by lingua, which has it not.
  """
  scripts_of = {code: language_table.language(code).scripts for code in asked}
  shared = {code for code in asked if _sharing(code)}
  identify = None
  if name == 'lingua' and shared:
    _check_lingua(shared)
    others = _known_to_lingua({o for code in shared for o in _sharing(code)})
    identify = identifier(
      sorted({*shared, *others}), fewest_letters=0, lead=0.0
    )
  elif name not in ('scripts', 'lingua'):
    model = fasttext_identifier(name)

    def ask(text, language):
      del language
      return model(text) if num_letters(text) >= fewest_letters else ''

    return ask

  def decide(text, language):
    shares = scripts.shares(prose(text))
    if not shares:
      return ''
    own = sum(shares.get(x, 0.0) for x in scripts_of[language])
    if own <= 0.5:
      return next(x for x in shares if x not in scripts_of[language])
    if identify is None or language not in shared:
      return language
    return identify(text) if num_letters(text) >= fewest_letters else ''

  return decide


def segment_of(name: str, language: str) -> Callable[[str], list[tuple]] | None:
  """A `segment` for `switches`: parts in languages of the same script.

  `name` is that of `choose`; None where scripts are all that is looked at.
  """
  others = _sharing(language)
  if name == 'scripts' or not others:
    return None
  if name == 'lingua':
    _check_lingua([language])
    return segmenter(language, _known_to_lingua(others))
  identify = fasttext_identifier(name)

  def segment(text):
    parts = []
    for part in _SENTENCES.finditer(text):
      said = _without_names(part.group())
      if (
        num_letters(part.group()) >= FEWEST_LETTERS
        and num_letters(said) >= _FEWEST_LOWER
        and (code := identify(said)) in others
      ):
        parts.append((part.start(), part.end(), code))
    return parts

  return segment


_FINAL_MARKS = {
  mark
  for known in language_table.LANGUAGES.values()
  for mark in known.final_marks
}
_SENTENCES = re.compile(f'[^\n;{"".join(sorted(_FINAL_MARKS))}]+')
# What is in no language: fenced code to its end or that of the text, code in
# a line, addresses.
_NO_LANGUAGE = re.compile(
  r'```.*?(?:```|\Z)|`[^`\n]+`|'
  r'(?:https?://|www\.)[!-~]+|[\w.+-]+@[\w-]+\.[\w.-]+',
  re.S,
)
# Parts of a run, which are excused one by one.
_PARTS = re.compile(
  '[^\n,;:!?()\\[\\]{}"|/<>“”„«»、，。；：！？（）「」『』《》【】…]+'
)
# Latin words of fewer letters, and names of so many words at most, are used
# in any language.
_LATIN_LETTERS = 4
_NAME_WORDS = 3


def prose(text: str) -> str:
  """The text with spaces in the place of code, links and addresses."""
  return _NO_LANGUAGE.sub(lambda match: ' ' * len(match.group()), text)


def switches(
  text: str,
  allowed: tuple[str, ...],
  *,
  prompt: str = '',
  segment: Callable[[str], list[tuple]] | None = None,
) -> list[tuple[int, int, str]]:
  """(start, stop, script or language) of what is not in the asked language.

  `allowed` are its scripts, as ('Han',); `segment` finds languages of the
  same script (see segmenter). Code, addresses, numbers, what the prompt holds
  as well, short Latin names and single letters used as symbols are excused.
  """
  text = prose(text)
  prompt = ' '.join(prompt.casefold().split())
  switched = []
  for start, stop, name in scripts.spans(text):
    if name in allowed:
      continue
    parts = [
      (start + part.start(), start + part.end())
      for part in _PARTS.finditer(text[start:stop])
      if not _is_excused(part.group(), name, prompt)
    ]
    if parts:
      switched.append((*_trimmed(text, parts[0][0], parts[-1][1]), name))
  if segment is not None:
    for start, stop, _ in switched:
      text = text[:start] + ' ' * (stop - start) + text[stop:]
    switched += [
      (*_trimmed(text, start, stop), code)
      for start, stop, code in segment(text)
      if ' '.join(text[start:stop].casefold().split()) not in prompt
    ]
  return sorted(switched)


def _trimmed(text, start, stop):
  part = text[start:stop]
  return (
    start + len(part) - len(part.lstrip()),
    stop - len(part) + len(part.rstrip()),
  )


def _is_excused(part, script, prompt):
  part = part.strip()
  letters = [c for c in part if scripts.letter_script(c) == script]
  if len(letters) < 2 and all(map(scripts.has_spaces, letters)):
    return True
  if ' '.join(part.casefold().split()) in prompt:
    return True
  if script != 'Latin':
    return False
  words = [w for w in part.split() if any(c.isalpha() for c in w)]
  return len(words) <= _NAME_WORDS and all(
    sum(c.isalpha() for c in word) < _LATIN_LETTERS
    or any(c.isupper() for c in word)
    for word in words
  )
