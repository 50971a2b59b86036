"""Judging beside the runs: tables, agreement, and sheets for people.

  python -m lbe.judge --table=runs/a/predictions.jsonl@quality
  python -m lbe.judge --agreement=A.jsonl,B.jsonl
  python -m lbe.judge --panel=runs/panel --rubric=paper \\
    --systems=old=runs/a/predictions.jsonl,new=runs/b/predictions.jsonl
  python -m lbe.judge --panel=runs/panel --sheets=anna.csv,ben.csv
  python -m lbe.judge --sheet=switched.csv
  python -m lbe.judge --switching=runs/a/predictions.jsonl@samples \\
    --language=id --language_identifier=lingua

The third writes blinded sheets into a folder. The fourth reads filled ones: it
writes runs/panel/scores/anna.old.jsonl and so on, which --agreement compares
with each other and with a judge's predictions. FILE@EVALUATOR takes the records
of one evaluator. The fifth reads a marked sheet of code_switching: how often
people and the detector agree. The last one looks for code-switching in stored
responses, as the evaluator does; a record has response, perhaps id, language
and prompt.
"""

from absl import flags

from lbe.evals import code_switching
from lbe.evals import core
from lbe.judging import agreement
from lbe.judging import people
from lbe.judging import scores
from lbe.judging import sheets
from lbe.run import program
from lbe.run import progress
from lbe.text import lines

_TABLE = flags.DEFINE_string('table', None, 'Means by category of a file.')
_AGREEMENT = flags.DEFINE_list('agreement', [], 'Files of the same responses.')
_PANEL = flags.DEFINE_string('panel', None, 'The folder of sheets for people.')
_SYSTEMS = flags.DEFINE_list('systems', [], 'NAME=FILE of each system.')
_SHEETS = flags.DEFINE_list('sheets', [], 'Filled sheets, CSV or JSONL.')
_RUBRIC = flags.DEFINE_string('rubric', 'paper', 'A name, or a path.')
_SHEET = flags.DEFINE_string('sheet', None, 'A marked sheet, CSV.')
_SWITCHING = flags.DEFINE_string('switching', None, 'Stored responses.')
_LANGUAGE = flags.DEFINE_string('language', '', 'Of records that name none.')
_IDENTIFIER = flags.DEFINE_string(
  'language_identifier', 'scripts', "Or 'lingua', or a fastText model's path."
)
_ENGLISH_WORDS = flags.DEFINE_string('english_words', '', 'A file of them.')
_TABLE_FIELDS = ('category', 'language', 'response', 'failure')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the order in the sheets.')


def main(argv):
  del argv
  asked = [
    _TABLE.value,
    _AGREEMENT.value,
    _SHEET.value,
    _SWITCHING.value,
    _SYSTEMS.value,
    _SHEETS.value,
  ]
  if sum(map(bool, asked)) != 1:
    raise ValueError(
      'give one of --table=FILE, --agreement=FILE,FILE, --sheet=FILE, '
      '--switching=FILE, and with --panel=FOLDER --systems=NAME=FILE,… or '
      '--sheets=FILE,…'
    )
  if bool(_SYSTEMS.value or _SHEETS.value) != bool(_PANEL.value):
    raise ValueError(
      '--panel=FOLDER goes with --systems (to write sheets) or --sheets (to '
      'read them).'
    )
  if _TABLE.value:
    print(_tables(agreement.read(_TABLE.value).values()))
  elif _AGREEMENT.value:
    print(agreement.table(_AGREEMENT.value))
  elif _SHEET.value:
    for name, value in sheets.agreement(_SHEET.value).items():
      shown = 'none' if value is None else f'{value:.4g}'
      print(f'{name}: {shown}')
  elif _SWITCHING.value:
    with progress.doing('looking at the responses'):
      rates = _switching(_SWITCHING.value)
    print(rates)
  elif _SYSTEMS.value:
    num = people.write(
      _PANEL.value, _systems(), rubric=_RUBRIC.value, seed=_SEED.value
    )
    print(
      f'{num} items in {_PANEL.value}: sheet.csv or sheet.jsonl and rubric.txt '
      'are for those who judge, key.json is not.'
    )
  else:
    for path, records in people.collect(_PANEL.value, _SHEETS.value).items():
      print(f'{path}\n\n{_tables(records)}\n')


def _systems():
  systems = {}
  for asked in _SYSTEMS.value:
    name, _, path = asked.partition('=')
    if not name or not path or name in systems:
      raise ValueError(
        f'--systems={asked!r}: each is NAME=FILE, with a name of its own.'
      )
    systems[name] = path
  return systems


def _switching(path):
  """A table of rates for each step in the file."""
  responses = []
  for record, where in lines.predictions(path, ('response',)):
    language = lines.text(record, 'language', where, default='')
    language = language or _LANGUAGE.value
    if not language:
      raise ValueError(f'{where} names no language; give --language=CODE.')
    text = lines.text(record, 'response', where, default='')
    prompt = lines.text(record, 'prompt', where, default='')
    responses.append((record.get('step'), language, text, prompt))
  detector = code_switching.Detector(
    _IDENTIFIER.value,
    {language for _, language, _, _ in responses},
    english_words=_ENGLISH_WORDS.value,
  )
  steps = {}
  for step, language, text, prompt in responses:
    judged = detector.judge(text, language, prompt=prompt)
    steps.setdefault(step, []).append({'language': language, **judged})
  return _by_step(
    steps,
    lambda mine: core.table(
      [{'evaluator': path, **r} for r in code_switching.rates(mine)]
    ),
  )


def _tables(records):
  """A table for each step in the records."""
  steps = {}
  for record in records:
    lines.require(record, _TABLE_FIELDS, f'the record {record["id"]!r}')
    steps.setdefault(record.get('step'), []).append(record)
  return _by_step(steps, scores.table)


def _by_step(steps, table):
  return '\n\n'.join(
    ('' if step is None else f'step {step}:\n\n') + table(mine)
    for step, mine in steps.items()
  )


if __name__ == '__main__':
  program.run(main, goes_on=False)
