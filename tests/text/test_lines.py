"""JSON lines: '\\n' ends one, and nothing else does."""

import json
import re

import pytest

from lbe.chat import prompts
from lbe.data import contamination
from lbe.evals import core
from lbe.evals import forgetting
from lbe.evals import schedule
from lbe.exams import choices
from lbe.judging import agreement
from lbe.judging import asked
from lbe.judging import people
from lbe.judging import questions
from lbe.judging import scores
from lbe.text import lines
from lbe.vocab import rows

# All that str.splitlines cuts at, but for the end of a line.
ENDS = '\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e'
# As JSON writes it: of these only U+2028, U+2029 and U+0085 stand there raw.
NAME = f'a{ENDS}b'


def write(path, *records):
  lines.write(path, records)
  return path


def test_what_is_written_is_read(tmp_path):
  """Each of the characters, in names of fields and in texts."""
  path = write(tmp_path / 'a.jsonl', {NAME: NAME})
  lines.append(path, [{'b': NAME}, {'c': 1}])
  expected = [{NAME: NAME}, {'b': NAME}, {'c': 1}]
  assert lines.rows(path) == expected
  wheres = [where for _, where in lines.records(path)]
  assert wheres == [f'{path}:{number}' for number in (1, 2, 3)]
  assert lines.rows(tmp_path / 'none.jsonl') == []
  assert len(path.read_text('utf-8').splitlines()) > 3


def test_lines_of_a_text_end_where_those_of_a_file_do(tmp_path):
  for text in ('', '\n', 'a', 'a\n', 'a\r\nb', f'{ENDS}\n\n{ENDS}b\r\n'):
    path = tmp_path / 'a.txt'
    path.write_text(text, 'utf-8', newline='')
    with path.open('rb') as file:
      assert lines.split(text) == [line for line, _ in lines.texts(file)], text


def test_what_is_no_record_is_told_by_file_and_line(tmp_path):
  path = tmp_path / 'a.jsonl'
  for text, words in (
    ('{"a": 1}\n\n{"b"', 'a.jsonl:3: invalid JSON'),
    ('{"a": ' + '9' * 5000 + '}', 'a.jsonl:1: invalid JSON .*4300'),
    ('{"a": ' + '[' * 5000, 'a.jsonl:1: invalid JSON .*recursion'),
    ('{"a": 1}\n[1]', 'a.jsonl:2: list; a line is one JSON object'),
    ('{"a": 1}\n{"a": "\\ud83d"}', 'a.jsonl:2: half a character'),
    (
      '{"a": "\u2028"}\n{"b": 1}\n',
      r"a.jsonl:2: the field 'a' is missing \(fields: b\)",
    ),
  ):
    path.write_text(text, 'utf-8')
    with pytest.raises(ValueError, match=words):
      lines.records(path, ('a',))
  path.write_bytes(b'{"a": 1}\n{"a": "\xe4\xbd"}\n')
  with pytest.raises(ValueError, match='a.jsonl:2: invalid UTF-8'):
    lines.records(path)
  with pytest.raises(ValueError, match='there is no file'):
    lines.records(tmp_path / 'none.jsonl')


def test_a_torn_file_keeps_its_whole_lines(tmp_path):
  """Cut at each byte, also inside of a character."""
  path = write(tmp_path / 'a.jsonl', {'a': '你\u2028'}, {'a': '好\x85'})
  data = path.read_bytes()
  first = data.index(b'\n') + 1
  for size in range(first, len(data)):
    path.write_bytes(data[:size])
    assert lines.whole(path) == data[:first]
    rest = lines.keep(path, lambda row: True)
    # Of a last line the end alone may be missing.
    assert len(rest) == 1 + (size == len(data) - 1)
    path.write_bytes(data[:size])
    lines.mend(path)
    assert path.read_bytes() == data[:first]
  path.write_bytes(b'{"a"')
  lines.mend(path)
  assert path.read_bytes() == b''


