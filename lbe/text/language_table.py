"""What is known of each language: the facts of languages.toml, read once.

What a language is called, how it is written, and what it is called in the data
sets that have several. A language is one entry of the file.
"""

import dataclasses
import difflib
import pathlib
import tomllib

_FILE = pathlib.Path(__file__).with_name('languages.toml')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Language:
  """One language; languages.toml says what each field is."""

  code: str
  english: str
  name: str
  scripts: tuple[str, ...]
  spaces: bool
  final_marks: str
  labels: tuple[str, ...]
  flores: str
  codes: dict[str, str]
  harness: tuple[str, ...]
  bleu: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
  """A data set with files in several languages."""

  title: str
  source: str
  licence: str
  count: str
  scores: tuple[str, ...]
  file: str
  hub: bool = False


def _read():
  facts = tomllib.loads(_FILE.read_text(encoding='utf-8'))
  data = {
    name: Data(**fields | {'scores': tuple(fields['scores'])})
    for name, fields in facts['data'].items()
  }
  languages = {}
  for code, fields in sorted(facts['languages'].items()):
    assert not set(fields['codes']) - set(data), (code, fields['codes'])
    lists = {k: tuple(fields.pop(k)) for k in ('scripts', 'labels', 'harness')}
    languages[code] = Language(code=code, **lists, **fields)
  return languages, data, tuple(facts['thirteen'])


# {code: Language}, {name: Data}, and the codes of the paper's languages.
LANGUAGES, DATA, THIRTEEN = _read()


def language(code: str) -> Language:
  """The Language of a code; ValueError for another one, with the nearest."""
  if code in LANGUAGES:
    return LANGUAGES[code]
  names = {
    name.casefold(): known
    for known, x in LANGUAGES.items()
    for name in (known, x.english, x.name, x.flores, *x.labels)
  }
  near = difflib.get_close_matches(code.casefold(), names, 1, 0.4)
  nearest = [LANGUAGES[names[name]] for name in near]
  told = ''.join(f' the nearest is {x.code!r} ({x.english});' for x in nearest)
  raise ValueError(
    f'language {code!r} is unknown;{told} known are {", ".join(LANGUAGES)}. A '
    f'new one is an entry of lbe/text/{_FILE.name} (docs/languages.md).'
  )


def there(data: str, folder, *, split: str = '*') -> list[str]:
  """The codes of the languages that a data set's folder has, in some split."""
  root, pattern = pathlib.Path(folder), DATA[data].file
  return [
    x.code
    for x in LANGUAGES.values()
    if data in x.codes
    and any(root.glob(pattern.format(code=x.codes[data], split=split)))
  ]


def file(data: str, folder, code: str, *, split: str = '') -> pathlib.Path:
  """Where the language lies in a data set's folder, or a split of it.

  `data` is one of DATA with one file for each language and split. Raises
  ValueError for an unknown language, one that the data set has not, and a
  folder without it or the split, with what is there.
  """
  what = DATA[data]
  root, known = pathlib.Path(folder), language(code)
  if data not in known.codes:
    has = [x.code for x in LANGUAGES.values() if data in x.codes]
    raise ValueError(
      f'{what.title} has no {known.english} ({code!r}); it has '
      f'{", ".join(has)}.'
    )
  if not root.is_dir():
    raise ValueError(
      f'{str(root)!r} is no folder; give that of {what.title} ({what.source}).'
    )
  asked = known.codes[data]
  files = sorted(root.glob(what.file.format(code=asked, split=split)))
  if not files:
    # Other splits of the language, else other languages.
    has = [
      str(path.relative_to(root))
      for path in root.glob(what.file.format(code=asked, split='*'))
    ] or there(data, root)
    raise ValueError(
      f'{root} has no {what.file.format(code=asked, split=split)}, where '
      f'{what.title} has its {known.english}; it has '
      f'{", ".join(sorted(has)) or "none of its languages"}.'
    )
  (path,) = files
  return path
