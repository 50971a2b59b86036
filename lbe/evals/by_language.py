"""One table of languages and scores, as Markdown, JSON and a heat map.

It reads result rows: those of one language end with its code, as 'acc/ta'.

  python -m lbe.evals.by_language --workdir=DIR
"""

import pathlib

from absl import flags

from lbe.evals import core
from lbe.text import language_table
from lbe.text import lines
from lbe.text import tables

# Protocols whose data have one language and do not name it.
_OF_ONE = {'pairs@blimp': ('acc', 'en')}
# Second readings of the same answers.
_LEFT_OUT = ('lmeval_',)


def gather(rows: list) -> dict:
  """{'EVALUATOR/SCORE': {'protocol', 'better', 'languages': {code: row}}}.

  Of each score the newest row, as {'value', 'count', 'interval95'}; `better` is
  'lower', 'higher' or ''.
  """
  scores = {}
  for row in core.newest(rows):
    score, code = _OF_ONE.get(row['protocol'], ('', ''))
    if score != row['name']:
      score, _, code = row['name'].rpartition('/')
      score = score.removesuffix('/language')  # of pairs
    if (
      not score
      or code not in language_table.LANGUAGES
      or score.startswith(_LEFT_OUT)
    ):
      continue
    of_score = scores.setdefault(
      f'{row["evaluator"]}/{score}',
      {
        'protocol': row['protocol'],
        'better': core.better(row),
        'unit': row.get('unit', ''),
        'languages': {},
      },
    )
    of_score['languages'][code] = {
      key: row[key]
      for key in ('value', 'count', 'num_units', 'interval95')
      if key in row
    }
  return scores


def languages_of(scores: dict) -> list[str]:
  """The codes that have a score, in the table's order."""
  there = {code for score in scores.values() for code in score['languages']}
  return [code for code in language_table.LANGUAGES if code in there]


def table(scores: dict) -> str:
  """In Markdown: a line a language, a column a score, N in its head.

  A cell is the value and, where there is one, its 95% interval.
  """
  heads = [
    f'{name} {core.MARKS[score["better"]]} ({_counts(score)})'
    for name, score in scores.items()
  ]
  rows = [
    [
      f'{language_table.language(code).english} ({code})',
      *(_cell(score['languages'].get(code)) for score in scores.values()),
    ]
    for code in languages_of(scores)
  ]
  marked = tables.markdown(['language', *heads], 'l' + 'r' * len(heads), rows)
  return f'{marked}\n{core.LEGEND}'


def _counts(score):
  rows = score['languages'].values()
  counts = {row.get('num_units', row['count']) for row in rows}
  least, most = min(counts), max(counts)
  told = f'N {least:,}' + f' to {most:,}' * (most > least)
  return f'{told} {score["unit"]}'.rstrip()


def _cell(row):
  if row is None or row['value'] is None:
    return '–'
  digits = 1 if abs(row['value']) >= 100 else 3
  text = f'{row["value"]:.{digits}f}'
  if 'interval95' in row:
    low, high = (f'{x:.{digits}f}' for x in row['interval95'])
    text += f' ({low} to {high})'
  return text


def plot(scores: dict, path):
  """The table as a heat map; colours compare within a column, green is better.

  What has no better side is grey. Raises ValueError without matplotlib.
  """
  try:
    import matplotlib
  except ImportError as error:
    raise ValueError("a plot needs matplotlib: pip install 'lbe[plot]'.") from (
      error
    )
  matplotlib.use('Agg')
  from matplotlib import pyplot

  codes, names = languages_of(scores), list(scores)
  figure, axes = pyplot.subplots(
    figsize=(2.2 + 1.1 * len(names), 1.6 + 0.3 * len(codes))
  )
  colours = pyplot.get_cmap('RdYlGn')
  for x, name in enumerate(names):
    score = scores[name]
    rows = score['languages']
    values = [r['value'] for r in rows.values() if r['value'] is not None]
    for y, code in enumerate(codes):
      value = rows.get(code, {}).get('value')
      if value is None:
        continue
      span = max(values) - min(values)
      share = (value - min(values)) / span if span else 0.5
      if score['better'] == core.LOWER:
        share = 1 - share
      axes.add_patch(
        pyplot.Rectangle(
          (x - 0.5, y - 0.5),
          1,
          1,
          color=colours(0.15 + 0.7 * share) if score['better'] else '0.92',
        )
      )
      shown = _cell({'value': value})
      axes.text(x, y, shown, ha='center', va='center', fontsize=8)
  axes.set_xlim(-0.5, len(names) - 0.5)
  axes.set_ylim(len(codes) - 0.5, -0.5)
  axes.set_yticks(
    range(len(codes)), [language_table.language(c).english for c in codes]
  )
  axes.set_xticks(range(len(names)), [n.replace('/', '\n') for n in names])
  axes.tick_params(length=0, labelsize=8)
  axes.xaxis.tick_top()
  axes.spines[:].set_visible(False)
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  pyplot.close(figure)


def write(workdir) -> str:
  """languages.md, .json and, where matplotlib is there, .png; the table.

  '' and no file where fewer than two languages have scores.
  """
  workdir = pathlib.Path(workdir)
  scores = gather(lines.rows(workdir / 'results.jsonl'))
  if len(languages_of(scores)) < 2:
    return ''
  text = table(scores)
  (workdir / 'languages.md').write_text(text + '\n', encoding='utf-8')
  (workdir / 'languages.json').write_text(
    lines.dumps(scores, indent=2), encoding='utf-8'
  )
  try:
    plot(scores, workdir / 'languages.png')
  except ValueError as error:
    text += f'\n({error})'
  return text


def main(argv):
  del argv
  found = write(flags.FLAGS.workdir)
  if not found:
    raise ValueError(
      f'{flags.FLAGS.workdir} has no scores of two languages or more.'
    )
  print(found)


if __name__ == '__main__':
  from lbe.run import program

  flags.DEFINE_string('workdir', None, 'Scores, with results.jsonl.')
  flags.mark_flags_as_required(['workdir'])
  program.run(main)
