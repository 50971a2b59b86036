"""A tiny model, config and batches, and how it learns if nothing is said."""

import pathlib

import ml_collections
import numpy as np
import optax

from lbe.configs import common
from lbe.models import architecture
from lbe.training import groups
from lbe.training import optim

TINY = architecture.Config(
  vocab_size=50,
  dim=32,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=64,
)
# Heads of another size than dim / num_heads, and an odd vocabulary.
ODD = architecture.Config(
  vocab_size=97,
  dim=48,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=16,
  mlp_dim=80,
  init_std=0.1,
)
OPTIM = dict(
  kind='adamw',
  b1=0.9,
  b2=0.95,
  eps=1e-8,
  clip_norm=1.0,
  first_moment_dtype='float32',
)
STEP = dict(
  num_microbatches=1,
  lora_dropout=0.0,
  z_loss=0.0,
  gradient_dtype='float32',
  seed=0,
)


def everything(weight_decay):
  """The one group of a run that names none."""
  return groups.Group(
    'rest', weight_decay, params='.*', rows='all', frozen=False, from_step=0
  )


def make_tx(partition, **changes):
  """The optimizer of a step by its rates, as make_train_step takes it."""
  return lambda rates: optim.make(
    partition,
    {name: optax.constant_schedule(rate) for name, rate in rates.items()},
    **OPTIM | changes,
  )


def save_llama(folder, *, seed=0, **changes):
  """A small LLaMA of random weights as transformers writes it; the model."""
  import torch  # most tests of this file's users need neither
  import transformers

  fields = dict(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
  )
  torch.manual_seed(seed)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(**fields | changes)
  )
  model.save_pretrained(folder)
  return model


def batch(seed=0, B=4, T=8):
  rng = np.random.default_rng(seed)
  return {
    'ids_BT': rng.integers(0, 50, (B, T), np.int32),
    'targets_BT': rng.integers(0, 50, (B, T), np.int32),
    'weights_BT': np.ones((B, T), np.float32),
    'positions_BT': np.tile(np.arange(T, dtype=np.int32), (B, 1)),
    'segments_BT': np.ones((B, T), np.int32),
    'num_bytes_B': np.full(B, 9, np.int32),
  }


def config(folder: pathlib.Path, **sources: dict) -> ml_collections.ConfigDict:
  """A run over sources of these names and fields, with 20 documents each."""
  config = common.base()
  config.tokenizer = 'bytes'
  config.model.update(dim=32, num_layers=2, num_heads=4, mlp_dim=64)
  config.data.seq_len = 32
  config.data.batch_size = 4
  config.budget.steps = 2
  for name, fields in sources.items():
    path = folder / f'{name}.txt'
    path.write_text('\n\n'.join(f'{name} {i} ' * 20 for i in range(20)))
    config.data.sources[name] = common.source(path=str(path), **fields)
  return config
