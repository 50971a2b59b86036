"""What a study found: verdicts, tables and plots, as a page and as files.

  python -m lbe.report --study=runs/micro
  python -m lbe.report --run=runs/zh

Writes into STUDY/report: report.html, one page that asks nothing of anybody;
report.md; scores.csv and cells.csv; a picture of each plot (SVG, with
matplotlib). A study that still runs has a report of what is there. Of a run:
WORKDIR/report.html, with curves, scores and samples over its steps.
"""

import collections
import csv
import pathlib

from absl import flags

from lbe.evals import run_page
from lbe.run import page
from lbe.run import program
from lbe.run import progress
from lbe.studies import paper
from lbe.studies import summary
from lbe.text import files
from lbe.text import tables

_STUDY = flags.DEFINE_string('study', None, 'The folder of a study.')
_RUN = flags.DEFINE_string('run', None, 'The workdir of a run.')
_OUT = flags.DEFINE_string('out', '', 'Where to; STUDY/report if empty.')
_PUBLISHED = flags.DEFINE_bool('published', True, "The paper's tables, too.")


def main(argv):
  del argv
  if bool(_STUDY.value) == bool(_RUN.value):
    raise ValueError('give --study=DIR or --run=DIR, one of them.')
  if _RUN.value:
    print(run_page.write(pathlib.Path(_RUN.value)))
    return
  with progress.doing('reading the scores of the study'):
    study = summary.make(_STUDY.value)
  out = pathlib.Path(_OUT.value or pathlib.Path(_STUDY.value) / 'report')
  out.mkdir(parents=True, exist_ok=True)
  published = paper.published() if _PUBLISHED.value else []
  files.write_whole(out / 'report.html', html(study, published))
  with progress.doing('drawing'):
    pictures = draw(study, out)
  text = markdown(study, pictures)
  if published:
    text += '\n## Published\n\n' + paper.markdown()
  files.write_whole(out / 'report.md', text)
  write_csv(study, out)
  print(verdict_lines(study))
  print(f'\n{out / "report.html"} and report.md, scores.csv, cells.csv.')


def html(study: dict, published: list[dict] = ()) -> str:
  """The page of what `summary.make` gives, and of published tables."""
  return page.render(
    'study.html',
    plots=study['plots'],
    study=study,
    published=published,
    counts=collections.Counter(study['states'].values()),
    costs={c['name']: c['seconds'] for c in study['costs']['cells']},
  )


def verdict_lines(study: dict) -> str:
  """The verdicts, a line each, and what they rest on."""
  if not study['verdicts']:
    return 'The study names no claims.'
  lines = []
  for v in study['verdicts']:
    lines.append(f'{v["name"]}  {v["word"].upper()}  {v["claim"]}')
    if 'value' in v:
      low, high = v['interval95']
      lines.append(
        f'    {v["score"]} {v["value"]:+.4f} ({low:+.4f} to {high:+.4f}; '
        f'{v["num_units"]:,} units, {len(v["by_seed"])} seeds; margin '
        f'{v["margin"]:.4f})'
      )
    lines.append(f'    {v["why"]}')
  return '\n'.join(lines)


def markdown(study: dict, pictures: list[str]) -> str:
  """The report as Markdown: verdicts, pictures, scores, cells."""
  parts = [f'# {study["name"]}', '## Verdicts', '']
  for v in study['verdicts']:
    parts += [f'**{v["name"]}: {v["word"]}.** {v["claim"]}', '']
    if 'value' in v:
      low, high = v['interval95']
      seeds = ', '.join(f'{x:+.4f}' for x in v['by_seed'])
      parts += [
        f'{v["score"]}: {v["contrast"]} = {v["value"]:+.4f}, 95% interval '
        f'{low:+.4f} to {high:+.4f} over {v["num_units"]:,} units; by seed '
        f'{seeds}; margin {v["margin"]:.4f}.',
        '',
      ]
    parts += [v['why'], '']
  if study['limits']:
    parts += ['## What this size cannot show', '']
    parts += [f'- {x}' for x in study['limits']] + ['']
  for plot, picture in zip(study['plots'], pictures, strict=False):
    parts += [f'![{plot["title"]}]({picture})', '']
  heads, align, rows = score_table(study)
  parts += ['## Scores', '', tables.markdown(heads, align, rows), '']
  heads, align, rows = cell_table(study)
  parts += ['## Cells', '', tables.markdown(heads, align, rows), '']
  return '\n'.join(parts)


