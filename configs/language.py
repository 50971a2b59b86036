r"""The whole way of one language: tokenizer, pretraining, instructions, scores.

`:ta` (or `:ta,pretrain`) and `:ta,instruct`, in any language of the table
(docs/languages.md); a chip's name behind it (`:ta,pretrain,h200`) brings its
settings. For Tamil, from a LLaMA in Hugging Face's format:

  # 1. New pieces from its text, and what they save.
  python -m lbe.tokenizer extend --base=LLAMA/tokenizer.model --corpus=ta/ \
    --num_pieces=8000 --output=ta_pieces
  python -m lbe.tokenizer report --tokenizer=ta_pieces \
    --base=LLAMA/tokenizer.model --output=ta_report \
    --texts=NTREX-128/newstest2019-ref.tam.txt \
    --texts=NTREX-128/newstest2019-src.eng.txt
  # 2. Pretraining with 20% English; without --config.tokenizer nothing is
  #    extended. --dry_run first.
  python -m lbe.train --config=configs/language.py:ta --workdir=runs/ta \
    --config.init_from=LLAMA --config.tokenizer=ta_pieces \
    --config.data.sources.ta.path=ta/ --config.data.sources.en.path=en/ \
    --config.evals.parallel.path=NTREX-128/ --config.evals.swap.path=NTREX-128/
  # 3. Bactrian-X's instructions and responses.
  python -m lbe.train --config=configs/language.py:ta,instruct \
    --workdir=runs/ta_instruct --config.init_from=runs/ta \
    --config.data.sources.ta.path=bactrian-x/ta.json
  # 4. What came of it, beside the base (configs/eval_languages.py).
  python -m lbe.evaluate --config=configs/eval_languages.py:ta,en \
    --workdir=runs/ta_scores --config.init_from=runs/ta ...

With `:ta,pretrain,h100-7b-lora` embedding and head learn beside the adapters.

The runs are those of zh_pretrain.py:all and instruct_13_languages.py, with more
scores: what the language gains beside what English loses (forgetting.md), and
whether the model still learns from its context.
"""

from lbe.configs import common
from lbe.configs import eval_languages
from lbe.configs import hardware
from lbe.configs import instruct_13_languages
from lbe.configs import zh_pretrain
from lbe.text import language_table


def get_config(choice='ta'):
  code, _, rest = choice.partition(',')
  stage, _, chip = rest.partition(',')
  known = language_table.language(code)
  if code == 'en':
    raise ValueError(
      'language.py:en: a language is learnt beside English; take another.'
    )
  stages = {'pretrain': _pretrain, 'instruct': _instruct}
  if (stage or 'pretrain') not in stages:
    raise ValueError(
      f'language.py:{choice}: {stage!r} is unknown; take :{code}, or one of '
      f'{", ".join(f":{code},{x}" for x in stages)}.'
    )
  config = stages[stage or 'pretrain'](known)
  config.evals.in_context = common.in_context(every=10)
  return hardware.on(config, chip, also='all')


def _pretrain(known):
  config = zh_pretrain.of(known.code, documents=0)
  for name in (known.code, 'en'):
    config.evals[name].at_start = True
  config.forgetting.source = ('en/bits_per_byte',)
  config.forgetting.target = (f'{known.code}/bits_per_byte',)
  eval_languages.add(config, (known.code, 'en'), every=200, at_start=True)
  return config


def _instruct(known):
  if 'bactrian_x' not in known.codes:
    raise ValueError(
      f'Bactrian-X has no {known.english} ({known.code!r}); tune on '
      'instructions of your own by configs/instruct.py.'
    )
  config = instruct_13_languages.of((known.code,), documents=0)
  eval_languages.add(config, (known.code, 'en'))
  return config
