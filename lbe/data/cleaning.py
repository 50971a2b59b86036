"""Leaves out what should not be learnt from, counted and shown by rule.

Records are text ({'text'}), instruction data ({'instruction', 'input',
'output'}) or conversations ({'messages'} of {'role', 'content'}). They stream
through in order; a record counts under the first rule that it breaks. Of
duplicates the first stays. Only these take memory that grows, with what is
kept: about 0.1 KB a record for exact ones and 2 KB for near ones.
"""

import dataclasses
import difflib
import hashlib
import json
import pathlib
import re
import typing
import unicodedata

from lbe.data import contamination
from lbe.text import languages
from lbe.text import scripts as scripts_lib
from lbe.text import tables

# Shown of each rule, and how much of each.
NUM_SAMPLES = 20
SAMPLE_CHARACTERS = 200
# A response repeats its prompt where that has so many characters.
ECHO = 16
# Runs of so many characters count as repeated.
REPEATED = 16
# Pairs at the threshold that MinHash's bands may miss.
_MISSED = 0.1
_SEED = 42
# What formats write around messages, and a response should not hold.
_TEMPLATE = re.compile(
  r'<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id|'
  r'begin_of_text|end_of_text|system|user|assistant)\|>|\[/?INST\]|<</?SYS>>|'
  r'^[ \t]*###[ ]*(?:Instruction|Input|Response|Human|Assistant)[ ]*[:：]|'
  r'^[ \t]*(?:Human|Assistant|USER|ASSISTANT)[:：]|'
  r'Below is an instruction that describes a task',
  re.M,
)


@dataclasses.dataclass(frozen=True)
class Rules:
  """What is left out; configs/common.py says what each field means."""

  drop_empty: bool = False
  min_characters: int = 0
  max_characters: int = 0
  drop_templates: bool = False
  drop_echoes: bool = False
  max_repetition: float = 0.0
  scripts: tuple = ()
  min_script_share: float = 0.0
  language: str = ''
  other_languages: tuple = ()
  unfinished_from: int = 0
  benchmarks: dict = dataclasses.field(default_factory=dict)
  drop_duplicates: bool = False
  near_duplicates: float = 0.0
  num_permutations: int = 128
  shingle: int = 5

  def __post_init__(self):
    for name in ('max_repetition', 'min_script_share', 'near_duplicates'):
      value = getattr(self, name)
      if not 0 <= value <= 1:
        raise ValueError(
          f'cleaning.{name}={value} is no share; it lies between 0 (off) and 1.'
        )
    for name, least in (
      ('min_characters', 0),
      ('max_characters', 0),
      ('unfinished_from', 0),
      ('num_permutations', 16),
      ('shingle', 1),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f'cleaning.{name}={getattr(self, name)} is too small; take at least '
          f'{least}.'
        )
    if 0 < self.max_characters < self.min_characters:
      raise ValueError(
        f'cleaning.max_characters={self.max_characters} lies below '
        f'min_characters={self.min_characters}; nothing would be left.'
      )
    for name in self.scripts:
      if name not in scripts_lib.NAMES:
        near = difflib.get_close_matches(name, scripts_lib.NAMES, 3, 0.4)
        raise ValueError(
          f'cleaning.scripts: {name!r} is no Unicode script; take names such '
          f'as {", ".join(near or ("Han", "Latin"))}.'
        )
    if bool(self.scripts) != bool(self.min_script_share):
      raise ValueError(
        f'cleaning.scripts={self.scripts} and min_script_share='
        f'{self.min_script_share} only work together; set both or neither.'
      )


