"""One table of languages and scores, from result rows."""

import json

from lbe.evals import by_language
from lbe.evals import core
from lbe.text import lines


def row(evaluator, name, value, protocol='sib200@labels', **more):
  return {
    'evaluator': evaluator,
    'name': name,
    'value': value,
    'protocol': protocol,
    'count': 204,
    **more,
  }


ROWS = [
  row('sib200', 'acc', 0.3),
  row('sib200', 'acc/ta', 0.9),  # of an earlier step
  row('sib200', 'acc/sw', 0.25, interval95=[0.2, 0.32], unit='questions'),
  row('sib200', 'acc/ta', 0.5, interval95=[0.4, 0.6], unit='questions'),
  row('sib200', 'acc/ta/geography', 0.7, of_subject=True),
  row('parallel', 'bits_per_byte/sw', 2.5, 'parallel@bits', count=1997),
  row('parallel', 'bits_per_byte/ta', None, 'parallel@bits', count=100),
  row('mgsm', 'score_rate/sw', 0.0, 'mgsm@direct', count=250),
  row('mgsm', 'lmeval_flexible_extract/sw', 0.0, 'mgsm@direct', count=250),
  row('blimp', 'acc', 0.75, 'pairs@blimp', count=67000),
  row('blimp', 'acc/UID/adjunct_island', 0.6, 'pairs@blimp', count=1000),
]


def test_a_line_is_a_language_and_a_column_a_score(tmp_path):
  """Catches a part of another kind that is taken for a language."""
  lines.write(tmp_path / 'results.jsonl', ROWS)
  assert by_language.write(tmp_path) == (
    '| language | sib200/acc ↑ (N 204 questions) | parallel/bits_per_byte ↓ '
    '(N 100 to 1,997) | mgsm/score_rate ↑ (N 250) | blimp/acc ↑ (N 67,000) |\n'
    '| --- | ---: | ---: | ---: | ---: |\n'
    '| English (en) | – | – | – | 0.750 |\n'
    '| Swahili (sw) | 0.250 (0.200 to 0.320) | 2.500 | 0.000 | – |\n'
    '| Tamil (ta) | 0.500 (0.400 to 0.600) | – | – | – |\n' + core.LEGEND
  )
  scores = json.loads((tmp_path / 'languages.json').read_text('utf-8'))
  assert list(scores['sib200/acc']['languages']) == ['ta', 'sw']
  assert scores['sib200/acc']['languages']['ta'] == {
    'value': 0.5, 'count': 204, 'interval95': [0.4, 0.6],
  }  # fmt: skip
  assert scores['parallel/bits_per_byte']['better'] == 'lower'
  assert scores['sib200/acc']['better'] == 'higher'
  assert (tmp_path / 'languages.png').stat().st_size > 10_000


def test_one_language_alone_is_no_table(tmp_path):
  """Scores of one exam would get files that say nothing new."""
  lines.write(tmp_path / 'results.jsonl', [ROWS[0], ROWS[2]])
  assert by_language.write(tmp_path) == ''
  assert [x.name for x in tmp_path.iterdir()] == ['results.jsonl']
