"""Quality of responses, scored by a judge against a rubric (LLM-Eval).

The model under test answers questions, or its answers are read from a file.
A judge scores each: a model behind an OpenAI-compatible endpoint, a model on
disk, or people (the responses are only kept, and `python -m lbe.judge` makes
sheets of them and reads the scores). The
protocol is named after the rubric: `response_quality@paper`.
"""

import functools
import inspect
import json

import jax
import numpy as np

from lbe.chat import prompts as prompts_lib
from lbe.evals import core
from lbe.judging import asked
from lbe.judging import endpoint
from lbe.judging import local
from lbe.judging import questions as questions_lib
from lbe.judging import rubrics
from lbe.judging import scores

# Who judges, by `kind`; people do it beside the run.
JUDGES = {'endpoint': endpoint.Endpoint, 'local': local.Local, 'people': None}


def make(*, questions, responses, limit, template, rubric, judge, **sampling):
  """The evaluator, its files read; None for empty `questions`.

  `judge` has a `kind` and the fields of that judge; `sampling` are
  max_new_tokens and the fields of sampling.Settings. Raises ValueError for
  questions, responses and rubrics that cannot be used, settings out of range,
  and a judge whose key or model is not there.
  """
  if not questions:
    return None
  rubric = rubrics.load(rubric)
  asked_for = questions_lib.read(questions, limit=limit)
  rubric.check(asked_for)
  written = None
  if responses:
    written = questions_lib.read_responses(responses, questions, limit=limit)
  prompts_lib.check_template(template)
  if sampling['max_new_tokens'] < 1:
    raise ValueError(f'max_new_tokens={sampling["max_new_tokens"]} is below 1.')
  who, ask = _make_judge(**judge)
  return ResponseQuality(
    asked_for,
    written,
    rubric,
    who,
    ask,
    template=template,
    sampling=sampling,
    source={'responses': responses}
    if responses
    else {'template': template, **sampling},
  )


def _make_judge(*, kind, **fields):
  """(judge, how it is asked: the keywords of asked.ask); of people None."""
  if kind not in JUDGES:
    raise ValueError(
      f'judge.kind={kind!r} is unknown; take one of {", ".join(JUDGES)}.'
    )
  if kind == 'people':
    return None, {}
  cache = fields.pop('cache', '')
  max_asks = fields.pop('max_asks', 1)
  takes = inspect.signature(JUDGES[kind]).parameters
  if fields.keys() != takes.keys():
    raise ValueError(
      f'judge.kind={kind!r} takes {", ".join(takes)}, and the block is that of '
      'another kind; let `judge` be common.endpoint(...) or '
      'common.local_judge(...) in the config.'
    )
  if max_asks < 1:
    raise ValueError(f'judge.max_asks={max_asks} is below 1.')
  if not cache:
    raise ValueError(
      "judge.cache='': name a file for the judge's replies, as "
      'runs/judged.jsonl; without it a killed evaluation would ask everything '
      'again.'
    )
  who = JUDGES[kind](**fields)
  if jax.process_index() != 0:
    return who, {}  # the first host asks
  return who, {'cache': asked.Cache(cache), 'max_asks': max_asks}


