"""LLaMA tuned in 13 low-resource languages: the paper's Table 3.

  python -m lbe.study --config=configs/studies/languages_13.py --workdir=DIR \
    --config.init_from=HF_DIR --config.bactrian_x=bactrian-x/ \
    --config.questions=llm_eval/
  ... --dry_run --topology=v5p-128=4.2,h100:8=3

One model a language and size, 26 of them a seed, on LANGUAGE.json of
Bactrian-X. Held-out responses are scored in bits per byte; answers to
LANGUAGE.jsonl of `questions` (LLM-Eval's, translated) are kept for
`python -m lbe.judge`, since the paper's judge was GPT-4. `--only=sft-sw-*` is
one language.
"""

import os

from lbe.configs import common
from lbe.configs import study
from lbe.configs.studies import llama
from lbe.text import language_table

# 65k stands in memory of the paper alone: the heading is lost.
SIZES = {'1k': 1_000, '65k': 65_000}


def get_config():
  config = common.ConfigDict()
  config.init_from = ''
  config.preset = 'llama_7b'
  config.bactrian_x = ''  # a folder of LANGUAGE.json
  config.questions = ''  # a folder of LANGUAGE.jsonl
  config.languages = language_table.THIRTEEN
  config.recipe = 'bactrian_x'
  config.eval_documents = 2_000  # as its authors
  config.seeds = 1  # as in the paper; three for a verdict
  return config.lock()


def make(asked):
  """The study that the fields ask for."""
  cells, files, evals, claims = [llama.base(asked)], {}, {}, []
  for code in asked.languages:
    file = os.path.join(asked.bactrian_x, f'{code}.json')
    files[code] = dict(
      path=file if asked.bactrian_x else '',
      template='bactrian_x',
      on_bad_record='skip',
      eval_documents=asked.eval_documents,
    )
    evals[code] = study.of(
      study.scored(code, field='output', max_len=768), language=code
    )
    if asked.questions:
      evals[f'responses_{code}'] = study.of(
        common.response_quality(
          questions=os.path.join(asked.questions, f'{code}.jsonl'),
          template='bactrian_x',
          judge=common.people(),
        ),
        language=code,
      )
    for seed in range(asked.seeds):
      for size, examples in SIZES.items():
        cells.append(
          llama.instructed(
            llama.named(['sft', code, size], seed, asked.seeds),
            recipe=asked.recipe,
            source=code,
            template='bactrian_x',
            examples=examples,
            axes=dict(stage='instruct', language=code, examples=examples),
            seed=seed,
            init_from='llama',
          )
        )
    claims.append(_claim(code))
  return dict(
    name='languages_13',
    files=files,
    evals=evals,
    scoring=dict(execution=dict(compute_dtype='bfloat16')),
    cells=cells,
    claims=claims,
  )


def _claim(code):
  def cells(size):
    return dict(language=code, examples=SIZES[size])

  name = language_table.language(code).english
  return dict(
    name=code,
    claim=f'More instructions make responses in {name} likelier.',
    evaluator=code,
    metric='bits_per_byte',
    terms=study.difference(cells('65k'), cells('1k')),
    expect='less',
    margin=0.01,
    margin_of=1,
  )
