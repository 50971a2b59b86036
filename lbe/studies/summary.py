"""What a study found, as plain data: what a report prints, draws and says.

`make` reads a study's folder (docs/study.md), finished or not. Cells that
differ in nothing but their seed are one line of it.
"""

import itertools
import math
import pathlib
from collections.abc import Callable

from lbe.evals import core
from lbe.studies import folder
from lbe.studies import verdicts

# Samples that a page shows of a cell, and cells that it shows samples of.
_NUM_SAMPLES = 5


def make(study: str | pathlib.Path) -> dict:
  """A study as a dictionary: 'name', 'verdicts', 'cells', 'lines', 'columns',
  'plots', 'samples', 'costs', 'limits', 'states'.

  Raises ValueError for a folder without a study.
  """
  record = folder.read(study)
  if record is None:
    raise ValueError(
      f'{study} holds no study.json; give the --workdir of an lbe.study.'
    )
  rows = folder.derive(study, record)
  states = folder.states(study, record)
  scored = {row['cell'] for row in rows}
  cells = [cell for cell in record['cells'] if cell['name'] in scored]
  reported = {(r['cell'], r['evaluator'], r['name']): r['value'] for r in rows}
  present = {key[:2] for key in reported}

  def predictions(cell, evaluator):
    # What has no row is of an evaluator, or of a cell, as it was before.
    if (cell, evaluator) not in present:
      return []
    return folder.predictions(study, cell, evaluator)

  found = [
    verdicts.decide(c, cells, predictions, reported=reported)
    for c in record['claims']
  ]
  columns = _columns(rows)
  lines = _lines(cells, rows, columns)
  return {
    'name': record['study'],
    'states': states,
    'verdicts': [_verdict(v) for v in found],
    'axes': _varying(cells),
    'columns': columns,
    'lines': lines,
    'cells': [_cell(study, cell, states, rows, columns) for cell in cells],
    'plots': [_plot(p, lines) for p in record.get('plots', ())],
    'samples': _samples(cells, rows, predictions),
    'costs': _costs(study, record),
    'limits': [
      f'{v.claim["claim"]} {v.why}'
      for v in found
      if v.word == verdicts.NOT_MEASURABLE
    ],
    'files': record.get('files', {}),
  }


def _verdict(verdict):
  claim, contrast = verdict.claim, verdict.contrast
  record = {
    'name': claim['name'],
    'claim': claim['claim'],
    'word': verdict.word,
    'why': verdict.why,
    'score': f'{claim["evaluator"]} {claim["metric"]}',
    'expect': claim['expect'],
    'margin': verdict.margin,
    'published': claim.get('published', ''),
    'contrast': ' '.join(map(_term, claim['terms'])),
    'cells': [list(names) for names in verdict.cells],
  }
  if contrast is not None:
    record |= {
      'value': contrast.value,
      'interval95': list(contrast.interval95),
      'by_seed': list(contrast.by_seed),
      'num_units': contrast.num_units,
    }
  return record


def _term(term):
  axes = ', '.join(filter(None, (_says(*x) for x in term['cells'].items())))
  return f'{term["weight"]:+g} × [{axes}]'.replace('-', '−')


# ----------------------------------------------------------------------- scores


def _columns(rows):
  """[{'key', 'head', 'mark'}]: the scores that evaluators are judged by.

  Perplexities of two tokenizers are two columns: they are of other tokens.
  """
  columns = {}
  for row in rows:
    if '/' in row['name'] or row.get('of_subject') or row['value'] is None:
      continue
    protocol = row['protocol'].split('@')[0]
    better = core.BETTER.get(protocol, {}).get(row['name'])
    if better is None and row['name'] != row.get('headline'):
      continue
    key, head = _key(row), f'{row["evaluator"]} {row["name"]}'
    if row['name'] in core.OF_ONE_TOKENIZER:
      head += f' ({row["tokenizer"][:6]})'
    mark = {core.LOWER: '↓', core.HIGHER: '↑', None: ''}[better]
    columns.setdefault(key, {'key': key, 'head': head, 'mark': mark})
  return list(columns.values())


def _key(row):
  key = f'{row["evaluator"]}/{row["name"]}'
  if row['name'] in core.OF_ONE_TOKENIZER:
    key += f'/{row["tokenizer"]}'
  return key


def _of_cell(cell, rows, columns):
  """{column's key: row} of a cell."""
  keys = {c['key'] for c in columns}
  mine = [
    r for r in rows if r['cell'] == cell['name'] and r['value'] is not None
  ]
  return {_key(r): r for r in mine if _key(r) in keys}


def _varying(cells):
  """The axes in which cells differ, but for the seed."""
  names = dict.fromkeys(itertools.chain(*(cell['axes'] for cell in cells)))
  return [
    name
    for name in names
    if name != 'seed' and len({str(c['axes'].get(name)) for c in cells}) > 1
  ]


def _lines(cells, rows, columns):
  """Cells that differ in their seed alone: their mean, lowest and highest."""
  groups = {}
  for cell in cells:
    axes = {k: v for k, v in cell['axes'].items() if k != 'seed'}
    groups.setdefault(str(axes), (axes, []))[1].append(cell)
  result = []
  for axes, mine in groups.values():
    scores = {}
    by_cell = [_of_cell(cell, rows, columns) for cell in mine]
    for column in columns:
      found = [of[column['key']] for of in by_cell if column['key'] in of]
      if found:
        scores[column['key']] = _over_seeds(found)
    result.append(
      {'axes': axes, 'cells': [c['name'] for c in mine], 'scores': scores}
    )
  return result


