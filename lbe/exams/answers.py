"""Answers that are a few words: exact match and F1 of the official scripts.

  squad1, squad2   SQuAD (rajpurkar.github.io/SQuAD-explorer), XQuAD: versions
                   1.1 and 2.0 differ where an answer has no word
  mlqa             facebookresearch/MLQA, mlqa_evaluation_v1.py
  cmrc             ymcui/cmrc2018, cmrc2018_evaluate.py: its F1 is of the
                   longest run that answer and reference have in common
  words            no script's: MLQA's without its articles, and every letter
                   of a script without spaces is a word

They are as the scripts are, faults included: MLQA takes the Arabic ال out of
the middle of words too. CMRC cuts what is not Chinese by NLTK, here without
its model of where sentences end: of 25,752 pairs made of its own data one
differs, by 0.001.
"""

import collections
import difflib
import functools
import re
import string
import unicodedata

from lbe.text import scripts

# Of a language, where none is asked for; 'words' for others.
BY_LANGUAGE = {
  'en': 'squad2',
  'zh': 'cmrc',
  **dict.fromkeys(('ar', 'de', 'es', 'hi', 'vi'), 'mlqa'),
}
NAMES = ('squad1', 'squad2', 'mlqa', 'cmrc', 'words')
# What MLQA takes out as articles; hi and zh have none.
_ARTICLES = {
  'ar': 'ال',
  'de': r'\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b',
  'en': r'\b(a|an|the)\b',
  'es': r'\b(un|una|unos|unas|el|la|los|las)\b',
  'hi': '(?!)',
  'vi': r'\b(của|là|cái|chiếc|những)\b',
  'zh': '(?!)',
}
# Scripts that put no spaces between words: every letter is a token there.
_NO_SPACES = ('Han', 'Hiragana', 'Katakana', 'Thai', 'Lao', 'Khmer', 'Myanmar')
_CMRC_MARKS = frozenset('-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』')


def choose(name: str, language: str) -> str:
  """The script for answers in a language; ValueError for an unknown one."""
  if name and name not in NAMES:
    raise ValueError(
      f'f1_script={name!r} is unknown; take one of {", ".join(NAMES)}, or '
      "'' for that of the language."
    )
  if name == 'mlqa' and language not in _ARTICLES:
    raise ValueError(
      f"f1_script='mlqa' knows the languages {', '.join(_ARTICLES)}, and a "
      f'prompt has {language!r}.'
    )
  name = name or BY_LANGUAGE.get(language, 'words')
  if name == 'cmrc':
    _tokenizer()
  return name


def score(
  response: str, references: tuple[str, ...], script: str, language: str = ''
) -> tuple[float, float]:
  """(exact match, F1), each of the reference that is best for it; 0 to 1."""
  if script == 'cmrc':
    pairs = [_cmrc(response, reference) for reference in references]
  else:
    words = functools.partial(_WORDS[script], language=language)
    found, wanted = words(response), list(map(words, references))
    if script == 'squad2':
      # A reference without a word is that there is no answer.
      wanted = list(filter(None, wanted)) or [[]]
    empty = script in ('squad2', 'words')
    pairs = [(float(found == x), _f1(found, x, empty)) for x in wanted]
  exact, overlap = zip(*pairs, strict=True)
  return max(exact), max(overlap)


def _f1(found, wanted, empty):
  """Of bags of words; with `empty` two empty ones are alike."""
  if empty and not (found and wanted):
    return float(found == wanted)
  same = (collections.Counter(found) & collections.Counter(wanted)).total()
  return 2 * same / (len(found) + len(wanted)) if same else 0.0


# --------------------------------------------------------------------- words


def _squad(text, language=''):
  del language
  kept = ''.join(c for c in text.lower() if c not in string.punctuation)
  return re.sub(_ARTICLES['en'], ' ', kept).split()


def _plain(text):
  """In lower case, without punctuation."""
  return ''.join(
    c
    for c in text.lower()
    if unicodedata.category(c)[0] != 'P' and c not in string.punctuation
  )


def _mlqa(text, language):
  kept = re.sub(_ARTICLES[language], ' ', _plain(text))
  if language == 'zh':
    kept = re.sub('[\u4e00-\u9fa5]', r' \g<0> ', kept)
  return kept.split()


def _any(text, language=''):
  # Without a language the articles are English ones.
  articles = {'': 'en', 'en': 'en', 'vi': 'vi'}.get(language)
  kept = re.sub(_ARTICLES.get(articles, '(?!)'), ' ', _plain(text))
  return tokens(kept)


_WORDS = {'squad1': _squad, 'squad2': _squad, 'mlqa': _mlqa, 'words': _any}


def tokens(text: str) -> list[str]:
  """Words between spaces; letters of scripts without spaces one by one."""
  spaced = ''.join(
    f' {c} ' if scripts.letter_script(c) in _NO_SPACES else c for c in text
  )
  return spaced.split()


# ---------------------------------------------------------------------- CMRC


def _cmrc(response, reference):
  """(exact match, F1) of the longest run of words in common."""
  plain = [
    ''.join(c for c in text.lower().strip() if c not in _CMRC_MARKS)
    for text in (response, reference)
  ]
  a, b = map(_segments, plain)
  match = difflib.SequenceMatcher(None, a, b, autojunk=False)
  same = match.find_longest_match(0, len(a), 0, len(b)).size
  f1 = 2 * same / (len(a) + len(b)) if same else 0.0
  return float(plain[0] == plain[1]), f1


def _segments(text):
  """Chinese letters one by one, and what NLTK makes of the rest."""
  found = []
  for part in re.split('([\u4e00-\u9fa5])', text):
    if re.fullmatch('[\u4e00-\u9fa5]', part):
      found.append(part)
    elif part:
      found += _tokenizer()(part)
  return found


@functools.cache
def _tokenizer():
  try:
    import nltk  # an extra
  except ImportError as error:
    raise ValueError(
      'the F1 of Chinese answers cuts Latin words by NLTK: pip install '
      "'lbe[evals]', or take f1_script='mlqa'."
    ) from error
  return functools.partial(nltk.word_tokenize, preserve_line=True)
