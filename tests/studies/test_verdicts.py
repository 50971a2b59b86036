"""A verdict is of the score that is reported: the items make it."""

import json
import math

import numpy as np
import pytest

from lbe.evals import code_switching
from lbe.evals import exam
from lbe.evals import multiple_choice
from lbe.evals import pairs
from lbe.evals import perplexity
from lbe.studies import verdicts
from lbe.text import lines

import evaluators
import harness


@pytest.fixture(scope='module')
def model(test_data):
  return harness.load_ours(test_data / 'ckpt_stories260K' / 'hf', batch_size=4)


def write_agieval(folder):
  """One question by four golds, in subjects of three and of one.

  Whichever of its two letters a model takes, the mean over subjects is another
  than that over questions.
  """
  path = folder / 'data' / 'v1'
  path.mkdir(parents=True)
  for subject, golds in (('sat-math', 'AAB'), ('lsat-ar', 'B')):
    asked = dict(passage='', question='Who?', options=['(A)Tim', '(B)Lily'])
    lines.write(
      path / f'{subject}.jsonl', [asked | {'label': x} for x in golds]
    )
  return folder


def likeliest(protocol):
  def make(tmp_path, **_):
    return evaluators.make(
      multiple_choice,
      path=write_agieval(tmp_path),
      protocol=protocol,
      subjects=('sat-math', 'lsat-ar'),
    )

  return make


def by_points(tmp_path, **_):
  """The same, where the questions of one file have more points."""
  path = tmp_path / 'Data' / 'Objective_Questions'
  path.mkdir(parents=True)
  for name, golds, points in (
    ('2010-2013_English_MCQs', 'AAB', 1),
    ('2010-2022_Math_I_MCQs', 'B', 5),
  ):
    asked = dict(question='Who?\nA. a B. b C. c D. d', score=points)
    examples = [asked | dict(index=0, answer=[x], analysis='') for x in golds]
    whole = json.dumps({'example': examples})
    (path / f'{name}.json').write_text(whole, 'utf-8')
  return evaluators.make(
    multiple_choice,
    path=tmp_path,
    protocol='gaokao@loglik',
    subjects=('2010-2013_English_MCQs', '2010-2022_Math_I_MCQs'),
  )


def in_text(tmp_path, monkeypatch):
  """Graded as if every response were A."""
  protocol = exam.PROTOCOLS['agieval@official']
  grade = lambda q, text: ('A', float('A' in q.gold))  # noqa: E731
  changed = protocol._replace(grade=grade)
  monkeypatch.setitem(exam.PROTOCOLS, 'agieval@official', changed)
  return evaluators.make(
    exam,
    path=write_agieval(tmp_path),
    protocol='agieval@official',
    subjects=('sat-math', 'lsat-ar'),
    max_new_tokens=2,
  )


def paradigms(tmp_path, **_):
  fields = dict(field='f', linguistics_term='t')
  good, bad = 'Once upon a time there was a girl.', 'Girl a was there time.'
  for name, turned in (('one', (0, 0, 1)), ('two', (1,))):
    lines.write(
      tmp_path / f'{name}.jsonl',
      [
        fields
        | dict(
          UID=name,
          pairID=str(i),
          sentence_good=bad if turn else good,
          sentence_bad=good if turn else bad,
        )
        for i, turn in enumerate(turned)
      ],
    )
  return pairs.make(
    protocol=pairs.BLIMP,
    path=tmp_path,
    texts=None,
    sides=(),
    parts=(),
    limit=0,
    seed=0,
  )


def responses(tmp_path, **_):
  """Empty ones, one in a language that is not told, none, some, all outside."""
  texts = (
    ('zh', '我今天很高兴，因为天气很好。'),
    ('zh', '我今天 really happy about everything here'),
    ('zh', '这是一个很长很长的句子，里面有 weather 这个词。'),
    ('zh', ''),
    ('zh', ''),
    ('ar', 'هذا نص عربي طويل بما يكفي لكي يحسب'),
    ('id', 'Saya sangat senang 天气很好 ini karena cuaca'),
  )
  lines.write(
    tmp_path / 'p.jsonl',
    [dict(id=i, prompt='?', language=x) for i, (x, _) in enumerate(texts)],
  )
  lines.write(
    tmp_path / 'r.jsonl',
    [dict(id=i, response=text) for i, (_, text) in enumerate(texts)],
  )
  return evaluators.make(
    code_switching,
    path=tmp_path / 'p.jsonl',
    responses=tmp_path / 'r.jsonl',
    template='',
  )


