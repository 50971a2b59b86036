"""Sheets for people: blinded, filled in, read back; and how judges agree."""

import csv
import json

import pytest

from lbe.judging import agreement
from lbe.judging import people
from lbe.judging import rubrics
from lbe.judging import scores
from lbe.text import tables

import runs

CRITERIA = rubrics.load('paper').criteria


def record(number, system, *, scores=None, **changes):
  return {
    'step': 7,
    'evaluator': 'quality',
    'id': str(number),
    'category': ('Code', 'Poetry')[number % 2],
    'language': '',
    'question': f'Q{number}, "quoted"\nand on a second line?',
    'reference': '',
    'response': f'=answer {number} of s{system}',
    'rubric': 'paper',
    'judge': 'gpt',
    'scores': scores or dict.fromkeys(CRITERIA),
    'failure': '',
    'why': '',
    'replies': ['raw'],
    **changes,
  }


def write(path, records):
  path.write_text(''.join(json.dumps(r) + '\n' for r in records))
  return str(path)


def read_lines(path):
  return [json.loads(x) for x in path.read_text('utf-8').splitlines()]


@pytest.fixture
def panel(tmp_path):
  systems = {
    'old': write(tmp_path / 'old.jsonl', [record(i, 0) for i in range(4)]),
    'new-7b': write(
      tmp_path / 'new.jsonl',
      [
        *(record(i, 1) for i in range(4)),
        record(9, 1, failure='too_long', response=''),
        record(3, 2, evaluator='other'),
      ],
    )
    + '@quality',
  }
  folder = tmp_path / 'panel'
  assert people.write(folder, systems, rubric='paper', seed=1) == 8
  return folder


