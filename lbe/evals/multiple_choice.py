"""Questions with choices, answered by the likeliest choice.

A protocol is the text of the prompt, the tokens that are scored, and the
average that is the headline; `ceval@official` is another score than
`ceval@lmeval`. Three ways to score:

- 'joint': each choice is a continuation of the prompt, encoded with it. `acc`
  takes the likeliest, `acc_norm` the likeliest by character.
- 'letter': the token of the letter, whatever the prompt ends with.
- 'cla': the logits of the letter with and without a space before it, summed,
  as Chinese-LLaMA-Alpaca does.
"""

import functools
from typing import NamedTuple

import numpy as np

from lbe.evals import core
from lbe.exams import agieval
from lbe.exams import ceval
from lbe.exams import choices
from lbe.exams import gaokao
from lbe.exams import item as item_lib
from lbe.exams import mmlu
from lbe.exams import sib200
from lbe.exams import sib200_prompts
from lbe.inference import score
from lbe.run import averages
from lbe.vocab import tokenizers


class Protocol(NamedTuple):
  """`headline` is the average over 'micro' questions or 'macro' subjects.

  Questions weigh by their points.
  """

  items: object  # (path, variant, *, split, num_shots, subjects, limit)
  scoring: str
  split: str
  num_shots: int
  headline: str = 'micro'
  drops_shots: bool = False  # while the prompt is too long


PROTOCOLS = {
  'mmlu@hendrycks': Protocol(mmlu.items, 'letter', 'test', 5, drops_shots=True),
  'mmlu@lmeval': Protocol(mmlu.items, 'joint', 'test', 5),
  'ceval@official': Protocol(ceval.items, 'letter', 'val', 5, 'macro'),
  'ceval@lmeval': Protocol(ceval.items, 'joint', 'val', 5),
  'ceval@cla': Protocol(ceval.items, 'cla', 'val', 5),
  'cmmlu@lmeval': Protocol(ceval.cmmlu_items, 'joint', 'test', 0),
  'xcopa@lmeval': Protocol(choices.xcopa_items, 'joint', 'test', 0),
  'sib200@labels': Protocol(sib200.items, 'joint', 'test', 0),
  'sib200@labels_native': Protocol(sib200.items, 'joint', 'test', 0),
  **{
    f'sib200@{x}': Protocol(sib200.items, 'joint', 'test', 0)
    for x in sib200_prompts.HARNESS
  },
  'agieval@loglik': Protocol(agieval.items, 'joint', 'test', 0, 'macro'),
  'agieval@lmeval': Protocol(agieval.items, 'joint', 'test', 0),
  'gaokao@loglik': Protocol(gaokao.items, 'joint', '', 0),
  'choices@letters': Protocol(choices.items, 'joint', '', 0),
  'choices@texts': Protocol(choices.items, 'joint', '', 0),
  'choices@continuation': Protocol(choices.items, 'joint', '', 0),
}
# Of Chinese-LLaMA-Alpaca's generation settings, which its scores pass through.
_CLA_REPETITION_PENALTY = 1.1


