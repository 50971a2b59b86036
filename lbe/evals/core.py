"""What all evaluators share: the rows they leave.

An evaluator is a module with `make(**fields)`: the fields of its config, read
and checked before anything compiles. What it makes has
`evaluate(model, *, name, step)`, which returns a Result.
"""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from lbe.text import lines


@dataclasses.dataclass(frozen=True)
class Result:
  """What an evaluator found.

  `rows` go to results.jsonl; `metrics`, 'SCORE' → number, to metrics.jsonl and
  TensorBoard as 'eval/NAME/SCORE'; `predictions`, one dict an item, to
  predictions.jsonl.
  """

  rows: list
  metrics: dict
  predictions: list = dataclasses.field(default_factory=list)


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


def newest(rows):
  """Of the rows of each evaluator and score, the last."""
  return list({(r['evaluator'], r['name']): r for r in rows}.values())


def table(rows):
  """Rows as a Markdown table; of an exam's many subjects only the groups."""
  written = [
    '| evaluator | protocol | score | value | 95% | N |',
    '| --- | --- | --- | ---: | --- | ---: |',
  ]
  for r in rows:
    if r['count'] is None or r.get('of_subject'):
      continue
    low_high = ''
    if 'interval95' in r:
      low_high = ' to '.join(f'{x:.4f}' for x in r['interval95'])
    written.append(
      f'| {r["evaluator"]} | {r["protocol"]} | {r["name"]} | '
      f'{_short(r["value"])} | {low_high} | {r["count"]:,} |'
    )
  return '\n'.join(written)


def _short(value):
  return f'{value:.4f}' if abs(value) < 1e4 else f'{value:.3g}'


def write_summary(workdir):
  """results.json, the newest rows by evaluator and score; their table."""
  workdir = pathlib.Path(workdir)
  rows = newest(lines.rows(workdir / 'results.jsonl'))
  summary = {}
  for r in rows:
    facts = {k: v for k, v in r.items() if k not in ('evaluator', 'name')}
    summary.setdefault(r['evaluator'], {})[r['name']] = facts
  (workdir / 'results.json').write_text(
    json.dumps(summary, ensure_ascii=False, indent=2), encoding='utf-8'
  )
  return table(rows)
