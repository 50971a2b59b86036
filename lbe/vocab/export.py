"""Tokenizer files that transformers, tokenizers, and SentencePiece load."""

import json
import pathlib

import tokenizers as tokenizers_lib
from tokenizers import decoders
from tokenizers import models
from tokenizers import processors

from lbe.text import lines
from lbe.vocab import added as added_lib
from lbe.vocab import fuzz
from lbe.vocab import tokenizers
from lbe.vocab import twin

# Keys of a tokenizer_config.json that say where it lay, or name code.
_NOT_KEPT = (
  *('auto_map', 'backend', 'is_local', 'local_files_only', 'name_or_path'),
  *('tokenizer_file', 'vocab_file', 'processor_class', 'from_slow'),
  *('special_tokens_map_file', 'cache_dir'),
)


def write(
  tokenizer: tokenizers.Tokenizer,
  target: str | pathlib.Path,
  *,
  max_positions: int,
  kept: dict | None = None,
) -> dict:
  """Writes the tokenizer's files into an existing folder; what `compare` gave.

  tokenizer.json and tokenizer_config.json, special_tokens_map.json, and
  tokenizer.model where it is a SentencePiece model. `kept` is what
  folder.kept gave of the folder that it comes from: its chat templates,
  padding and habits stay. The config names PreTrainedTokenizerFast: under
  LlamaTokenizer transformers 5 replaces the normaliser and loses leading
  spaces.
  """
  target = pathlib.Path(target)
  kept = kept or {}
  config = _config(tokenizer, kept, max_positions)
  if tokenizer.kind == 'hf':
    exported = _repaired(tokenizer.record)
    text = json.dumps(exported, ensure_ascii=False, indent=2)
  else:
    chats = bool(config.get('chat_template') or kept.get('files'))
    text = _twin(tokenizer, config, chats).to_str(pretty=True)
    exported = json.loads(text)
  (target / 'tokenizer.json').write_text(text, encoding='utf-8')
  if tokenizer.kind == 'sentencepiece':
    (target / 'tokenizer.model').write_bytes(tokenizer.model.to_bytes())
  config['added_tokens_decoder'] = {
    str(token['id']): {k: v for k, v in token.items() if k != 'id'}
    for token in exported['added_tokens']
  }
  specials = {
    name: config[name]
    for name in config
    if name.endswith('_token') and config[name] and not name.startswith('add_')
  }
  for name in ('additional_special_tokens', 'extra_special_tokens'):
    if config.get(name):
      specials['additional_special_tokens'] = config[name]
  for name, record in (
    ('tokenizer_config.json', config),
    ('special_tokens_map.json', specials),
  ):
    (target / name).write_text(
      json.dumps(record, ensure_ascii=False, indent=2), encoding='utf-8'
    )
  for name, text in kept.get('files', {}).items():
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text(text, encoding='utf-8')
  return compare(tokenizer, target / 'tokenizer.json')


def _config(tokenizer, kept, max_positions):
  """tokenizer_config.json: what is ours, what came in, and the ids' tokens."""
  came = {
    k: v
    for k, v in kept.get('tokenizer_config', {}).items()
    if k not in _NOT_KEPT
  }
  config = {
    'add_eos_token': False,
    'legacy': True,
    'pad_token': None,
    'padding_side': 'right',
    # transformers 4 adds token_type_ids to a class of no model, which
    # `generate` of a LLaMA refuses.
    'model_input_names': ['input_ids', 'attention_mask'],
    'clean_up_tokenization_spaces': False,
    'model_max_length': max_positions,
  }
  config |= came
  # Beside a tokenizer.json transformers asks its post-processor alone: what
  # came in may say another thing than what was done.
  config['add_bos_token'] = tokenizer.adds_bos
  if tokenizer.kind == 'hf' and tokenizer.record.get('post_processor'):
    # The file itself says it; a key would make transformers write it anew.
    del config['add_bos_token'], config['add_eos_token']
  config['tokenizer_class'] = 'PreTrainedTokenizerFast'
  for role in added_lib.ROLES:
    token = getattr(tokenizer, f'{role}_id')
    if token is not None:
      config[f'{role}_token'] = tokenizer.piece(token)
    elif role != 'pad':
      config.pop(f'{role}_token', None)
  return config


def _repaired(record):
  """A tokenizer.json whose special tokens are found by their own text.

  Where the normaliser would change it (`<s>` to `▁<s>`), `tokenizers` knows
  the token by the changed text alone, and transformers by neither.
  """
  known = tokenizers_lib.Tokenizer.from_str(json.dumps(record))
  tokens = [
    {**token, 'normalized': False}
    if token['special'] and known.id_to_token(token['id']) != token['content']
    else token
    for token in record.get('added_tokens') or ()
  ]
  return {**record, 'added_tokens': tokens}


# --------------------------------------------------------------------- twins


def _twin(tokenizer, config, chats):
  """The `tokenizers.Tokenizer` of all but a tokenizer.json."""
  if tokenizer.kind == 'bytes':
    return _finish(_of_bytes(tokenizer), tokenizer, config)
  encoder = added_lib.unwritten(
    tokenizer.model, [t for t in tokenizer.added if t.special]
  )
  candidates = [
    _finish(one, tokenizer, config)
    for one in twin.variants(encoder, behind=_behind(tokenizer, config, chats))
  ]
  if len(candidates) == 1:
    return candidates[0]
  texts = fuzz.texts(tokenizer)
  truth = tokenizer.encode_batch(texts)
  return min(
    candidates, key=lambda one: len(_differing(truth, _encoded(one, texts)))
  )


