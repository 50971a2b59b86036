"""What all evaluators share: when they run, and the rows they leave."""

import hashlib
import json
import pathlib

import numpy as np


def due(step, *, every, at_start, at_end, last):
  """Whether an evaluator runs after `step` of a run of `last` steps."""
  if step == 0:
    return at_start
  if step == last:
    return at_end
  return bool(every) and step % every == 0


def data_hash(texts):
  """sha256 of the texts, their borders included; 16 digits."""
  digest = hashlib.sha256()
  for text in texts:
    data = text.encode()
    digest.update(len(data).to_bytes(8, 'little') + data)
  return digest.hexdigest()[:16]


def bootstrap(numerators, denominators, *, scale=1.0, num_samples=1000):
  """The 95% interval of scale * sum(n) / sum(d) over documents drawn anew."""
  n = np.asarray(numerators, np.float64)
  d = np.asarray(denominators, np.float64)
  rng = np.random.default_rng(0)
  ratios = []
  for _ in range(num_samples):
    drawn = rng.integers(len(n), size=len(n))
    ratios.append(n[drawn].sum() / d[drawn].sum())
  low, high = np.quantile(ratios, [0.025, 0.975]) * scale
  return [float(low), float(high)]


def append_rows(workdir, rows):
  """Adds result rows, one JSON object a line, to WORKDIR/results.jsonl."""
  with open(
    pathlib.Path(workdir) / 'results.jsonl', 'a', encoding='utf-8'
  ) as f:
    for row in rows:
      f.write(json.dumps(row, ensure_ascii=False) + '\n')
