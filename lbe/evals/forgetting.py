"""What a run gained in the target language and lost in the source language.

It reads result rows, so whatever was scored can be compared: beside the first
score of the run (step 0) each later one, as a table and a frontier.

  python -m lbe.evals.forgetting --workdir=DIR \
    --source=en/bits_per_byte --target=zh/bits_per_byte
"""

import pathlib

from absl import flags

from lbe.text import lines
from lbe.text import tables

# Scores of which less is better; of all others more is.
_LESS_IS_BETTER = (
  'bits_per_byte',
  'perplexity',
  'nats_per_document',
)


def less_is_better(name: str) -> bool:
  """Whether a lower value of 'EVALUATOR/SCORE' is the better one."""
  return name.split('/', 1)[-1].startswith(_LESS_IS_BETTER)


def compare(rows: list, *, source: list, target: list) -> list[dict]:
  """One dict a step: {'step', 'EVALUATOR/SCORE': {'value', 'change'}}.

  `source` and `target` are names as 'en/bits_per_byte'. The change is that
  since the first row of the score, signed so that more is better. A step
  without all of the scores is left out. Raises ValueError for a score that no
  row has, with those that are there.
  """
  names = [*source, *target]
  values = {}
  for row in rows:
    of_step = values.setdefault(f'{row["evaluator"]}/{row["name"]}', {})
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
      sign = -1 if less_is_better(name) else 1
      value = values[name][step]
      change = sign * (value - values[name][steps[0]])
      changes[name] = {'value': value, 'change': change + 0.0}
    result.append(changes)
  return result


def table(compared: list[dict]) -> str:
  """The comparison in Markdown; changes are signed so that more is better."""
  names = [name for name in compared[0] if name != 'step']
  rows = [
    [
      at['step'],
      *(f'{at[n]["value"]:.4f} ({at[n]["change"]:+.4f})' for n in names),
    ]
    for at in compared
  ]
  return tables.markdown(['step', *names], 'r' * (len(names) + 1), rows)


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
      x = [at_step[b]['change'] for at_step in compared]
      y = [at_step[a]['change'] for at_step in compared]
      axes.plot(x, y, 'o-', label=f'{a} over {b}')
      for at_step, *at in zip(compared, x, y, strict=True):
        axes.annotate(str(at_step['step']), at, fontsize=8)
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
