"""What all evaluators share: the rows they leave.

An evaluator is a module with `make(**fields)`: the fields of its config, read
and checked before anything compiles. What it makes has
`evaluate(model, *, name, step)`, which returns a Result.
"""

import collections
import dataclasses
import hashlib
import math
import pathlib
import re

import numpy as np

from lbe.inference import score
from lbe.run import averages
from lbe.text import lines
from lbe.text import tables

# From so many questions on, one answer to more than this share is told.
_FEWEST_TOLD = 5
_SAME_SHARE = 0.95
# More unusable responses than this share are told.
_MOST_UNUSABLE = 0.1

# Which way a score of each evaluator is better; of other figures, as how long
# a response is, neither is. lm_eval's are those of the harness.
LOWER, HIGHER = 'lower', 'higher'
BETTER = {
  'perplexity': {
    'bits_per_byte': LOWER,
    'perplexity': LOWER,
    'nats_per_document': LOWER,
    'perplexity_sample_mean': LOWER,
    'perplexity_per_character': LOWER,
    'perplexity_per_word': LOWER,
  },
  # Of `relative` neither is: it falls where the reference gets worse, too.
  'parallel': {'bits_per_sentence': LOWER, 'bits_per_byte': LOWER},
  'multiple_choice': {'acc': HIGHER, 'acc_norm': HIGHER},
  'exam': {
    'score_rate': HIGHER,
    'lmeval_flexible_extract': HIGHER,
    'lmeval_remove_whitespace': HIGHER,
  },
  'pairs': {'acc': HIGHER},
  'generation': {
    'exact_match': HIGHER,
    'f1': HIGHER,
    'chrf': HIGHER,
    'bleu': HIGHER,
    'in_language': HIGHER,
    'in_language_of_all': HIGHER,
    'usable': HIGHER,
    'repetition': LOWER,
    'ended_by_length': LOWER,
    'empty': LOWER,
  },
  'code_switching': {
    'switched': LOWER,
    'letters_outside': LOWER,
    'empty': LOWER,
    'line_pass': HIGHER,
    'word_pass': HIGHER,
    'usable': HIGHER,
    'unswitched_of_all': HIGHER,
    'line_pass_of_all': HIGHER,
    'word_pass_of_all': HIGHER,
  },
  'in_context': {
    'copy': HIGHER,
    'copy_acc': HIGHER,
    'lookup': HIGHER,
    'lookup_acc': HIGHER,
    'labels': HIGHER,
    'labels_acc': HIGHER,
  },
  'response_quality': {
    'overall': HIGHER,
    'empty_responses': LOWER,
    'parse_failures': LOWER,
    'judge_failures': LOWER,
    'too_long_questions': LOWER,
  },
}
# Scores that compare models of one tokenizer alone.
OF_ONE_TOKENIZER = ('perplexity', 'perplexity_sample_mean')
_BY_SCORE = {k: way for scores in BETTER.values() for k, way in scores.items()}
MARKS = {LOWER: '↓', HIGHER: '↑', '': ''}
# Behind every table with marks.
LEGEND = (
  '↑ higher is better, ↓ lower is better. N is what was drawn anew for the 95% '
  "interval (of shares it is Wilson's); below "
  f'{averages.FEWEST_UNITS} there is none.'
)


def better(row: dict) -> str:
  """Which way the score of a row is better; '' of what is no better either way.

  Of parts and averages, as chrf/zh and acc_macro, it is that of the score.
  """
  if 'better' in row:  # lm_eval's
    return row['better']
  name = re.sub('_(micro|macro|points)$', '', row['name'].split('/')[0])
  # What is no count there is a criterion, whose points are all that counts.
  judged = row.get('protocol', '').startswith('response_quality@')
  return _BY_SCORE.get(name, HIGHER if judged else '')


@dataclasses.dataclass(frozen=True)
class Result:
  """What an evaluator found.

  `rows` go to results.jsonl; `metrics`, 'SCORE' → number, to metrics.jsonl and
  TensorBoard as 'eval/NAME/SCORE'; `predictions`, one dict an item, to
  predictions.jsonl.
  """

  rows: list
  metrics: dict
  predictions: list = dataclasses.field(default_factory=list)


def data_hash(texts) -> str:
  """sha256 of the texts, their borders included; 16 digits."""
  digest = hashlib.sha256()
  for text in texts:
    data = text.encode()
    digest.update(len(data).to_bytes(8, 'little') + data)
  return digest.hexdigest()[:16]