def filled(panel, name, *, score=lambda row, criterion: 2):
  """A person's copy of the CSV sheet; every criterion gets `score`."""
  with open(panel / 'sheet.csv', encoding='utf-8-sig', newline='') as f:
    rows = [
      {k: tables.as_it_was(x) for k, x in row.items()}
      for row in csv.DictReader(f)
    ]
  for row in rows:
    row.update({c: score(row, c) for c in CRITERIA})
  path = panel / name
  with open(path, 'w', encoding='utf-8', newline='') as f:
    writer = csv.DictWriter(f, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  return path


def test_the_sheets_name_no_system_and_both_have_the_same_items(panel):
  with open(panel / 'sheet.csv', encoding='utf-8-sig', newline='') as f:
    rows = list(csv.DictReader(f))
  lines = read_lines(panel / 'sheet.jsonl')
  assert list(rows[0]) == list(lines[0]) == [*people._SHOWN, *CRITERIA]
  for row, line in zip(rows, lines, strict=True):
    # What a spreadsheet would run as a formula is a text there.
    assert row['response'].startswith("'=answer")
    row = {k: tables.as_it_was(x) for k, x in row.items()}
    assert row == {k: '' if v is None else str(v) for k, v in line.items()}
    assert all(line[c] is None for c in CRITERIA)
  assert [line['item'] for line in lines] == list(range(1, 9))
  systems = [line['response'][-1] for line in lines]
  assert sorted(systems) == ['0'] * 4 + ['1'] * 4 != systems
  shown = (panel / 'sheet.csv').read_text() + (
    panel / 'sheet.jsonl'
  ).read_text()
  for hidden in ('old', 'new', 'gpt', 'raw', 'quality'):
    assert hidden not in shown
  assert '- 0: there is nothing to check' in (panel / 'rubric.txt').read_text()


def test_the_order_is_that_of_the_seed(panel, tmp_path):
  systems = {'a': str(tmp_path / 'old.jsonl')}
  for folder, seed in (('x', 5), ('y', 5), ('z', 6)):
    people.write(tmp_path / folder, systems, rubric='paper', seed=seed)
  sheets = [(tmp_path / f / 'sheet.jsonl').read_text() for f in 'xyz']
  assert sheets[0] == sheets[1] != sheets[2]


def test_scores_come_back_to_their_system_and_question(panel):
  """Whatever the order of the lines; an empty item stays without scores."""

  def score(row, criterion):
    if row['response'].startswith('=answer 3'):
      return ''
    number = int(row['response'].split()[1])
    system = int(row['response'][-1])
    return number if system else 3 - number

  sheet = filled(panel, 'anna.csv', score=score)
  lines = sheet.read_text().splitlines(keepends=True)
  assert len(lines) == 17  # the questions have two lines
  found = people.read(panel, sheet)
  assert list(found) in (['old', 'new-7b'], ['new-7b', 'old'])
  for system, records in found.items():
    for r in records:
      number = int(r['id'])
      given = set(r['scores'].values())
      assert r['response'] == f'=answer {number} of s{int(system != "old")}'
      assert (r['judge'], r['step'], r['replies']) == ('anna', 7, [])
      if number == 3:
        assert (given, r['failure']) == ({None}, 'unanswered')
      else:
        assert given == {3 - number if system == 'old' else number}
        assert r['failure'] == ''


def test_a_sheet_in_jsonl_says_the_same(panel):
  rows = read_lines(panel / 'sheet.jsonl')
  for row in rows:
    row.update(dict.fromkeys(CRITERIA, 2))
  path = panel / 'anna.jsonl'
  write(path, rows[::-1])
  assert people.read(panel, path) == people.read(
    panel, filled(panel, 'anna.csv')
  )


@pytest.mark.parametrize(
  'old, new, why',
  [
    ('\n1,', '\n99,', "the item '99' is none of 1 to 8"),
    ('\n1,', '\n2,', 'the id 2 stands in'),
    (',2,2,2,2,2\n', ',4,2,2,2,2\n', 'accuracy is 4'),
    (',2,2,2,2,2\n', ',2,x,2,2,2\n', "fluency is 'x', which is no number"),
    (',2,2,2,2,2\n', ',2,,2,2,2\n', 'fluency is empty where others are'),
    (',2,2,2,2,2\n', ',2,2,2\n', 'logicality is empty where others are'),
    ('logicality,', 'logic,', "the field 'logicality' is missing"),
  ],
)
def test_a_sheet_that_is_filled_in_wrongly(panel, old, new, why):
  path = filled(panel, 'anna.csv')
  text = path.read_text().replace('\r\n', '\n')
  assert old in text
  path.write_text(text.replace(old, new, 1))
  with pytest.raises(ValueError, match=rf'anna.csv:\d+: .*{why}'):
    people.read(panel, path)


def test_a_panel_is_not_written_over_and_needs_its_key_and_rubric(
  panel, tmp_path
):
  systems = {'a': str(tmp_path / 'old.jsonl')}
  with pytest.raises(ValueError, match='has a panel already'):
    people.write(panel, systems, rubric='paper', seed=0)
  with pytest.raises(ValueError, match='has no key.json'):
    people.read(tmp_path, filled(panel, 'anna.csv'))
  with pytest.raises(ValueError, match="system 'a/b' gives its name"):
    people.write(tmp_path / 'n', {'a/b': 'x'}, rubric='paper', seed=0)
  sheet = filled(panel, 'anna.csv')
  lines = sheet.read_text().splitlines(keepends=True)
  sheet.write_text(''.join(lines[:-2]))
  with pytest.raises(ValueError, match='lacks 1 of 8 items'):
    people.read(panel, sheet)
  mine = tmp_path / 'mine.toml'
  text = (rubrics.FOLDER / 'paper.toml').read_text()
  mine.write_text(text)
  people.write(tmp_path / 'm', systems, rubric=str(mine), seed=0)
  mine.write_text(text + '# changed\n')
  with pytest.raises(ValueError, match='is not what it was'):
    people.read(tmp_path / 'm', tmp_path / 'm' / 'sheet.csv')


# -------------------------------------------------------------- agreement


def judged(values, **changes):
  """{(step, id): record} with one criterion, `a`, or several as tuples."""
  found = {}
  for i, value in enumerate(values):
    given = value if isinstance(value, tuple) else (value,)
    found[7, str(i)] = {
      'scores': dict(zip('abcde', given, strict=False)),
      **changes,
    }
  return found


def test_agreement_by_hand():
  """Ranks of 1 2 3 4 5 against 1 3 2 4 5: d² sums to 2, one pair swapped.

  Spearman 1 - 6 * 2 / (5 * 24) = 0.9; Kendall (9 - 1) / 10 = 0.8.
  """
  first, overall = agreement.compare(
    judged([1, 2, 3, 4, 5]), judged([1, 3, 2, 4, 5])
  )
  assert first == {
    'name': 'a',
    'count': 5,
    'spearman': pytest.approx(0.9),
    'kendall': pytest.approx(0.8),
    'exact': pytest.approx(0.6),
  }
  assert overall == {**first, 'name': 'overall'}


def test_agreement_with_ties_by_hand():
  """Tau-b: 1 1 2 3 against 1 2 2 3 has 4 pairs alike of sqrt(5 * 5).

  Ranks 1.5 1.5 3 4 and 1 2.5 2.5 4, less 2.5: 3.75 / sqrt(4.5 * 4.5).
  """
  (row, _) = agreement.compare(judged([1, 1, 2, 3]), judged([1, 2, 2, 3]))
  assert row['kendall'] == pytest.approx(4 / 5)
  assert row['spearman'] == pytest.approx(3.75 / 4.5)
  assert row['exact'] == 0.75


def test_overall_is_of_means_and_of_all_criteria_alike():
  """(1, 3) and (3, 1) have one mean, and not one score in common."""
  rows = agreement.compare(
    judged([(1, 3), (3, 3), (0, 0)]), judged([(3, 1), (3, 3), (0, 0)])
  )
  assert [row['exact'] for row in rows] == pytest.approx([2 / 3, 2 / 3, 2 / 3])
  assert rows[-1]['spearman'] == pytest.approx(1.0)


def test_only_what_both_have_scored_counts():
  a, b = judged([1, 2, 3, None, 0]), judged([1, 2, 3, 3])
  (row, _) = agreement.compare(a, b)
  assert (row['count'], row['exact']) == (3, 1.0)


def test_a_judge_that_never_varies_has_no_correlation():
  (row, _) = agreement.compare(judged([3, 3, 3]), judged([1, 2, 3]))
  assert (row['spearman'], row['kendall']) == (None, None)
  assert row['exact'] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
  'b, why',
  [
    ({}, r'\(2 responses\) and the second \(0\) have no step and id in common'),
    (judged([None, None]), 'have scored no response both'),
    (judged([(1, 2), (1, 2)]), 'scores a, and the second a, b'),
    (judged([1, 2], response='y'), "different responses to the question '0'"),
  ],
)
def test_what_cannot_be_compared(b, why):
  with pytest.raises(ValueError, match=why):
    agreement.compare(judged([1, 2], response='x'), b)


