"""Does what others wrote end in a right result or in a clear error?

  PYTHONPATH=. python benchmarks/fuzz.py --inputs=12000

Whole inputs of each kind are changed at random, as JSON and as bytes, by
Hypothesis, and read by what reads them in a program. A clear error is a
ValueError or OSError that our own code raised, with a message. Everything else
is a fault: another exception, one of a library that nobody put into words, more
than 15 seconds of the processor, more than 1 GiB.
"""

import argparse
import collections
import contextlib
import copy
import io
import json
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback

import hypothesis
import jax
from hypothesis import strategies as st

import lbe
from benchmarks import fuzz_inputs
from benchmarks import record

LIMIT_SECONDS = 15  # a chat template may take ten
_THREADS = 8
LIMIT_BYTES = 1 << 30
LBE = pathlib.Path(lbe.__file__).parent


class Hang(Exception):
  """Out of time."""


# ------------------------------------------------------------------- changes

_VALUES = (
  *(
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
  ),
  *(
    float('nan'),
    float('inf'),
    '',
    ' ',
    'x',
    'x' * 5000,
    '\ud83d',
    '\0',
    '\u2028',
  ),
  *(
    '../../etc/passwd',
    '/dev/zero',
    '{}',
    '{{x}}',
    '%s',
    '1',
    'nan',
    '中文',
    'é',
  ),
  *([], {}, [[]], [None], {'': None}, [0] * 300, ['x'] * 300, {'a': {'b': {}}}),
)
_TEXTS = (
  *(
    b'',
    b'\0',
    b'\xff\xfe',
    b'\xef\xbb\xbf',
    b'\xed\xa0\xbd',
    b'\n',
    b'\r\n',
    b'"',
  ),
  *(
    b'{',
    b'[' * 3000,
    b']',
    b'}',
    b',',
    b':',
    b'\\',
    b'\\u',
    b'{{',
    b'{%',
    b'%}',
  ),
  *(b'NaN', b'1e999', b'9' * 5000, b'-', b'\x1b[31m', b'</think>', b'<think>'),
  *(
    b'\xe2\x80\xa8',
    b'\t',
    b'0',
    b'range(99999)',
    b'*',
    b'(',
    b'self',
    b'.__class__',
  ),
)


def _places(value, at=()):
  yield at
  if isinstance(value, dict):
    for key in value:
      yield from _places(value[key], (*at, key))
  elif isinstance(value, list):
    for i, x in enumerate(value[:20]):
      yield from _places(x, (*at, i))


def _changed_value(draw, value, others):
  """A JSON value with something in it changed."""
  value = copy.deepcopy(value)
  for _ in range(draw.choice([1, 1, 2])):
    *path, last = ('', *draw.choice(list(_places(value))))
    new = copy.deepcopy(draw.choice([*_VALUES, *others]))
    if not path:
      return new
    holder = value
    for key in path[1:]:
      holder = holder[key]
    how = draw.randint(0, 5)
    if how == 0:
      del holder[last]
    elif how == 1 and isinstance(holder, dict):
      holder[draw.choice([str(last).upper(), f'{last}s', '', 'x'])] = (
        holder.pop(last)
      )
    elif how == 2 and isinstance(holder, list):
      holder.insert(last, new)
    else:
      holder[last] = new
  return value


def _changed_bytes(draw, data):
  """Bytes with something in them changed."""
  data = bytearray(data)
  for _ in range(draw.choice([1, 1, 1, 2, 3])):
    at = draw.randint(0, len(data))
    end = min(len(data), at + draw.choice([0, 1, 1, 2, 8, 64]))
    how = draw.randint(0, 4)
    if how == 0 and at < len(data):
      data[at] ^= 1 << draw.randint(0, 7)
    elif how == 1:
      data[at:end] = draw.choice(_TEXTS)
    elif how == 2:
      data[at:end] = bytes(draw.randint(0, 255) for _ in range(end - at))
    elif how == 3:
      data[at:at] = data[at:end] * draw.randint(1, 3)
    else:
      del data[at:end]
  return bytes(data)


