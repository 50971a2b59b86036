r"""LLaMA-7B tuned on Bactrian-X: the paper's 13 low-resource languages.

One language, as `:sw`, with 65K examples, or `:sw,1k`; `:joint` takes all 13 in
equal shares of the tokens. Files are LANGUAGE.json in one folder:

  for language in ar bn gu hi id ml mr ne sw ta te ur vi; do
    python -m lbe.train --config=configs/instruct_13_languages.py:$language \
      --config.init_from=CKPT_OR_HF --workdir=runs/$language \
      --config.data.sources.$language.path=bactrian-x/$language.json
  done
"""

from lbe.configs import common
from lbe.configs import instruct
from lbe.text import language_table

SIZES = {'1k': 1_000, '65k': 65_000}


def get_config(choice='joint'):
  language, _, size = choice.partition(',')
  thirteen = language_table.THIRTEEN
  if language not in thirteen and language != 'joint':
    raise ValueError(
      f'instruct_13_languages.py:{language} is unknown; take :joint, or one '
      f'of {", ".join(":" + name for name in thirteen)}.'
    )
  if (size or '65k') not in SIZES:
    raise ValueError(
      f'instruct_13_languages.py:{choice}: the size {size!r} is unknown; take '
      f'one of {", ".join(SIZES)}.'
    )
  names = thirteen if language == 'joint' else (language,)
  return of(names, documents=SIZES[size or '65k'])


def of(names, *, documents):
  """The run in languages, by their codes, of so many examples of each."""
  config = instruct.base('bactrian_x')
  for name in names:
    config.data.sources[name] = instruct.source(
      'bactrian_x',
      path='',
      proportion=1 / len(names),
      holdout=0.03,  # 2,000 of 67,017, as its authors
      max_documents=documents,
    )
    config.evals[name] = common.perplexity(source=name, every=200, limit=200)
  return config
