"""Which language a text is in, where its script does not tell."""

from lbe.data import scripts

# Shorter texts are not judged: single words are told apart badly.
FEWEST_LETTERS = 20
# Nor are those where the best language leads the next by less, of 1: of 13,203
# English answers of Alpaca 53 are then none, without it 142, mostly lists.
LEAD = 0.5


def _lingua(why):
  try:
    import lingua  # an extra: 96 MB of language models
  except ImportError as error:
    raise ValueError(
      f"{why} needs a language identifier: pip install 'lbe[clean]' "
      '(lingua-language-detector).'
    ) from error
  return lingua


def _detector(codes):
  lingua = _lingua(f'language={codes[0]!r}')
  known = {
    language.iso_code_639_1.name.lower(): language
    for language in lingua.Language.all()
  }
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
  return builder.with_minimum_relative_distance(LEAD).build()


def identifier(codes):
  """A function from a text to its ISO 639-1 code, one of `codes`, or ''.

  One code alone is told from all that lingua knows, which takes about 1 GB.
  '' is for texts of fewer than FEWEST_LETTERS letters or where two languages
  are nearly as likely. Raises ValueError for
  an unknown code, and where lingua is not installed.
  """
  detector = _detector(codes)

  def identify(text):
    letters = sum(1 for c in text if scripts.letter_script(c))
    if letters < FEWEST_LETTERS:
      return ''
    language = detector.detect_language_of(text)
    return language.iso_code_639_1.name.lower() if language else ''

  return identify
