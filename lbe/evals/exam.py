"""Exams answered in text: the model writes, the official rules read and grade.

A protocol with two stages shows the model its first text again and asks once
more; the second text is graded. With a template the question, or what is put
together before it, is a user's turn; demonstrations are turns of their own,
and what an exam says before its questions is the system's, where the template
has a place for it.
"""

import functools
import pathlib
from typing import NamedTuple

import numpy as np

from lbe.chat import messages
from lbe.chat import prompts as prompts_lib
from lbe.chat import templates
from lbe.evals import core
from lbe.exams import agieval
from lbe.exams import gaokao
from lbe.exams import item
from lbe.exams import mgsm
from lbe.run import averages


class Protocol(NamedTuple):
  """`headline` is 'macro' (subjects weigh the same) or 'points'.

  With `cuts_bos` a prompt that is too long loses its BOS, as in the harness.
  `beside` are other readings of the same texts, scores by their names.
  """

  questions: object  # (path, *, subjects, limit)
  grade: object  # (question, text) → (answer, points)
  headline: str
  beside: dict = {}  # NAME → (question, text) → points
  temperature: float = 0.0
  max_new_tokens: int = 512
  stop: tuple = ()
  cuts_bos: bool = False


PROTOCOLS = {
  'agieval@official': Protocol(agieval.questions, agieval.grade, 'macro'),
  'agieval@official_few_shot': Protocol(
    functools.partial(agieval.questions, shots=True),
    agieval.grade,
    'macro',
    stop=(agieval.END_OF_SHOT,),
  ),
  # The half of it that multiple_choice has not.
  'agieval@lmeval': Protocol(
    agieval.cloze_questions,
    agieval.harness_grade,
    'points',
    max_new_tokens=32,
    stop=(agieval.END_OF_ANSWER,),
    cuts_bos=True,
  ),
  # The temperature of Bench/bench_function.py.
  'gaokao@official': Protocol(
    gaokao.questions, gaokao.grade, 'points', temperature=0.3
  ),
  # Asked as the harness asks, and read by us; as it reads stands beside.
  'mgsm@direct': Protocol(
    mgsm.questions,
    mgsm.grade,
    'points',
    beside={
      'lmeval_flexible_extract': mgsm.lmeval_flexible_extract,
      'lmeval_remove_whitespace': mgsm.lmeval_remove_whitespace,
    },
    max_new_tokens=256,
    cuts_bos=True,
  ),
}


def make(
  *,
  path,
  protocol,
  template,
  subjects,
  limit,
  max_new_tokens,
  temperature,
  seed,
):
  """The questions of an exam, read and checked; None for an empty `path`.

  Without a template the model goes on with the prompt as a text. None for
  `max_new_tokens` and `temperature` is the protocol's own.
  """
  if protocol not in PROTOCOLS:
    raise ValueError(
      f'protocol={protocol!r} is unknown; take one of {", ".join(PROTOCOLS)}.'
    )
  if template and _template(template).one_turn and 'shot' in protocol:
    raise ValueError(
      f'protocol={protocol!r} has its demonstrations as turns, and template='
      f"{template!r} is for one; take template='' or one for several."
    )
  if not path:
    return None
  p = PROTOCOLS[protocol]
  if max_new_tokens is None:
    max_new_tokens = p.max_new_tokens
  if temperature is None:
    temperature = p.temperature
  return Exam(
    p.questions(path, subjects=tuple(subjects), limit=limit),
    protocol,
    template=template,
    max_new_tokens=max_new_tokens,
    temperature=temperature,
    seed=seed,
  )


def _template(name):
  """The Template; a .jinja file is taken to have any turns."""
  if name.endswith('.jinja'):
    if not pathlib.Path(name).is_file():
      raise ValueError(f'there is no template {name!r}; is the path right?')
    return templates.Template(user='', system='{system}')
  return templates.find(name)


