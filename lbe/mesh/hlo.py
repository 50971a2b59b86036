"""What a compiled program sends and moves, read from its text (HLO).

XLA's own cost analysis counts the body of a loop once and kernels as nothing,
so loops are walked here, each as often as it runs.
"""

import dataclasses
import math
import re

import numpy as np

_BYTES = dict(pred=1, s8=1, u8=1, s16=2, u16=2, bf16=2, f16=2, s64=8, u64=8)
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?')
_COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_CUTS = ('dynamic-slice', 'gather', 'slice')
# They move nothing, or what they move is counted elsewhere.
_FREE = {
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'partition-id',
}
# Custom calls of attention: Pallas for TPUs; Mosaic, Triton and cuDNN for GPUs.
_KERNELS = (
  '"tpu_custom_call"',
  '"mosaic_gpu',
  '"__gpu$xla.gpu.triton"',
  '"__cudnn$fmha',
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """What devices exchange: how often in a step, and bytes that one sends.

  `group` are the places of devices that do so together, in the order of the
  mesh, and `axes` the mesh axes along which they lie.
  """

  kind: str
  axes: tuple
  group: tuple
  count: int
  sent: float


@dataclasses.dataclass
class Section:
  """A loop, or with one trip what is in none; of one device, in all trips."""

  trips: int
  collectives: list
  memory_bytes: float = 0.0
  kernels: int = 0  # calls of kernels, as attention's


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  type: str
  op: str
  arguments: str
  operands: tuple
  rest: str
  is_root: bool


def sections(text: str, mesh_shape: dict[str, int]) -> list[Section]:
  """The Sections of a compiled module's text: outside of loops, then loops.

  `mesh_shape` is {axis: size} in the order of the devices.
  """
  computations, entry = _parse(text)
  outside = Section(1, [])
  result = [outside]

  def walk(name, times, section):
    types = {i.name: i.type for i in computations[name]}
    for i in computations[name]:
      if i.op == 'while':
        condition, body = (
          re.search(rf'{key}=%?([\w.\-]+)', i.rest)[1]
          for key in ('condition', 'body')
        )
        trips = times * _trips(i, computations[condition])
        inner = Section(trips, [])
        result.append(inner)
        walk(body, trips, inner)
        continue
      if i.op in ('call', 'async-start', 'conditional'):
        for called in re.findall(
          r'(?:to_apply|calls|branch_computations=\{|computation)=?%([\w.\-]+)',
          i.rest,
        ):
          walk(called, times, section)
        continue
      sent = _collective(i, types, computations, mesh_shape)
      if sent:
        section.collectives.append(
          dataclasses.replace(sent, count=times, sent=times * sent.sent)
        )
      section.kernels += times * any(name in i.rest for name in _KERNELS)
      section.memory_bytes += times * _moved(i, types, computations)

  walk(entry, 1, outside)
  return result


def totals(sections: list[Section]) -> list[Collective]:
  """Collectives of all sections by kind and axes, what sends most first."""
  result = {}
  for section in sections:
    for c in section.collectives:
      old = result.get((c.kind, c.axes))
      if old:
        c = dataclasses.replace(
          c, count=c.count + old.count, sent=c.sent + old.sent
        )
      result[c.kind, c.axes] = c
  return sorted(result.values(), key=lambda c: -c.sent)


def largest_gather(text: str) -> int:
  """Bytes of the largest array that an all-gather makes on a device."""
  computations, _ = _parse(text)
  return max(
    (
      _size(array)
      for instructions in computations.values()
      for i in instructions
      if i.op in ('all-gather', 'all-gather-start')
      for array in _parts(_made(i))
    ),
    default=0,
  )


# ------------------------------------------------------------------- reading


def _parse(text):
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if current is None:
      head = re.match(r'(ENTRY )?%?([\w.\-]+) .*\{$', line)
      if head and not line.startswith(('HloModule', ' ')):
        current = computations.setdefault(head[2], [])
        entry = head[2] if head[1] else entry
    elif line == '}':  # the text of a kernel may begin with one
      current = None
    else:
      instruction = _instruction(line)
      if instruction:
        current.append(instruction)
  return computations, entry


def _instruction(line):
  match = re.match(r'\s+(ROOT )?%?([\w.\-]+) = (.*)$', line)
  if not match:
    return None
  root, name, rest = match.groups()
  end = _closing(rest) + 1 if rest[0] == '(' else rest.index(' ')
  kind, rest = rest[:end], rest[end:].strip()
  op, _, arguments = rest.partition('(')
  stop = _closing('(' + arguments)
  given, rest = arguments[: stop - 1], arguments[stop:]
  operands = tuple(re.findall(r'%([\w.\-]+)', given))
  return _Instruction(name, kind, op, given, operands, rest, bool(root))


def _closing(text):
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if depth == 0:
      return i
  return len(text)


def _size(kind, *, in_memory=False):
  """Bytes of a type; with `in_memory` without what lies on the chip itself."""
  total = 0
  for dtype, dims, layout in _ARRAY.findall(kind):
    if in_memory and re.search(r'S\([1-9]\)', layout):
      continue
    total += _BYTES.get(dtype, 4) * math.prod(
      int(d) for d in dims.split(',') if d
    )
  return total


def _parts(kind):
  """The types in a tuple; a type that is none is its only part."""
  if not kind.startswith('('):
    return [kind]
  parts, depth = [''], 0
  for letter in kind[1:-1]:
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and not depth:
      parts.append('')
    else:
      parts[-1] += letter
  return [re.sub(r'^/\*.*?\*/', '', part.strip()) for part in parts]


def _made(i):
  """The type of what comes out: starts of something also name what goes in."""
  parts = _parts(i.type)
  if i.op.endswith('-start') and i.op != 'copy-start' and len(parts) > 1:
    return parts[1]
  if '"__cublas' in i.rest:  # its work space is no result
    return ' '.join(part for part in parts if not part.startswith('s8['))
  return i.type


def _trips(loop, condition):
  known = re.search(r'known_trip_count[^\d]*(\d+)', loop.rest)
  if known:
    return int(known[1])
  # A counter from 0 is compared with a constant.
  bounds = [
    int(i.arguments)
    for i in condition
    if i.op == 'constant' and i.type.startswith('s32[]')
  ]
  return max(bounds, default=1)


# --------------------------------------------------------------- collectives


def _collective(i, types, computations, mesh_shape):
  """An instruction as a Collective with a count of 1, or None."""
  op = i.op.removesuffix('-start')
  if op == 'fusion':
    called = _called(i)
    inner = [x for x in computations[called] if x.op in _COLLECTIVES]
    if not inner:
      return None
    # TPUs write a reduce-scatter of odd sizes as one fusion of three steps.
    op = 'reduce-scatter' if 'all-reduce-scatter' in called else inner[0].op
    groups, size = inner[0].rest, _size(inner[0].type)
  elif op in _COLLECTIVES:
    groups = i.rest
    size = _size(i.type)
    if i.op.endswith('-start') or op == 'reduce-scatter':
      size = sum(_size(types.get(x, '')) for x in i.operands)
  else:
    return None
  if op == 'collective-permute':
    pairs = re.search(r'source_target_pairs=\{(.*?)\}\}', groups)
    group = [int(x) for x in re.findall(r'\d+', pairs[1])[:2]]
    share = 1.0
  else:
    group = _group(groups, mesh_shape)
    others = (len(group) - 1) / len(group)
    if i.op == 'all-gather-start':
      size *= len(group)
    share = 2 * others if op == 'all-reduce' else others
  if len(group) < 2:
    return None
  places = np.unravel_index(group, tuple(mesh_shape.values()))
  axes = tuple(
    axis
    for axis, along in zip(mesh_shape, places, strict=True)
    if len(set(along.tolist())) > 1
  )
  return Collective(op, axes, tuple(group), 1, size * share)


def _group(text, mesh_shape):
  """The first of the groups of devices that exchange something."""
  everything = list(range(math.prod(mesh_shape.values())))
  listed = re.search(r'replica_groups=\{\{([\d,]*)\}', text)
  if listed:
    return [int(x) for x in listed[1].split(',')]
  iota = re.search(
    r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', text
  )
  if iota:
    shape, dims, order = (
      [int(x) for x in part.split(',')] if part else None
      for part in iota.groups()
    )
    ids = np.arange(math.prod(dims)).reshape(dims)
    return ids.transpose(order).reshape(shape)[0].tolist()
  named = re.search(r'replica_groups=mesh\[(.*?)\] \{(.*?)\}', text)
  if named:
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
    ids = np.arange(len(everything)).reshape([int(x) for x in sizes.values()])
    chosen = re.findall(r"'([^']+)'", named[2])
    index = tuple(slice(None) if x in chosen else 0 for x in sizes)
    return ids[index].reshape(-1).tolist()
  return everything


# -------------------------------------------------------------------- memory


def _moved(i, types, computations):
  """Bytes that an instruction reads from memory and writes to it."""
  if i.op in _FREE or i.op.endswith('-done'):
    return 0
  if i.op == 'copy-start':
    return _size(i.type, in_memory=True)
  written = _size(_made(i), in_memory=True)
  read = {x: _size(types.get(x, ''), in_memory=True) for x in i.operands}
  if i.op in ('fusion', 'fusion-start'):
    written, read = _of_fusion(i, computations, written, read)
  elif i.op in _CUTS:
    return 2 * written
  elif i.op == 'dynamic-update-slice':
    return 2 * _size(types.get(i.operands[1], ''), in_memory=True)
  return written + sum(read.values())


def _of_fusion(i, computations, written, read):
  """Of arrays that a fusion only cuts from, or writes a part of: that part."""
  inner = computations[_called(i)]
  kinds = {x.name: x.type for x in inner}
  for number, operand in enumerate(i.operands):
    uses, names = _uses(inner, number)
    if uses and all(
      x.op == 'dynamic-update-slice' and x.operands[0] in names for x in uses
    ):
      part = sum(_size(kinds.get(x.operands[1], '')) for x in uses)
      written = max(written - read[operand], 0) + part
      read[operand] = 0
    else:
      read[operand] = min(read[operand], _read(inner, number, computations))
  return written, read


def _read(inner, number, computations):
  """Bytes that a fused computation reads of a parameter; math.inf for all."""
  uses, names = _uses(inner, number)
  total = 0
  for x in uses:
    if x.op in _CUTS:
      total += _size(x.type)
    elif x.op == 'fusion':
      deeper = computations[_called(x)]
      for j, operand in enumerate(x.operands):
        if operand in names:
          total += _read(deeper, j, computations)
    else:
      return math.inf
  return total if uses else math.inf


def _uses(inner, number):
  """(instructions that take a parameter, the names under which they do)."""
  names = set()
  for x in inner:
    if x.op == 'parameter' and int(x.arguments) == number:
      names.add(x.name)
    elif x.op == 'bitcast' and names & set(x.operands):
      names.add(x.name)
  uses = [x for x in inner if names & set(x.operands) and x.op != 'bitcast']
  return uses, names


def _called(i):
  return re.search(r'calls=%?([\w.\-]+)', i.rest)[1]
