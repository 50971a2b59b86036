"""FLOPs by hand, peaks by name."""

from lbe.mesh import hardware
from lbe.models import architecture


def test_flops_of_llama_7b_by_hand():
  """6 a weight of a product, 6 L N H T for causal attention."""
  c = architecture.PRESETS['llama_7b']
  weights = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 4096 * 32000
  assert weights == 6_607_077_376
  attention = 6 * 32 * 4096 * 2048
  assert hardware.flops_per_token(c, 2048) == 6 * weights + attention


def test_a_frozen_weight_counts_four():
  """LoRA's MFU half as high again as it is."""
  c = architecture.PRESETS['llama3_8b']
  layer = 4096 * 4096 * 2 + 2 * 4096 * 1024 + 3 * 4096 * 14336
  names = 'q_LDNH k_LDKH v_LDKH o_LNHD gate_LDF up_LDF down_LFD'.split()
  frozen = [f'layers/{name}' for name in names] + ['embed_VD']
  expected = 4 * 32 * layer + 6 * 4096 * 128256 + 6 * 32 * 4096 * 8192
  assert hardware.flops_per_token(c, 8192, frozen) == expected
  expected -= 2 * 4096 * 128256
  assert hardware.flops_per_token(c, 8192, [*frozen, 'head_DV']) == expected


def test_grouped_query_attention_has_fewer_weights_but_as_much_attention():
  c = architecture.PRESETS['llama3_8b']
  layer = 4096 * 4096 * 2 + 2 * 4096 * 1024 + 3 * 4096 * 14336
  expected = 6 * (32 * layer + 4096 * 128256) + 6 * 32 * 4096 * 8192
  assert hardware.flops_per_token(c, 8192) == expected


def test_peaks_are_found_by_the_longest_name():
  """'TPU v5 lite' begins like 'TPU v5'."""
  assert hardware.peak_flops('TPU v5 lite') == 197e12
  assert hardware.peak_flops('TPU v5') == 459e12
  assert hardware.peak_flops('NVIDIA H100 80GB HBM3') == 989e12
  assert hardware.peak_flops('NVIDIA H100 PCIe') == 756e12
  assert hardware.peak_flops('NVIDIA H200 NVL') == 835e12
  assert hardware.peak_flops('NVIDIA H200') == 989e12
  assert hardware.peak_flops('cpu') is None


def test_a_run_says_what_mfu_is_measured_against():
  """A share without its whole cannot be compared."""
  c = architecture.PRESETS['llama_7b']
  told = hardware.describe_mfu(c, 2048, (), 'TPU v5p')
  assert f'{hardware.flops_per_token(c, 2048):,} a token' in told
  assert 'of 459 TFLOP/s a chip' in told
  assert 'no peak is known of cpu' in hardware.describe_mfu(c, 2048, (), 'cpu')
