"""Questions with choices in a user's own file, and XCOPA.

A JSONL or CSV file has the fields `question`, `choices` (a list) or columns A,
B, C, ..., and `answer`: a letter, or the index of a choice. `subject` and `id`
may stand beside them. Two protocols: `letters` writes the choices into the
prompt and scores their letters, `texts` scores the choices themselves.
"""

import json

from lbe.exams import item
from lbe.text import lines

# XCOPA's connectors, as lm-evaluation-harness writes them: (cause, effect).
CONNECTORS = {
  'en': ('because', 'therefore'),
  'et': ('sest', 'seetõttu'),
  'ht': ('poukisa', 'donk sa'),
  'id': ('karena', 'maka'),
  'it': ('perché', 'quindi'),
  'qu': ('imataq', 'chaymi'),
  'sw': ('kwa sababu', 'kwa hiyo'),
  'ta': ('காரணமாக', 'எனவே'),
  'th': ('เพราะ', 'ดังนั้น'),
  'tr': ('çünkü', 'bu yüzden'),
  'vi': ('bởi vì', 'vì vậy'),
  'zh': ('因为', '所以'),
}


def _record(record, where):
  """(subject, question, choices, index of the right one)."""
  for name in ('question', 'answer'):
    if name not in record:
      raise ValueError(
        f'{where}: there is no {name!r}; the fields are {", ".join(record)}.'
      )
  choices = record.get('choices')
  if choices is None:
    found = (record.get(x) for x in 'ABCDEFGHIJ')
    choices = [x for x in found if x]
  if not isinstance(choices, list) or len(choices) < 2:
    raise ValueError(
      f'{where}: a question needs at least two choices, in a list `choices` '
      'or in the columns A, B, ...'
    )
  answer = record['answer']
  if isinstance(answer, str) and not answer.strip().isdigit():
    index = item.letter(answer, len(choices), where)
  else:
    index = int(answer)
  if not 0 <= index < len(choices):
    raise ValueError(
      f'{where}: the answer {answer!r} is none of the {len(choices)} choices, '
      'which are counted from 0.'
    )
  return (
    record.get('subject') or 'all',
    record['question'],
    [str(x) for x in choices],
    index,
  )


def _read(path):
  if str(path).endswith('.csv'):
    import pathlib

    return item.read_csv(pathlib.Path(path), ('question', 'answer'))
  return [record for record, _ in lines.records(path)]


def items(path, protocol, *, split, num_shots, subjects, limit, cue='Answer:'):
  """The Items of one file; the first `num_shots` questions are demonstrations.

  Those of the same subject, and they are not asked.
  """
  del split
  by_subject = {}
  for number, record in enumerate(_read(path), 1):
    found = _record(record, f'{path}, record {number}')
    name = record.get('id', number - 1)
    by_subject.setdefault(found[0], []).append((name, *found[1:]))
  result = []
  for subject in item.chosen(subjects, by_subject, exam=str(path)):
    records = by_subject[subject]
    if len(records) <= num_shots:
      raise ValueError(
        f'{path}: the subject {subject!r} has {len(records)} questions, and '
        f'num_shots={num_shots} leaves none to ask.'
      )

    def prompt(question, choices):
      shown = [question.strip()]
      if protocol == 'letters':
        shown += [
          f'{x}. {c}' for x, c in zip('ABCDEFGHIJ', choices, strict=False)
        ]
      return '\n'.join([*shown, cue])

    def scored(choices):
      if protocol == 'letters':
        return tuple('ABCDEFGHIJ'[: len(choices)])
      return tuple(choices)

    shots = tuple(
      f'{prompt(question, choices)} {scored(choices)[gold]}\n\n'
      for _, question, choices, gold in records[:num_shots]
    )
    for name, question, choices, gold in records[num_shots:][: limit or None]:
      answers = scored(choices)
      result.append(
        item.Item(
          id=f'{subject}/{name}',
          subject=subject,
          group='all',
          header='',
          shots=shots,
          question=prompt(question, choices),
          choices=tuple(f' {x}' for x in answers),
          answers=answers,
          gold=(gold,),
        )
      )
  return result


def xcopa_items(
  path, protocol, *, split, num_shots, subjects, limit
) -> list[item.Item]:
  """The Items of XCOPA: a folder with LANGUAGE/SPLIT.LANGUAGE.jsonl."""
  del protocol
  if num_shots:
    raise ValueError(
      f'num_shots={num_shots}: the protocol of XCOPA has no demonstrations; '
      'take 0.'
    )
  root = item.folder(path, 'a folder for each language of XCOPA')
  there = [x for x in CONNECTORS if (root / x).is_dir()]
  fields = ('premise', 'choice1', 'choice2', 'question', 'label')
  result = []
  for language in item.chosen(subjects, there, exam=f'XCOPA in {root}'):
    file = root / language / f'{split}.{language}.jsonl'
    records = lines.records(file, fields)[: limit or None]
    for i, (r, _) in enumerate(records):
      where = f'{file}, question {i + 1}'
      if r['question'] not in ('cause', 'effect') or r['label'] not in (0, 1):
        raise ValueError(
          f"{where}: question is 'cause' or 'effect' and label 0 or 1; it has "
          f'{json.dumps([r["question"], r["label"]])}.'
        )
      connector = CONNECTORS[language][r['question'] == 'effect']
      answers = tuple(
        c[0].lower() + c[1:] for c in (r['choice1'], r['choice2'])
      )
      result.append(
        item.Item(
          id=f'{language}/{i}',
          subject=language,
          group='all',
          header='',
          shots=(),
          # Without its full stop.
          question=f'{r["premise"].strip()[:-1]} {connector}',
          choices=tuple(f' {x}' for x in answers),
          answers=answers,
          gold=(r['label'],),
        )
      )
  return result
