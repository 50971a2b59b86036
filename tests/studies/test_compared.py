"""Two runs beside each other: at equal bytes, item by item."""

import math

import numpy as np
import pytest

from lbe.studies import compared
from lbe.text import lines


def score(evaluator, name, step, value, **more):
  return {
    'evaluator': evaluator,
    'name': name,
    'step': step,
    'value': value,
    'protocol': 'p',
    'data_hash': 'x',
    'count': 30,
    'unit': 'documents',
    **more,
  }


def write(folder, *, bits, steps, num_bytes, num=30):
  """A run with a score at each step, whose documents have these bits."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  own_N = rng.normal(1.0, 0.3, num)  # what is of the document, in any model
  rows, items = [], []
  for step in steps:
    nats_N = 100 * math.log(2) * (own_N + bits)
    value = float(nats_N.sum() / math.log(2) / (100 * num))
    seen = dict(bytes_seen=num_bytes * step)
    rows.append(score('zh', 'bits_per_byte', step, value, **seen))
    rows.append(score('zh', 'perplexity', step, 9.0, **seen))
    items += [
      dict(step=step, evaluator='zh', id=str(i), nats=x, tokens=9, bytes=100)
      for i, x in enumerate(nats_N.tolist())
    ]
  lines.write(folder / 'results.jsonl', rows)
  lines.write(folder / 'predictions.jsonl', items)
  return folder


def test_runs_meet_where_they_have_read_as_much(tmp_path):
  """A longer run would win by its length; an unpaired interval sees nothing."""
  a = write(tmp_path / 'a', bits=0.1, steps=(2, 4, 8), num_bytes=100)
  b = write(tmp_path / 'b', bits=0.0, steps=(4, 8), num_bytes=50)
  rows = [
    score('ceval', 'acc', 4, 0.5, bytes_seen=400),
    *lines.rows(a / 'results.jsonl'),
  ]
  lines.write(a / 'results.jsonl', rows)
  text = compared.tell(a, b).splitlines()
  assert text[0] == f'a: {a}, step 4, 400 bytes read'
  assert text[1] == f'b: {b}, step 8, 400 bytes read'
  assert text[2].endswith('other data or none: ceval/acc')
  bits, perplexity = text[6:8]
  assert '| zh | bits_per_byte ↓ | ' in bits and '| -0.1000 |' in bits
  assert '| -0.1000 to -0.1000 | 30 documents | b is better |' in bits
  assert perplexity.endswith(
    '| 9.0000 | 9.0000 | +0.0000 |  | 30 documents |  |'
  )


def test_too_few_items_and_other_bytes_are_told(tmp_path):
  a = write(tmp_path / 'a', bits=0.1, steps=(8,), num_bytes=100, num=19)
  b = write(tmp_path / 'b', bits=0.0, steps=(8,), num_bytes=50, num=19)
  text = compared.tell(a, b)
  assert 'warning: one has read 800 bytes and the other 400' in text
  assert '| -0.1000 |  | 30 documents |' in text
  (tmp_path / 'c').mkdir()
  with pytest.raises(ValueError, match='c has no results.jsonl; give the work'):
    compared.tell(a, tmp_path / 'c')


def side(folder, *rows, tokens=9):
  folder.mkdir()
  lines.write(folder / 'results.jsonl', list(rows))
  items = [
    dict(step=4, evaluator='zh', id=str(i), nats=1.0, tokens=tokens, bytes=9)
    for i in range(30)
  ]
  lines.write(folder / 'predictions.jsonl', items)
  return folder


def test_scores_under_other_settings_are_not_compared(tmp_path):
  """Catches "b is better" of five shots beside none, or of other tokens."""
  rolling = dict(protocol='perplexity@rolling')
  shared = [
    score('zh', 'bits_per_byte', 4, 1.0, tokenizer='t', max_len=64, **rolling),
    score('zh', 'perplexity', 4, 9.0, tokenizer='t', max_len=64, **rolling),
    score('mmlu', 'acc', 4, 0.3, num_shots=5, bos=None, dtype='float32'),
    score('talk', 'overall', 4, 0.5, template='chatml', seed=0),
  ]
  a = side(tmp_path / 'a', *shared)
  others = [
    row | more
    for row, more in zip(
      shared,
      [
        dict(tokenizer='u'),
        dict(tokenizer='u'),
        dict(num_shots=0, dtype='bfloat16'),
        dict(template='alpaca', seed=1),
      ],
      strict=True,
    )
  ]
  b = side(tmp_path / 'b', *others)
  told, *table = compared.tell(a, b).splitlines()[2:]
  assert told == (
    'not compared, for they were scored under other settings: '
    "zh/perplexity (tokenizer 't' and 'u'), mmlu/acc (num_shots 5 and 0), "
    "talk/overall (template 'chatml' and 'alpaca'); score both under one config"
  )
  assert [x.split(' |')[0] for x in table if x.startswith('| zh')] == ['| zh']
  # A run and its parent, and what one side says nothing of.
  c = side(tmp_path / 'c', *shared[:3], score('talk', 'overall', 4, 0.6))
  assert 'not compared' not in compared.tell(a, c)


def test_windows_are_compared_where_documents_fit_into_one(tmp_path):
  """Catches a model that is better for it reads more of each document."""
  rolling = dict(protocol='perplexity@rolling')
  a, b, c = (
    side(
      tmp_path / name,
      score('zh', 'bits_per_byte', 4, 1.0, max_len=max_len, **rolling),
      tokens=tokens,
    )
    for name, max_len, tokens in (('a', 64, 60), ('b', 128, 60), ('c', 32, 60))
  )
  assert 'not compared' not in compared.tell(a, b)
  told = 'zh/bits_per_byte (max_len 128 and 32)'
  assert f'other settings: {told}; score' in compared.tell(b, c)


def test_scores_of_a_stored_model_have_no_step(tmp_path):
  """They stand beside the last step of a run."""
  a = write(tmp_path / 'a', bits=0.1, steps=(4, 8), num_bytes=100)
  b = tmp_path / 'b'
  b.mkdir()
  rows = [score('zh', 'bits_per_byte', None, 1.0)]
  lines.write(b / 'results.jsonl', rows)
  text = compared.tell(a, b).splitlines()
  assert text[0].endswith('step 8, 800 bytes read') and text[1] == f'b: {b}'
