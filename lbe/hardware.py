"""Facts of accelerators, and how model FLOPs are counted."""

# Dense bf16 FLOP/s of one JAX device, from the vendors' data sheets (Google
# Cloud TPU documentation, "System architecture"; NVIDIA H100, H200, A100 and
# B200 data sheets, without sparsity).
_PEAK_FLOPS = {
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5e': 197e12,
  'TPU v5': 459e12,
  'TPU v5p': 459e12,
  'TPU v6 lite': 918e12,
  'TPU v6e': 918e12,
  'NVIDIA A100': 312e12,
  'NVIDIA H100': 989e12,
  'NVIDIA H200': 989e12,
  'NVIDIA B200': 2250e12,
}


def peak_flops(device_kind):
  """Peak bf16 FLOP/s of a device kind, None where it is not known (CPUs)."""
  matches = [k for k in _PEAK_FLOPS if device_kind.startswith(k)]
  return _PEAK_FLOPS[max(matches, key=len)] if matches else None


def flops_per_token(c, seq_len):
  """Model FLOPs of training on one token, forward and backward.

  6 for each weight of a matrix product (the head once, the embedding's
  look-up not) and 6 * L * N * H * T for attention: 12 would be the full
  square, of which a causal row of T tokens needs half. Recomputation does not
  count.
  """
  layer = c.dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
  layer += 3 * c.dim * c.mlp_dim
  weights = c.num_layers * layer + c.dim * c.vocab_size
  attention = c.num_layers * c.num_heads * c.head_dim * seq_len
  return 6 * weights + 6 * attention


def describe_mfu(c, seq_len, device_kind):
  """One line: what MFU is measured against."""
  told = (
    f'model FLOPs: {flops_per_token(c, seq_len):,} a token (6 for each weight '
    'of a product, attention causal, recomputation not counted)'
  )
  peak = peak_flops(device_kind)
  if peak is None:
    return f'{told}; no peak is known of {device_kind}, so no MFU'
  return f'{told}; MFU is their share of {peak / 1e12:,.0f} TFLOP/s a chip'
