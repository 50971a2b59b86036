"""A trace of some steps, for XProf and TensorBoard, and what is heavy in it."""

import collections
import pathlib
import re
from collections.abc import Callable

import jax

# A line of the trace of a TPU; elsewhere each event names its operation.
_TPU_LINE = 'XLA Ops'
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?(\S+) = .*?op_name="([^"]*)"', re.M)


def parse_steps(text: str) -> tuple[int, int]:
  """(first, last) of 'FROM:TO', (0, 0) of ''; ValueError for other texts."""
  match = re.fullmatch(r'(\d+):(\d+)', text or '0:0')
  if not match or (text and not 1 <= int(match[1]) <= int(match[2])):
    raise ValueError(
      f'profile={text!r} is no span of steps; give FROM:TO, as 10:12 for the '
      'steps 10, 11 and 12; the first step is 1.'
    )
  return int(match[1]), int(match[2])


class Trace:
  """Records the steps `first` to `last` of a run into `folder`; 0 is none.

  `steps` are those that the run has before it: ValueError where it ends before
  `last`. Where `first` is behind it, a line says so, and nothing is recorded:
  the same command has to go on after an interruption.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    first: int,
    last: int,
    *,
    steps: range,
    say: Callable[[str], None],
  ):
    if last and first < steps.start:
      say(
        f'warning: profile={first}:{last} records nothing: the run goes on '
        f'with step {steps.start}.'
      )
      first = last = 0
    if last >= steps.stop:
      raise ValueError(
        f'profile={first}:{last}: the run ends with step {steps.stop - 1}; '
        'take earlier ones.'
      )
    self._folder = pathlib.Path(folder)
    self._first, self._last = first, last

  def before(self, step: int, state: dict):
    """Starts where `step`, which takes `state`, is the first one."""
    if step == self._first:
      jax.block_until_ready(state)
      jax.profiler.start_trace(str(self._folder))

  def after(
    self, step: int, result: dict, compiled: jax.stages.Compiled
  ) -> str:
    """What was heavy, behind the last step, of which `result` is; else ''."""
    if step != self._last:
      return ''
    jax.block_until_ready(result)
    jax.profiler.stop_trace()
    return describe(self._folder, compiled.as_text())


def self_times(folder: pathlib.Path) -> dict[str, float]:
  """{op of the compiled program: seconds} of the newest trace there.

  The time of an op is without that of others inside it on the same thread or
  device, summed over all of these.
  """
  file = max(
    pathlib.Path(folder).rglob('*.xplane.pb'), key=lambda p: p.stat().st_mtime
  )
  total = collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
    for line in plane.lines:
      events = []
      for event in line.events:
        name = dict(event.stats).get('hlo_op')
        if name is None and line.name == _TPU_LINE:
          name = event.name.lstrip('%').split(' ')[0]
        if name is not None:
          events.append((event.start_ns, -event.duration_ns, name))
      around = []  # (end, name) of those that have not ended
      for start, minus, name in sorted(events):
        while around and around[-1][0] <= start:
          around.pop()
        if around:
          total[around[-1][1]] += minus / 1e9
        total[name] -= minus / 1e9
        around.append((start - minus, name))
  return dict(total)


def describe(folder: pathlib.Path, program: str, most: int = 5) -> str:
  """The heaviest operations as lines, by what they are in `program`.

  `program` is the compiled program as text. What comes from one operation of
  the model, as the same product of every layer, is one line.
  """
  origins = dict(_INSTRUCTION.findall(program))
  by_origin = collections.defaultdict(collections.Counter)
  for name, seconds in self_times(folder).items():
    by_origin[_in_words(origins.get(name, name))][name] = seconds
  total = sum(names.total() for names in by_origin.values())
  lines = [f'profile: {folder}, for XProf or TensorBoard; the heaviest:']
  heaviest = sorted(by_origin.items(), key=lambda item: -item[1].total())
  for origin, names in heaviest[:most]:
    ((name, _),) = names.most_common(1)
    more = f' and {len(names) - 1} more' if len(names) > 1 else ''
    lines.append(f'  {names.total() / total:5.1%}  {origin}  ({name}{more})')
  return '\n'.join(lines)


def _in_words(origin):
  """An origin as JAX writes it, without what all of them have."""
  for pattern, said in (
    (r'^jit\(\w+\)/', ''),
    (r'while/body/(closed_call/)?', ''),
    (r'transpose\(jvp\((.*?)\)\)', r'backward/\1'),
    (r'jvp\((.*?)\)', r'forward/\1'),
    (r'//', '/'),
  ):
    origin = re.sub(pattern, said, origin)
  return origin