class Target:
  """One kind of input: whole ones, and what reads it.

  Whole inputs are bytes, or values that are written as JSON.
  """

  def __init__(self, read, wholes):
    self.read = read
    self.wholes = wholes
    self._values = [x for x in wholes if not isinstance(x, bytes)]

  def inputs(self):
    """Of ten inputs one is made of nothing, the others of whole ones."""
    return st.one_of(
      st.binary(max_size=200),
      *[st.builds(self._one, st.randoms(use_true_random=False))] * 9,
    )

  def _one(self, draw):
    whole = draw.choice(self.wholes)
    if not isinstance(whole, bytes):
      if draw.random() < 0.8:
        whole = _changed_value(draw, whole, self._values)
      whole = json.dumps(whole).encode()
      if draw.random() < 0.6:
        return whole
    return _changed_bytes(draw, whole)


def make_targets(folder: pathlib.Path) -> dict[str, Target]:
  """The kinds of input by name; files of theirs go into the folder."""
  return {k: Target(*of) for k, of in fuzz_inputs.make(folder).items()}


# ------------------------------------------------------------------ campaign


def outcome(read, data: bytes) -> tuple[str, str]:
  """(what came of an input, the fault), '' where it is none."""

  start = time.thread_time(), time.process_time()
  reading = True

  def hang(*unused):
    # The timer counts what other threads do, which may have nothing to do with
    # it; of those that a library starts it waits for a few.
    own, every = time.thread_time() - start[0], time.process_time() - start[1]
    left = min(LIMIT_SECONDS - own, _THREADS * LIMIT_SECONDS - every)
    if left > 0:
      signal.setitimer(signal.ITIMER_PROF, left)
    elif reading:
      raise Hang

  before = signal.signal(signal.SIGPROF, hang)
  signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
  try:
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(io.StringIO()),
    ):
      read(data)
    return 'read', ''
  except (ValueError, OSError) as error:
    inner = traceback.extract_tb(error.__traceback__)[-1]
    ours = pathlib.Path(inner.filename).is_relative_to(LBE)
    # The system's own name the file and what is wrong.
    if (ours or isinstance(error, OSError)) and str(error).strip():
      return 'refused', ''
    return 'foreign', _where(error)
  except KeyboardInterrupt:
    raise
  except BaseException as error:  # panics of libraries in Rust are no Exception
    return 'fault', _where(error)
  finally:
    reading = False
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def _where(error):
  """'KeyError in chat/messages.py:88: …', the last place of ours."""
  frames = traceback.extract_tb(error.__traceback__)
  ours = [f for f in frames if pathlib.Path(f.filename).is_relative_to(LBE)]
  at = ours[-1] if ours else frames[-1]
  told = str(error).split('\n')[0][:100]
  name = pathlib.Path(at.filename).name
  return f'{type(error).__name__} in {name}:{at.lineno}: {told}'


def campaign(target: Target, num_inputs: int, seed: int = 0):
  """({outcome: count}, {place of a fault: (words, an input)})."""
  counts, faults = collections.Counter(), {}

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=num_inputs,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(target.inputs())
  def one(data):
    what, told = outcome(target.read, data)
    counts[what] += 1
    if told:
      faults.setdefault(told.split(': ')[0], (told, data))

  one()
  return dict(counts), faults


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--inputs', type=int, default=12_000, help='of each kind')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', nargs='*')
  parser.add_argument('--record', action='store_true')
  asked = parser.parse_args()
  folder = pathlib.Path(tempfile.mkdtemp(prefix='lbe-fuzz-'))
  targets = make_targets(folder)
  jax.devices()  # its threads need room
  status = pathlib.Path('/proc/self/statm').read_text().split()
  size = int(status[0]) * resource.getpagesize()
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]
  for name in asked.only or targets:
    start = time.perf_counter()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT_BYTES, hard))
    counts, faults = campaign(targets[name], asked.inputs, asked.seed)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    figures = {
      'setting': name,
      'inputs': sum(counts.values()),
      'outcomes': counts,
      'faults': sorted(told for told, _ in faults.values()),
      'seconds': round(time.perf_counter() - start),
    }
    print(json.dumps(figures, ensure_ascii=True), flush=True)
    for told, data in faults.values():
      print('  ', told, data[:300], file=sys.stderr, flush=True)
    if asked.record:
      record.write('fuzz', figures, packages=('hypothesis',))
  shutil.rmtree(folder)


if __name__ == '__main__':
  main()
