"""A run as a page: curves, scores and samples over its steps, and what it is.

It reads what a run leaves in its workdir (config.json, metrics.jsonl,
results.jsonl, predictions.jsonl), while it runs or behind its end.
"""

import json
import pathlib
import platform

import jax

from lbe.evals import core
from lbe.run import page
from lbe.text import lines

# More points than a screen has columns are not drawn.
_MOST_POINTS = 1500
_MOST_SAMPLES = 8
_CURVES = (
  ('train/loss', 'Loss of training, nats a token'),
  ('train/learning_rate', 'Learning rate'),
  ('train/grad_norm', 'Norm of the gradient'),
  ('speed/tokens_per_second_per_chip', 'Tokens a second and chip'),
)


def write(workdir: pathlib.Path) -> pathlib.Path:
  """WORKDIR/report.html, whole or not at all; its path.

  Raises ValueError for a folder that is no run's, and without jinja2.
  """
  path = pathlib.Path(workdir) / 'report.html'
  temporary = path.with_suffix('.html.tmp')
  temporary.write_text(html(workdir), encoding='utf-8')
  temporary.replace(path)
  return path


def html(workdir: pathlib.Path) -> str:
  """The page."""
  workdir = pathlib.Path(workdir)
  if not (workdir / 'metrics.jsonl').is_file():
    raise ValueError(
      f'{workdir} has no metrics.jsonl; give the workdir of an lbe.train.'
    )
  steps = lines.rows(workdir / 'metrics.jsonl')
  rows = lines.rows(workdir / 'results.jsonl')
  config = workdir / 'config.json'
  facts = json.loads(config.read_text('utf-8')) if config.is_file() else {}
  return page.render(
    'run.html',
    name=workdir.resolve().name,
    plots=_scores(rows) + _curves(steps),
    table=_table(rows),
    samples=_samples(workdir / 'samples.jsonl')
    | _samples(workdir / 'predictions.jsonl'),
    warnings=list(dict.fromkeys(core.warnings(core.newest(rows)))),
    last=steps[-1] if steps else {},
    facts=json.dumps(facts, indent=1, ensure_ascii=False),
    data=_text(workdir / 'data.txt'),
    machine={
      'device': jax.devices()[0].device_kind,
      'devices': jax.device_count(),
      'hosts': jax.process_count(),
      'jax': jax.__version__,
      'python': platform.python_version(),
    },
  )


def _text(path):
  return path.read_text('utf-8') if path.is_file() else ''


def _plot(title, y, curves):
  return {
    'title': title,
    'x': 'step',
    'y': y,
    'along': 'step',
    'log_x': False,
    'curves': [{'name': k, 'points': thinned(v)} for k, v in curves.items()],
    'crossings': [],
  }


def thinned(points: list) -> list:
  """At most 1,500 of the points, evenly, the last of them included."""
  every = -(-len(points) // _MOST_POINTS)
  return points[::-1][:: max(every, 1)][::-1]


def _curves(steps):
  plots = []
  for key, title in _CURVES:
    points = [
      {'x': s['step'], 'along': s['step'], 'value': s[key]}
      for s in steps
      if s.get(key) is not None
    ]
    if len(points) > 1:
      y = key.split('/')[1].replace('_', ' ')
      plots.append(_plot(title, y, {y: points}))
  return plots


def _better(row):
  """Which way a score is better; '' of what is no score to be judged by."""
  if '/' in row['name'] or row.get('of_subject') or row['value'] is None:
    return ''
  return core.better(row)


def _scores(rows):
  """A plot of each score that evaluators are judged by, all of its evaluators.

  One score alone of each evaluator: the first that it gives.
  """
  first, plots = {}, {}
  for row in rows:
    if not _better(row):
      continue
    if first.setdefault(row['evaluator'], row['name']) != row['name']:
      continue
    point = {
      'x': row['step'],
      'along': row['step'],
      'value': row['value'],
      'count': row['count'],
    }
    if 'interval95' in row:
      point['low'], point['high'] = row['interval95']
    curves = plots.setdefault(row['name'], {})
    curves.setdefault(row['evaluator'], []).append(point)
  return [
    _plot(f'{name.replace("_", " ")}, by step', name, curves)
    for name, curves in plots.items()
  ]


def _table(rows):
  """Scores at the first step that has them, and at the last."""
  ends = {}
  for row in rows:
    if _better(row):
      key = row['evaluator'], row['name']
      ends[key] = (ends.get(key, (row,))[0], row)
  return [
    {
      'evaluator': evaluator,
      'name': name,
      'mark': core.MARKS[_better(last)],
      'before': first['value'] if first['step'] != last['step'] else None,
      'first_step': first['step'],
      'value': last['value'],
      'interval95': last.get('interval95'),
      'count': last.get('num_units', last['count']),
      'units': core.units(last),
      'step': last['step'],
    }
    for (evaluator, name), (first, last) in ends.items()
  ]


def _samples(path):
  """Responses to the same prompts at each step, side by side."""
  found = {}
  for record in lines.rows(path) if path.is_file() else ():
    if not isinstance(record.get('response'), str):
      continue
    prompts = found.setdefault(record['evaluator'], {})
    if record['id'] not in prompts and len(prompts) >= _MOST_SAMPLES:
      continue
    of = prompts.setdefault(record['id'], {'prompt': '', 'steps': []})
    of['prompt'] = record.get('prompt', record.get('question', ''))
    of['steps'].append((record['step'], record['response']))
  return {name: list(prompts.values()) for name, prompts in found.items()}
