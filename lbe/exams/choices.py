"""Questions with choices in a user's own file, and XCOPA.

The file is read by own.py. Three protocols: `letters` writes the choices into
the prompt and scores their letters, `texts` scores the choices themselves
behind 'Answer:', `continuation` scores them as what goes on from the question,
with nothing between but the space of scripts that have one.
"""

import json

from lbe.exams import item
from lbe.exams import own
from lbe.text import lines
from lbe.text import scripts

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


def items(
  path, protocol, *, split, num_shots, subjects, limit
) -> list[item.Item]:
  """The Items of one file; the first `num_shots` questions are demonstrations.

  Those of the same subject, and they are not asked.
  """
  del split
  by_subject = {}
  for question in own.read(path):
    by_subject.setdefault(question.subject, []).append(question)
  result = []
  for subject in item.chosen(subjects, by_subject, exam=str(path)):
    questions = by_subject[subject]
    if len(questions) <= num_shots:
      raise ValueError(
        f'{path}: the subject {subject!r} has {len(questions)} questions, and '
        f'num_shots={num_shots} leaves none to ask.'
      )
    shots = tuple(
      f'{_prompt(q, protocol)}{_scored(q, protocol)[q.gold[0]]}\n\n'
      for q in questions[:num_shots]
    )
    for q in questions[num_shots:][: limit or None]:
      letters = tuple(item.ALPHABET[: len(q.choices)])
      result.append(
        item.Item(
          id=f'{subject}/{q.id}',
          subject=subject,
          group='all',
          header='',
          shots=shots,
          question=_prompt(q, protocol),
          choices=_scored(q, protocol),
          answers=letters if protocol == 'letters' else q.choices,
          gold=q.gold,
        )
      )
  return result


def _prompt(q, protocol):
  shown = q.question.strip()
  if protocol == 'continuation':
    return shown
  shown = [shown]
  if protocol == 'letters':
    letters = item.ALPHABET[: len(q.choices)]
    shown += [f'{x}. {c}' for x, c in zip(letters, q.choices, strict=True)]
  return '\n'.join([*shown, 'Answer:'])


def _scored(q, protocol):
  """What goes on behind the prompt, by a space where words are so parted."""
  if protocol == 'letters':
    return tuple(f' {x}' for x in item.ALPHABET[: len(q.choices)])
  if protocol == 'texts':
    return tuple(f' {x}' for x in q.choices)
  ends = scripts.has_spaces(q.question.strip()[-1])
  return tuple(
    f' {x}' if not x or (ends and scripts.has_spaces(x[0])) else x
    for x in map(str.lstrip, q.choices)
  )


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
      for field in ('premise', 'choice1', 'choice2'):
        lines.text(r, field, where)
      connector = CONNECTORS[language][r['question'] == 'effect']
      answers = tuple(
        c[0].lower() + c[1:] for c in (r['choice1'], r['choice2'])
      )
      result.append(
        item.Item(
          id=f'{language}/{i}',
          subject=language,
          group=language,
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