def test_files_of_scores_that_cannot_be_read(tmp_path):
  one, other = record(1, 0), record(2, 0, evaluator='b')
  path = write(tmp_path / 'p.jsonl', [one, other])
  with pytest.raises(ValueError, match=r'several evaluators \(quality, b\)'):
    agreement.read(path)
  assert list(agreement.read(f'{path}@b')) == [(7, '2')]
  with pytest.raises(ValueError, match="no records of 'c', only of quality, b"):
    agreement.read(f'{path}@c')
  path = write(tmp_path / 'p.jsonl', [one, one])
  with pytest.raises(ValueError, match='p.jsonl:2: the id .* stands in'):
    agreement.read(path)
  path = write(tmp_path / 'p.jsonl', [{**one, 'scores': {'a': 'x'}}])
  with pytest.raises(ValueError, match="p.jsonl:1: the score 'a' is 'x'"):
    agreement.read(path)
  path = write(tmp_path / 'p.jsonl', [{**one, 'scores': None}])
  with pytest.raises(ValueError, match="'scores' is no object"):
    agreement.read(path)


@pytest.mark.parametrize(
  ('changes', 'why'),
  [
    ({'response': 5}, "a.jsonl:2: the field 'response' is int, not str"),
    ({'response': ['a']}, "a.jsonl:2: the field 'response' is list, not str"),
    ({'step': [1]}, r'a.jsonl:2: the step \[1\] is no whole number'),
    ({'evaluator': {}}, "a.jsonl:2: the field 'evaluator' is dict, not str"),
    ({'category': {}}, "a.jsonl:2: the field 'category' is dict, not str"),
    (
      {'scores': {'fluency': 3}},
      'a.jsonl:2: the scores are of fluency, and bef',
    ),
    ({'scores': {c: float('nan') for c in CRITERIA}}, "'accuracy' is nan"),
  ],
)
def test_what_is_no_text_is_told_in_a_table(tmp_path, changes, why):
  """A response that is a number or a list ended in a traceback."""
  two = dict.fromkeys(CRITERIA, 2)
  good, bad = record(1, 'a', scores=two), record(2, 'a', scores=two) | changes
  path = write(tmp_path / 'a.jsonl', [good, bad])
  with pytest.raises(ValueError, match=why):
    agreement.read(path)
  if changes == {'response': 5}:
    output = runs.run('judge', f'--table={path}', status=1)
    assert 'error: ' in output and 'Traceback' not in output
  write(tmp_path / 'a.jsonl', [good, {**good, 'id': '2', 'response': None}])
  assert agreement.read(path)[7, '2']['response'] == ''


