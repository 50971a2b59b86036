"""Who does not come, or says what cannot be, is named to all that came."""

import concurrent.futures
import re

import pytest

from lbe.mesh import rendezvous

import runs


def meet(*processes, limit_seconds=20):
  """What each (number, count) hears that calls; '' where all have met."""
  address = f'localhost:{runs.free_port()}'

  def one(process):
    number, count = process
    try:
      rendezvous.meet(address, count, number, limit_seconds=limit_seconds)
    except (TimeoutError, ValueError) as error:
      return f'{type(error).__name__}: {error}'
    return ''

  with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
    return list(pool.map(one, processes))


def test_all_go_on_when_all_have_come():
  assert meet((2, 3), (0, 3), (1, 3)) == ['', '', '']
  assert meet((0, 1)) == ['']


def test_who_never_comes_is_named_to_the_others():
  """Five minutes, and an end in which nobody is named."""
  # Who comes at once waits as long as process 0 does, and has its answer.
  for told in meet((0, 4), (2, 4), limit_seconds=2):
    assert re.match('TimeoutError: process 1, 3 of 4 did not come within', told)
    assert re.search(r'here are 0 \(.*\), 2 \(', told)


def test_a_process_0_that_never_comes_is_named():
  (told,) = meet((1, 2), limit_seconds=0.5)
  assert re.match(
    'TimeoutError: process 0 at localhost:.* did not answer', told
  )


@pytest.mark.parametrize(
  'odd, words',
  [((1, 2), 'says that the run has 2 processes, process 0 .* it has 3')],
)
def test_who_counts_otherwise_is_named(odd, words):
  """A wrong flag on one host, and all wait for each other."""
  for told in meet((0, 3), odd):
    assert re.search(f'ValueError: process 1 on .* {words}', told)
