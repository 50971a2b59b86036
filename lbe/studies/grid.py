"""The cells of a study as data: their order, identities, and what has changed.

A cell is a dictionary of `name`, `kind`, `axes`, `inputs`, `config` and
`tokens` (what it is expected to train on). `inputs` are the edges: fields of
its config that another cell fills.
"""

import fnmatch
import graphlib
import hashlib
import json
import re
from collections.abc import Iterator

from lbe.run import identity
from lbe.studies import verdicts

# `train`: a run of lbe.train; `tokenizer`: one of lbe.tokenizer; `model`:
# weights from elsewhere.
KINDS = ('train', 'tokenizer', 'model')
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')
# How a config names one of the study's frozen files.
FILES = '{files}/'


def order(cells: list[dict]) -> list[dict]:
  """The cells, each behind its inputs, else as they were given.

  Raises ValueError for a name twice, an input that is no cell, and a cycle,
  which it names.
  """
  by_name = {}
  for cell in cells:
    name, kind = cell['name'], cell['kind']
    if not _NAME.fullmatch(name) or kind not in KINDS:
      raise ValueError(
        f'cell {name!r} of the kind {kind!r}: a name is of letters, digits, '
        f'-, _ and ., and a kind one of {", ".join(KINDS)}.'
      )
    if name in by_name:
      raise ValueError(
        f'two cells have the name {name!r}; their axes are '
        f'{by_name[name]["axes"]} and {cell["axes"]}: name the axis that '
        'differs.'
      )
    by_name[name] = cell
  for cell in cells:
    for field, parent in cell['inputs'].items():
      if parent not in by_name:
        raise ValueError(
          f'cell {cell["name"]!r}: {field}={parent!r} is no cell of this '
          f'study; those are {", ".join(by_name)}.'
        )
  sorter = graphlib.TopologicalSorter(
    {cell['name']: cell['inputs'].values() for cell in cells}
  )
  try:
    sorter.prepare()
  except graphlib.CycleError as error:
    cycle = ' → '.join(error.args[1])
    raise ValueError(
      f'cells begin with each other in a circle: {cycle}; one of them has to '
      'begin without.'
    ) from None
  place = {cell['name']: i for i, cell in enumerate(cells)}
  result = []
  while sorter.is_active():
    # The first ready one in the given order, so that stages stay together.
    ready = sorted(sorter.get_ready(), key=place.get)
    result += [by_name[name] for name in ready]
    sorter.done(*ready)
  return result


def ancestors(cells: list[dict], names) -> set[str]:
  """The cells of these names, and all that they begin from."""
  inputs = {cell['name']: cell['inputs'].values() for cell in cells}
  result, left = set(), list(names)
  while left:
    name = left.pop()
    if name not in result:
      result.add(name)
      left += inputs[name]
  return result


def chosen(cells: list[dict], patterns: list[str]) -> set[str]:
  """The names that match one of the patterns, and all that they begin from.

  All where there is no pattern. Raises ValueError for one that fits no cell.
  """
  names = [cell['name'] for cell in cells]
  matched = [] if patterns else names
  for pattern in patterns:
    found = fnmatch.filter(names, pattern)
    if not found:
      raise ValueError(
        f'--only={pattern}: no cell has such a name; there are '
        f'{", ".join(names)}.'
      )
    matched += found
  return ancestors(cells, matched)


def of_claim(cells: list[dict], claim: dict) -> set[str]:
  """The names of a claim's cells; none where a term of it has none."""
  terms = [verdicts.cells_of(cells, t['cells']) for t in claim['terms']]
  return {cell['name'] for of in terms for cell in of if all(terms)}


def by_comparison(cells: list[dict], claims: list[dict], done) -> list[dict]:
  """The cells, the cheapest comparison first that is then complete.

  A comparison is a claim with the cells of its terms and all that they begin
  from; it costs the tokens of those that are not done.
  """
  by_name = {cell['name']: cell for cell in cells}
  done, result = set(done), []
  left = [
    ancestors(cells, names) for c in claims if (names := of_claim(cells, c))
  ]
  left.append(set(by_name))

  def cost(names):
    return sum(by_name[name]['tokens'] for name in names - done)

  while left:
    cheapest = min(left, key=cost)
    left.remove(cheapest)
    result += [c for c in cells if c['name'] in cheapest - done]
    done |= cheapest
  return result


