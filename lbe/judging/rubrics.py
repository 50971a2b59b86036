"""Rubrics: what a judge is asked, and how its reply is read.

A rubric is a TOML file, as rubrics/paper.toml: a scale, criteria with a line
for each level, and a prompt with places in braces. A criterion may have a scale
of its own: `lowest`, `highest` and `whole`, or `scores`, a list of all that
there are. The files of rubrics/ are here by name; others, and changed ones, by
path. BELLE's eval_prompt.json (a
prompt for each class of questions) is one by path, with the score 0 to 1.

Replies are read tolerantly, but never guessed at:

  {"accuracy": 2, "fluency": "3"}    also in a code fence, with text around it
  Stars: 3 2 3 3 3                   as many numbers as the rubric has criteria
  得分: 0.8                          BELLE's form

What lacks a criterion, leaves the scale, is cut off, or says two different
things is a ValueError that tells why.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import tomllib
import unicodedata

from lbe.text import lines

FOLDER = pathlib.Path(__file__).parent / 'rubrics'
NAMES = tuple(sorted(path.stem for path in FOLDER.glob('*.toml')))
_PLACE = re.compile(r'\{([a-z_]+)\}')
_PLACES = {
  'prompt': {
    'category',
    'criteria',
    'question',
    'response',
    'hint',
    'language',
    'form',
  },
  'hint': {'reference', 'response'},
  'no_hint': {'response'},
  'language': {'language'},
  'form': {'json'},
}
_SCALE = ('lowest', 'highest', 'whole')
_KEYS = {'name', *_SCALE, 'criteria', *_PLACES}
# What a judge sees in the place of a response without any text.
NOTHING = '(the model wrote nothing)'


@dataclasses.dataclass(frozen=True)
class Scale:
  """`lowest` to `highest`, in `whole` numbers or all; or `scores` alone."""

  lowest: float
  highest: float
  whole: bool
  scores: tuple = ()

  def told(self) -> str:
    if self.scores:
      return ', '.join(map(str, self.scores))
    return f'{self.lowest} to {self.highest}'


@dataclasses.dataclass(frozen=True)
class Rubric:
  """Criteria with their scales, and the texts that a judge gets.

  `levels` has the lines of each criterion by its name, `scales` its Scale.
  `openings` are BELLE's prompts by class, and for others empty; questions of
  `unhinted` classes are judged without their reference. `digest` is the hash of
  the file.
  """

  name: str
  scales: dict
  levels: dict
  prompt: str
  hint: str
  no_hint: str
  language: str
  form: str
  openings: dict
  unhinted: tuple
  digest: str

  @property
  def criteria(self):
    return tuple(self.levels)

  def highest(self) -> dict | None:
    """{criterion: its highest score}; None where all have one scale."""
    if len(set(self.scales.values())) == 1:
      return None
    return {name: scale.highest for name, scale in self.scales.items()}

  def check(self, questions):
    """Raises ValueError where a question is of no class that is judged."""
    for q in questions if self.openings else ():
      if _folded(q.category) not in self.openings:
        raise ValueError(
          f'question {q.id!r} is of the category {q.category!r}, for which '
          f'the rubric has no prompt; it has {", ".join(self.openings)}.'
        )

  def ask(self, question, response):
    """The prompt for a Question and a response; braces in them stay text."""
    response = response if response.strip() else NOTHING
    texts = {**question._asdict(), 'response': response}
    category = _folded(question.category)
    hinted = question.reference and category not in self.unhinted
    texts['opening'] = self.openings.get(category, '')
    texts['hint'] = _filled(self.hint if hinted else self.no_hint, texts)
    texts['language'] = (
      _filled(self.language, texts) if question.language else ''
    )
    texts['criteria'] = self.describe()
    texts['form'] = self.told_form()
    return _filled(self.prompt, texts).strip()

  def describe(self):
    """The criteria with their levels, as text."""
    own = self.highest() is not None
    return '\n\n'.join(
      '\n'.join(
        [
          name.capitalize() + f' ({self.scales[name].told()})' * own,
          *(f'- {level}' for level in levels),
        ]
      )
      for name, levels in self.levels.items()
    )

  def told_form(self):
    """How a judge is to write its scores, in a sentence."""
    shape = ', '.join(f'"{name}": N' for name in self.criteria)
    return _filled(self.form, {'json': f'{{{shape}}}'})

  def read(self, reply):
    """{criterion: score} of a judge's reply, all of them; else ValueError."""
    # What a judge thinks aloud is not its answer.
    answer = reply.rpartition('</think>')[2]
    if '<think>' in answer:
      raise ValueError('the reply ends before its answer begins')
    if '{' in answer:
      found = [
        [fields[name] for name in self.criteria]
        for fields in _objects(answer)
        if set(self.criteria) <= set(fields)
      ]
      if not found:
        raise ValueError(
          'there is no whole JSON object with '
          f'{", ".join(self.criteria)} in the reply'
        )
    elif self.openings:
      told = _BELLE_SCORE.findall(answer)
      found = [[text.rstrip('.').removesuffix('/1')] for text in told]
    else:
      numbers = re.fullmatch(_NUMBERS, answer.strip())
      stars = [numbers] if numbers else list(_STARS.finditer(answer))
      found = [re.split(r'[\s,，]+', m['all']) for m in stars]
    found = [self._scores(values) for values in found]
    if not found:
      raise ValueError('there is no score in the reply')
    if any(scores != found[0] for scores in found):
      raise ValueError('the reply gives two different answers')
    return found[0]

  def _scores(self, values):
    if len(values) != len(self.criteria):
      raise ValueError(
        f'{len(values)} scores for the {len(self.criteria)} criteria '
        f'{", ".join(self.criteria)}'
      )
    return {
      name: self.score(value, name)
      for name, value in zip(self.criteria, values, strict=True)
    }

  def score(self, value, name):
    """A number, or text with one, on the scale; else ValueError."""
    number = value
    if isinstance(value, str):
      if not re.fullmatch(r'\s*\d+(\.\d+)?\s*', value):
        raise ValueError(f'{name} is {value!r}, which is no number')
      number = float(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
      raise ValueError(f'{name} is {value!r}, which is no number')
    scale = self.scales[name]
    if not scale.lowest <= number <= scale.highest:
      raise ValueError(
        f'{name} is {value}, and the scale goes from {scale.lowest} to '
        f'{scale.highest}'
      )
    if scale.whole and number != int(number):
      raise ValueError(f'{name} is {value}, and scores are whole numbers')
    if scale.scores and number not in scale.scores:
      raise ValueError(f'{name} is {value}, and scores are {scale.told()}')
    return int(number) if scale.whole else float(number)


def load(rubric):
  """The Rubric of a name or a path; ValueError where it cannot be one."""
  path = FOLDER / f'{rubric}.toml' if rubric in NAMES else pathlib.Path(rubric)
  if not rubric or not path.is_file():
    raise ValueError(
      f'rubric={rubric!r} is unknown; take {", ".join(NAMES)}, or the path '
      "of a rubric file (.toml) or of BELLE's eval_prompt.json."
    )
  if path.suffix in ('.json', '.jsonl'):
    return _belle(path)
  data = path.read_bytes()
  try:
    fields = tomllib.loads(data.decode('utf-8-sig'))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is no TOML file: {error}.') from None
  _check(path, fields)
  criteria = fields.pop('criteria')
  scales = {c['name']: _scale(path, fields, c) for c in criteria}
  for key in _SCALE:
    fields.pop(key, None)
  return Rubric(
    levels={c['name']: tuple(c['levels']) for c in criteria},
    scales=scales,
    openings={},
    unhinted=(),
    digest=hashlib.sha256(data).hexdigest()[:16],
    **fields,
  )


def _check(path, fields):
  missing, unknown = sorted(_KEYS - set(fields)), sorted(set(fields) - _KEYS)
  criteria = fields.get('criteria') or [{}]
  # A criterion with a scale of its own needs none of the rubric's.
  missing = [
    key
    for key in missing
    if key not in _SCALE
    or not all(
      isinstance(c, dict) and {key, 'scores'} & set(c) for c in criteria
    )
  ]
  if missing or unknown:
    raise ValueError(
      f'{path}: the key {(missing or unknown)[0]!r} is '
      f'{"missing" if missing else "unknown"}; a rubric has '
      f'{", ".join(sorted(_KEYS))}.'
    )
  for key in ('name', *_PLACES):
    if not isinstance(fields[key], str):
      raise ValueError(f'{path}: {key} is no text.')
    places = set(_PLACE.findall(fields[key]))
    wrong = sorted(places - _PLACES.get(key, set()))
    if wrong:
      raise ValueError(
        f'{path}: {key} has the place {{{wrong[0]}}}, which is unknown there; '
        f'known are {", ".join(sorted(_PLACES.get(key, ()))) or "none"}.'
      )
  if not re.fullmatch(r'[\w.-]+', fields['name']):
    raise ValueError(
      f'{path}: name={fields["name"]!r} is part of a protocol; letters, '
      'digits, - and _ are fine in it.'
    )
  for place in ('question', 'response', 'criteria', 'form'):
    if f'{{{place}}}' not in fields['prompt']:
      raise ValueError(f'{path}: the prompt has no place {{{place}}}.')
  _check_criteria(path, fields)


def _check_criteria(path, fields):
  criteria = fields['criteria']
  if not isinstance(criteria, list) or not criteria:
    raise ValueError(f'{path}: there are no [[criteria]]; name one at least.')
  for c in criteria:
    known = {'name', 'levels', 'scores', *_SCALE}
    if not isinstance(c, dict) or not {'name', 'levels'} <= set(c) <= known:
      raise ValueError(
        f'{path}: a criterion has a name and levels, and perhaps '
        f'{", ".join(_SCALE)} or scores of its own, not {c}.'
      )
    if not isinstance(c['name'], str) or c['name'] != _folded(c['name']):
      raise ValueError(
        f'{path}: the criterion {c["name"]!r} is to be in small letters.'
      )
    if not isinstance(c['levels'], list) or not all(
      isinstance(line, str) for line in c['levels']
    ):
      raise ValueError(f'{path}: the levels of {c["name"]!r} are no texts.')
    scale = _scale(path, fields, c)
    if scale.whole:
      asked = scale.scores or range(int(scale.lowest), int(scale.highest) + 1)
      told = [line.partition(':')[0].strip() for line in c['levels']]
      if told != [str(level) for level in asked]:
        raise ValueError(
          f'{path}: the levels of {c["name"]!r} begin with {told}; each of '
          f'{", ".join(map(str, asked))} and a colon is to begin one, in order.'
        )
  names = [c['name'] for c in criteria]
  if len(set(names)) < len(names):
    raise ValueError(f'{path}: a criterion stands there twice: {names}.')


def _scale(path, fields, criterion):
  """The Scale of a criterion: its own, or what it lacks of the rubric's."""
  own = {key: fields[key] for key in _SCALE if key in fields}
  own |= {key: criterion[key] for key in _SCALE if key in criterion}
  scores = criterion.get('scores', ())
  if 'scores' in criterion:
    if (
      not isinstance(scores, list)
      or len(scores) < 2
      or not all(map(_is_number, scores))
      or sorted(set(scores)) != scores
    ):
      raise ValueError(
        f'{path}: scores={scores!r} of {criterion["name"]!r} is no list of '
        'numbers that rise.'
      )
    whole = all(isinstance(x, int) for x in scores)
    own = {'lowest': scores[0], 'highest': scores[-1], 'whole': whole}
  for key in ('lowest', 'highest'):
    if not _is_number(own[key]):
      raise ValueError(f'{path}: {key}={own[key]!r} is no number.')
  if not own['lowest'] < own['highest']:
    raise ValueError(
      f'{path}: lowest={own["lowest"]} is not below highest={own["highest"]}.'
    )
  if not isinstance(own['whole'], bool):
    raise ValueError(f'{path}: whole={own["whole"]!r} is not true or false.')
  return Scale(**own, scores=tuple(scores))


def _is_number(value):
  return isinstance(value, int | float) and not isinstance(value, bool)


# LianjiaTech/BELLE, eval/template_html/ChatGPT_Score.html.temp: how its page
# puts class prompt, question, reference and response together, with no
# reference for three classes.
_BELLE_UNHINTED = ('generation', 'brainstorming', 'rewrite')
_BELLE_PROMPT = (
  '{opening} {question} {hint}。请针对模型回答给出得分，顺便给出理由：'
)
_BELLE_HINT = "标准回答:{reference}  模型回答：' {response}'"
_BELLE_NO_HINT = " 模型回答： '{response}'"
_BELLE_FORM = '请按照“得分:”的形式写出分数，分数在0到1之间。'
_BELLE_SCORE = re.compile(
  r'得分["”]?\s*[:：是为]+\s*["“*]*([^\s，。,;；*分)）"”]+)'
)


def _belle(path):
  """BELLE's eval_prompt.json, lines of {"class": …, "prompt": …}."""
  openings, seen = {}, {}
  for record, where in lines.records(path, ('class', 'prompt')):
    name = _folded(lines.text(record, 'class', where))
    lines.once(name, seen, where)
    openings[name] = lines.text(record, 'prompt', where)
  if not openings:
    raise ValueError(f'{path} has no prompts; a line is class and prompt.')
  return Rubric(
    name='belle',
    scales={'score': Scale(0, 1, False)},
    levels={'score': ()},
    prompt=_BELLE_PROMPT,
    hint=_BELLE_HINT,
    no_hint=_BELLE_NO_HINT,
    language='',
    form=_BELLE_FORM,
    openings=openings,
    unhinted=_BELLE_UNHINTED,
    digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
  )


# Each part takes what it can and gives nothing back: a reply that is a run of
# numbers has one reading only, and is read once.
_NUMBER = r'\d++(?:\.\d++)?+'
_BETWEEN = r'(?:[ \t]*+[,，][ \t]*+|[ \t]++)'
_NUMBERS = rf'(?P<all>{_NUMBER}(?:{_BETWEEN}{_NUMBER})*+)(?!\.?\d)'
_STARS = re.compile(rf'\bstars?\b\**[ \t]*[:：]\**\s*{_NUMBERS}', re.IGNORECASE)


# Each is read to its end; a reply of nothing but { has no scores.
_MOST_OBJECTS = 500


def _objects(reply):
  """The JSON objects in a text, inner ones too, their keys in small letters.

  None where there are more than _MOST_OBJECTS.
  """
  decoder = json.JSONDecoder()
  starts = list(re.finditer(r'\{', reply))
  for match in starts if len(starts) <= _MOST_OBJECTS else ():
    try:
      found, _ = decoder.raw_decode(reply, match.start())
    except (ValueError, RecursionError):
      continue
    yield {_folded(key): value for key, value in found.items()}


def _filled(text, texts):
  # In one pass, so that what is put in is never taken for a place.
  return _PLACE.sub(lambda m: texts.get(m[1], m[0]), text)


def _folded(name):
  return ' '.join(unicodedata.normalize('NFKC', name).casefold().split())
