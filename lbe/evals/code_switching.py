"""Do responses stay in the asked language?

Two protocols. `code_switching@scripts` looks for parts in another language
(lbe/text/languages.py): by their script, and where languages share one by an
identifier; what any language borrows is excused. `code_switching@lines` has
the pass rates of the language confusion benchmark (for-ai/language-confusion):
a response passes where every line is in the language, and of those that pass,
of a language without Latin letters, where no English word stands in them. Its
own detector is a fastText model (lid.176.bin) and its English words are a file;
with both, the rates are those of its script, but that it cuts Chinese and
Japanese by a dictionary and fails lines without letters. A rate is of all
responses; its `_macro` is the benchmark's mean of languages, and of a language
that of its sources. Its folders of prompts are read as they are.
"""

import collections
import functools
import pathlib
import re
import string

import jax
import numpy as np

from lbe.chat import prompts as prompts_lib
from lbe.evals import core
from lbe.exams import confusion
from lbe.judging import sheets
from lbe.run import averages
from lbe.text import files
from lbe.text import language_table
from lbe.text import languages
from lbe.text import usable

# Of the language confusion benchmark; tokens are words, of languages without
# spaces, which it cuts by a dictionary, two letters each.
_LINE_TOKENS = 5
_LETTERS_A_TOKEN = 2
# English words have more letters than this there.
_WORD_LETTERS = 3


class Detector:
  """Judges responses in the `asked` languages, one at a time."""

  def __init__(self, language_identifier, asked, *, english_words):
    """`language_identifier` is that of languages.choose.

    `english_words` is a file of them, one a line; without it every Latin word
    in small letters is one. Raises ValueError for languages and files that are
    not there.
    """
    self._identify = languages.choose(language_identifier, asked)
    self._told = {x for x in asked if languages.is_told(language_identifier, x)}
    self._segment = {
      code: languages.segment_of(language_identifier, code) for code in asked
    }
    self._words = None
    if english_words:
      if not pathlib.Path(english_words).is_file():
        raise ValueError(f'english_words={english_words!r}: there is no file.')
      text = files.text(english_words)
      self._words = frozenset(w for w in text.split() if w.islower())
    self.facts = {
      'detector': language_identifier,
      'english_words': core.data_hash(sorted(self._words or ()))
      if english_words
      else '',
    }

  def judge(self, text, language, *, prompt=''):
    """What is found in a response, as a dict.

    `switched`, whether there are `spans` in other languages; `letters` in it,
    and `letters_outside`, in spans; `line_pass` and `word_pass`, None where
    there is no line long enough, or no question of words; why it is
    `unusable`, or ''. Where the language is not `told` (languages.is_told),
    there are no passes, and `switched` is None where no other script is seen.
    """
    told = language in self._told
    spans = languages.switches(
      text,
      language_table.language(language).scripts,
      prompt=prompt,
      segment=self._segment[language],
    )
    line_pass, word_pass = self._passes(text, language) if told else (None,) * 2
    return {
      'told': told,
      'switched': True if spans else (False if told else None),
      'spans': [
        {'start': a, 'stop': b, 'what': what, 'text': text[a:b]}
        for a, b, what in spans
      ],
      'letters': languages.num_letters(languages.prose(text)),
      'letters_outside': sum(
        languages.num_letters(text[a:b]) for a, b, _ in spans
      ),
      'line_pass': line_pass,
      'word_pass': word_pass,
      'unusable': usable.why_not(text),
    }

  def _passes(self, text, language):
    lines = [
      line for line in _plain(text).split('\n') if _is_long(line, language)
    ]
    if not lines:
      return None, None
    if any(self._identify(line, language) != language for line in lines):
      return False, None
    if 'Latin' in language_table.language(language).scripts:
      return True, None
    words = ' '.join(lines).split()
    if not language_table.language(language).spaces:
      words = re.findall('[A-Za-z]+', ' '.join(lines))
    return True, not any(map(self._is_english, words))

  def _is_english(self, word):
    if not word.islower() or len(word) <= _WORD_LETTERS:
      return False
    if self._words is None:
      return re.fullmatch('[a-z]+', word) is not None
    return word in self._words


def _plain(text):
  """Up to a next question, without ASCII punctuation, as the benchmark does."""
  text = text.split('\nQ:')[0].strip()
  text = text.translate(str.maketrans('', '', string.punctuation))
  return text.replace('—', ' ').replace('،', '')


def _is_long(line, language):
  letters = languages.num_letters(line)
  if not language_table.language(language).spaces:
    return letters >= _LINE_TOKENS * _LETTERS_A_TOKEN
  # A line of numbers is in no language.
  return letters > 0 and len(line.split()) >= _LINE_TOKENS


