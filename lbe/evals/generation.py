"""What a model writes to prompts: samples, and how they compare.

With references: exact match and F1 by the official script of the language
(lbe/exams/answers.py); chrF and BLEU by sacrebleu. Without: how long responses
are, how much they repeat themselves, how many are in the asked language, and
how many are usable at all. Responses may be read from a file.
"""

import collections
import functools

from lbe.chat import prompts as prompts_lib
from lbe.evals import core
from lbe.exams import answers
from lbe.exams import squad
from lbe.run import averages
from lbe.text import language_table
from lbe.text import languages
from lbe.text import usable

# Repetition is counted in runs of so many tokens.
_NGRAM = 4


def make(
  *,
  path,
  responses,
  language,
  template,
  limit,
  language_identifier,
  f1_script,
  **sampling,
):
  """The prompts, read and checked; None for an empty `path`.

  `path` has prompts in lines, or is a file of SQuAD (lbe/exams/squad.py), whose
  answers without a template are one line. With `responses`, a file of id and
  response, those are scored, and no model is asked. `f1_script` is one of
  answers.NAMES, or '' for that of the language. `sampling` are max_new_tokens
  and the fields of sampling.Settings.
  """
  if not path:
    return None
  prompts_lib.check_template(template)
  read = functools.partial(prompts_lib.read_scored, template=template)
  if squad.is_one(path):
    read = squad.prompts
    if not template and not sampling['stop']:
      sampling['stop'] = (squad.END,)
  found = read(path, limit=limit, language=language)
  for p in found:
    if not responses and p.record.get('context') and 'prompt' not in p.record:
      raise ValueError(
        f'{p.where}: the question has a context, which would not be shown; '
        'put both into a field `prompt`, as they are to be asked.'
      )
  f1_scripts = {}
  if any(p.references for p in found):
    _sacrebleu()
    of = {p.language for p in found if p.references}
    f1_scripts = {code: answers.choose(f1_script, code) for code in of}
  asked = {p.language for p in found} - {''}
  identify = None
  if asked:
    identify = languages.choose(
      language_identifier, asked, fewest_letters=languages.FEWEST_LETTERS
    )
  written = None
  if responses:
    wheres = {p.id: p.where for p in read(path, language=language)}
    written = prompts_lib.read_responses(responses, wheres, limit=limit)
  return Prompts(
    found,
    written,
    template=template,
    identify=identify,
    identifier=language_identifier,
    f1_scripts=f1_scripts,
    sampling=sampling,
  )


def _sacrebleu():
  try:
    import sacrebleu
  except ImportError as error:
    raise ValueError(
      "references are compared by sacrebleu: pip install 'lbe[evals]'."
    ) from error
  return sacrebleu


