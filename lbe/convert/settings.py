"""What a folder says beside its weights: ids that end a text, chat templates.

What came in stays, through training and extension; what the run itself chose
(its template, the token that ends a response) wins, and is said.
"""

import pathlib

from lbe.chat import chat_template
from lbe.chat import jinja
from lbe.chat import templates
from lbe.text import hub
from lbe.vocab import export
from lbe.vocab import folder as folder_lib
from lbe.vocab import tokenizers

# Ids that config.json names.
ROLES = ('bos', 'eos', 'pad')


def tokenizer_files(info: dict, path: str) -> dict:
  """folder.kept of where the weights came from and of the tokenizer's `path`.

  A chat template beside the tokenizer that was asked for is a choice; of the
  rest the weights' side is the first.
  """
  came, own = info.get('tokenizer_files') or {}, {}
  place = pathlib.Path(hub.local(path, weights=False)) if path else None
  if place and place.name in ('tokenizer.model', 'tokenizer.json'):
    place = place.parent
  if place and place.is_dir():
    own = folder_lib.kept(place)
  config = {
    **own.get('tokenizer_config', {}),
    **came.get('tokenizer_config', {}),
  }
  files = came.get('files', {})
  if _has_template(own):
    config.pop('chat_template', None)
    config |= {
      k: v for k, v in own['tokenizer_config'].items() if k == 'chat_template'
    }
    files = own.get('files', {})
  return {'tokenizer_config': config, 'files': files}


def with_tokenizer(
  info: dict, tokenizer: tokenizers.Tokenizer, path: str
) -> dict:
  """`info` of a base under an adapter that has a tokenizer of its own."""
  own = {f'{role}_id': getattr(tokenizer, f'{role}_id') for role in ROLES}
  changed = {
    name: token
    for name, token in own.items()
    if token is not None and token not in _listed(info.get(name))
  }
  return {
    **info,
    **changed,
    'tokenizer_files': tokenizer_files(info, path),
  }


def _has_template(kept):
  return bool(kept.get('files')) or bool(
    kept.get('tokenizer_config', {}).get('chat_template')
  )


class Settings:
  """What an export writes beside weights and tokenizer.

  `kept` is what vocab.export takes, `bos_id`, `eos_id` (an id, or a list) and
  `pad_id` are those of config.json, `generation` is generation_config.json;
  `notices` are lines about what the run changed.
  """

  def __init__(
    self,
    info: dict,
    tokenizer: tokenizers.Tokenizer | None,
    run_config: dict | None,
    vocab_size: int,
  ):
    """`info` is that of stored.Opened; `run_config` of a run that trained."""
    self.notices = []
    self.kept = dict(info.get('tokenizer_files') or {})
    names = _templates(run_config)
    if tokenizer is not None:
      self._choose_template(names, tokenizer)

    def id_of(role):
      came = _known(info.get(f'{role}_id'), vocab_size)
      return getattr(tokenizer, f'{role}_id', None) if came is None else came

    self.bos_id, self.pad_id = id_of('bos'), id_of('pad')
    ends = []
    if run_config is not None and tokenizer is not None:
      ends = [tokenizer.eos_id, *(_end(name, tokenizer) for name in names)]
    self.eos_id = _with(id_of('eos'), ends)
    came = info.get('generation_config') or {}
    self.generation = {
      f'{role}_token_id': token
      for role in ROLES
      if (token := getattr(self, f'{role}_id')) is not None
    } | came
    stops = _known(came.get('eos_token_id'), vocab_size)
    self.generation['eos_token_id'] = (
      self.eos_id if stops is None else _with(stops, ends)
    )
    if self.generation['eos_token_id'] is None:
      del self.generation['eos_token_id']
    new = set(_listed(self.generation.get('eos_token_id'))) - {
      *_listed(info.get('eos_id')),
      *_listed(came.get('eos_token_id')),
    }
    if new and (info.get('eos_id') is not None or stops is not None):
      self.notices.append(
        f'notice: generation also ends at {sorted(new)}, with which the run '
        'taught responses to end.'
      )

  def _choose_template(self, names, tokenizer):
    """The run's template in the place of the one that came in."""
    if not names:
      return
    if len(names) > 1:
      stays = "; the source's stays" * _has_template(self.kept)
      self.notices.append(
        f'notice: the run learnt {", ".join(names)}; no one of them is written '
        f'as the chat_template{stays}.'
      )
      return
    bare = export.is_bare_behind(tokenizer, self.kept)
    text = _source(names[0], spaced=tokenizer.specials if bare else None)
    if text is None:
      self.notices.append(
        f'notice: the chat_template of the run ({names[0]}) is no longer '
        'there; none was written.'
      )
    elif _has_template(self.kept):
      if self.kept.get('tokenizer_config', {}).get('chat_template') == text:
        return
      self.notices.append(
        f'notice: the chat_template is that of the run ({names[0]}), in the '
        'place of the one that came with the weights.'
      )
    config = dict(self.kept.get('tokenizer_config', {}))
    config.pop('chat_template', None)
    if text is not None:
      config['chat_template'] = text
    self.kept = {'tokenizer_config': config}


def _templates(run_config):
  """The templates that a run's sources are written in, each once."""
  sources = ((run_config or {}).get('data') or {}).get('sources') or {}
  return sorted({s['template'] for s in sources.values() if s.get('template')})


def _source(name, *, spaced):
  if not name.endswith('.jinja'):
    return chat_template.written(templates.find(name), spaced=spaced)
  path = pathlib.Path(name)
  return path.read_text('utf-8') if path.is_file() else None


def _end(name, tokenizer):
  """The special token that ends a response; None where a text does."""
  if name.endswith('.jinja') and not pathlib.Path(name).is_file():
    return None
  rules = jinja.load(name, tokenizer)
  return templates.Encoder(rules, tokenizer, loss='all').end_of_response()[0]


def _listed(ids):
  return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _known(ids, vocab_size):
  """An id or a list of ids that rows stand for; None where there is none."""
  known = [i for i in _listed(ids) if 0 <= i < vocab_size]
  if not known:
    return None
  return known if isinstance(ids, list) else known[0]


def _with(ids, more):
  """An id or a list of ids, and more of them; one alone is no list."""
  new = [i for i in dict.fromkeys(more) if i is not None]
  new = [i for i in new if i not in _listed(ids)]
  if not new:
    return ids
  return [*_listed(ids), *new] if ids is not None or new[1:] else new[0]