# ---------------------------------------------------------------- identities


def _strings(value) -> Iterator[str]:
  if isinstance(value, dict):
    for x in value.values():
      yield from _strings(x)
  elif isinstance(value, list | tuple):
    for x in value:
      yield from _strings(x)
  elif isinstance(value, str):
    yield value


def files_of(config: dict) -> list[str]:
  """Names of the study's files that a config names."""
  return sorted(
    {s.removeprefix(FILES) for s in _strings(config) if s.startswith(FILES)}
  )


def _replaced(value, of):
  if isinstance(value, dict):
    return {k: _replaced(x, of) for k, x in value.items()}
  if isinstance(value, list | tuple):
    return [_replaced(x, of) for x in value]
  if isinstance(value, str) and value.startswith(FILES):
    return of(value.removeprefix(FILES))
  return value


def placed(config: dict, folder: str) -> dict:
  """A config with the study's files where they lie."""
  return _replaced(config, lambda name: f'{folder}/{name}')


def _contents(config, files):
  """{field: contents} of the fields that name files of the study."""
  plain = identity.flatten(config)
  found = identity.flatten(_replaced(config, lambda n: files[n]['sha256']))
  return {name: x for name, x in found.items() if x != plain[name]}


def _decisive(config):
  """The fields that decide numbers, as those of a run do."""
  decisive, _ = identity.differences({}, config)
  return {name: new for name, (_, new) in decisive.items()}


def _digest(record):
  text = json.dumps(record, sort_keys=True, ensure_ascii=False)
  return hashlib.sha256(text.encode()).hexdigest()


def identify(cells: list[dict], files: dict, weights: dict) -> list[dict]:
  """The ordered cells with their `identity`.

  `files` are those of study.json; `weights` the fingerprints of the cells that
  are models from elsewhere. Raises ValueError for two names of one cell, and
  for a file that the study does not have.
  """
  by_identity, identities, result = {}, {}, []
  for cell in cells:
    name = cell['name']
    for text in files_of(cell['config']):
      if text not in files:
        raise ValueError(
          f'cell {name!r} reads {FILES}{text}, which is no file of this study; '
          f'those are {", ".join(files) or "none"}.'
        )
    mine = _digest(
      {
        'kind': cell['kind'],
        'config': _decisive(cell['config']),
        'inputs': {k: identities[v] for k, v in cell['inputs'].items()},
        'files': _contents(cell['config'], files),
        'weights': weights.get(name),
      }
    )
    if mine in by_identity:
      raise ValueError(
        f'{by_identity[mine]!r} and {name!r} are two names of one cell: '
        'nothing that decides its numbers differs; keep one of them.'
      )
    by_identity[mine] = identities[name] = mine
    by_identity[mine] = name
    result.append({**cell, 'identity': mine})
  return result


def identify_evals(evals: dict, files: dict, dtype: str) -> dict:
  """{name: {'identity', 'fields', 'cells'}}, with their texts' contents.

  `cells` are the axes of the cells that an evaluator is for, {} of all. `dtype`
  is what they compute in. Raises ValueError for a file that the study does not
  have.
  """
  result = {}
  for name, asked in evals.items():
    fields = {k: v for k, v in asked.items() if k != 'cells'}
    texts = files_of(fields)
    missing = [text for text in texts if text not in files]
    if missing:
      raise ValueError(
        f'evals.{name} reads {FILES}{missing[0]}, which is no file of this '
        f'study; those are {", ".join(files) or "none"}.'
      )
    contents = _contents(fields, files)
    mine = _digest({'fields': fields, 'files': contents, 'dtype': dtype})
    cells = asked.get('cells', {})
    result[name] = {'identity': mine, 'fields': fields, 'cells': cells}
  return result


def differences(old: dict, new: dict) -> list[str]:
  """Lines that say what decides otherwise in two versions of one cell."""
  lines = []
  for field in ('kind', 'inputs'):
    if old[field] != new[field]:
      lines.append(f'{field}: {old[field]!r} → {new[field]!r}')
  decisive, _ = identity.differences(old['config'], new['config'])
  lines += [f'{k}: {a!r} → {b!r}' for k, (a, b) in decisive.items()]
  return lines