def make(
  *,
  path,
  protocol,
  split,
  num_shots,
  subjects,
  limit,
  bos,
  cut,
):
  """The questions of an exam, read and checked; None for an empty `path`.

  `cut` is where a prompt and its choice part (see score.split): '' is
  'harness' for the harness's own protocols, and else 'safe'.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
      f'protocol={protocol!r} is unknown; take one of {", ".join(PROTOCOLS)}.'
    )
  if not path:
    return None
  variant = protocol.split('@')[1]
  p = PROTOCOLS[protocol]
  num_shots = p.num_shots if num_shots is None else num_shots
  for field, value in (('num_shots', num_shots), ('limit', limit)):
    if value < 0:
      raise ValueError(f'{field}={value} is below 0.')
  items = p.items(
    path,
    variant,
    split=split or p.split,
    num_shots=num_shots,
    subjects=tuple(subjects),
    limit=limit,
  )
  if not items:
    raise ValueError(f'{path} has no questions in the split {split!r}.')
  cut = cut or ('harness' if variant.startswith('lmeval') else 'safe')
  return Exam(items, protocol, num_shots=num_shots, bos=bos, cut=cut)


class Exam:
  """The items of an exam under one protocol."""

  def __init__(self, items, protocol, *, num_shots, bos, cut):
    self.items = items
    self.protocol = protocol
    self._settings = {'num_shots': num_shots, 'bos': bos, 'cut': cut}
    self._hash = core.data_hash(
      '\0'.join([item.context, *item.choices, str(item.gold)]) for item in items
    )

  def check(self, tokenizer):
    """Raises ValueError where the protocol cannot score this tokenizer."""
    if PROTOCOLS[self.protocol].scoring != 'joint':
      for letters in {item.answers for item in self.items}:
        letter_tokens(tokenizer, self.protocol, letters)
      return
    labels = {item.choices: item for item in self.items}
    if len(labels) > len({item.group for item in self.items}):
      return  # choices of a question's own, not labels of all
    for item in labels.values():
      self._check_apart(tokenizer, item)

  def _check_apart(self, tokenizer, item):
    settings = {k: self._settings[k] for k in ('bos', 'cut')}
    pairs = [(item.context, choice) for choice in item.choices]
    seen = {}
    for choice, (_, ids) in zip(
      item.choices, score.split(tokenizer, pairs, **settings), strict=True
    ):
      other = seen.setdefault(tuple(ids), choice)
      if other != choice:
        raise ValueError(
          f'the tokenizer cannot tell the labels {other.strip()!r} and '
          f'{choice.strip()!r} of {item.id} apart: both are {ids}; take one '
          'that knows the script, or has byte fallback, or a protocol with '
          'other labels.'
        )

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result: accuracies by subject, by group, and of all."""
    scoring = PROTOCOLS[self.protocol].scoring
    contexts = self._contexts(model)
    if scoring == 'joint':
      requests, cuts = self._joint(model, contexts)
    else:
      requests, cuts = self._letters(model, contexts, scoring)
    scores = model.score(requests, progress=name)
    records = []
    at = 0
    for item, cut in zip(self.items, cuts, strict=True):
      C = len(item.choices)
      if scoring == 'cla':
        of_item = scores[at : at + 2 * C]
        ids = requests[at].ids
        logits = [
          _penalized(s.logprob + s.normalizer, r.targets[0], ids)
          for s, r in zip(of_item, requests[at : at + 2 * C], strict=True)
        ]
        values = np.add(logits[::2], logits[1::2])
        at += 2 * C
      else:
        values = np.array([s.logprob for s in scores[at : at + C]])
        at += C
      lengths = np.array([len(text) for text in item.answers])
      # A choice without a character is likeliest by no character, as in the
      # harness.
      by_length = np.full(C, -np.inf)
      np.divide(values, lengths, out=by_length, where=lengths > 0)
      chosen, chosen_norm = int(values.argmax()), int(by_length.argmax())
      records.append(
        {
          'step': step,
          'evaluator': name,
          'id': item.id,
          'subject': item.subject,
          'chosen': chosen,
          'chosen_norm': chosen_norm,
          'gold': list(item.gold),
          'acc': int(chosen in item.gold),
          'acc_norm': int(chosen_norm in item.gold),
          'scores': [float(v) for v in values],
          'cut_tokens': int(cut),
        }
      )
    return self._result(model, name, step, records)

  def _contexts(self, model):
    """The prompts; demonstrations are dropped where the protocol says so."""
    if not PROTOCOLS[self.protocol].drops_shots:
      return [item.context for item in self.items]
    contexts = []
    for item in self.items:
      shots = item.shots
      while (
        shots
        and len(model.tokenizer.encode(item._replace(shots=shots).context))
        + len(tokenizers.start_ids(model.tokenizer, self._settings['bos']))
        > model.max_len
      ):
        shots = shots[:-1]
      contexts.append(item._replace(shots=shots).context)
    return contexts

  def _joint(self, model, contexts):
    pairs = [
      (context, choice)
      for context, item in zip(contexts, self.items, strict=True)
      for choice in item.choices
    ]
    settings = {k: self._settings[k] for k in ('bos', 'cut')}
    encoded = score.split(model.tokenizer, pairs, **settings)
    requests, cuts = [], []
    for ids in encoded:
      request, cut = score.continuation(*ids, max_len=model.max_len)
      requests.append(request)
      cuts.append(cut)
    largest, at = [], 0
    for item in self.items:
      largest.append(max(cuts[at : at + len(item.choices)]))
      at += len(item.choices)
    return requests, largest

  def _letters(self, model, contexts, scoring):
    tokenizer = model.tokenizer
    tokens_of = functools.cache(
      functools.partial(letter_tokens, tokenizer, self.protocol)
    )
    bos = tokenizers.start_ids(tokenizer, self._settings['bos'])
    requests, cuts = [], []
    for item, ids in zip(
      self.items, tokenizer.encode_batch(contexts), strict=True
    ):
      tokens = tokens_of(item.answers)
      for targets in tokens:
        for token in targets:
          request, cut = score.continuation(
            bos + ids, [token], max_len=model.max_len
          )
          requests.append(request)
      cuts.append(cut)
    return requests, cuts

  def _result(self, model, name, step, records):
    subjects = averages.masks(item.subject for item in self.items)
    groups = averages.masks(item.group for item in self.items)
    groups.pop('all', None)
    points_N = np.array([item.points for item in self.items])
    weights_N = np.array(
      [1 / subjects[item.subject].sum() for item in self.items]
    )
    headline = PROTOCOLS[self.protocol].headline
    core.put_weights(records, points_N if headline == 'micro' else weights_N)
    rows = []
    answers = {item.answers for item in self.items}
    # A label where all questions have the same ones, else a letter.
    names = answers.pop() if len(answers) == 1 else item_lib.ALPHABET
    one_answer = core.one_answer(
      [names[r['chosen']] for r in records],
      [[names[i] for i in r['gold']] for r in records],
    )
    for metric in ('acc', 'acc_norm'):
      if metric == 'acc_norm' and all(
        len(set(map(len, item.answers))) == 1 for item in self.items
      ):
        continue  # the same as acc
      right_N = np.array([r[metric] for r in records], np.float64)
      rows += averages.rows(
        metric,
        {
          'micro': averages.Average(right_N * points_N, points_N),
          'macro': averages.Average(right_N * weights_N, weights_N),
        },
        headline=headline,
        groups=dict(sorted(groups.items())),
        # Languages are both.
        subjects={k: v for k, v in subjects.items() if k not in groups},
        of_all={
          'num_cut': sum(r['cut_tokens'] > 0 for r in records),
          **(one_answer if metric == 'acc' else {}),
        },
      )
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      unit='questions',
      protocol=self.protocol,
      data_hash=self._hash,
      **self._settings,
    )
    return core.Result(
      [row(**r) for r in rows], averages.metrics(rows), records
    )