def _behind(tokenizer, config, chats):
  """One of added.PREFIXES; of a model without added tokens by `legacy`.

  But only where there is a chat template, which puts text behind special
  tokens: else every space that a text begins with counts. And by its control
  pieces: those beside the roles are of a chat.
  """
  if tokenizer.model is not tokenizer:
    return tokenizer.behind
  roles = {getattr(tokenizer, f'{role}_id') for role in added_lib.ROLES}
  of_chat = not roles.issuperset(tokenizer.specials.values())
  bare = of_chat or (chats and config['legacy'] is False)
  return 'never' if bare else 'always'


def is_bare_behind(tokenizer: tokenizers.Tokenizer, kept: dict) -> bool:
  """Whether text behind a special token gets no space with a chat template."""
  if tokenizer.kind == 'sentencepiece':
    config = _config(tokenizer, kept, max_positions=0)
    bare = _behind(tokenizer, config, chats=True) == 'never'
    return bare and tokenizer.model.add_dummy_prefix
  return tokenizer.encode('a') != tokenizer.after_special().encode('a')


def _of_bytes(tokenizer):
  """Plain bytes: every character falls back."""
  vocab = {tokenizer.piece(i): i for i in range(tokenizer.vocab_size)}
  result = tokenizers_lib.Tokenizer(
    models.BPE(vocab=vocab, merges=[], unk_token='<unk>', byte_fallback=True)
  )
  result.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
  return result


def _finish(result, tokenizer, config):
  """With the special and added tokens, and what is put around a text."""
  tokens = {
    i: added_lib.Token(i, text, special=True, normalized=False)
    for text, i in tokenizer.specials.items()
  }
  if tokenizer.unk_id is not None:
    unknown = tokenizer.piece(tokenizer.unk_id)
    tokens[tokenizer.unk_id] = added_lib.Token(
      tokenizer.unk_id, unknown, special=True, normalized=False
    )
  tokens |= {token.id: token for token in tokenizer.added}
  tokens = [tokens[i] for i in sorted(tokens)]
  result = _with_ids(result, tokens)
  normalizer = result.normalizer
  for token in tokens:
    text = token.content
    changed = normalizer and normalizer.normalize_str(text) != text
    one = tokenizers_lib.AddedToken(
      text,
      special=token.special,
      # In texts it stands as it is.
      normalized=token.normalized and not changed,
      single_word=token.single_word,
      lstrip=token.lstrip,
      rstrip=token.rstrip,
    )
    if token.special:
      result.add_special_tokens([one])
    else:
      result.add_tokens([one])
  around = {
    role: f'{tokenizer.piece(getattr(tokenizer, f"{role}_id"))}'
    for role in ('bos', 'eos')
    if config.get(f'add_{role}_token')
    and getattr(tokenizer, f'{role}_id') is not None
  }
  bos, eos = ([around[x]] if x in around else [] for x in ('bos', 'eos'))
  result.post_processor = processors.TemplateProcessing(
    single=[*bos, '$A', *eos],
    pair=[*bos, '$A', *eos, *(f'{x}:1' for x in bos), '$B:1']
    + [f'{x}:1' for x in eos],
    special_tokens=[
      (text, getattr(tokenizer, f'{role}_id')) for role, text in around.items()
    ],
  )
  return result


def _with_ids(result, tokens):
  """A twin that will give each token its id: it knows them where ids gap."""
  new = [t for t in tokens if result.token_to_id(t.content) is None]
  first = result.get_vocab_size()
  if [t.id for t in new] == list(range(first, first + len(new))):
    return result
  record = json.loads(result.to_str())
  if record['model']['type'] != 'BPE':
    raise ValueError(
      f'the added tokens have the ids {[t.id for t in new]}, with gaps behind '
      f'{first} pieces, which a tokenizer.json of '
      f'{record["model"]["type"]} cannot say; give them the next ids.'
    )
  record['model']['vocab'] |= {t.content: t.id for t in new}
  return tokenizers_lib.Tokenizer.from_str(json.dumps(record))


# ------------------------------------------------------------------ comparing


def compare(
  tokenizer: tokenizers.Tokenizer, path: str | pathlib.Path, texts=None
) -> dict:
  """How a tokenizer.json differs from the training tokenizer.

  {'texts', 'differing', 'example'}: on the fuzz set, or on the lines of
  `texts` where some are given; the example, with both sides' ids around the
  first that differs, only where one does.
  """
  if texts is None:
    texts = fuzz.texts(tokenizer)
  else:
    texts = [line for text in texts for line in lines.split(text)]
  theirs = tokenizers_lib.Tokenizer.from_file(str(path))
  ours, got = tokenizer.encode_batch(texts), _encoded(theirs, texts)
  differing = _differing(ours, got)
  record = {'texts': len(texts), 'differing': len(differing)}
  if differing:
    # A short one is the easiest to understand.
    i = min(differing, key=lambda i: len(texts[i]))
    record['example'] = {
      'text': texts[i][:200],
      'training': ours[i][:40],
      'tokenizer.json': got[i][:40],
    }
  return record


def _encoded(theirs, texts):
  theirs.encode_special_tokens = True
  batch = theirs.encode_batch_fast(texts, add_special_tokens=False)
  return [encoding.ids for encoding in batch]


def _differing(ours, theirs):
  return [
    i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b
  ]


def told(compared: dict, of: str = 'texts of the fuzz set') -> str:
  """A line that says what `compare` gave."""
  text = (
    f'tokenizer.json: {compared["differing"]:,} of {compared["texts"]:,} {of} '
    'get other ids than from the training tokenizer'
  )
  if not compared['differing']:
    return text
  example = compared['example']
  return (
    f'warning: {text}, as {example["text"]!r}: {example["tokenizer.json"]} for '
    f'{example["training"]}'
  )
