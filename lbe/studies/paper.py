"""The tables of "LLaMA Beyond English" (arXiv 2401.01055), as it printed them.

They stand beside a study's own numbers, marked as published: they are of other
data, of one seed and without intervals.
"""

import pathlib
import tomllib

from lbe.text import tables

CRITERIA = (
  'accuracy',
  'fluency',
  'informativeness',
  'logical coherence',
  'harmlessness',
)
# What rounding to three digits may move a mean of five by.
_ROUNDING = 0.0011


def numbers() -> dict:
  """paper.toml: 'response_quality', 'perplexity', 'languages'."""
  path = pathlib.Path(__file__).with_name('paper.toml')
  return tomllib.loads(path.read_text('utf-8'))


def published() -> list[dict]:
  """Tables 1 to 3: {'title', 'note', 'heads', 'rows'}, cells as strings.

  Averages that are not the mean of their row's criteria are marked, and the
  mean stands beside them.
  """
  found = numbers()
  heads = [*CRITERIA, 'average', 'mean of the five']
  quality = [
    [f'{size}: {model}', *_scores(scores)]
    for size, rows in found['response_quality'].items()
    for model, *scores in rows
  ]
  wrong = sum(row[-2].endswith('*') for row in quality)
  ppl = found['perplexity']
  languages = [
    [f'{code}, {size}', *_scores(scores[at : at + 6])]
    for code, scores in found['languages'].items()
    for at, size in ((0, '1K'), (6, '65K'))
  ]
  return [
    {
      'title': 'Table 1, response quality by pretraining and instructions',
      'note': (
        'Chinese LLM-Eval, 0 to 3, by GPT-4; one run each. * '
        f'{wrong} averages, all of the 5K block, are not the mean of their '
        'row. Harmlessness is near 3 for everything, gibberish included.'
      ),
      'heads': ['instructions: model', *heads],
      'rows': quality,
    },
    {
      'title': 'Table 2, perplexity after Chinese alone',
      'note': 'Per token; all models have the 32,000 pieces of LLaMA.',
      'heads': ['model', 'Chinese', 'English'],
      'rows': [
        [model, f'{zh:.3f}', f'{en:.3f}']
        for model, zh, en in zip(
          ppl['models'], ppl['Chinese'], ppl['English'], strict=True
        )
      ],
    },
    {
      'title': 'Table 3, thirteen languages',
      'note': (
        'LLaMA tuned on Bactrian-X, translated LLM-Eval. The size of the '
        'larger set is not in the text at hand; 65K fits Bactrian-X.'
      ),
      'heads': ['language, instructions', *heads],
      'rows': languages,
    },
  ]


def _scores(scores):
  *criteria, average = scores
  mean = sum(criteria) / len(criteria)
  mark = '*' if abs(mean - average) > _ROUNDING else ''
  return [
    *(f'{x:.3f}' for x in criteria),
    f'{average:.3f}{mark}',
    f'{mean:.3f}',
  ]


def markdown() -> str:
  """The three tables, each under its title and above its note."""
  return '\n'.join(
    f'### {t["title"]}\n\n'
    + tables.markdown(t['heads'], 'l' + 'r' * (len(t['heads']) - 1), t['rows'])
    + f'\n\n{t["note"]}\n'
    for t in published()
  )