def test_a_damaged_line_costs_no_other(tmp_path, capsys):
  """Rows of days were cut on resume behind an empty line, or a block of NUL."""
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"a": 1}\n\n\0\0\n{"a": 2}\n[3]\n{"a": 4}\n{"a": 5')
  assert lines.keep(path, lambda row: row['a'] < 4) == [{'a': 1}, {'a': 2}]
  assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'
  assert (tmp_path / 'metrics.jsonl.damaged').read_bytes() == b'\0\0\n[3]\n'
  told = capsys.readouterr().err
  assert 'metrics.jsonl: 2 damaged lines (the first is line 3)' in told


RESULTS = [
  {
    'step': step,
    'evaluator': NAME,
    'name': f'acc/{NAME}',
    'value': 0.5,
    'count': 2,
    'protocol': f'choices@{NAME}',
    'stop': ['\u2028'],
  }
  for step in (0, 10)
]


def test_a_summary_is_made_of_any_names(tmp_path):
  """stop=('\\u2028',): an evaluation that had finished died at its table."""
  schedule.record(tmp_path, core.Result(RESULTS, {}))
  assert '| a b | choices@a b | acc/a b ↑ | 0.5000 | 0.5000 |' in (
    core.write_summary(tmp_path)
  )
  summary = json.loads((tmp_path / 'results.json').read_text('utf-8'))
  assert summary[NAME][f'acc/{NAME}']['step'] == 10


def test_an_evaluation_goes_on_behind_any_names(tmp_path):
  """What was scored is all kept, and so is known to be."""
  predictions = [{'step': 0, 'evaluator': NAME, 'text': NAME}]
  schedule.record(tmp_path, core.Result(RESULTS, {}, predictions))
  files = [tmp_path / f'{x}.jsonl' for x in ('results', 'predictions')]
  data = [file.read_bytes() for file in files]
  assert schedule.names_scored(tmp_path, goes_on=True) == [NAME]
  assert [file.read_bytes() for file in files] == data
  schedule.cut_behind(tmp_path, 0, unscored=())
  assert lines.rows(files[0]) == RESULTS[:1]


def test_what_was_forgotten_is_told_of_any_names(tmp_path):
  write(tmp_path / 'results.jsonl', *RESULTS)
  score = f'{NAME}/acc/{NAME}'
  text = forgetting.write(tmp_path, source=[score], target=[score])
  assert '| 10 | 0.5000 (+0.0000)' in text


def test_a_judges_table_is_made_of_any_texts(tmp_path):
  record = {
    'id': NAME,
    'category': NAME,
    'language': '',
    'question': NAME,
    'reference': NAME,
    'response': NAME,
    'failure': '',
    'evaluator': NAME,
    'scores': {'fluency': 1, NAME: 2},
  }
  path = write(tmp_path / 'predictions.jsonl', record)
  table = scores.table(list(agreement.read(path).values()))
  assert '1 responses: 0 empty responses' in table
  # Sheets for people, filled in and read back.
  scored = {**record, 'scores': {'fluency': 1}}
  write(path, scored)
  folder = tmp_path / 'panel'
  people.write(folder, {'old': path}, rubric='paper', seed=0)
  (sheet,) = lines.rows(folder / 'sheet.jsonl')
  assert sheet['response'] == NAME
  filled = {k: 1 if v is None else v for k, v in sheet.items()}
  write(tmp_path / 'anna.jsonl', filled)
  read = people.read(folder, tmp_path / 'anna.jsonl')
  assert [r['response'] for r in read['old']] == [NAME]


def test_replies_of_a_judge_are_kept_whatever_they_say(tmp_path):
  cache = asked.Cache(tmp_path / 'cache.jsonl')
  cache.add('a', asked.Reply(NAME))
  assert asked.Cache(tmp_path / 'cache.jsonl')['a'] == (NAME,)


def test_prompts_questions_and_items_hold_any_texts(tmp_path):
  record = {'id': NAME, 'category': 'c', 'question': NAME, 'answer': 'A'}
  path = write(tmp_path / 'a.jsonl', {**record, 'choices': [NAME, 'b']})
  (prompt,) = prompts.read(path, template='')
  assert (prompt.id, prompt.text) == (NAME, NAME)
  (question,) = questions.read(path)
  assert question.question == NAME
  (item,) = choices.items(
    path, 'letters', split='', num_shots=0, subjects=(), limit=0
  )
  assert re.escape('\u2028') in re.escape(item.context)
  ((_, texts),) = contamination.items('own', path, ('question',))
  assert texts == [NAME]


def test_a_dictionary_has_a_word_a_line(tmp_path):
  """A line that is cut at U+2028 has no tab."""
  path = tmp_path / 'words.tsv'
  path.write_text('a\u2028b\tc\n\nd\n', 'utf-8')
  with pytest.raises(ValueError, match="words.tsv, line 3: 'd' is not a word"):
    rows.translate(None, None, path)
