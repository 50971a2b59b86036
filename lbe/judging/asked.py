"""Asks a judge for what no earlier run has asked it, and keeps every reply.

A judge has a `name`, an `identity` (JSON, what its replies hang on) and
`replies(conversations)`, which yields (index, Reply) in any order; a
conversation is [{'role': …, 'content': …}, …]. Replies are lines of a JSONL
file, found by the hash of judge, rubric and prompt:

  {"key": "…", "judge": "…", "rubric": "…", "reply": "…", "ended": "stop"}

so that an evaluation that was killed goes on where it stood. Several lines of
one key are the replies to a prompt that was asked again.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import sys

from lbe.text import bars
from lbe.text import lines

AGAIN = 'That cannot be read as scores: {reason}. {form}'


@dataclasses.dataclass(frozen=True)
class Reply:
  """What a judge wrote, and why it ended; or the error that there is none."""

  text: str = ''
  ended: str = ''
  error: str = ''


@dataclasses.dataclass(frozen=True)
class Judged:
  """`scores` by criterion, or None: then `failure` says why.

  `unanswered` marks a judge that gave no reply, or none yet where it was to be
  asked again; else the last of `replies` could not be read.
  """

  scores: dict | None
  replies: tuple
  failure: str = ''
  unanswered: bool = False


class Cache:
  """Replies by key, in a JSONL file that only grows."""

  def __init__(self, path):
    """Reads the file; a last line that was cut off is taken away.

    Raises ValueError with file and line for what is no line of it.
    """
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._replies = collections.defaultdict(list)
    if self._path.exists():
      lines.mend(self._path)
      for record, where in lines.records(self._path, ('key', 'reply')):
        for field in ('key', 'reply'):
          lines.text(record, field, where, default='')
        self._replies[record['key']].append(record['reply'])

  def __getitem__(self, key):
    return tuple(self._replies.get(key, ()))

  def add(self, key, reply, **more):
    line = lines.line(
      {'key': key, **more, 'reply': reply.text, 'ended': reply.ended}
    )
    # One write, so that lines of several processes do not mix.
    data = line.encode()
    file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
      os.write(file, data)
    finally:
      os.close(file)
    self._replies[key].append(reply.text)


def key(judge, rubric, prompt):
  """The hash that a reply is found by."""
  facts = json.dumps(
    [judge.identity, rubric.name, rubric.digest, prompt],
    sort_keys=True,
    ensure_ascii=False,
  )
  return hashlib.sha256(facts.encode('utf-8', 'surrogatepass')).hexdigest()


def ask(judge, rubric, prompts, *, cache, max_asks, progress=''):
  """A Judged for each prompt; each is asked once, however often it stands.

  A reply that cannot be read is answered with the reason, at most `max_asks`
  prompts in all.
  """
  keys = {prompt: key(judge, rubric, prompt) for prompt in prompts}
  errors = {}
  for number in range(max_asks):
    open_prompts = [
      prompt
      for prompt, k in keys.items()
      if prompt not in errors
      and len(cache[k]) <= number
      and _read(rubric, cache[k])[0] is None
    ]
    if not open_prompts:
      continue
    talks = [_talk(rubric, p, cache[keys[p]]) for p in open_prompts]
    for i, reply in bars.make(
      judge.replies(talks),
      total=len(talks),
      desc=f'{progress} asks {judge.name}' + ' again' * (number > 0),
      unit='reply',
      file=sys.stderr,
      disable=None,
    ):
      if reply.error:
        errors[open_prompts[i]] = reply.error
      else:
        asked_by = {'judge': judge.name, 'rubric': rubric.name}
        cache.add(keys[open_prompts[i]], reply, **asked_by)
  return [_judged(rubric, cache[keys[p]], errors.get(p)) for p in prompts]


def _judged(rubric, replies, error):
  scores, why = _read(rubric, replies)
  if scores is not None:
    return Judged(scores, replies)
  return Judged(None, replies, error or why, unanswered=error is not None)


def _read(rubric, replies):
  """(scores, '') of the first reply that has them, or (None, why none)."""
  why = ''
  for reply in replies:
    try:
      return rubric.read(reply), ''
    except ValueError as error:
      why = str(error)
  return None, why


def _talk(rubric, prompt, replies):
  """The prompt, and each reply with what is wrong with it."""
  talk = [{'role': 'user', 'content': prompt}]
  for reply in replies:
    _, reason = _read(rubric, [reply])
    again = AGAIN.format(reason=reason, form=rubric.told_form())
    talk += [
      {'role': 'assistant', 'content': reply},
      {'role': 'user', 'content': again},
    ]
  return talk