def _over_seeds(found):
  values = [row['value'] for row in found]
  mean = sum(values) / len(values)
  score = {'value': mean, 'seeds': values, 'count': found[0]['count']}
  if len(values) > 1:
    score |= {'low': min(values), 'high': max(values)}
  elif 'interval95' in found[0]:
    score |= dict(zip(('low', 'high'), found[0]['interval95'], strict=True))
  return score


def _cell(study, cell, states, rows, columns):
  done = folder.read_cell(study, cell['name'])
  of = _of_cell(cell, rows, columns)
  seen = done.get('seen', {}).values()
  return {
    'name': cell['name'],
    'state': states[cell['name']],
    'axes': cell['axes'],
    'parent': cell['inputs'].get('init_from', ''),
    'updates': done.get('updates', 0),
    'tokens': sum(s['tokens'] for s in seen),
    'bytes': sum(s['bytes'] for s in seen),
    'seconds': done.get('seconds', {}).get('wall', 0.0),
    'scores': {
      key: {'value': row['value'], 'count': row['count']}
      for key, row in of.items()
    },
  }


# ------------------------------------------------------------------------ plots


def _plot(spec, lines):
  """A plot of a study's file, with its curves.

  `x` is a score ('zh/bits_per_byte') or an axis; `y` is a score; `along` the
  axis that joins points to a curve, `by` the axes that make curves; `cells`
  what they have in common.
  """
  curves = {}
  for line in lines:
    axes = line['axes']
    if any(axes.get(k) != v for k, v in spec.get('cells', {}).items()):
      continue
    if axes.get(spec['along']) is None or spec['y'] not in line['scores']:
      continue
    x = line['scores'].get(spec['x'], {}).get('value', axes.get(spec['x']))
    if x is None:
      continue
    told = (_says(k, axes.get(k)) for k in spec['by'])
    name = ', '.join(filter(None, told)) or 'all'
    curves.setdefault(name, []).append(
      {
        'x': x,
        'along': axes[spec['along']],
        **line['scores'][spec['y']],
        'cells': line['cells'],
      }
    )
  for points in curves.values():
    points.sort(key=lambda p: p['along'])
  result = {
    'title': spec['title'],
    'x': spec['x'],
    'y': spec['y'],
    'along': spec['along'],
    'log_x': spec.get('log_x', False),
    'curves': [{'name': k, 'points': v} for k, v in curves.items()],
    'crossings': [],
  }
  if spec['x'] == spec['along'] and len(curves) == 2:
    result['crossings'] = crossings(*curves.values(), log_x=result['log_x'])
  return result


def _says(axis, value):
  if isinstance(value, bool):
    return axis.replace('_', ' ') if value else f'no {axis.replace("_", " ")}'
  if isinstance(value, int | float):
    value = f'{value:{"," if isinstance(value, int) else "g"}}'
    return f'{axis} {value}'
  return value if isinstance(value, str) else f'{axis} {value}'


def crossings(a: list[dict], b: list[dict], *, log_x: bool) -> list[float]:
  """Where two curves cross between points that both have: their x."""
  of_b = {p['x']: p['value'] for p in b}
  both = [(p['x'], p['value'] - of_b[p['x']]) for p in a if p['x'] in of_b]
  found = []
  for (x0, d0), (x1, d1) in itertools.pairwise(both):
    if d0 * d1 < 0:
      part = d0 / (d0 - d1)
      if log_x:
        found.append(math.exp((1 - part) * math.log(x0) + part * math.log(x1)))
      else:
        found.append(x0 + part * (x1 - x0))
  return found


# ------------------------------------------------------------ samples and costs


def _samples(cells, rows, predictions: Callable):
  """Responses to the same prompts, cell by cell; parts in other languages."""
  evaluators = dict.fromkeys(row['evaluator'] for row in rows)
  result = []
  for name in evaluators:
    shown = {}
    for cell in cells:
      items = predictions(cell['name'], name)
      if not items:
        continue  # it scores others, or has not come so far
      if 'response' not in items[0]:
        break
      for item in sorted(items, key=lambda r: r['id'])[:_NUM_SAMPLES]:
        prompt = item.get('prompt', item.get('question', ''))
        of = shown.setdefault(item['id'], {'prompt': prompt, 'of': []})
        of['of'].append(
          {
            'cell': cell['name'],
            'pieces': _pieces(item['response'], item.get('spans', ())),
          }
        )
    if shown:
      result.append({'evaluator': name, 'prompts': list(shown.values())})
  return result


def _pieces(text, spans):
  """[(text, what)]: a response cut at its parts in other languages."""
  pieces, at = [], 0
  for span in spans:
    pieces += [
      (text[at : span['start']], ''),
      (text[span['start'] : span['stop']], span['what']),
    ]
    at = span['stop']
  return [p for p in [*pieces, (text[at:], '')] if p[0]]


def _costs(study, record):
  """{'phases', 'cells': [{'name', 'state', seconds by phase}], 'total'}."""
  cells, phases = [], {}
  for cell in record['cells']:
    done = folder.read_cell(study, cell['name'])
    seconds = done.get('seconds', {})
    phases |= dict.fromkeys(seconds)
    cells.append({'name': cell['name'], 'seconds': seconds})
  total = {p: sum(c['seconds'].get(p, 0.0) for c in cells) for p in phases}
  return {'phases': list(phases), 'cells': cells, 'total': total}
