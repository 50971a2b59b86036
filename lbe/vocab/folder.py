"""What the files beside a tokenizer say of it, as transformers reads them.

tokenizer_config.json, special_tokens_map.json, added_tokens.json, and a
tokenizer.json.
"""

import pathlib
from typing import NamedTuple

from lbe.text import files
from lbe.vocab import added as added_lib


class Facts(NamedTuple):
  """Added tokens, roles by text, and habits; None where nothing is said.

  `tokens` are added.Tokens by id, also such as repeat a piece of the model.
  `behind` is one of added.PREFIXES; `spaced` whether a .model may put the space
  before a text.
  """

  tokens: list
  roles: dict
  adds_bos: bool | None
  behind: str
  spaced: bool


def read(folder, pieces: dict[str, int], record: dict | None = None) -> Facts:
  """The Facts of a folder whose tokenizer has the `pieces`, {text: id}.

  `record` is its tokenizer.json, where it has one. A token whose text is a
  piece keeps the piece's id; special ones that have no id in any file get the
  next ones, as far as the model has rows. Raises ValueError where two files
  contradict each other.
  """
  folder = pathlib.Path(folder)

  def beside(name):
    path = folder / name
    if path.is_file() or path.is_symlink():
      return files.read_json(path)
    return {}

  config = beside('tokenizer_config.json')
  listed = config.get('added_tokens_decoder') or {}
  # transformers: the map is of old, before the list in the config.
  first, second = config, beside('special_tokens_map.json')
  if not listed:
    first, second = second, first
  roles = {
    role: text
    for role in added_lib.ROLES
    if (
      text := _text(first.get(f'{role}_token') or second.get(f'{role}_token'))
    )
  }
  named = dict.fromkeys(roles.values())
  for said in (first, second):
    for name in ('additional_special_tokens', 'extra_special_tokens'):
      more = said.get(name) or ()
      more = more.values() if isinstance(more, dict) else more
      named |= dict.fromkeys(text for x in more if (text := _text(x)))
  found = _Found(pieces, set(roles.values()))
  for i, token in listed.items():
    found.add('tokenizer_config.json', i, token)
  for text, i in beside('added_tokens.json').items():
    if text not in found.tokens:
      special = text in named
      token = {'content': text, 'special': special, 'normalized': not special}
      found.add('added_tokens.json', i, token)
  for token in (record or {}).get('added_tokens') or ():
    if token['content'] not in found.tokens:
      found.add('tokenizer.json', token['id'], token)
  without = [x for x in named if x not in pieces and x not in found.tokens]
  rows = beside('config.json').get('vocab_size') if without else None
  for text in without:
    if rows is None or found.next_id < rows:
      token = {'content': text, 'special': True, 'normalized': False}
      found.add('special_tokens_map.json', found.next_id, token)
    elif text in [roles.get(role) for role in ('bos', 'eos', 'unk')]:
      raise ValueError(
        f'the special token {text!r} has an id in none of the files, and the '
        f'{rows} rows of the model have no place for it; name its id in '
        'added_tokens.json, or another token.'
      )
    elif text == roles.get('pad'):
      del roles['pad']
  spaced = not (_is_llama(config) and config.get('add_prefix_space') is False)
  return Facts(
    sorted(found.tokens.values()),
    roles,
    adds_bos(config, record),
    _behind(config, record) if spaced else 'never',
    spaced,
  )


# Chat templates that are files of their own, beside those in the config.
_TEMPLATES = ('chat_template.jinja', 'chat_template.json')


def kept(folder: str | pathlib.Path) -> dict:
  """What an export of the folder's tokenizer keeps of the files beside it.

  {'tokenizer_config': the record, 'files': {name: text} of chat templates}, of
  JSON; each only where there is such.
  """
  folder = pathlib.Path(folder)
  result, config = {}, {}
  for name in ('special_tokens_map.json', 'tokenizer_config.json'):
    if (folder / name).is_file():
      config |= files.read_json(folder / name)
  config.pop('added_tokens_decoder', None)  # stands with the tokens
  config = {
    k: _text(v) if isinstance(v, dict) and 'content' in v else v
    for k, v in config.items()
  }
  if config:
    result['tokenizer_config'] = config
  found = [folder / name for name in _TEMPLATES]
  found += sorted(folder.glob('additional_chat_templates/*.jinja'))
  texts = {
    str(path.relative_to(folder)): files.text(path)
    for path in found
    if path.is_file()
  }
  if texts:
    result['files'] = texts
  return result


def _text(token):
  """The text of a token that is written as a string or with its flags."""
  return token.get('content') if isinstance(token, dict) else token


class _Found:
  """Tokens by text, each text and each id once."""

  def __init__(self, pieces, roles):
    self.tokens, self._texts = {}, {}
    self._pieces, self._roles = pieces, roles

  @property
  def next_id(self):
    ids = [token.id for token in self.tokens.values()]
    return 1 + max([*self._pieces.values(), *ids], default=-1)

  def add(self, file, i, token):
    try:
      text, i = token['content'], int(i)
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
        f'{file} has an added token of another form at {i!r} ({token!r}); it '
        'has an id and a content.'
      ) from error
    i = self._pieces.get(text, i)
    if self._texts.setdefault(i, text) != text:
      raise ValueError(
        f'{file} gives the id {i} to the added token {text!r}, and '
        f'{self._texts[i]!r} has it; mend the file that is wrong.'
      )
    special = bool(token.get('special')) or text in self._roles
    self.tokens[text] = added_lib.Token(
      i,
      text,
      special,
      bool(token.get('normalized', not special)),
      *(bool(token.get(x)) for x in ('single_word', 'lstrip', 'rstrip')),
    )


def adds_bos(config, record):
  """Whether BOS is put before a text; None where neither says."""
  processor = (record or {}).get('post_processor')
  if processor is None:
    return config.get('add_bos_token')
  steps = processor.get('processors', [processor])
  return any(
    'SpecialToken' in step['single'][0]
    for step in steps
    if step['type'] == 'TemplateProcessing'
  )


def _is_llama(config):
  """Whether the class is that in which transformers writes spaces itself."""
  name = str(config.get('tokenizer_class')).removesuffix('Fast')
  return name.lower() == 'llamatokenizer'


def _behind(config, record):
  """Whether text behind an added token gets the space of a beginning."""
  if _is_llama(config):
    return 'missing' if config.get('legacy') else 'never'
  if record is None:
    return 'always' if config.get('legacy', True) else 'never'
  for part in ('normalizer', 'pre_tokenizer'):
    whole = record.get(part) or {}
    steps = whole.get('normalizers') or whole.get('pretokenizers') or [whole]
    for step in steps:
      if step.get('type') == 'Prepend':
        return 'always'
      if step.get('prepend_scheme', 'always') == 'always':
        if step.get('type') == 'Metaspace':
          return 'missing'
  return 'never'
