"""The tables of docs/languages.md, which are those of languages.toml.

`python tests/text/test_language_pages.py` writes them anew.
"""

import pathlib
import re
import tomllib

from lbe.text import language_table
from lbe.text import tables

PATH = pathlib.Path(__file__).parents[2] / 'docs' / 'languages.md'


def languages():
  data = [x for x in language_table.DATA if x != 'blimp']
  rows = [
    [
      x.code,
      x.english,
      x.name,
      ', '.join(x.scripts),
      'yes' if x.spaces else 'no',
      ' '.join(x.final_marks),
      *(x.codes.get(name, '–') for name in data),
    ]
    for x in language_table.LANGUAGES.values()
  ]
  heads = ['code', 'English', 'itself', 'scripts', 'spaces', 'final marks']
  heads += data
  return tables.markdown(heads, 'l' * len(heads), rows)


def data():
  rows = [
    [
      x.title,
      x.source,
      x.licence,
      x.count,
      ' '.join(f'`{score}`' for score in x.scores),
      f'`{x.file}`',
      'yes' if x.hub else 'no',
    ]
    for x in language_table.DATA.values()
  ]
  heads = ['data', 'from', 'licence', 'N', 'scored by', 'file', 'hub']
  return tables.markdown(heads, 'l' * len(heads), rows)


def harness():
  rows = [
    [x.code, ' '.join(f'`{task}`' for task in x.harness)]
    for x in language_table.LANGUAGES.values()
  ]
  return tables.markdown(['code', 'tasks'], 'll', rows)


TABLES = {'languages': languages, 'data': data, 'harness': harness}


def rendered(text):
  for name, table in TABLES.items():
    text, number = re.subn(
      f'(<!-- {name} -->\n).*?(<!-- -->)',
      lambda found, table=table: f'{found[1]}{table()}\n{found[2]}',
      text,
      flags=re.S,
    )
    assert number == 1, name
  return text


def test_the_page_has_the_table():
  text = PATH.read_text('utf-8')
  assert text == rendered(text)


def test_the_page_adds_a_language_as_the_table_has_it():
  """Catches an entry of the page that the table would no longer take."""
  (entry,) = re.findall('```toml\n(.*?)```', PATH.read_text('utf-8'), re.S)
  facts = tomllib.loads(entry)['languages']
  known = language_table.language('tl')
  for field, value in facts['tl'].items():
    theirs = getattr(known, field)
    assert (tuple(value) if isinstance(value, list) else value) == theirs, field


if __name__ == '__main__':
  PATH.write_text(rendered(PATH.read_text('utf-8')), encoding='utf-8')
