"""What a LLaMA is: its numbers, and those of the published models."""

import dataclasses
import json
import math


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """RoPE scaling of the type that Hugging Face calls "llama3"."""

  factor: float
  low_freq_factor: float
  high_freq_factor: float
  original_max_positions: int


@dataclasses.dataclass(frozen=True)
class Lora:
  """Low-rank updates: which weights are adapted, and how strongly."""

  weights: tuple  # names in a layer, as 'q_LDNH'
  rank: int
  alpha: float
  rslora: bool = False

  @property
  def scale(self):
    """alpha / rank, or alpha / √rank with rsLoRA (arXiv 2312.03732)."""
    return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclasses.dataclass(frozen=True)
class Config:
  """The architecture, and nothing else; special ids are the tokenizer's."""

  vocab_size: int
  dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  max_positions: int = 2048
  rope_theta: float = 10000.0
  rope_scaling: RopeScaling | None = None
  norm_eps: float = 1e-5
  tied: bool = False
  vocab_multiple: int = 128
  init_std: float = 0.02
  lora: Lora | None = None

  @property
  def padded_vocab_size(self):
    """Rows of the vocabulary in memory, a multiple of `vocab_multiple`."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

  def to_json(self):
    """Its fields as JSON gives them back: lists in place of tuples."""
    return json.loads(json.dumps(dataclasses.asdict(self)))

  @classmethod
  def from_json(cls, fields):
    """The inverse of `to_json`; ValueError for a field it does not know."""
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(fields.keys() - known)
    if unknown:
      raise ValueError(
        f'the model config has a field {unknown[0]!r} that this version does '
        f'not know (it knows {", ".join(sorted(known))}); use a newer lbe.'
      )
    scaling, lora = fields.get('rope_scaling'), fields.get('lora')
    if lora:
      lora = Lora(**{**lora, 'weights': tuple(lora['weights'])})
    return cls(
      **{
        **fields,
        'rope_scaling': scaling and RopeScaling(**scaling),
        'lora': lora,
      }
    )


def _preset(D, L, N, K, F, V, positions, theta=1e4, eps=1e-5, **more):
  return Config(
    vocab_size=V,
    dim=D,
    num_layers=L,
    num_heads=N,
    num_kv_heads=K,
    head_dim=D // N,
    mlp_dim=F,
    max_positions=positions,
    rope_theta=theta,
    norm_eps=eps,
    **more,
  )


_31 = RopeScaling(8.0, 1.0, 4.0, 8192)
_32 = RopeScaling(32.0, 1.0, 4.0, 8192)
# Sizes from the LLaMA papers and the published config.json files.
PRESETS = {
  'llama_7b': _preset(4096, 32, 32, 32, 11008, 32000, 2048, eps=1e-6),
  'llama_13b': _preset(5120, 40, 40, 40, 13824, 32000, 2048, eps=1e-6),
  'llama_33b': _preset(6656, 60, 52, 52, 17920, 32000, 2048, eps=1e-6),
  'llama_65b': _preset(8192, 80, 64, 64, 22016, 32000, 2048),
  'llama2_7b': _preset(4096, 32, 32, 32, 11008, 32000, 4096),
  'llama2_13b': _preset(5120, 40, 40, 40, 13824, 32000, 4096),
  'llama2_70b': _preset(8192, 80, 64, 8, 28672, 32000, 4096),
  'llama3_8b': _preset(4096, 32, 32, 8, 14336, 128256, 8192, 5e5),
  'llama3_70b': _preset(8192, 80, 64, 8, 28672, 128256, 8192, 5e5),
  'llama31_8b': _preset(
    4096, 32, 32, 8, 14336, 128256, 131072, 5e5, rope_scaling=_31
  ),
  'llama31_70b': _preset(
    8192, 80, 64, 8, 28672, 128256, 131072, 5e5, rope_scaling=_31
  ),
  'llama31_405b': _preset(
    16384, 126, 128, 8, 53248, 128256, 131072, 5e5, rope_scaling=_31
  ),
  'llama32_1b': _preset(
    2048, 16, 32, 8, 8192, 128256, 131072, 5e5, rope_scaling=_32, tied=True
  ),
  'llama32_3b': _preset(
    3072, 28, 24, 8, 8192, 128256, 131072, 5e5, rope_scaling=_32, tied=True
  ),
}
