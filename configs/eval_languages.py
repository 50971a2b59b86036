r"""A stored model in many languages: one table, languages by scores.

`:ta,sw` are some languages of the table (docs/languages.md), `:all` the paper's
thirteen, English and Chinese.

  python -m lbe.evaluate --config=configs/eval_languages.py:ta,sw,en \
    --workdir=runs/eval --config.init_from=CKPT_OR_HF \
    --config.evals.parallel.path=NTREX-128/ \
    --config.evals.swap.path=NTREX-128/ --config.evals.sib200.path=sib-200/ \
    --config.evals.xcopa.path=xcopa/ --config.evals.mgsm.path=mgsm/ \
    --config.evals.blimp.path=blimp/

What is given no path is left out, and a language that a data set has not has no
score there. The table goes to languages.md, .json and .png. The same entries
work in a training config (configs/language.py).
"""

from lbe.configs import common
from lbe.text import language_table


def get_config(choice='all'):
  codes = choice.split(',')
  if choice == 'all':
    codes = [*language_table.THIRTEEN, 'en', 'zh']
  config = common.base()
  add(config, codes)
  config.evals.in_context = common.in_context()
  config.execution.compute_dtype = 'float32'
  return config


def add(config, codes, **schedule):
  """Adds what can be scored in languages, by their codes; paths are empty.

  Raises ValueError for a code that is not in the table, with the nearest.
  """
  known = [language_table.language(code) for code in codes]

  def having(data):
    return tuple(x.code for x in known if data in x.codes)

  # Sentences that are the same in all languages, of NTREX or SIB-200: what
  # they cost, and whether two words that changed places are seen.
  config.evals.parallel = common.parallel(
    path='', languages=tuple(codes), limit=200, **schedule
  )
  config.evals.swap = common.pairs(
    protocol='pairs@swap', languages=tuple(codes), limit=200, **schedule
  )
  config.evals.sib200 = common.multiple_choice(
    protocol='sib200@labels', subjects=having('sib200'), **schedule
  )
  if having('xcopa'):
    config.evals.xcopa = common.multiple_choice(
      protocol='xcopa@lmeval', subjects=having('xcopa'), **schedule
    )
  if having('mgsm'):
    config.evals.mgsm = common.exam(
      protocol='mgsm@direct', subjects=having('mgsm'), limit=50, **schedule
    )
  if 'en' in codes:
    config.evals.blimp = common.pairs(
      protocol='pairs@blimp', limit=50, **schedule
    )
