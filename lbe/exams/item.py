"""A question with choices, and how exams are read from files."""

import pathlib
from typing import NamedTuple

ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
LETTERS = ('A', 'B', 'C', 'D')


class Item(NamedTuple):
  """A question whose choices are scored as continuations of one context.

  The context is header, shots and question, one behind the other; the cue of
  the answer is part of the question. `choices` are what is scored (with the
  delimiter before it, where there is one), `answers` the texts whose length
  `acc_norm` divides by, `gold` the indices that are right, `points` what a
  right answer earns.
  """

  id: str
  subject: str
  group: str
  header: str
  shots: tuple
  question: str
  choices: tuple
  answers: tuple
  gold: tuple
  points: float = 1.0

  @property
  def context(self):
    return self.header + ''.join(self.shots) + self.question


# In a prompt whose problems are numbered: the number of its own.
NUMBER = '\0'


class Question(NamedTuple):
  """A question that is answered by a text.

  `prompt` goes to a model of texts, `system` and `user` in its place to one of
  messages. `shots`, pairs of problem and answer, stand before it: as turns, or
  in a text behind `header`, at most `max_shots` of them and `after_shot` behind
  each. With a `second` stage the first answer and this cue follow, and the
  second answer counts. At a text of `stop` the answer ends.
  """

  id: str
  subject: str
  group: str
  prompt: str
  gold: object
  points: float = 1.0
  system: str = ''
  user: str = ''
  header: str = ''
  shots: tuple = ()
  max_shots: int = 0
  after_shot: str = ''
  second: str = ''
  kind: str = ''
  stop: tuple = ()

  def text(self, num_shots):
    """What a model of texts gets, with so many demonstrations."""
    shots = ''.join(
      f'{problem}{answer}{self.after_shot}'
      for problem, answer in self.shots[:num_shots]
    )
    prompt = self.prompt.replace(NUMBER, str(num_shots + 1))
    return f'{self.header}{shots}{prompt}' if num_shots else prompt


def folder(path, what: str) -> pathlib.Path:
  """The folder as a pathlib.Path; ValueError where there is none."""
  found = pathlib.Path(path)
  if not path or not found.is_dir():
    raise ValueError(
      f'path={str(path)!r} is no folder; give the one with {what}.'
    )
  return found


def chosen(subjects, known, *, exam: str) -> list:
  """The asked subjects, all where none is asked; ValueError for unknown."""
  known = list(known)
  for subject in subjects:
    if subject not in known:
      raise ValueError(
        f'{exam} has no subject {subject!r}; it has {", ".join(known)}.'
      )
  return list(subjects) or known


def letter(value: str, num_choices: int, where) -> int:
  """The index of an answer letter; ValueError where it is out of range."""
  letters = ALPHABET[:num_choices]
  if value.strip() not in tuple(letters):
    raise ValueError(
      f'{where}: the answer {value!r} is none of {", ".join(letters)}.'
    )
  return letters.index(value.strip())
