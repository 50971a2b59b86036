"""What do 2,000 pieces a language save in the 13 low-resource languages?

  PYTHONPATH=. python benchmarks/extend_languages.py --data=text_ntrex \
    --base=llama/tokenizer.model --output=DIR

For each language the odd lines of its file teach, the even ones are measured.
Where a language is written in Latin letters these are learnt too, and what
that does to English (all its lines) is measured as well. DIR gets the tables
(report.md, report.json) and one plot.
"""

import pathlib

from absl import app
from absl import flags

from benchmarks import record
from lbe.text import language_table
from lbe.vocab import continued
from lbe.vocab import report
from lbe.vocab import tokenizers

_DATA = flags.DEFINE_string('data', None, 'A folder with NTREX.')
_BASE = flags.DEFINE_string('base', None, "LLaMA's tokenizer.model.")
_OUTPUT = flags.DEFINE_string('output', None, 'The folder to write.')
_PIECES = flags.DEFINE_integer('pieces', 2000, 'To add to each.')


def main(argv):
  del argv

  def lines(code):
    path = language_table.file('ntrex', _DATA.value, code)
    return path.read_text(encoding='utf-8').splitlines()

  base = tokenizers.load(_BASE.value)
  english = lines('en')
  sets, rows = {}, {}
  for code in language_table.THIRTEEN:
    known = language_table.language(code)
    language, text = known.english, lines(code)
    found = continued.extend(
      base,
      text[::2],
      num_pieces=_PIECES.value,
      keep_latin='Latin' in known.scripts,
      progress=False,
    )
    row = report.compare(base, found.tokenizer, text[1::2])
    row['scripts'] = {
      'before': report.by_script(base, text[1::2]),
      'after': report.by_script(found.tokenizer, text[1::2]),
    }
    sets[language] = row
    drift = report.compare(base, found.tokenizer, english)
    rows[language] = {
      'pieces': len(found.added),
      'tokens': [row[side]['tokens'] for side in ('before', 'after')],
      'tokens_per_word': [
        round(row[side]['tokens_per_word'], 2) for side in ('before', 'after')
      ],
      'byte_fallback': [
        round(row[side]['byte_fallback'], 3) for side in ('before', 'after')
      ],
      'english_texts_changed': drift['texts_changed'],
      'english_tokens_changed': drift['tokens_changed'],
    }
  summary = report.summary(base)
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  report.save({'context': 2048, 'before': summary, 'sets': sets}, folder)
  record.write(
    'extend_languages',
    {
      'english': [len(english), sum(map(len, base.encode_batch(english)))],
      'languages': rows,
    },
    packages=('sentencepiece',),
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['data', 'base', 'output'])
  app.run(main)
