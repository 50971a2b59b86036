"""One line at a time on a terminal, and bars that end where they should."""

from lbe.text import bars

import terminal

_SCORED = """
import time
from lbe.run import progress
from lbe.text import bars
progress._PATIENCE, progress._ON_TERMINAL = 0.1, 0.1
line = bars.make(total=9, desc='steps') if OUTER else None
with progress.doing('scoring a very long name of an evaluator'):
  time.sleep(0.4)
  form = '{desc} {n} {elapsed}'
  with bars.make(total=3, desc='exam', bar_format=form, leave=False) as bar:
    time.sleep(1.3)
    bar.update(3)
    bars.say('told')
  with progress.doing('inner'):
    time.sleep(0.4)
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
    assert 'scoring a very long name of an evaluator … 00:00' in seen
    assert 'inner … 00:00' in seen
    # It goes on to tell the time while it waits for its first batch.
    assert 'exam 0 00:01' in seen
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
