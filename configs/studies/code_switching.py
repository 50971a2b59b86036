"""How often do responses slide into another language? The paper's Figure 4.

  python -m lbe.study --config=configs/studies/code_switching.py --workdir=DIR \
    --config.init_from=HF_DIR --config.zh=zh/ --config.belle=belle.jsonl \
    --config.bactrian_x=bactrian-x/ --config.prompts=prompts/
  ... --dry_run --topology=v5p-128=4.2,h100:8=3

LLaMA tuned on 1,000 instructions of Chinese and of each of 13 languages, and
for Chinese behind further pretraining, too: the paper's second open question is
where the switches come from. Responses to LANGUAGE.jsonl of `prompts` are
sampled, since greedy ones of small models repeat themselves. 280 of them see 3%
within 2 points.
"""

import os

from lbe.configs import common
from lbe.configs import study
from lbe.configs.studies import llama
from lbe.text import language_table


def get_config():
  config = common.ConfigDict()
  config.init_from = ''
  config.preset = 'llama_7b'
  config.zh = ''  # web text to go on with
  config.belle = ''
  config.bactrian_x = ''  # a folder of LANGUAGE.json
  config.prompts = ''  # a folder of LANGUAGE.jsonl
  config.languages = ('zh', *language_table.THIRTEEN)
  config.documents = 1_000_000
  config.examples = 1_000
  config.num_prompts = 280
  config.temperature = 0.7
  config.peak_lr = 3e-5
  config.seeds = 3
  return config.lock()


def make(asked):
  """The study that the fields ask for."""
  cells = [llama.base(asked)]
  files = dict(zh_web=dict(path=asked.zh))
  evals = {}
  for code in asked.languages:
    source, template = f'sft_{code}', 'belle' if code == 'zh' else 'bactrian_x'
    folder = asked.bactrian_x
    file = os.path.join(folder, f'{code}.json') if folder else ''
    files[source] = dict(
      path=asked.belle if code == 'zh' else file,
      template=template,
      on_bad_record='skip',
    )
    evals[code] = study.of(
      common.code_switching(
        path=os.path.join(asked.prompts, f'{code}.jsonl'),
        language=code,
        language_identifier='lingua',
        template=template,
        limit=asked.num_prompts,
        temperature=asked.temperature,
      ),
      language=code,
    )
    for seed in range(asked.seeds):
      for base in ('llama', 'zh') if code == 'zh' else ('llama',):
        cells.append(
          llama.instructed(
            llama.named(['sft', code, base], seed, asked.seeds),
            recipe='belle' if code == 'zh' else 'bactrian_x',
            source=source,
            template=template,
            examples=asked.examples,
            axes=dict(stage='instruct', language=code, base=base),
            seed=seed,
            init_from=_pretrained(asked, seed) if base == 'zh' else base,
          )
        )
  for seed in range(asked.seeds):
    cells.append(
      llama.pretrained(
        _pretrained(asked, seed),
        language='zh_web',
        documents=asked.documents,
        axes=dict(stage='pretrain', base='zh'),
        seed=seed,
        peak_lr=asked.peak_lr,
      )
    )
  tuned = dict(stage='instruct', language='zh')
  return dict(
    name='code_switching',
    files=files,
    evals=evals,
    scoring=dict(execution=dict(compute_dtype='bfloat16')),
    cells=cells,
    claims=[
      dict(
        name='C5',
        claim='Pretraining in Chinese makes responses switch less.',
        evaluator='zh',
        metric='switched',
        terms=study.difference(
          tuned | dict(base='zh'), tuned | dict(base='llama')
        ),
        expect='less',
        margin=0.01,
        guards=[dict(kind='usable', fewest=200, share=0.8)],
        units=asked.num_prompts,
      )
    ],
  )


def _pretrained(asked, seed):
  return llama.named(['zh'], seed, asked.seeds)
