"""Answers that are mathematics: where one stands in a text, which are the same.

Both as AGIEval has it (src/post_process.py, src/math_equivalence.py), which
took the second from hendrycks/math; oddities are kept.
"""

import re

# What is left out or written otherwise, in this order.
_SAME = (
  ('\n', ''),
  ('\\!', ''),
  ('\\\\', '\\'),
  ('tfrac', 'frac'),
  ('dfrac', 'frac'),
  ('\\left', ''),
  ('\\right', ''),
  ('^{\\circ}', ''),
  ('^\\circ', ''),
  ('\\$', ''),
)


def behind_cue(text: str) -> str:
  """What stands behind the cue of a solved problem, if there is one."""
  for cue in ('The answer is therefore', '答案是'):
    if cue in text:
      # At the beginning the first one counts, else the last.
      at = 0 if text.startswith(cue) else text.rfind(cue)
      text = text[at + len(cue) :].strip()
  return text


def final_answer(text: str) -> str | None:
  r"""The answer in a text; None where there is none.

  The last \boxed, else the last $...$, else what follows the last =, else the
  last number.
  """
  if '\\boxed' in text:
    return _boxed(text)
  dollars = re.findall(r'\$(.*)\$', text)
  if dollars and (inside := _right_side(dollars[-1])):
    return inside
  if '=' in text:
    return _right_side(text).rstrip('.').split('\\n')[0]
  numbers = re.findall(r'(?:\$)?\d+(?:\.\d+)?(?![\w\d])', text)
  return numbers[-1] if numbers else None


def _right_side(text):
  return text.split('=')[-1].lstrip(' ') if '=' in text else text


def _boxed(text):
  start = text.rfind('\\boxed')
  depth = 0
  for i in range(start, len(text)):
    depth += {'{': 1, '}': -1}.get(text[i], 0)
    if text[i] == '}' and depth == 0:
      inside = text[start : i + 1]
      if not inside.startswith('\\boxed{'):
        return None
      return _right_side(inside[len('\\boxed{') : -1])
  return None


def normal_form(text):
  """The form that is compared; ValueError or IndexError where there is none."""
  for what, instead in _SAME:
    text = text.replace(what, instead)
  if '\\text{ ' in text:  # units, at the end
    before, *more = text.split('\\text{ ')
    if len(more) != 1:
      raise ValueError('more than one unit')
    text = before
  for _ in range(2):  # a second one may arise from what is left
    text = text.replace('\\%', '')
  text = text.replace(' .', ' 0.').replace('{.', '{0.')
  if not text:
    return text
  if text[0] == '.':
    text = f'0{text}'
  sides = text.split('=')
  if len(sides) == 2 and len(sides[0]) <= 2:  # as 'x = '
    text = sides[1]
  if re.search(r'\\sqrt(\\sqrt|\Z)', text):
    raise ValueError('a root of nothing')
  text = re.sub(r'\\sqrt(?!\{)(.)', r'\\sqrt{\1}', text, flags=re.S)
  text = _whole_fractions(text.replace(' ', ''))
  if text == '0.5':
    text = '\\frac{1}{2}'
  ratio = re.fullmatch(r'(-?\d+)/(-?\d+)', text)
  if ratio and text == f'{int(ratio[1])}/{int(ratio[2])}':
    text = f'\\frac{{{ratio[1]}}}{{{ratio[2]}}}'
  return text


def _whole_fractions(text):
  r"""\frac12 as \frac{1}{2}; a text with one that is cut off as it stands."""
  before, *parts = text.split('\\frac')
  result = before
  for part in parts:
    result += '\\frac'
    if part[0] == '{':
      result += part
    elif len(part) < 2:
      return text
    elif part[1] == '{':
      result += f'{{{part[0]}}}{part[1:]}'
    else:
      result += f'{{{part[0]}}}{{{part[1]}}}{part[2:]}'
  return result


def equivalent(a: str | None, b: str | None) -> bool:
  """Whether two answers, texts or None, are the same mathematics."""
  if a is None or b is None:
    return a is b
  try:
    return normal_form(a) == normal_form(b)
  except (ValueError, IndexError):
    return a == b
