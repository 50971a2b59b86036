"""From which amount of text on does an extended vocabulary pay?

  python -m lbe.study --config=configs/studies/vocabulary_scale.py \
    --workdir=DIR --config.init_from=HF_DIR --config.pieces=chinese_sp.model \
    --config.zh=zh/ --config.en=en/
  ... --dry_run --topology=v5p-16=4.2,h100:8=3

The first open question of the paper (arXiv 2401.01055), which has one scale of
it. Four nested scales of documents with the vocabulary as it is and extended;
at equal text, and at nearly as many updates of smaller batches. Bits per byte
compare, perplexities do not. The report marks where the curves cross.
"""

from lbe.configs import common
from lbe.configs import study
from lbe.configs.studies import llama


def get_config():
  config = common.ConfigDict()
  config.init_from = ''
  config.preset = 'llama_7b'
  config.pieces = ''  # the SentencePiece model whose pieces are added
  config.zh = config.en = ''
  config.scales = (10_000, 100_000, 1_000_000, 10_000_000)  # documents
  config.eval_documents = 2_000
  config.peak_lr = 3e-5
  config.seeds = 3
  return config.lock()


# Rows of a step, and those of as many updates where pieces are longer: 54.9,
# rounded to a multiple of 8, since a mesh of 2, 4 or 8 devices divides them.
# With 56 the updates are 54.9 / 56 = 98.1% of those of 128 rows. More devices
# take tensor or context beside fsdp; a dry run says what does not fit.
_ROWS = {'': 128, 'updates': 8 * round(128 * llama.EXTENDED / 8)}


def make(asked):
  """The study that the fields ask for."""
  cells = [llama.base(asked), llama.pieces(asked)]
  for seed in range(asked.seeds):
    for scale in asked.scales:
      for vocabulary, how in (('orig', ''), ('ext', ''), ('ext', 'updates')):
        parts = ['zh', vocabulary, *filter(None, [how]), f'{scale // 1000}k']
        cells.append(
          llama.pretrained(
            llama.named(parts, seed, asked.seeds),
            documents=scale,
            axes=dict(
              stage='pretrain',
              vocabulary=vocabulary,
              how=how,
              scale_documents=scale,
            ),
            seed=seed,
            peak_lr=asked.peak_lr,
            vocabulary=vocabulary,
            batch_size=_ROWS[how],
          )
        )
  return dict(
    name='vocabulary_scale',
    **llama.texts(asked),
    cells=cells,
    claims=[
      _claim(asked, 'smallest', min(asked.scales), 'greater'),
      _claim(asked, 'largest', max(asked.scales), 'less'),
    ],
    plots=[
      dict(
        title=f'{language} over Chinese text',
        x='scale_documents',
        y=f'{name}/bits_per_byte',
        along='scale_documents',
        by=['vocabulary'],
        cells=dict(stage='pretrain', how=''),
        log_x=True,
      )
      for name, language in (('zh', 'Chinese'), ('en', 'English'))
    ],
  )


def _claim(asked, name, scale, expect):
  def cells(vocabulary):
    return dict(vocabulary=vocabulary, how='', scale_documents=scale)

  pays = {'greater': 'does not pay', 'less': 'pays'}[expect]
  return dict(
    name=name,
    claim=f'Extending the vocabulary {pays} at {scale:,} documents.',
    evaluator='zh',
    metric='bits_per_byte',
    terms=study.difference(cells('ext'), cells('orig')),
    expect=expect,
    margin=0.01,
    margin_of=1,
  )