def rolling_nats(model, documents: list, *, progress='') -> np.ndarray:
  """Negative log-likelihood in nats of documents, lists of ids: float64 [N].

  In windows of `max_len`, as score.windows cuts them; equal on every host.
  Raises ValueError where the tokenizer has neither BOS nor EOS.
  """
  requests, owners = [], []
  prefix_id = score.prefix_id(model.tokenizer)
  for i, ids in enumerate(documents):
    cut = list(score.windows(ids, prefix_id=prefix_id, max_len=model.max_len))
    requests += cut
    owners += [i] * len(cut)
  nats_N = np.zeros(len(documents), np.float64)
  scores = model.score(requests, progress=progress)
  np.add.at(nats_N, np.array(owners, int), [-s.logprob for s in scores])
  return nats_N


def one_answer(answers: list, golds: list) -> dict:
  """Facts for a row: the answer that is given most, its share, and a warning.

  `golds` are the right ones of each, several where any is right. A model that
  says one thing to everything has the score of that thing, not one of its own.
  """
  if not answers:
    return {}
  most, number = collections.Counter(answers).most_common(1)[0]
  facts = {'most_chosen': most, 'most_chosen_share': number / len(answers)}
  right = sum(most in gold for gold in golds)
  if (
    len(answers) >= _FEWEST_TOLD
    and number > _SAME_SHARE * len(answers)
    and right < len(answers)
  ):
    facts['warning'] = (
      f'the model answers {most} to {number:,} of {len(answers):,} questions, '
      f'of which {right:,} have it right: the score is that of always saying '
      f'{most}'
    )
  return facts


def put_weights(records: list[dict], weights_N):
  """What each item counts for in its headline; left out where that is 1."""
  for record, weight in zip(records, weights_N, strict=True):
    if weight != 1:
      record['weight'] = float(weight)


def unusable(reasons: list[str]) -> dict:
  """Facts for a row of a rate: how many responses are unusable, and a warning.

  `reasons` are those of usable.why_not. What is unusable is found in no wrong
  language, and nothing else.
  """
  number = sum(map(bool, reasons))
  facts = {'num_unusable': number}
  if number > _MOST_UNUSABLE * len(reasons):
    told = collections.Counter(filter(None, reasons)).most_common()
    facts['warning'] = (
      f'{number:,} of {len(reasons):,} responses are unusable ('
      + ', '.join(f'{count:,} {why}' for why, count in told)
      + '); look at the rates of all, not at those of what can be judged'
    )
  return facts


def newest(rows: list) -> list:
  """Of the rows of each evaluator and score, the last."""
  return list({(r['evaluator'], r['name']): r for r in rows}.values())


def table(rows: list) -> str:
  """The newest of rows as a Markdown table; of many subjects only the groups.

  Where a score has a row of step 0, and newer ones, that is `before`. Behind it
  stands what rows warn of.
  """
  starts = {(r['evaluator'], r['name']): r for r in rows if r.get('step') == 0}
  rows = newest(rows)
  has_before = any(
    starts.get((r['evaluator'], r['name']), r) is not r for r in rows
  )
  shown = []
  for r in rows:
    if r['count'] is None or r.get('of_subject'):
      continue
    start = starts.get((r['evaluator'], r['name']), r)
    before = '' if start is r else short(start['value'])
    name = f'{r["name"]} {MARKS[better(r)]}'
    shown.append(
      [r['evaluator'], r['protocol'], name]
      + [before] * has_before
      + [short(r['value']), _low_high(r), units(r)]
    )
  heads = ['evaluator', 'protocol', 'score', 'before', 'value', '95%', 'N']
  if not has_before:
    heads.remove('before')
  align = 'lll' + 'r' * has_before + 'rlr'
  marked = tables.markdown(heads, align, shown)
  return '\n'.join([marked, LEGEND, *warnings(rows)])


def units(row: dict) -> str:
  """How many of what were drawn anew for an interval, as '204 questions'."""
  number = row.get('num_units', row['count'])
  return f'{number:,} {row.get("unit", "")}'.rstrip()


def _low_high(row):
  return ' to '.join(map(short, row.get('interval95', ())))


def warnings(rows: list) -> list[str]:
  """What rows warn of, a line each."""
  return [
    f'warning: {r["evaluator"]}: {r["warning"]}'
    for r in rows
    if r.get('warning')
  ]


def short(value):
  if value is None or not math.isfinite(value):
    return '–'
  return f'{value:.4f}' if abs(value) < 1e4 else f'{value:.3g}'


def write_summary(workdir) -> str:
  """results.json, the newest rows by evaluator and score; their table."""
  workdir = pathlib.Path(workdir)
  rows = lines.rows(workdir / 'results.jsonl')
  summary = {}
  for r in newest(rows):
    facts = {k: v for k, v in r.items() if k not in ('evaluator', 'name')}
    summary.setdefault(r['evaluator'], {})[r['name']] = facts
  (workdir / 'results.json').write_text(
    lines.dumps(summary, indent=2), encoding='utf-8'
  )
  return table(rows)