class Prompts:
  """Prompts with the settings they are answered with."""

  def __init__(
    self,
    prompts,
    written,
    *,
    template,
    identify,
    identifier,
    f1_scripts,
    sampling,
  ):
    self.prompts = prompts
    self._written = written
    self._template = template
    self._identify = identify
    self._identifier = identifier
    self._f1_scripts = f1_scripts
    self._sampling = sampling
    self._hash = core.data_hash(
      ['\0'.join([p.id, p.text, p.language, *p.references]) for p in prompts]
      + (written or [])
    )

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result; the samples are its predictions."""
    records = []
    for p, text, facts in self._responses(model):
      record = {
        'step': step,
        'evaluator': name,
        'id': p.id,
        'prompt': p.text,
        'response': text,
        **facts,
        'repetition': repetition(text),
        'unusable': usable.why_not(text),
      }
      if p.references:
        record['references'] = list(p.references)
        record['exact_match'], record['f1'] = answers.score(
          text, p.references, self._f1_scripts[p.language], p.language
        )
      if p.language and self._identify:
        record['language'] = p.language
        record['found_language'] = self._identify(text, p.language)
      records.append(record)
    return self._result(model, name, step, records)

  def _responses(self, model):
    """(prompt, response, what else is known of it) for each prompt."""
    if self._written is not None:
      for p, text in zip(self.prompts, self._written, strict=True):
        yield p, text, {'cut_tokens': 0}
      return
    responses = prompts_lib.respond(
      model, self.prompts, template=self._template, **self._sampling
    )
    for p, r in zip(self.prompts, responses, strict=True):
      facts = {'ended': r.ended, 'tokens': len(r.ids), 'cut_tokens': r.cut}
      yield p, r.text, facts

  def _how(self):
    """What rows say of where the responses come from."""
    if self._written is not None:
      return {'protocol': 'generation@stored', 'responses': 'from a file'}
    sampled = bool(self._sampling.get('temperature'))
    protocol = 'generation@sampled' if sampled else 'generation@greedy'
    return {'protocol': protocol, 'template': self._template, **self._sampling}

  def _result(self, model, name, step, records):
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      unit='responses',
      data_hash=self._hash,
      num_cut=sum(r['cut_tokens'] > 0 for r in records),
      num_unusable=sum(bool(r['unusable']) for r in records),
      **self._how(),
    )
    rows = []

    def put(score, values, **more):
      rows.append(row(**averages.row(score, averages.mean(values)), **more))

    scored = [
      (r, p.language)
      for r, p in zip(records, self.prompts, strict=True)
      if 'references' in r
    ]
    if scored:
      codes = sorted(self._f1_scripts)
      parts = {'': codes}
      if len(codes) > 1:
        parts |= {f'/{code}': [code] for code in codes}
      for label, of in parts.items():
        used = ', '.join(sorted({self._f1_scripts[code] for code in of}))
        for score in ('exact_match', 'f1'):
          values = [r[score] for r, code in scored if code in of]
          put(f'{score}{label}', values, f1_script=used)
      for score, value, signature, count in self._corpus_scores(records):
        rows.append(
          row(name=score, value=value, count=count, signature=signature)
        )
    if self._written is None:
      put('tokens', [r['tokens'] for r in records])
    put('characters', [len(r['response']) for r in records])
    put('repetition', [r['repetition'] for r in records])
    if self._written is None:
      put('ended_by_length', [r['ended'] == 'length' for r in records])
    asked = {r['language'] for r in records if r.get('language')}
    told = {x for x in asked if languages.is_told(self._identifier, x)}
    empty = [not r['response'].strip() for r in records]
    put('empty', empty, **languages.untold(asked - told))
    reasons = [r['unusable'] for r in records]
    put('usable', [not x for x in reasons], **core.unusable(reasons))
    self._put_languages(put, [r for r in records if r.get('language') in told])
    return core.Result(rows, averages.metrics(rows), records)

  def _put_languages(self, put, asked):
    """Rows of what is in its language, of those that can be told and of all.

    Of all, one that is not usable or not told is in none.
    """
    if not asked:
      return
    right = [
      r['found_language'] == r['language'] and not r['unusable'] for r in asked
    ]
    told = [r for r in asked if r['found_language']]
    of = {'language_identifier': self._identifier}
    if told:
      found = [r['found_language'] == r['language'] for r in told]
      put('in_language', found, **of)
    put('in_language_of_all', right, **of)

  def _corpus_scores(self, records):
    """[(name, value, signature, N)] of sacrebleu, by language."""
    sacrebleu = _sacrebleu()
    by_language = collections.defaultdict(list)
    for p, r in zip(self.prompts, records, strict=True):
      if p.references:
        by_language[p.language].append((r['response'], p.references))
    result = []
    for language, pairs in sorted(by_language.items()):
      texts = [text for text, _ in pairs]
      most = max(len(refs) for _, refs in pairs)
      # One list for each rank of reference; who has fewer has None there.
      references = [
        [refs[k] if k < len(refs) else None for _, refs in pairs]
        for k in range(most)
      ]
      label = f'/{language}' if len(by_language) > 1 else ''
      known = language_table.LANGUAGES.get(language)
      tokenize = (known and known.bleu) or '13a'
      for score, metric in (
        ('chrf', sacrebleu.CHRF()),
        ('bleu', sacrebleu.BLEU(tokenize=tokenize)),
      ):
        value = metric.corpus_score(texts, references).score
        signature = str(metric.get_signature())
        result.append((f'{score}{label}', value, signature, len(pairs)))
    return result


def repetition(text):
  """Share of the text's runs of four tokens that stood before; 0 to 1."""
  found = answers.tokens(text)
  runs = [tuple(found[i : i + _NGRAM]) for i in range(len(found) - _NGRAM + 1)]
  return 1 - len(set(runs)) / len(runs) if runs else 0.0
