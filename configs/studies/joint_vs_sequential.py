"""Both languages together, or one after the other? What does English cost?

  python -m lbe.study --config=configs/studies/joint_vs_sequential.py \
    --workdir=DIR --config.init_from=HF_DIR --config.zh=zh/ --config.en=en/
  ... --dry_run --topology=v5p-128=4.2,h100:8=3

The paper's third open question (arXiv 2401.01055): it reads from a model of
others that training on both keeps English, and ran Chinese alone. Chinese with
English as 0 to 50% of the tokens, and Chinese alone followed by as much English
as the fifth has: the same text in another order.
"""

from lbe.configs import common
from lbe.configs import study
from lbe.configs.studies import llama


def get_config():
  config = common.ConfigDict()
  config.init_from = ''
  config.preset = 'llama_7b'
  config.zh = config.en = ''
  config.documents = 1_000_000
  config.shares = (0.0, 0.05, 0.1, 0.2, 0.5)  # of English tokens
  config.share = 0.2  # that is compared with one behind the other
  config.eval_documents = 2_000
  config.peak_lr = 3e-5
  config.seeds = 3
  return config.lock()


def make(asked):
  """The study that the fields ask for."""
  if not {0.0, asked.share} <= set(asked.shares):
    raise ValueError(
      f'shares={tuple(asked.shares)}: 0 and share={asked.share} are among them.'
    )
  cells = [llama.base(asked)]
  for seed in range(asked.seeds):
    for share in asked.shares:
      cells.append(
        llama.pretrained(
          llama.named(['zh', f'en{share * 100:g}'], seed, asked.seeds),
          documents=asked.documents,
          axes=dict(stage='pretrain', order='joint', share=share),
          seed=seed,
          peak_lr=asked.peak_lr,
          replay=share,
        )
      )
    cells.append(
      llama.pretrained(
        llama.named(['zh', 'then', 'en'], seed, asked.seeds),
        language='en',
        documents=round(asked.documents * asked.share / (1 - asked.share)),
        axes=dict(stage='pretrain', order='sequential', share=asked.share),
        seed=seed,
        peak_lr=asked.peak_lr,
        init_from=llama.named(['zh', 'en0'], seed, asked.seeds),
      )
    )
  return dict(
    name='joint_vs_sequential',
    **llama.texts(asked),
    cells=cells,
    claims=_claims(asked),
    plots=[
      dict(
        title='English against Chinese, by the share of English',
        x='zh/bits_per_byte',
        y='en/bits_per_byte',
        along='share',
        by=['order'],
        cells=dict(stage='pretrain'),
      ),
      dict(
        title='English over its share',
        x='share',
        y='en/bits_per_byte',
        along='share',
        by=['order'],
        cells=dict(stage='pretrain'),
      ),
    ],
  )


def _claims(asked):
  def cells(order, share):
    return dict(order=order, share=share)

  alone, joint = cells('joint', 0.0), cells('joint', asked.share)
  llama_itself = dict(stage='model')
  bits = dict(metric='bits_per_byte')
  return [
    dict(
      name='C4',
      claim='Chinese alone takes English away.',
      evaluator='en',
      **bits,
      terms=study.difference(alone, llama_itself),
      expect='greater',
      margin=0.02,
      margin_of=1,
    ),
    dict(
      name='C4-joint',
      claim=f'{asked.share:.0%} of English beside it avoids 80% of that.',
      evaluator='en',
      **bits,
      # Of the rise no more than a fifth is left.
      terms=[
        dict(weight=1.0, cells=joint),
        dict(weight=-0.2, cells=alone),
        dict(weight=-0.8, cells=llama_itself),
      ],
      expect='less',
      margin=0.0,
    ),
    dict(
      name='joint-zh',
      claim='Together they cost no Chinese.',
      evaluator='zh',
      **bits,
      terms=study.difference(joint, alone),
      expect='equal',
      margin=0.01,
      margin_of=1,
    ),
    dict(
      name='order',
      claim='The same text together keeps more Chinese than English behind it.',
      evaluator='zh',
      **bits,
      terms=study.difference(joint, cells('sequential', asked.share)),
      expect='less',
      margin=0.01,
      margin_of=1,
    ),
  ]
