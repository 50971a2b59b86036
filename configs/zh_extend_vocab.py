r"""LLaMA-7B with Chinese pieces added, further pretrained: the paper's EXT arm.

The same run as zh_pretrain.py, on the same text, with another tokenizer: one
flag is the comparison. Compare in bits per byte and at equal bytes of text
(budgets count documents or bytes; tokens would give the extended model more
text). The published tokenizer has 49,953 pieces:

  python -m lbe.tokenizer extend --base=llama-7b-hf/tokenizer.model \
    --corpus=zh/ --num_pieces=17953 --output=zh_pieces
  python -m lbe.train --config=configs/zh_extend_vocab.py:100k --workdir=DIR \
    --config.init_from=llama-7b-hf --config.tokenizer=zh_pieces \
    --config.data.sources.zh.path=zh/ --config.data.sources.en.path=en/

In small_zh.py the same choice is `--config.tokenizer=zh_pieces`. New rows
start as the mean of the old rows that spell a piece; the published recipe is
`--config.new_rows.method=normal`.

Everything learns from the start. In stages, new rows alone first:

  --config.optim.groups.old_rows.from_step=500 \
  --config.optim.groups.body.from_step=500

and `...frozen=True` instead keeps a group as it was, without gradients and
optimizer state. With the preset h100-7b-lora (`:100k,h100-7b-lora`) embedding
and head learn beside its adapters.
"""

from lbe.configs import zh_pretrain


def get_config(choice='1m'):
  # Adapters of a preset alone would leave the new rows as they start.
  config = zh_pretrain.get_config(choice, also='all')
  config.new_rows.method = 'pieces_mean'
  return config