def test_overall_is_a_share_where_scales_differ():
  """A mean of 5 and 3 is a score on no scale."""
  scores_of = dict(accuracy=5, fluency=1)
  one = record(1, 'a', scores=scores_of, highest=dict(accuracy=5, fluency=3))
  rows = {r['name']: r for r in scores.summarize([one])}
  assert rows['overall']['value'] == 6 / 8 and rows['accuracy']['value'] == 5
  del one['highest']
  rows = {r['name']: r for r in scores.summarize([one])}
  assert rows['overall']['value'] == 3


def test_the_program_from_sheets_to_agreement(tmp_path):
  """What the docs/judging.md says, typed as a person would."""
  old = write(tmp_path / 'old.jsonl', [record(i, 0) for i in range(4)])
  new = write(
    tmp_path / 'new.jsonl',
    [
      record(i, 1, scores=dict.fromkeys(CRITERIA, (3, 2, 1, 0)[i]))
      for i in range(4)
    ],
  )
  panel = tmp_path / 'panel'
  told = runs.run('judge', f'--panel={panel}', f'--systems=old={old},new={new}')
  assert f'8 items in {panel}' in told

  def score(row, criterion):
    return 3 - int(row['response'].split()[1])

  anna = filled(panel, 'anna.csv', score=score)
  told = runs.run('judge', f'--panel={panel}', f'--sheets={anna}')
  assert 'anna.new.jsonl' in told
  assert (
    '| category | N | accuracy | fluency | informativeness | logicality | '
    'harmlessness | overall |\n'
  ) in told
  assert '| Code | 2 | 2.000 |' in told
  told = runs.run(
    'judge', f'--agreement={panel / "scores" / "anna.new.jsonl"},{new}'
  )
  assert '| overall | 4 | 1.000 | 1.000 | 1.000 |' in told
  told = runs.run('judge', f'--agreement={new}', status=1)
  assert 'error: agreement of' in told and 'give two files' in told