def documents(**_):
  texts = ['Once upon a time', 'Tim and Lily went to the park to play.']
  return perplexity.Documents(texts, ['a', 'b'], max_len=64)


@pytest.mark.parametrize(
  ('make', 'metric', 'differs'),
  [
    (likeliest('agieval@loglik'), 'acc', True),  # macro
    (likeliest('agieval@lmeval'), 'acc', False),  # micro
    (likeliest('agieval@lmeval'), 'acc_norm', False),
    (by_points, 'acc', True),
    (in_text, 'score_rate', True),
    (paradigms, 'acc', True),
    (responses, 'switched', True),
    (responses, 'letters_outside', True),
    (responses, 'line_pass', True),
    (responses, 'word_pass', True),
    (documents, 'bits_per_byte', True),
  ],
)
def test_items_make_the_score_that_is_reported(
  make, metric, differs, model, tmp_path, monkeypatch
):
  """Catches a verdict by the mean over items of a score that is another."""
  made = make(tmp_path=tmp_path, monkeypatch=monkeypatch)
  found = made.evaluate(model, name='e', step=0)
  rows = {r['name']: r['value'] for r in found.rows}
  parts = verdicts.average(found.predictions, metric)
  numerators, denominators = zip(*parts.values(), strict=True)
  reported = pytest.approx(rows[metric])
  assert sum(numerators) / sum(denominators) == reported
  # Else the case would see nothing.
  plain = np.mean([n / d if d else 0.0 for n, d in parts.values()])
  assert (plain != reported) == differs


def test_a_text_that_stands_twice_counts_twice():
  """Catches a score of other items than the one that is reported."""
  items = [dict(id=i, nats=x, bytes=9) for i, x in (('a', 1), ('b', 2))]
  found = verdicts.average([*items, items[1]], 'bits_per_byte')
  assert found['a'] == (1 / math.log(2), 9)
  assert found['b'] == (4 / math.log(2), 18)


def decided(items, value=None, **changes):
  claim = {
    'name': 'C5',
    'claim': 'Fewer switch.',
    'evaluator': 'e',
    'metric': 'switched',
    'terms': [
      {'weight': 1, 'cells': {'base': 'zh'}},
      {'weight': -1, 'cells': {'base': 'llama'}},
    ],
    'expect': 'less',
    'margin': 0.01,
    **changes,
  }
  cells = [{'name': x, 'axes': {'base': x}} for x in items]
  reported = {('zh', 'e', claim['metric']): value}
  return verdicts.decide(claim, cells, lambda x, _: items[x], reported=reported)


def responded(switched, letters):
  return [
    dict(id=i, told=True, switched=x, letters=n, letters_outside=n * x)
    for i, (x, n) in enumerate(zip(switched, letters, strict=True))
  ]


def test_a_response_without_letters_is_none_that_stays_in_its_language():
  """Catches a model that is better for it says nothing half of the time."""
  items = {
    # Half of what either says is switched.
    'llama': responded([1, 0] * 20, [10] * 40),
    'zh': responded([1, 0, 0, 0] * 10, [10, 10, 0, 0] * 10),
  }
  assert decided(items).contrast.value == pytest.approx(0.0, abs=1e-12)
  assert decided(items).contrast.num_units == 40
  for of in items.values():
    for i in range(3, 40, 4):
      of[i]['letters'] = 0
  # What no model says is no unit.
  assert decided(items).contrast.num_units == 30
  found = decided(items, metric='letters_outside')
  assert found.contrast.value == pytest.approx(1 / 2 - 2 / 3)


def test_items_that_make_another_number_decide_nothing():
  """Catches the items of an older lbe, which do not say what they weigh."""
  items = {
    x: [{'id': i, 'switched': i % 2} for i in range(40)]
    for x in ('zh', 'llama')
  }
  assert math.isclose(decided(items, 0.5).contrast.value, 0.0)
  found = decided(items, 0.6)
  assert (found.word, found.contrast) == (verdicts.OPEN, None)
  assert found.why == (
    'e tells switched 0.6000 of zh, and its items make 0.5000; remove '
    'cells/zh/scores/e.json and run the study again, which scores it anew.'
  )
