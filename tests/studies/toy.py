"""A study of two tiny runs, of which the second begins from the first."""

import pathlib

from lbe.configs import common
from lbe.configs import study

TEXT = pathlib.Path(__file__).parents[2] / 'lbe' / 'data' / 'sample' / 'zh.txt'


def get_config():
  config = common.ConfigDict()
  config.steps = 3
  return config.lock()


def make(asked):
  def run(name, seed, **inputs):
    config = common.base()
    config.seed, config.data.seed = seed, 0
    if not inputs:
      config.tokenizer = 'bytes'
      config.model.update(dim=32, num_layers=2, num_heads=4, mlp_dim=64)
    config.data.sources.zh = study.text('zh')
    config.data.update(seq_len=64, batch_size=4, num_workers=1)
    config.budget.steps = asked.steps
    config.execution.update(compute_dtype='float32', scan=False)
    axes = dict(stage=name, seed=seed)
    return study.train(
      name, config, axes=axes, tokens=768, pieces=259, **inputs
    )

  return dict(
    name='toy',
    files=dict(zh=dict(path=str(TEXT), eval_documents=4, max_characters=200)),
    evals=dict(zh=study.scored('zh', max_len=64)),
    scoring=dict(
      execution=dict(compute_dtype='float32', scan=False), eval_batch_size=4
    ),
    cells=[run('base', 0), run('zh', 1, init_from='base')],
    claims=[
      dict(
        name='C',
        claim='It learns.',
        evaluator='zh',
        metric='bits_per_byte',
        terms=study.difference(dict(stage='zh'), dict(stage='base')),
        expect='less',
        margin=0.0,
      )
    ],
  )