def rates(records):
  """The scores of judged responses, overall and by language, as dicts.

  A record is what Detector.judge gives, with its `language`, and its `source`
  where there are several. A score has name, value, count, protocol,
  num_unusable and interval95; what cannot be said of any record is left out.
  Responses without letters are `empty`. Beside the rates of what can be judged
  stand those of all responses, where one that is unusable, or cannot be judged,
  has failed: `unswitched_of_all`,
  `line_pass_of_all`, and `word_pass_of_all` of languages without Latin letters.
  Languages that are not told have none of these, and a warning.
  """
  rows = []

  def put(score, average, protocol):
    if average.denominators_N.sum():
      protocol = f'code_switching@{protocol}'
      row = averages.row(f'{score}{label}', average, protocol=protocol)
      told = {'unit': 'responses', 'num_unusable': facts['num_unusable']}
      rows.append(row | told)

  every = sorted({r['language'] for r in records})
  for language in [None, *every] if len(every) > 1 else [None]:
    mine = [r for r in records if language in (None, r['language'])]
    facts = core.unusable([r['unusable'] for r in mine])
    told = [r for r in mine if r['told']]
    full = [r for r in told if r['letters']]
    label = f'/{language}' if language else ''
    put('switched', averages.mean([r['switched'] for r in full]), 'scripts')
    outside = averages.Average(
      np.array([r['letters_outside'] for r in full]),
      np.array([r['letters'] for r in full]),
    )
    put('letters_outside', outside, 'scripts')
    for score in ('line_pass', 'word_pass'):
      passes = [r[score] for r in mine if r[score] is not None]
      put(score, averages.mean(passes), 'lines')
      if len({_part(r) for r in mine}) > 1:
        put(f'{score}_macro', _macro(mine, score), 'lines')
    put('empty', averages.mean([not r['letters'] for r in mine]), 'scripts')
    if not language:
      untold = {r['language'] for r in mine if not r['told']}
      rows[-1] |= languages.untold(untold)
    put('usable', averages.mean([not r['unusable'] for r in mine]), 'scripts')
    rows[-1] |= facts
    stays = [not r['switched'] and not r['unusable'] for r in told]
    put('unswitched_of_all', averages.mean(stays), 'scripts')
    for score in ('line_pass', 'word_pass'):
      of = [
        r
        for r in told
        if score == 'line_pass'
        or 'Latin' not in language_table.language(r['language']).scripts
      ]
      passes = [bool(r[score]) and not r['unusable'] for r in of]
      put(f'{score}_of_all', averages.mean(passes), 'lines')
  return rows


def _source(prompt):
  source = prompt.record.get('source')
  return {'source': source} if isinstance(source, str) else {}


def _part(record):
  return record['language'], record.get('source', '')


def _macro(records, score):
  """The mean of languages, each of them the mean of its sources."""
  told = [r for r in records if r[score] is not None]
  sizes = collections.Counter(map(_part, told))
  sources = collections.Counter(language for language, _ in sizes)
  weights_N = np.array(
    [1 / (sizes[_part(r)] * sources[r['language']]) for r in told]
  )
  passes_N = np.array([r[score] for r in told], np.float64)
  return averages.Average(weights_N * passes_N, weights_N)


def make(
  *,
  path,
  responses,
  language,
  languages,
  template,
  limit,
  language_identifier,
  english_words,
  sheet,
  sheet_size,
  **sampling,
):
  """The prompts, read and checked; None for an empty `path`.

  `path` has prompts in lines, or is a folder as confusion.prompts reads, of
  which `languages` are asked and `limit` prompts of each file. With `responses`
  those are scored, and no model is asked. `sheet` is a CSV file for people, of
  `sheet_size` responses. Raises ValueError for a prompt without a language, one
  that is not known, and a sheet that has marks.
  """
  if not path:
    return None
  prompts_lib.check_template(template)
  if pathlib.Path(path).is_dir():
    read = functools.partial(confusion.prompts, path, languages=languages)
  elif languages:
    raise ValueError(
      f'languages={tuple(languages)} are chosen of a folder, and {path!r} is '
      'none; its prompts say their language, or the field `language` does.'
    )
  else:
    read = functools.partial(
      prompts_lib.read_scored, path, template=template, language=language
    )
  prompts = read(limit=limit)
  for p in prompts:
    try:
      language_table.language(p.language)
    except ValueError as error:
      raise ValueError(
        f'{path}: the prompt {p.id!r} (its field `language`, or that of the '
        f'evaluator): {error}'
      ) from error
  if sheet:
    sheets.check(sheet)
  written = None
  if responses:
    wheres = {p.id: p.where for p in [*prompts, *read()]}
    written = prompts_lib.read_responses(responses, wheres, limit=len(prompts))
  detector = Detector(
    language_identifier,
    {p.language for p in prompts},
    english_words=english_words,
  )
  return Prompts(
    prompts,
    written,
    template=template,
    detector=detector,
    sheet=sheet,
    sheet_size=sheet_size,
    sampling=sampling,
  )


class Prompts:
  """Prompts with their languages, and how they are answered and judged."""

  def __init__(
    self, prompts, written, *, template, detector, sheet, sheet_size, sampling
  ):
    self.prompts = prompts
    self._written = written
    self._template = template
    self._detector = detector
    self._sheet = sheet, sheet_size
    self._sampling = sampling
    self._hash = core.data_hash(
      ['\0'.join([p.id, p.text, p.language]) for p in prompts] + (written or [])
    )

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result; parts in other languages stand in its predictions."""
    texts, cuts = self._written, [0] * len(self.prompts)
    if texts is None:
      responses = prompts_lib.respond(
        model, self.prompts, template=self._template, **self._sampling
      )
      texts = [r.text for r in responses]
      cuts = [r.cut for r in responses]
    records = []
    for p, text, cut in zip(self.prompts, texts, cuts, strict=True):
      records.append(
        {
          'step': step,
          'evaluator': name,
          'id': p.id,
          'language': p.language,
          **_source(p),
          'prompt': p.text,
          'response': text,
          **self._detector.judge(text, p.language, prompt=p.text),
          'cut_tokens': cut,
        }
      )
    path, size = self._sheet
    if path and jax.process_index() == 0:
      full = [r for r in records if r['letters']]
      sheets.write(full, path, size=size, step=step)
    asked = {'responses': 'from a file'}
    if self._written is None:
      asked = {'template': self._template, **self._sampling}
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      data_hash=self._hash,
      num_cut=sum(r['cut_tokens'] > 0 for r in records),
      **self._detector.facts,
      **asked,
    )
    rows = rates(records)
    return core.Result(
      [row(**r) for r in rows], averages.metrics(rows), records
    )
