"""Whether a response can be looked at: it says something, and not over again.

What has no letters, or is one character without end, is in no wrong language
and repeats no run of words: rates alone would find nothing wrong with it.
"""

from lbe.text import scripts

# A text repeats itself where more than this share of its runs of so many
# characters stood in it before: a loop has 1 - 1 / rounds. Of 5,000 answers of
# Alpaca two do, tables of products.
RUN = 10
MOST_REPEATED = 0.5
# One letter so often is no word.
_ONE_LETTER = 4


def why_not(response: str) -> str:
  """'' for a usable response; else 'no letters' or 'repetition'."""
  text = ''.join(response.split())
  letters = [c for c in text if scripts.letter_script(c)]
  if not letters:
    return 'no letters'
  if len(letters) >= _ONE_LETTER and len(set(letters)) == 1:
    return 'repetition'
  runs = [text[i : i + RUN] for i in range(len(text) - RUN + 1)]
  repeated = len(runs) - len(set(runs))
  return 'repetition' if repeated > MOST_REPEATED * len(runs) else ''
