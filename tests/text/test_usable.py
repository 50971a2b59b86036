"""What can be looked at as a response at all."""

import pytest

from lbe.text import usable


@pytest.mark.parametrize(
  ('response', 'why'),
  [
    ('我今天很高兴。', ''),
    ('ha ha', ''),
    ('哈哈', ''),
    ('No.', ''),
    ('1. one\n2. two\n3. three\n4. four', ''),
    ('', 'no letters'),
    (' \n', 'no letters'),
    ('42!', 'no letters'),
    ('。' * 99, 'no letters'),
    ('a' * 200, 'repetition'),
    ('哈哈哈哈', 'repetition'),
    ('а а а а а', 'repetition'),
    ('the ' * 20, 'repetition'),
    ('我爱你' * 10, 'repetition'),
    ('abc' * 30, 'repetition'),
    ('I am fine. How are you?\n' * 3, 'repetition'),
    ('A good answer to begin with. ' + 'x' * 300, 'repetition'),
  ],
)
def test_what_is_usable(response, why):
  """Catches what is in no wrong language since it is in none."""
  assert usable.why_not(response) == why
