"""SIB-200: the topic of a sentence; the same sentences in many languages.

A folder with FOLDER_OF_THE_LANGUAGE/SPLIT.tsv, as github.com/dadelani/sib-200
has under data/annotated. Three kinds of protocol, whose words are in
sib200_prompts.py: `labels` asks in English in every language, `labels_native`
in the language itself, `lmeval_1` to `_5` as lm-evaluation-harness does, in the
languages that it has tasks for.
"""

from typing import NamedTuple

from lbe.exams import item
from lbe.exams import sib200_prompts
from lbe.exams import spreadsheet
from lbe.text import language_table
from lbe.text import lines


class Sentence(NamedTuple):
  """`topic` is one of sib200_prompts.TOPICS, `id` the same in each language."""

  id: str
  topic: str
  text: str


def sentences(folder, code: str, split: str) -> list[Sentence]:
  """The Sentences of a language, in the order of the file.

  Raises ValueError for a language that the table or the folder has not, a
  split that is not there, a column that is missing, and, with the line, for an
  unknown topic, an id that is there twice, and an empty text.
  """
  path = language_table.file('sib200', folder, code, split=split)
  read, seen = [], {}
  columns = ('index_id', 'category', 'text')
  for row, where in spreadsheet.read(path, columns, separator='\t'):
    number, topic = row['index_id'].strip(), row['category'].strip()
    lines.once(number, seen, where)
    if topic not in sib200_prompts.TOPICS:
      raise ValueError(
        f'{where}: the category {topic!r} is none of '
        f'{", ".join(sib200_prompts.TOPICS)}.'
      )
    if not row['text'].strip():
      raise ValueError(f'{where}: the text is empty.')
    read.append(Sentence(number, topic, row['text']))
  if not read:
    raise ValueError(f'{path} has no sentences.')
  return read


def items(
  path, variant, *, split, num_shots, subjects, limit
) -> list[item.Item]:
  """The Items of the asked languages, of all that are there for ().

  Demonstrations are the first of the split 'train', one of each topic in turn:
  in all languages the same. The group is the language, the subject its topic.
  """
  harness = variant in sib200_prompts.HARNESS
  if harness and num_shots:
    raise ValueError(
      f'num_shots={num_shots}: sib200@{variant} has no demonstrations, which '
      'the harness would draw at random; take 0, or sib200@labels.'
    )
  there = language_table.there('sib200', path, split='*')
  if harness:
    there = [x for x in there if x in sib200_prompts.HARNESS_LANGUAGES]
  result = []
  for code in subjects or there or ('en',):  # which it says is not there
    asked = sentences(path, code, split)[: limit or None]
    if harness:
      header, ask, labels = _harness(code, variant)
    else:
      header, ask, labels = own_prompt(
        code if variant == 'labels_native' else 'en'
      )
    shots = ()
    if num_shots:
      shots = tuple(
        f'{ask(s)}{labels[sib200_prompts.TOPICS.index(s.topic)]}\n\n'
        for s in _in_turn(sentences(path, code, 'train'), num_shots, code)
      )
    for s in asked:
      result.append(
        item.Item(
          id=f'{code}/{s.id}',
          subject=f'{code}/{s.topic}',
          group=code,
          header=header,
          shots=shots,
          question=ask(s),
          choices=labels,
          answers=tuple(map(str.strip, labels)),
          gold=(sib200_prompts.TOPICS.index(s.topic),),
        )
      )
  return result


def own_prompt(code):
  """(header, sentence → question, labels with the space before them)."""
  if code not in sib200_prompts.WORDS:
    raise ValueError(
      f'there is no prompt of SIB-200 in {code!r}; those there are '
      f'{", ".join(sib200_prompts.WORDS)}. Add one to lbe/exams/'
      'sib200_prompts.py, or take sib200@labels, which asks in English.'
    )
  w = sib200_prompts.WORDS[code]
  # A full-width colon has its space in itself.
  space = '' if w.topic.endswith('：') else ' '
  header = f'{w.question}{space}{w.comma.join(w.topics)}\n\n'
  return (
    header,
    lambda s: f'{w.sentence}{space}{s.text.strip()}\n{w.topic}',
    tuple(f'{space}{x}' for x in w.topics),
  )


def _harness(code, variant):
  known = sib200_prompts.HARNESS_LANGUAGES
  if code not in known:
    raise ValueError(
      f'lm-evaluation-harness has no SIB-200 task in {code!r}, only in '
      f'{", ".join(known)} of our languages; take sib200@labels.'
    )
  prompt = sib200_prompts.HARNESS[variant]
  english = language_table.language(code).english
  return (
    '',
    lambda s: prompt.format(english, s.text),
    tuple(f' {x}' for x in sib200_prompts.TOPICS),
  )


def _in_turn(solved, number, code):
  """So many sentences: the first of each topic, the second of each, ...."""
  if number > len(solved):
    raise ValueError(
      f'the split train of {code!r} has {len(solved)} sentences, and num_shots='
      f'{number} asks for more.'
    )
  count, turns = {}, []
  for i, s in enumerate(solved):
    count[s.topic] = count.get(s.topic, 0) + 1
    turns.append((count[s.topic], i))
  return [solved[i] for _, i in sorted(turns)[:number]]