def score_table(study: dict) -> tuple[list, str, list]:
  """(heads, align, rows): a line for cells that differ in their seed alone."""
  columns = study['columns']
  heads = [*study['axes'], 'seeds', *(c['head'] for c in columns)]
  rows = []
  for line in study['lines']:
    row = [line['axes'].get(axis, '') for axis in study['axes']]
    row.append(len(line['cells']))
    for c in columns:
      score = line['scores'].get(c['key'])
      row.append('' if score is None else _range(score))
    rows.append(row)
  return heads, 'l' * len(study['axes']) + 'r' * (len(columns) + 1), rows


def _range(score):
  text = f'{score["value"]:.4g}'
  if 'low' in score:
    text += f' ({score["low"]:.4g} to {score["high"]:.4g})'
  return text


def cell_table(study: dict) -> tuple[list, str, list]:
  """(heads, align, rows): what each cell saw, and what it cost."""
  phases = study['costs']['phases']
  seconds = {c['name']: c['seconds'] for c in study['costs']['cells']}
  heads = ['cell', 'from', 'updates', 'tokens', 'bytes', *phases]
  rows = [
    [
      c['name'],
      c['parent'],
      *(f'{c[x]:,}' for x in ('updates', 'tokens', 'bytes')),
      *(f'{seconds[c["name"]].get(p, 0.0):.1f}' for p in phases),
    ]
    for c in study['cells']
  ]
  return heads, 'll' + 'r' * (3 + len(phases)), rows


def write_csv(study: dict, out: pathlib.Path):
  """scores.csv, a line a cell and score; cells.csv as the table of cells."""
  with open(out / 'scores.csv', 'w', encoding='utf-8', newline='') as f:
    writer = csv.writer(f)
    axes = [*study['axes'], 'seed']
    writer.writerow(['cell', *axes, 'score', 'value', 'count'])
    for cell in study['cells']:
      of = [cell['axes'].get(axis, '') for axis in axes]
      for key, score in cell['scores'].items():
        value = [score['value'], score['count']]
        writer.writerow([cell['name'], *of, key, *value])
  with open(out / 'cells.csv', 'w', encoding='utf-8', newline='') as f:
    heads, _, rows = cell_table(study)
    csv.writer(f).writerows([heads, *rows])


def draw(study: dict, out: pathlib.Path) -> list[str]:
  """The plots as SVG; their file names, none without matplotlib."""
  if not study['plots']:
    return []
  try:
    import matplotlib
  except ImportError:
    print("no pictures: pip install 'lbe[plot]' (matplotlib).")
    return []
  matplotlib.use('Agg')
  from matplotlib import pyplot

  names = []
  for number, plot in enumerate(study['plots'], 1):
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for curve in plot['curves']:
      points = curve['points']
      x, y = [p['x'] for p in points], [p['value'] for p in points]
      (line,) = axes.plot(x, y, 'o-', label=curve['name'])
      low = [p.get('low', p['value']) for p in points]
      high = [p.get('high', p['value']) for p in points]
      axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15)
    for x in plot['crossings']:
      axes.axvline(x, color='grey', linestyle='--', linewidth=0.8)
    if plot['log_x']:
      axes.set_xscale('log')
    axes.set(xlabel=plot['x'], ylabel=plot['y'], title=plot['title'])
    if plot['curves']:
      axes.legend(fontsize=8)
    figure.tight_layout()
    names.append(f'plot{number}.svg')
    figure.savefig(out / names[-1], metadata={'Date': None})
    pyplot.close(figure)
  return names


if __name__ == '__main__':
  program.run(main)