def _ids(encode, turns):
  """Turns of a template, or the one text without."""
  if encode.one_turn and len(turns) == 1:
    return encode.of_text(turns[0].content)
  return encode.of_turns(turns)


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
      f'{q.text(q.max_shots)}\0{q.gold}' for q in questions
    )

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result: shares of the points, by subject, by group, and of all."""
    encode = prompts_lib.Encoder(self._template, model.tokenizer)
    asked, num_shots = zip(
      *(self._ask(encode, model, q) for q in self.questions), strict=True
    )
    prompts = [''.join(m.content for m in turns) for turns in asked]
    texts, cuts = self._write(model, encode, asked)
    firsts = texts
    if any(q.second for q in self.questions):
      again = [
        [messages.Message('user', f'{prompt}\n{text}\n{q.second}')]
        for prompt, text, q in zip(prompts, texts, self.questions, strict=True)
      ]
      texts, second_cuts = self._write(model, encode, again)
      cuts = np.maximum(cuts, second_cuts)
    p = PROTOCOLS[self.protocol]
    records = []
    for q, prompt, shots, first, text, cut in zip(
      self.questions, prompts, num_shots, firsts, texts, cuts, strict=True
    ):
      answer, points = p.grade(q, text)
      records.append(
        {
          'step': step,
          'evaluator': name,
          'id': q.id,
          'subject': q.subject,
          'prompt': prompt,
          'num_shots': shots,
          'first': first if q.second else None,
          'response': text,
          'extracted': answer,
          'gold': q.gold,
          'points': points,
          'of_points': q.points,
          **{score: read(q, text) for score, read in p.beside.items()},
          'cut_tokens': int(cut),
        }
      )
    return self._result(model, name, step, records)

  def _room(self, model):
    room = model.max_len - self._settings['max_new_tokens']
    if room < 1:
      raise ValueError(
        f'max_new_tokens={self._settings["max_new_tokens"]} leaves no room for '
        f"a prompt in the model's window of {model.max_len}; take fewer."
      )
    return room

  def _ask(self, encode, model, question):
    """(turns, how many demonstrations: as many as have room)."""
    for num_shots in range(self._most_shots(question), 0, -1):
      turns = self._turns(question, num_shots)
      if len(_ids(encode, turns)) <= self._room(model):
        return turns, num_shots
    return self._turns(question, 0), 0

  def _most_shots(self, question):
    return len(question.shots) if self._template else question.max_shots

  def _turns(self, question, num_shots):
    if not self._template:
      return [messages.Message('user', question.text(num_shots))]
    turns = []
    for problem, answer in question.shots[:num_shots]:
      turns.append(messages.Message('user', problem))
      turns.append(messages.Message('assistant', answer))
    template = _template(self._template)
    if question.system and (template.system or template.first_user):
      turns.insert(0, messages.Message('system', question.system))
      return [*turns, messages.Message('user', question.user)]
    prompt = question.prompt.replace(item.NUMBER, str(num_shots + 1))
    return [*turns, messages.Message('user', prompt)]

  def _write(self, model, encode, asked):
    """(texts, tokens cut from the left of each prompt)."""
    room = self._room(model)
    p = PROTOCOLS[self.protocol]
    whole = [_ids(encode, turns) for turns in asked]
    texts = [''] * len(whole)
    for stop in dict.fromkeys(q.stop for q in self.questions):
      mine = [i for i, q in enumerate(self.questions) if q.stop == stop]
      responses = model.generate(
        [whole[i][-room:] if p.cuts_bos else whole[i] for i in mine],
        **self._settings,
        too_long='cut_left',
        **encode.ends((*p.stop, *stop)),
        seeds=mine,
      )
      for i, response in zip(mine, responses, strict=True):
        texts[i] = response.text
    cuts = [max(0, len(ids) - room) for ids in whole]
    return texts, np.array(cuts)

  def _result(self, model, name, step, records):
    subjects = averages.masks(q.subject for q in self.questions)
    groups = averages.masks(q.group for q in self.questions)
    got_N = np.array([r['points'] for r in records])
    total_N = np.array([q.points for q in self.questions])
    # In the macro average a subject's points sum to 1.
    weight_of = {s: 1 / total_N[mine_N].sum() for s, mine_N in subjects.items()}
    weights_N = np.array([weight_of[q.subject] for q in self.questions])
    headline = PROTOCOLS[self.protocol].headline
    if headline == 'macro':
      core.put_weights(records, weights_N)
    rows = averages.rows(
      'score_rate',
      {
        'macro': averages.Average(got_N * weights_N, total_N * weights_N),
        'points': averages.Average(got_N, total_N),
      },
      headline=headline,
      groups=dict(sorted(groups.items())),
      # What is a group by itself has its row already.
      subjects={k: v for k, v in subjects.items() if k not in groups},
      of_all={
        'num_cut': sum(r['cut_tokens'] > 0 for r in records),
        'num_not_extracted': sum(not r['extracted'] for r in records),
        **core.one_answer(
          [str(r['extracted']) for r in records if r['extracted']],
          [[str(r['gold'])] for r in records if r['extracted']],
        ),
        'num_fewer_shots': sum(
          r['num_shots'] < self._most_shots(q)
          for r, q in zip(records, self.questions, strict=True)
        ),
      },
      of_part=lambda mine_N: {
        'points': float(got_N[mine_N].sum()),
        'of_points': float(total_N[mine_N].sum()),
      },
    )
    for score in PROTOCOLS[self.protocol].beside:
      points_N = np.array([r[score] for r in records])
      for label, mine_N in {'': slice(None), **groups}.items():
        part = averages.mean(points_N[mine_N])
        rows.append(averages.row(f'{score}{label and "/"}{label}', part))
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      unit='questions',
      protocol=self.protocol,
      data_hash=self._hash,
      template=self._template,
      **self._settings,
    )
    return core.Result(
      [row(**r) for r in rows], averages.metrics(rows), records
    )
