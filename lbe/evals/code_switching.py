"""Do responses stay in the asked language?

Two protocols. `code_switching@scripts` looks for parts in another language
(lbe/data/languages.py): by their script, and where languages share one by an
identifier; what any language borrows is excused. `code_switching@lines` has
the pass rates of the language confusion benchmark (for-ai/language-confusion):
a response passes where every line is in the language, and of those that pass,
of a language without Latin letters, where no English word stands in them.
"""

import functools
import re
import string

from lbe import prompts as prompts_lib
from lbe.data import languages
from lbe.data import scripts
from lbe.evals import core
from lbe.judging import local
from lbe.judging import sheets

# Of the language confusion benchmark; tokens are words, and of Chinese and
# Japanese, which it cuts by a dictionary, two letters each.
_LINE_TOKENS = 5
_LETTERS_A_TOKEN = 2
# English words have more letters than this there.
_WORD_LETTERS = 3


def make(
  *,
  path,
  responses,
  language,
  template,
  limit,
  language_identifier,
  sheet,
  sheet_size,
  **sampling,
):
  """The prompts, read and checked; None for an empty `path`.

  With `responses` those are scored, and no model is asked. `sheet` is a CSV
  file for people, of `sheet_size` responses. Raises ValueError for a prompt
  without a language, and one that is not known.
  """
  if not path:
    return None
  local.check_template(template)
  prompts = prompts_lib.read(path, limit=limit, language=language)
  for p in prompts:
    if p.language not in languages.SCRIPTS:
      raise ValueError(
        f'{path}: the prompt {p.id!r} asks for the language {p.language!r}; '
        f'known are {", ".join(languages.SCRIPTS)} (its field `language`, or '
        'that of the evaluator).'
      )
  written = (
    prompts_lib.read_responses(responses, prompts) if responses else None
  )
  asked = {p.language for p in prompts}
  return Prompts(
    prompts,
    written,
    template=template,
    segment={
      code: languages.segment_of(language_identifier, code) for code in asked
    },
    identify=languages.choose(language_identifier, asked),
    detector=language_identifier,
    sheet=sheet,
    sheet_size=sheet_size,
    sampling=sampling,
  )


class Prompts:
  """Prompts with their languages, and how they are answered and judged."""

  def __init__(
    self,
    prompts,
    written,
    *,
    template,
    segment,
    identify,
    detector,
    sheet,
    sheet_size,
    sampling,
  ):
    self.prompts = prompts
    self._written = written
    self._template = template
    self._segment = segment
    self._identify = identify
    self._detector = detector
    self._sheet = sheet, sheet_size
    self._sampling = sampling
    self._hash = core.data_hash(
      '\0'.join([p.id, p.text, p.language]) for p in prompts
    )

  def evaluate(self, model, *, name, step):
    """A Result; parts in other languages stand in its predictions."""
    texts, cuts = self._written, [0] * len(self.prompts)
    if texts is None:
      responses = prompts_lib.respond(
        model,
        [p.text for p in self.prompts],
        template=self._template,
        **self._sampling,
      )
      texts = [r.text for r in responses]
      cuts = [r.cut for r in responses]
    records = []
    for p, text, cut in zip(self.prompts, texts, cuts, strict=True):
      spans = languages.switches(
        text,
        languages.SCRIPTS[p.language],
        prompt=p.text,
        segment=self._segment[p.language],
      )
      letters = sum(1 for c in languages.prose(text) if _is_letter(c))
      outside = sum(1 for a, b, _ in spans for c in text[a:b] if _is_letter(c))
      line_pass, word_pass = self._passes(text, p.language)
      records.append(
        {
          'step': step,
          'evaluator': name,
          'id': p.id,
          'language': p.language,
          'prompt': p.text,
          'response': text,
          'switched': bool(spans),
          'spans': [
            {'start': a, 'stop': b, 'what': what, 'text': text[a:b]}
            for a, b, what in spans
          ],
          'letters': letters,
          'letters_outside': outside,
          'line_pass': line_pass,
          'word_pass': word_pass,
          'cut_tokens': cut,
        }
      )
    path, size = self._sheet
    if path:
      sheets.write(records, path, size=size)
    return self._result(model, name, step, records)

  def _passes(self, text, language):
    """(lines, words) pass: True or False, None where it cannot be said."""
    lines = [
      line for line in _plain(text).split('\n') if _is_long(line, language)
    ]
    if not lines:
      return None, None
    if any(self._identify(line, language) != language for line in lines):
      return False, None
    if 'Latin' in languages.SCRIPTS[language]:
      return True, None
    words = re.findall(r'[A-Za-z]+', ' '.join(lines))
    english = any(w.islower() and len(w) > _WORD_LETTERS for w in words)
    return True, not english

  def _result(self, model, name, step, records):
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      data_hash=self._hash,
      template=self._template,
      detector=self._detector,
      num_cut=sum(r['cut_tokens'] > 0 for r in records),
      **self._sampling,
    )
    rows, metrics = [], {}

    def put(score, found, of, protocol, **more):
      if not sum(of):
        return
      value = float(sum(found) / sum(of))
      count = sum(1 for x in of if x)
      rows.append(
        row(
          name=score,
          value=value,
          count=count,
          protocol=f'code_switching@{protocol}',
          interval95=core.bootstrap(found, of),
          **more,
        )
      )
      metrics[score] = value

    every = sorted({r['language'] for r in records})
    for language in [None, *every] if len(every) > 1 else [None]:
      mine = [r for r in records if language in (None, r['language'])]
      label = f'/{language}' if language else ''
      full = [r for r in mine if r['letters']]
      put(
        f'switched{label}',
        [r['switched'] for r in full],
        [1 for _ in full],
        'scripts',
        num_empty=len(mine) - len(full),
      )
      put(
        f'letters_outside{label}',
        [r['letters_outside'] for r in full],
        [r['letters'] for r in full],
        'scripts',
      )
      for score in ('line_pass', 'word_pass'):
        told = [r[score] for r in mine if r[score] is not None]
        put(f'{score}{label}', told, [1 for _ in told], 'lines')
    return core.Result(rows, metrics, records)


def _is_letter(character):
  return bool(scripts.letter_script(character))


def _plain(text):
  """Without ASCII punctuation, as the benchmark has it."""
  text = text.translate(str.maketrans('', '', string.punctuation))
  return text.replace('—', ' ').replace('،', '').strip()


def _is_long(line, language):
  if language in ('zh', 'ja'):
    return sum(map(_is_letter, line)) >= _LINE_TOKENS * _LETTERS_A_TOKEN
  return len(line.split()) >= _LINE_TOKENS