class ResponseQuality:
  """Questions, where their responses come from, and who judges them."""

  def __init__(
    self,
    questions,
    written,
    rubric,
    judge,
    ask,
    *,
    template,
    sampling,
    source,
  ):
    self.questions = questions
    self.rubric = rubric
    self._written = written
    self._judge = judge
    self._how_to_ask = ask
    self._template = template
    self._sampling = sampling
    self._source = source  # of the responses, for the rows

  def evaluate(self, model, *, name, step) -> core.Result:
    """A Result: means by criterion and category, and what has no scores.

    Without a judge the predictions have responses to be judged by people.
    """
    records = self._respond(model, name, step)
    judged = [r for r in records if r['failure'] != 'too_long']
    if self._judge is not None:
      prompts = [
        self.rubric.ask(q, r['response'])
        for q, r in zip(self.questions, records, strict=True)
        if r['failure'] != 'too_long'
      ]
      answers = _on_first_host(functools.partial(self._ask, prompts, name))
      for record, (values, replies, failure, why) in zip(
        judged, answers, strict=True
      ):
        record |= {'failure': failure, 'why': why, 'replies': replies}
        if values is not None:
          record['scores'] = values
    row = functools.partial(
      model.row,
      step=step,
      evaluator=name,
      unit='responses',
      protocol=f'response_quality@{self.rubric.name}',
      data_hash=core.data_hash('\0'.join(q) for q in self.questions),
      rubric=self.rubric.digest,
      judge=self._judge.name if self._judge else 'people',
      **self._source,
    )
    summary = scores.summarize(records)
    if self._judge is None:
      summary = [f for f in summary if f['name'] not in _OF_A_JUDGE]
    rows = [row(**fields) for fields in summary]
    metrics = {f['name']: f['value'] for f in summary if '/' not in f['name']}
    return core.Result(rows, metrics, records)

  def _ask(self, prompts, name):
    """[(scores, replies, failure, why)] as lists, as JSON would have them."""
    judged = asked.ask(
      self._judge,
      self.rubric,
      prompts,
      progress=name,
      **self._how_to_ask,
    )
    return [[j.scores, list(j.replies), _failure(j), j.failure] for j in judged]

  def _respond(self, model, name, step):
    """A record for each question, its response in it and no scores yet."""
    if self._written is not None:
      texts = [(text, 'read', '') for text in self._written]
    else:
      texts = self._generate(model)
    return [
      {
        'step': step,
        'evaluator': name,
        'id': q.id,
        'category': q.category,
        'language': q.language,
        'question': q.question,
        'reference': q.reference,
        'response': text,
        'ended': ended,
        'rubric': self.rubric.name,
        'judge': self._judge.name if self._judge else 'people',
        'scores': dict.fromkeys(self.rubric.criteria),
        'highest': self.rubric.highest(),
        'failure': failure,
        'why': '',
        'replies': [],
      }
      for q, (text, ended, failure) in zip(self.questions, texts, strict=True)
    ]

  def _generate(self, model):
    """[(text, ended, '')]; of a question without room ('', '', 'too_long')."""
    encoder = prompts_lib.Encoder(self._template, model.tokenizer)
    prompts = [encoder.of_text(q.question) for q in self.questions]
    room = model.max_len - self._sampling['max_new_tokens']
    if room < 1:
      raise ValueError(
        f'max_new_tokens={self._sampling["max_new_tokens"]} leaves no prompt '
        f'in the window of {model.max_len} tokens; ask for fewer.'
      )
    fitting = [i for i, ids in enumerate(prompts) if len(ids) <= room]
    texts = [('', '', 'too_long')] * len(prompts)
    if fitting:
      responses = model.generate(
        [prompts[i] for i in fitting],
        **self._sampling | encoder.ends(self._sampling['stop']),
      )
      for i, response in zip(fitting, responses, strict=True):
        texts[i] = (response.text, response.ended, '')
    return texts


# What is no score of people, who have not judged yet.
_OF_A_JUDGE = (
  scores.FAILURES['unreadable'],
  scores.FAILURES['unanswered'],
)


def _failure(judged):
  if judged.scores is not None:
    return ''
  return 'unanswered' if judged.unanswered else 'unreadable'


def _on_first_host(work):
  """What `work()` gives on the first host, on every host; so its errors."""
  if jax.process_count() == 1:
    return work()
  from jax.experimental import multihost_utils

  answer = {}
  if jax.process_index() == 0:
    try:
      answer = {'given': work()}
    except (ValueError, OSError) as error:
      answer = {'error': str(error)}
  data = np.frombuffer(json.dumps(answer).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  whole = np.zeros(size, np.uint8)
  if jax.process_index() == 0:
    whole[:] = data
  answer = json.loads(bytes(multihost_utils.broadcast_one_to_all(whole)))
  if 'error' in answer:
    raise ValueError(answer['error'])
  return answer['given']
