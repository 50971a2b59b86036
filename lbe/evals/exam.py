"""Exams answered in text: the model writes, the official rules read and grade.

A protocol with two stages shows the model its first text again and asks once
more; the second text is graded.
"""

import functools
from typing import NamedTuple

import numpy as np

from lbe import prompts as prompts_lib
from lbe.data import templates
from lbe.evals import core
from lbe.exams import agieval
from lbe.exams import gaokao


class Protocol(NamedTuple):
  """`headline` is 'macro' (subjects weigh the same) or 'points'."""

  questions: object  # (path, *, subjects, limit)
  grade: object  # (question, text) → (what was found, points)
  headline: str
  temperature: float


PROTOCOLS = {
  'agieval@official': Protocol(agieval.questions, agieval.grade, 'macro', 0.0),
  'agieval@official_few_shot': Protocol(
    functools.partial(agieval.questions, shots=True),
    agieval.grade,
    'macro',
    0.0,
  ),
  # The temperature of Bench/bench_function.py.
  'gaokao@official': Protocol(gaokao.questions, gaokao.grade, 'points', 0.3),
}


def make(
  *,
  path,
  protocol,
  template='',
  subjects=(),
  limit=0,
  max_new_tokens=512,
  temperature=None,
  seed=0,
):
  """The questions of an exam, read and checked; None for an empty `path`.

  Without a template the model goes on with the prompt as a text.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
      f'protocol={protocol!r} is unknown; take one of {", ".join(PROTOCOLS)}.'
    )
  if template:
    templates.find(template)
  if not path:
    return None
  p = PROTOCOLS[protocol]
  return Exam(
    p.questions(path, subjects=tuple(subjects), limit=limit),
    protocol,
    template=template,
    max_new_tokens=max_new_tokens,
    temperature=p.temperature if temperature is None else temperature,
    seed=seed,
  )


class Exam:
  """The questions of an exam under one protocol."""

  def __init__(
    self, questions, protocol, *, template, max_new_tokens, temperature, seed
  ):
    self.questions = questions
    self.protocol = protocol
    self._template = template
    self._settings = {
      'max_new_tokens': max_new_tokens,
      'temperature': temperature,
      'seed': seed,
    }
    self._hash = core.data_hash(
      '\0'.join([q.header, *q.shots, q.prompt, str(q.gold)]) for q in questions
    )

  def evaluate(self, model, *, name, step):
    """A Result: shares of the points, by subject, by group, and of all."""
    prompts = [self._prompt(model, q) for q in self.questions]
    texts, cuts = self._write(model, prompts)
    firsts = texts
    if any(q.second for q in self.questions):
      again = [
        f'{prompt}\n{text}\n{q.second}'
        for prompt, text, q in zip(prompts, texts, self.questions, strict=True)
      ]
      texts, second_cuts = self._write(model, again)
      cuts = np.maximum(cuts, second_cuts)
    grade = PROTOCOLS[self.protocol].grade
    records = []
    for q, prompt, first, text, cut in zip(
      self.questions, prompts, firsts, texts, cuts, strict=True
    ):
      found, points = grade(q, text)
      records.append(
        {
          'step': step,
          'evaluator': name,
          'id': q.id,
          'subject': q.subject,
          'prompt': prompt,
          'first': first if q.second else None,
          'response': text,
          'extracted': found,
          'gold': q.gold,
          'points': points,
          'of_points': q.points,
          'cut_tokens': int(cut),
        }
      )
    return self._result(model, name, step, records)

  def _prompt(self, model, question):
    """The prompt with as many demonstrations as have room."""
    shots = question.shots
    room = min(
      agieval.FEW_SHOT_TOKENS, model.max_len - self._settings['max_new_tokens']
    )
    while shots and (
      len(model.tokenizer.encode(question.header + ''.join(shots))) >= room
    ):
      shots = shots[:-1]
    prompt = question.prompt.replace('\0', str(len(shots) + 1))
    return question.header * bool(shots) + ''.join(shots) + prompt

  def _write(self, model, prompts):
    """(texts, tokens cut from the left of each prompt)."""
    responses = prompts_lib.respond(
      model, prompts, template=self._template, **self._settings
    )
    return [r.text for r in responses], np.array([r.cut for r in responses])

  def _result(self, model, name, step, records):
    subjects = np.array([q.subject for q in self.questions])
    groups = np.array([q.group for q in self.questions])
    got = np.array([r['points'] for r in records])
    total = np.array([q.points for q in self.questions])
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      protocol=self.protocol,
      data_hash=self._hash,
      template=self._template,
      **self._settings,
    )
    names = list(dict.fromkeys(subjects.tolist()))
    # In the macro average a subject's points sum to 1.
    weight_of = {s: 1 / total[subjects == s].sum() for s in names}
    weights = np.array([weight_of[s] for s in subjects])
    rows, metrics = [], {}

    def put(label, mine, average, **more):
      by = (weights if average == 'macro' else np.ones(len(total)))[mine]
      value = float((got[mine] * by).sum() / (total[mine] * by).sum())
      rows.append(
        row(
          name=f'score_rate{label}',
          value=value,
          count=int(mine.sum()),
          average=average,
          points=float(got[mine].sum()),
          of_points=float(total[mine].sum()),
          **more,
        )
      )
      return value

    everything = np.ones(len(total), bool)
    headline = PROTOCOLS[self.protocol].headline
    metrics['score_rate'] = put(
      '',
      everything,
      headline,
      num_cut=sum(r['cut_tokens'] > 0 for r in records),
      num_not_extracted=sum(not r['extracted'] for r in records),
    )
    by = weights if headline == 'macro' else np.ones(len(total))
    rows[-1]['interval95'] = core.bootstrap(got * by, total * by)
    other = {'macro': 'points', 'points': 'macro'}[headline]
    metrics[f'score_rate_{other}'] = put(f'_{other}', everything, other)
    for group in sorted(set(groups.tolist())):
      metrics[f'score_rate/{group}'] = put(
        f'/{group}', groups == group, headline
      )
    for subject in names:
      put(f'/{subject}', subjects == subject, 'points', of_subject=True)
    return core.Result(rows, metrics, records)