@dataclasses.dataclass
class Report:
  """What came in, what stayed, and by rule how much went and what it was."""

  total: int = 0
  kept: int = 0
  removed: dict = dataclasses.field(default_factory=dict)
  samples: dict = dataclasses.field(default_factory=dict)
  # Of the benchmarks: items, and those too short to be looked for.
  benchmarks: dict = dataclasses.field(default_factory=dict)

  def markdown(self):
    """A table of the rules, and under it the samples of each."""
    rows = [('in', self.total), *self.removed.items(), ('kept', self.kept)]
    total = self.total or 1
    rows = [[rule, f'{n:,}', f'{n / total:.2%}'] for rule, n in rows]
    lines = [tables.markdown(['rule', 'records', 'share'], 'lrr', rows)]
    for name, about in self.benchmarks.items():
      short = f'{about["too_short"]:,} too short to be looked for'
      lines += ['', f'{name}: {about["items"]:,} items, {short}.']
    for rule, samples in self.samples.items():
      heads = ['where', 'why', 'text']
      rows = [[sample[x] for x in heads] for sample in samples]
      lines += ['', f'## {rule}', '', tables.markdown(heads, 'lll', rows)]
    return '\n'.join(lines) + '\n'

  def write(self, folder):
    """Writes cleaning.json and cleaning.md."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2)
    (folder / 'cleaning.json').write_text(told, encoding='utf-8')
    (folder / 'cleaning.md').write_text(self.markdown(), encoding='utf-8')


class Turn(typing.NamedTuple):
  """What was asked, what stood beside it (input, system), the response."""

  asked: str | None  # None: plain text, which is all response
  beside: str
  response: str


def turns(record, where):
  """The turns of a record; raises ValueError for one of another form."""

  def text(holder, key):
    value = holder.get(key)
    if not isinstance(value, str | None):
      raise ValueError(
        f'{where}: the field {key!r} holds {value!r:.60}, which is no text; '
        'mend the record.'
      )
    return value or ''

  if 'messages' in record:
    found, asked, beside = [], [], []
    for message in _messages(record, where):
      if message['role'] == 'assistant':
        response = text(message, 'content')
        found.append(Turn('\n'.join(asked), '\n'.join(beside), response))
        asked, beside = [], []
      else:
        place = asked if message['role'] == 'user' else beside
        place.append(text(message, 'content'))
    if not found:
      found.append(Turn('\n'.join(asked), '\n'.join(beside), ''))
    return found
  if 'output' in record:
    return [
      Turn(*(text(record, k) for k in ('instruction', 'input', 'output')))
    ]
  if 'text' in record:
    return [Turn(None, '', text(record, 'text'))]
  raise ValueError(
    f"{where}: a record has the fields 'text', 'instruction' and 'output', or "
    f"'messages'; this one has {', '.join(map(repr, record)) or 'none'}."
  )


def _messages(record, where):
  messages = record['messages']
  if not isinstance(messages, list) or not all(
    isinstance(m, dict) and isinstance(m.get('role'), str) for m in messages
  ):
    raise ValueError(
      f"{where}: 'messages' holds {messages!r:.60}; it is a list of objects "
      "with 'role' and 'content'."
    )
  return messages


def clean(records, rules, report):
  """The (record, where) that break no rule, in order; fills the report.

  Raises ValueError for a record of another form and for a benchmark that
  cannot be read, and where a rule needs a package that is not installed.
  """
  checks = _checks(rules, report)
  report.removed.update((name, 0) for name, _ in checks)
  for record, where in records:
    report.total += 1
    found = turns(record, where)
    for name, check in checks:
      why = check(found, where)
      if why:
        report.removed[name] += 1
        samples = report.samples.setdefault(name, [])
        if len(samples) < NUM_SAMPLES:
          text = found[-1].response[:SAMPLE_CHARACTERS]
          samples.append({'where': where, 'why': why, 'text': text})
        break
    else:
      report.kept += 1
      yield record, where


def _checks(rules, report):
  """(name, function) of the rules that are on.

  A function of turns and where they stand says why they go, or ''. The cheap
  ones come first; duplicates are sought in what the others leave.
  """
  checks = []
  if rules.drop_empty:
    checks.append(('empty', _each(_empty)))
  if rules.min_characters or rules.max_characters:
    checks.append(('length', _each(_length(rules))))
  if rules.drop_templates:
    checks.append(('template text', _each(_template)))
  if rules.drop_echoes:
    checks.append(('echo', _each(_echo)))
  if rules.max_repetition:
    checks.append(('repetition', _each(_repetition(rules.max_repetition))))
  if rules.unfinished_from:
    checks.append(('unfinished', _each(_unfinished(rules.unfinished_from))))
  if rules.scripts:
    checks.append(('script', _script(rules)))
  if rules.language:
    checks.append(('language', _language(rules)))
  if rules.benchmarks:
    checks.append(('benchmark', _benchmark(rules, report)))
  if rules.drop_duplicates:
    checks.append(('duplicate', _duplicate()))
  if rules.near_duplicates:
    checks.append(('near duplicate', _near_duplicate(rules)))
  return checks


def _each(check):
  return lambda found, _: next(filter(None, map(check, found)), '')


def _empty(turn):
  if turn.asked is not None and not (turn.asked + turn.beside).strip():
    return 'nothing is asked'
  return '' if turn.response.strip() else 'nothing is said'


def _length(rules):
  def check(turn):
    number = len(turn.response.strip())
    if number < rules.min_characters or 0 < rules.max_characters < number:
      return f'{number} characters'
    return ''

  return check


def _template(turn):
  found = turn.asked is not None and _TEMPLATE.search(turn.response)
  return found.group().strip() if found else ''


def _plain(text):
  return ' '.join(unicodedata.normalize('NFC', text).split())


def _echo(turn):
  asked = _plain(turn.asked or '')
  is_echo = len(asked) >= ECHO and _plain(turn.response).startswith(asked)
  return 'begins with the prompt' if is_echo else ''


def _repetition(most):
  def check(turn):
    text = turn.response
    runs = [text[i : i + REPEATED] for i in range(len(text) - REPEATED + 1)]
    share = 1 - len(set(runs)) / len(runs) if runs else 0
    return f'{share:.0%} is repeated' if share > most else ''

  return check


def _unfinished(least):
  def check(turn):
    text = turn.response.rstrip()
    if turn.asked is None or len(text) < least:
      return ''
    last = text[-1]
    # A mark of a letter, as most words of Hindi end with, is none of isalnum.
    is_open = (
      last.isalnum()
      or scripts_lib.is_letter(last)
      or last in ',，、،;；؛:：-—([{（【《“‘'
    )
    return f'ends with {last!r}' if is_open else ''

  return check


def _responses(found):
  return '\n'.join(turn.response for turn in found)


def _script(rules):
  def check(found, _):
    shares = scripts_lib.shares(languages.prose(_responses(found)))
    share = sum(shares.get(name, 0) for name in rules.scripts)
    if share >= rules.min_script_share:
      return ''
    # '' for a text without letters, as a sum: it is in any script.
    return ', '.join(f'{s:.0%} {name}' for name, s in list(shares.items())[:3])

  return check


def _language(rules):
  identify = languages.identifier((rules.language, *rules.other_languages))

  def check(found, _):
    language = identify(_responses(found))
    return language if language not in ('', rules.language) else ''

  return check


def _whole(found):
  parts = (part for turn in found for part in turn if part)
  return '\n'.join(parts)


def _benchmark(rules, report):
  indices = {}
  for name, fields in rules.benchmarks.items():
    read = contamination.items(name, fields['path'], fields['columns'])
    indices[name] = index = contamination.Index(read)
    report.benchmarks[name] = {
      'items': index.num_items,
      'too_short': index.num_too_short,
    }

  def check(found, _):
    text = _whole(found)
    return next(filter(None, (i.find(text) for i in indices.values())), '')

  return check


def _duplicate():
  seen = set()

  def check(found, _):
    text = _plain(_whole(found))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    if digest in seen:
      return 'the same text came before'
    seen.add(digest)
    return ''

  return check


def _num_bands(threshold, num_permutations):
  """The fewest bands that find all but _MISSED of the pairs at the threshold.

  Signatures of a pair are equal in a place with the chance of their Jaccard
  similarity; a band is found where all of its places are equal.
  """
  for num_bands in range(1, num_permutations):
    num_rows, rest = divmod(num_permutations, num_bands)
    if not rest and (1 - threshold**num_rows) ** num_bands <= _MISSED:
      return num_bands
  return num_permutations


def _near_duplicate(rules):
  try:
    import rensa  # an extra: compiled code
  except ImportError as error:
    raise ValueError(
      f'cleaning.near_duplicates={rules.near_duplicates} needs MinHash: pip '
      "install 'lbe[clean]' (rensa), or set it to 0."
    ) from error
  seen = rensa.RMinHashDeduplicator(
    rules.near_duplicates,
    rules.num_permutations,
    use_lsh=True,
    num_bands=_num_bands(rules.near_duplicates, rules.num_permutations),
    seed=_SEED,
  )

  def check(found, where):
    text = _plain(_whole(found)).casefold()
    starts = range(max(1, len(text) - rules.shingle + 1))
    hashed = rensa.RMinHash(rules.num_permutations, _SEED)
    hashed.update([text[i : i + rules.shingle] for i in starts])
    if seen.add(where, hashed):
      return ''
    return f'like {seen.get_duplicates(hashed)[0]}'

  return check