def _penalized(logit, token, ids):
  """A logit after the repetition penalty, as transformers applies it."""
  if token not in ids:
    return logit
  penalty = _CLA_REPETITION_PENALTY
  return logit * penalty if logit < 0 else logit / penalty


def letter_tokens(tokenizer, protocol, letters):
  """For each letter the tokens that are scored: one, or two with 'cla'.

  Raises ValueError where they are not as many distinct single tokens.
  """
  tokens = []
  for text in letters:
    alone = tokenizer.encode(text)
    spaced = tokenizer.encode(f' {text}')
    if protocol == 'mmlu@hendrycks' and len(spaced) == 1:
      tokens.append(spaced)
    elif len(alone) != 1:
      tokens.append(())
    elif protocol == 'ceval@cla':
      tokens.append((alone[0], tokenizer.encode(f'：{text}')[-1]))
    else:
      tokens.append(alone)
  tokens = [tuple(x) for x in tokens]
  if len(set(tokens)) < len(letters) or () in tokens:
    encoded = ', '.join(f'{x}: {tokenizer.encode(x)}' for x in letters)
    raise ValueError(
      f'protocol={protocol!r} scores one token of each letter, but in this '
      f'tokenizer they are not distinct single tokens ({encoded}); take an '
      "'@lmeval' protocol, which scores texts."
    )
  return tokens
