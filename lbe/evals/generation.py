"""What a model writes to prompts: samples, and how they compare.

With references: exact match and token F1 as SQuAD has them, and in other
languages MLQA (facebookresearch/MLQA); chrF and BLEU by sacrebleu. Without:
how long responses are, how much they repeat themselves, and how many are in
the asked language.
"""

import collections
import functools
import re
import string
import unicodedata

from lbe.chat import prompts as prompts_lib
from lbe.evals import core
from lbe.run import averages
from lbe.text import languages
from lbe.text import scripts

# Scripts that put no spaces between words: every letter is a token there.
_NO_SPACES = ('Han', 'Hiragana', 'Katakana', 'Thai', 'Lao', 'Khmer', 'Myanmar')
# What MLQA leaves out as articles (mlqa_evaluation_v1.py).
_ARTICLES = {
  'ar': r'(?:^|\s)ال',
  'en': r'\b(a|an|the)\b',
  'vi': r'\b(của|là|cái|chiếc|những)\b',
}
# Repetition is counted in runs of so many tokens.
_NGRAM = 4


def make(*, path, language, template, limit, language_identifier, **sampling):
  """The prompts, read and checked; None for an empty `path`.

  `sampling` are max_new_tokens and the fields of sampling.Settings.
  """
  if not path:
    return None
  prompts_lib.check_template(template)
  found = prompts_lib.read_scored(
    path, template=template, limit=limit, language=language
  )
  if any(p.references for p in found):
    _sacrebleu()
  asked = {p.language for p in found} - {''}
  identify = None
  if asked:
    identify = languages.choose(
      language_identifier, asked, fewest_letters=languages.FEWEST_LETTERS
    )
  return Prompts(found, template=template, identify=identify, sampling=sampling)


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

  def __init__(self, prompts, *, template, identify, sampling):
    self.prompts = prompts
    self._template = template
    self._identify = identify
    self._sampling = sampling
    self._hash = core.data_hash(
      '\0'.join([p.id, p.text, p.language, *p.references]) for p in prompts
    )

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result; the samples are its predictions."""
    responses = prompts_lib.respond(
      model, self.prompts, template=self._template, **self._sampling
    )
    records = []
    for p, r in zip(self.prompts, responses, strict=True):
      record = {
        'step': step,
        'evaluator': name,
        'id': p.id,
        'prompt': p.text,
        'response': r.text,
        'ended': r.ended,
        'tokens': len(r.ids),
        'repetition': repetition(r.text),
        'cut_tokens': r.cut,
      }
      if p.references:
        record['references'] = list(p.references)
        record['exact_match'] = max(
          float(normalized(r.text, p.language) == normalized(x, p.language))
          for x in p.references
        )
        record['f1'] = max(f1(r.text, x, p.language) for x in p.references)
      if p.language and self._identify:
        record['language'] = p.language
        record['found_language'] = self._identify(r.text, p.language)
      records.append(record)
    return self._result(model, name, step, records)

  def _result(self, model, name, step, records):
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      protocol='generation@sampled'
      if self._sampling.get('temperature')
      else 'generation@greedy',
      data_hash=self._hash,
      template=self._template,
      num_cut=sum(r['cut_tokens'] > 0 for r in records),
      **self._sampling,
    )
    rows = []

    def put(score, values):
      rows.append(row(**averages.row(score, averages.mean(values))))

    scored = [r for r in records if 'references' in r]
    if scored:
      for score in ('exact_match', 'f1'):
        put(score, [r[score] for r in scored])
      for score, value, signature, count in self._corpus_scores(records):
        rows.append(
          row(name=score, value=value, count=count, signature=signature)
        )
    put('tokens', [r['tokens'] for r in records])
    put('characters', [len(r['response']) for r in records])
    put('repetition', [r['repetition'] for r in records])
    put('ended_by_length', [r['ended'] == 'length' for r in records])
    put('empty', [not r['response'].strip() for r in records])
    identified = [r for r in records if r.get('found_language')]
    if identified:
      put(
        'in_language',
        [r['found_language'] == r['language'] for r in identified],
      )
    return core.Result(rows, averages.metrics(rows), records)

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
      tokenize = {'zh': 'zh', 'ja': 'char'}.get(language, '13a')
      for score, metric in (
        ('chrf', sacrebleu.CHRF()),
        ('bleu', sacrebleu.BLEU(tokenize=tokenize)),
      ):
        value = metric.corpus_score(texts, references).score
        signature = str(metric.get_signature())
        result.append((f'{score}{label}', value, signature, len(pairs)))
    return result


def tokens(text):
  """Words between spaces; letters of scripts without spaces one by one."""
  spaced = ''.join(
    f' {c} ' if scripts.letter_script(c) in _NO_SPACES else c for c in text
  )
  return spaced.split()


def normalized(text, language=''):
  """Tokens in lower case, without punctuation and the language's articles.

  Without a language these are English ones.
  """
  kept = ''.join(
    c
    for c in text.lower()
    if unicodedata.category(c)[0] != 'P' and c not in string.punctuation
  )
  return tokens(re.sub(_ARTICLES.get(language or 'en', '(?!)'), ' ', kept))


def f1(text, reference, language=''):
  """Harmonic mean of precision and recall of normalized tokens."""
  a, b = normalized(text, language), normalized(reference, language)
  if not a or not b:
    return float(a == b)
  same = (collections.Counter(a) & collections.Counter(b)).total()
  return 2 * same / (len(a) + len(b))


def repetition(text):
  """Share of the text's runs of four tokens that stood before; 0 to 1."""
  found = tokens(text)
  runs = [tuple(found[i : i + _NGRAM]) for i in range(len(found) - _NGRAM + 1)]
  return 1 - len(set(runs)) / len(runs) if runs else 0.0
