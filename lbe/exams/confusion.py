"""Prompts of the Language Confusion Benchmark (for-ai/language-confusion).

A task is a folder, test_sets/monolingual or test_sets/crosslingual, with files
SOURCE/LANG.csv that have a column `prompt`: a response is to be in the language
of the file's name.
"""

from absl import logging

from lbe.chat import messages
from lbe.chat import prompts as prompts_lib
from lbe.exams import item
from lbe.exams import spreadsheet
from lbe.text import language_table


def prompts(path, *, languages=(), limit: int = 0) -> list[prompts_lib.Prompt]:
  """The Prompts of a task, `limit` of each file; 0 is all.

  Each has its language, and its record the `source`. Without `languages` they
  are all that the folder and the table of languages have. Raises ValueError for
  a folder that is no task, a language that is not there, and by file and line
  for a prompt that is missing or empty.
  """
  folder = item.folder(path, 'SOURCE/LANG.csv, as test_sets/monolingual')
  files = sorted(folder.glob('*/*.csv'))
  if not files:
    raise ValueError(
      f'{folder} has no SOURCE/LANG.csv; give test_sets/monolingual or '
      'test_sets/crosslingual of the Language Confusion Benchmark.'
    )
  for code in languages:
    language_table.language(code)
  there = list(dict.fromkeys(sorted(file.stem for file in files)))
  known = [code for code in there if code in language_table.LANGUAGES]
  chosen = item.chosen(languages, known, exam=f'{folder}, by language,')
  left = sorted({*there} - {*known})
  if left and not languages:
    logging.info(
      '%s: %s are not asked; the table of languages has them not.',
      folder,
      ', '.join(left),
    )
  asked = []
  for file in files:
    if file.stem not in chosen:
      continue
    rows = spreadsheet.read(file, ('prompt',))
    if not rows:
      raise ValueError(f'{file} has no prompts.')
    for i, (row, where) in enumerate(prompts_lib.first(rows, limit)):
      if not row['prompt'].strip():
        raise ValueError(f'{where}: the prompt is empty; fill it in.')
      talk = (messages.Message('user', row['prompt']),)
      source, code = file.parent.name, file.stem
      own = f'{source}/{code}/{i}'
      asked.append(
        prompts_lib.Prompt(
          own, row['prompt'], talk, {'source': source}, where, i, code
        )
      )
  return asked
