"""Changes since the start: what the number did, and whether that is better."""

import json

import pytest

from lbe.evals import forgetting


def rows(*triples):
  return [
    {'step': step, 'evaluator': evaluator, 'name': name, 'value': value}
    for step, evaluator, name, value in triples
  ]


ROWS = rows(
  (0, 'en', 'bits_per_byte', 1.0),
  (0, 'ceval', 'acc', 0.25),
  (100, 'en', 'bits_per_byte', 1.5),
  (100, 'ceval', 'acc', 0.75),
  (150, 'en', 'bits_per_byte', 1.25),  # ceval was not due
  (200, 'en', 'bits_per_byte', 0.5),
  (200, 'ceval', 'acc', 0.0),
)
NAMES = dict(source=['en/bits_per_byte'], target=['ceval/acc'])


def test_signs_say_what_the_number_did_and_words_whether_it_is_better():
  """Bits per byte that rise are forgetting; accuracy that rises is gain."""
  found = forgetting.compare(ROWS, **NAMES)
  assert [f['step'] for f in found] == [0, 100, 200]
  assert [f['en/bits_per_byte']['change'] for f in found] == [0, 0.5, -0.5]
  assert [f['en/bits_per_byte']['gain'] for f in found] == [0, -0.5, 0.5]
  assert [f['ceval/acc']['gain'] for f in found] == [0, 0.5, -0.25]


def test_the_table_and_the_frontier_are_written(tmp_path):
  lines = (json.dumps(row) for row in ROWS)
  (tmp_path / 'results.jsonl').write_text('\n'.join(lines))
  text = forgetting.write(tmp_path, **NAMES)
  assert '| step | en/bits_per_byte ↓ | ceval/acc ↑ |' in text
  assert '| 0 | 1.0000 (+0.0000) | 0.2500 (+0.0000) |' in text
  assert '| 100 | 1.5000 (+0.5000 worse) | 0.7500 (+0.5000 better) |' in text
  assert (tmp_path / 'forgetting.md').read_text() == text + '\n'
  assert len(json.loads((tmp_path / 'forgetting.json').read_text())) == 3
  assert (tmp_path / 'forgetting.png').stat().st_size > 5_000


def test_an_unknown_score_is_named_with_those_that_are_there():
  with pytest.raises(ValueError, match="'en/acc'; there are ceval/acc, en/bit"):
    forgetting.compare(ROWS, source=['en/acc'], target=['ceval/acc'])
  apart = rows((0, 'a', 'acc', 1.0), (1, 'b', 'acc', 1.0))
  with pytest.raises(ValueError, match='no step has all of a/acc, b/acc'):
    forgetting.compare(apart, source=['a/acc'], target=['b/acc'])
