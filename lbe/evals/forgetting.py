"""What a run gained in the target language and lost in the source language.

It reads result rows, so whatever was scored can be compared: beside the first
score of the run (step 0) each later one, as a table and a frontier.

  python -m lbe.evals.forgetting --workdir=DIR \
    --source=en/bits_per_byte --target=zh/bits_per_byte
"""

import pathlib

from absl import flags

from lbe.evals import core
from lbe.text import lines
from lbe.text import tables


def compare(rows: list, *, source: list, target: list) -> list[dict]:
  """One dict a step: {'step', 'EVALUATOR/SCORE': {'value', 'change', …}}.

  `source` and `target` are names as 'en/bits_per_byte'. The change is that of
  the number since the first row of the score; `gain` is the same, signed so
  that more is better, and `better` says which way that is. A step without all
  of the scores is left out. Raises ValueError for a score that no row has, with
  those that are there.
  """
  names = [*source, *target]
  values, better = {}, {}
  for row in rows:
    name = f'{row["evaluator"]}/{row["name"]}'
    better[name] = core.better(row)
    of_step = values.setdefault(name, {})
    if row['value'] is not None:  # which was no finite number
      of_step[row['step']] = row['value']
  for name in names:
    if name not in values:
      raise ValueError(
        f'no row has the score {name!r}; there are {", ".join(sorted(values))}.'
      )
  steps = sorted(set.intersection(*(set(values[n]) for n in names)))
  if not steps:
    raise ValueError(
      f'no step has all of {", ".join(names)}; score them at the same steps.'
    )
  result = []
  for step in steps:
    changes = {'step': step}
    for name in names:
      value = values[name][step]
      change = value - values[name][steps[0]]
      sign = -1 if better[name] == core.LOWER else 1
      changes[name] = {
        'value': value,
        'change': change,
        'gain': sign * change + 0.0,
        'better': better[name],
      }
    result.append(changes)
  return result


def table(compared: list[dict]) -> str:
  """The comparison in Markdown; a sign says what the number did."""
  names = [name for name in compared[0] if name != 'step']
  heads = [f'{n} {core.MARKS[compared[0][n]["better"]]}'.strip() for n in names]
  rows = [[at['step'], *(_cell(at[n]) for n in names)] for at in compared]
  marked = tables.markdown(['step', *heads], 'r' * (len(names) + 1), rows)
  return f'{marked}\n{_LEGEND}'


_LEGEND = (
  'In brackets: how far the number has moved since the first line. ↑ higher is '
  'better, ↓ lower is better.'
)


def _cell(score):
  moved = f'{score["change"]:+.4f}'
  if score['better'] and score['change']:
    moved += ' better' if score['gain'] > 0 else ' worse'
  return f'{score["value"]:.4f} ({moved})'


def plot(compared, path, *, source, target):
  """The frontier as a picture: the source's change over the target's."""
  try:
    import matplotlib
  except ImportError as error:
    raise ValueError("a plot needs matplotlib: pip install 'lbe[plot]'.") from (
      error
    )
  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(figsize=(6, 4.5))
  for a in source:
    for b in target:
      x = [at_step[b]['gain'] for at_step in compared]
      y = [at_step[a]['gain'] for at_step in compared]
      axes.plot(x, y, 'o-', label=f'{a} over {b}')
      for at_step, *at in zip(compared, x, y, strict=True):
        # The first says what the others are.
        axes.annotate(
          f'{"" if at_step["step"] else "step "}{at_step["step"]}',
          at,
          xytext=(5, -10),
          textcoords='offset points',
          fontsize=8,
        )
  axes.axhline(0, color='grey', linewidth=0.8)
  axes.axvline(0, color='grey', linewidth=0.8)
  axes.set_xlabel('gained in the target since the start')
  axes.set_ylabel('gained (below 0: forgotten) in the source')
  axes.legend(fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  pyplot.close(figure)


def write(workdir, *, source: list, target: list) -> str:
  """forgetting.md, .json and, where matplotlib is there, .png; the table."""
  workdir = pathlib.Path(workdir)
  rows = [row for row, _ in lines.records(workdir / 'results.jsonl')]
  compared = compare(rows, source=source, target=target)
  text = table(compared)
  (workdir / 'forgetting.md').write_text(text + '\n', encoding='utf-8')
  (workdir / 'forgetting.json').write_text(
    lines.dumps(compared, indent=2), encoding='utf-8'
  )
  try:
    plot(compared, workdir / 'forgetting.png', source=source, target=target)
  except ValueError as error:
    text += f'\n({error})'
  return text


def main(argv):
  del argv
  f = flags.FLAGS
  print(write(f.workdir, source=f.source, target=f.target))


if __name__ == '__main__':
  from lbe.run import program

  flags.DEFINE_string('workdir', None, 'A run, with results.jsonl.')
  flags.DEFINE_list('source', None, 'Scores of what may be forgotten.')
  flags.DEFINE_list('target', None, 'Scores of what is learnt.')
  flags.mark_flags_as_required(['workdir', 'source', 'target'])
  program.run(main)
