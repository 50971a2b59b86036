"""One line at a time on a terminal, and bars that end where they should."""

import os
import re

from lbe.text import bars

import conftest
import terminal

_SCORED = """
import time
from lbe.run import progress
from lbe.text import bars
progress._PATIENCE, progress._ON_TERMINAL = 0.1, 0.1
line = bars.make(total=9, desc='steps') if OUTER else None
with progress.doing('scoring a very long name of an evaluator'):
  time.sleep(0.7)
  form = '{desc} {n} {elapsed}'
  with bars.make(total=3, desc='exam', bar_format=form, leave=False) as bar:
    time.sleep(1.3)
    bar.update(3)
    bars.say('told')
  with progress.doing('inner'):
    time.sleep(0.7)
  time.sleep(0.3)
if line is not None:
  line.close()
print('done')
"""


def counts(screens, *words):
  """How many lines have one of the words, on each screen."""
  return [
    sum(any(word in line for word in words) for line in lines)
    for _, lines in screens
  ]


def test_of_what_is_done_and_its_bar_one_is_shown_at_a_time():
  """Two lines for one thing, and the rest of one behind the other."""
  for outer in ('False', 'True'):
    screens = terminal.screens(_SCORED.replace('OUTER', outer))
    both = counts(screens, 'scoring', 'exam', 'inner')
    assert max(both) == 1, screens
    seen = '\n'.join(line for _, lines in screens for line in lines)
    assert 'scoring a very long name of an evaluator … 00:0' in seen
    assert 'inner … 00:0' in seen
    # It goes on to tell the time while it waits for its first batch.
    assert re.search('exam 0 00:0[1-9]', seen)
    assert not any('exam' in x and 'evaluator' in x for x in seen.split('\n'))
    last = [line for line in screens[-1][1] if line]
    kept = [line for line in last if not line.startswith('steps')]
    assert kept == ['told', 'done'], last
    assert ('steps' in seen) == (outer == 'True')


def test_a_bar_of_an_estimate_ends_with_all_of_it(capsys):
  """'99%' where all is done: files are longer than their texts."""
  for total, n in ((100, 97), (100, 300)):
    with bars.make(total=total, unit='B') as bar:
      bar.update(n)
      bars.finish(bar)
    last = capsys.readouterr().err.split('\r')[-1]
    assert '100%' in last and f'{n}/{n}' in last


_EVALUATED = """
import dataclasses
import jax
from lbe.evals import perplexity, schedule
from lbe.inference import model as model_lib
from lbe.mesh import sharding
from lbe.models import forward, weights
from lbe.run import progress
from lbe.vocab import tokenizers
import tiny
progress._PATIENCE = progress._ON_TERMINAL = 0.0
c = dataclasses.replace(tiny.TINY, vocab_size=259)
model = model_lib.Model(
  params=weights.init(c, jax.random.key(0)),
  config=c,
  tokenizer=tokenizers.Bytes(),
  mesh=sharding.make_mesh({'fsdp': 1}, devices=jax.devices()[:1]),
  execution=forward.Execution(compute_dtype='float32', scan=False),
  batch_size=2,
  max_len=64,
)
texts = [f'A text that is scored, {i}.' for i in range(20)]
task = perplexity.Documents(texts, texts, max_len=64)
line = progress.Line(9, first_step=3)
evaluator = schedule.Evaluator('zh', task, every=1, at_start=True, at_end=True)
schedule.evaluate(evaluator, model, step=3)
line.close()
"""


def test_an_evaluator_in_training_has_one_line_below_the_steps():
  """The line of the steps, 'scoring zh', and its bar: three."""
  tests = str(conftest.ROOT / 'tests')
  screens = terminal.screens(
    _EVALUATED, PYTHONPATH=os.pathsep.join([str(conftest.ROOT), tests])
  )
  seen = {line for _, lines in screens for line in lines}
  assert any(line.startswith('scoring zh …') for line in seen)
  assert any(line.startswith('zh: ') for line in seen), seen
  assert max(counts(screens, 'scoring zh', 'zh:')) == 1
