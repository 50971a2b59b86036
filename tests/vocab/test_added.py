"""Tokens that a folder adds to its model: ids are those of transformers."""

import json
import random
import re
import shutil

import pytest

from lbe.inference import score
from lbe.vocab import continued
from lbe.vocab import export
from lbe.vocab import folder as folder_lib
from lbe.vocab import rows
from lbe.vocab import tokenizers
from lbe.vocab import train

TEXTS = [
  'a<x>b',
  'a <x> b',
  '<x>b',
  '<x>',
  'the river runs',
  'x <x>  <x> y',
  '<y> <x><y>the <x>',
  'a<x>\nthe\t<y>\n',
  'é<y>, 中文<x>中 [PAD]',
]
LLAMA = {
  'tokenizer_class': 'LlamaTokenizer',
  'bos_token': '<s>',
  'eos_token': '</s>',
  'unk_token': '<unk>',
  'add_bos_token': True,
}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp('model') / 'tokenizer.model'
  text = ['the river runs to the sea', 'she reads the letters', 'über <x>']
  train.train_sentencepiece(text * 9, path, vocab_size=310)
  return path


@pytest.fixture
def folder(model, tmp_path):
  """A function: the model with files beside it, which are given by name."""

  def make(**files):
    shutil.copy(model, tmp_path)
    (tmp_path / 'config.json').write_text('{"model_type": "llama"}')
    for name, record in files.items():
      (tmp_path / f'{name}.json').write_text(json.dumps(record))
    return tmp_path

  return make


def token(content, **flags):
  names = 'lstrip', 'normalized', 'rstrip', 'single_word', 'special'
  return {'content': content, **dict.fromkeys(names, False), **flags}


def listed(**flags):
  """tokenizer_config.json with <x> and <y> behind 310 pieces."""
  return {
    **LLAMA,
    'added_tokens_decoder': {
      '0': token('<unk>', special=True),
      '1': token('<s>', special=True),
      '310': token('<x>', **flags),
      '311': token('<y>', normalized=True),
    },
  }


def theirs(path):
  from transformers import AutoTokenizer

  return AutoTokenizer.from_pretrained(path)


def check(path):
  """Ids and texts are those of transformers, and go through bytes."""
  ours, their = tokenizers.load(path), theirs(path)
  again = tokenizers.from_bytes(ours.kind, ours.to_bytes())
  assert again.fingerprint == ours.fingerprint
  for text in TEXTS:
    ids = their.encode(text, add_special_tokens=False)
    assert ours.encode(text) == again.encode(text) == ids, text
    assert ours.decode(ids) == their.decode(ids, skip_special_tokens=True)
    whole = their.encode(text)
    assert tokenizers.prompt_ids(ours, text) == whole
  for role in ('bos', 'eos', 'unk', 'pad'):
    assert getattr(ours, f'{role}_id') == getattr(their, f'{role}_token_id')
  return ours


@pytest.mark.parametrize('legacy', [None, False, True])
@pytest.mark.parametrize('flag', ['', 'lstrip', 'rstrip', 'single_word'])
def test_ordinary_tokens_are_cut_out_as_transformers_does(folder, flag, legacy):
  """They were spelt out, and the model saw none of them."""
  config = listed(**({flag: True} if flag else {}))
  if legacy is not None:
    config['legacy'] = legacy
  ours = check(folder(tokenizer_config=config))
  assert [t.content for t in ours.added] == ['<x>', '<y>']
  assert ours.vocab_size == 312
  assert ours.byte_lengths[310] == 3


@pytest.mark.parametrize('name', ['LlamaTokenizer', 'PreTrainedTokenizerFast'])
def test_added_tokens_json_alone_and_roles_of_the_map_are_read(folder, name):
  path = folder(
    tokenizer_config={**LLAMA, 'tokenizer_class': name},
    added_tokens={'<y>': 311, '<x>': 310, '<|end|>': 312},
    special_tokens_map={
      'eos_token': '<|end|>',
      'pad_token': {'content': '[PAD]', 'lstrip': False},
      'bos_token': '<s>',
      'unk_token': '<unk>',
    },
  )
  ours, their = tokenizers.load(path), theirs(path)
  assert (ours.eos_id, ours.pad_id) == (312, 313)
  assert (their.eos_token_id, their.pad_token_id) == (312, 313)
  assert ours.specials == {'<s>': 1, '</s>': 2, '<|end|>': 312, '[PAD]': 313}
  text = 'the <x> river<y> runs'
  assert ours.encode(text) == their.encode(text, add_special_tokens=False)


def test_no_text_encodes_to_a_special_token(folder):
  """Whoever writes a user's message could end it."""
  ours = tokenizers.load(folder(tokenizer_config=listed(special=True)))
  text = 'a <x> <y>'
  assert 310 not in ours.encode(text) and 311 in ours.encode(text)
  assert ours.decode(ours.encode(text)) == text
  assert ours.decode([310, *ours.encode('the')]) == 'the'


def test_a_token_whose_text_is_a_piece_keeps_the_pieces_id(folder):
  """Two ids for one text: transformers takes the first."""
  pieces = tokenizers.load(folder()).proto.pieces
  piece = next(p.piece for p in pieces[260:] if p.piece.isalpha())
  config = listed()
  config['added_tokens_decoder'] |= {'312': token(piece, normalized=True)}
  ours = check(folder(tokenizer_config=config))
  (twice,) = (t for t in ours.added if t.content == piece)
  assert pieces[twice.id].piece == piece and ours.vocab_size == 312


def test_gaps_between_ids_decode_to_nothing(folder):
  """IndexError where a model wrote an id that its folder does not name."""
  path = folder(tokenizer_config=LLAMA, added_tokens={'<x>': 320})
  ours = tokenizers.load(path)
  ids = ours.encode('the<x>')
  assert ids[-1] == 320 and ours.vocab_size == 321
  assert ours.decode([*ids[:-1], 315, 320, 321, 9999]) == 'the<x>'
  assert ours.piece(315) == '' and ours.byte_lengths[315] == 0
  plain = ours.model
  assert plain.decode([*plain.encode('the'), 310, 9999]) == 'the'


def test_files_that_contradict_each_other_are_named(folder):
  path = folder(tokenizer_config=listed(), added_tokens={'<z>': 311})
  with pytest.raises(ValueError, match=r"added_tokens.json gives.*311.*'<z>'"):
    tokenizers.load(path)


def test_a_role_without_an_id_needs_a_row(folder):
  """Transformers gives it the next id, which the model cannot look up."""
  path = folder(tokenizer_config={**LLAMA, 'pad_token': '[PAD]'})
  assert tokenizers.load(path).pad_id == 310
  rows = {'vocab_size': 310}
  assert tokenizers.load(folder(config=rows)).pad_id is None
  eos = {**LLAMA, 'eos_token': '<|end|>'}
  path = folder(config=rows, tokenizer_config=eos)
  with pytest.raises(
    ValueError, match=re.escape("'<|end|>' has an id in none")
  ):
    tokenizers.load(path)


def test_what_changes_no_id_changes_no_fingerprint(folder, model):
  """Runs of yesterday would refuse to go on."""
  plain = tokenizers.load(folder())
  config = {**LLAMA, 'pad_token': '<unk>', 'add_bos_token': False}
  config['added_tokens_decoder'] = {'2': token('</s>', special=True)}
  other = tokenizers.load(folder(tokenizer_config=config))
  assert (other.pad_id, other.adds_bos) == (0, False)
  assert (plain.pad_id, plain.adds_bos) == (None, True)
  assert other.fingerprint == plain.fingerprint
  listing = tokenizers.load(folder(tokenizer_config=listed()))
  assert listing.fingerprint != plain.fingerprint


def test_special_tokens_are_told_by_id(test_data, tmp_path):
  """tokenizers 0.23 calls id 1 `▁<s>` where it is normalized: true."""
  source = test_data / 'ckpt_hf_tiny_random_llama'
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    shutil.copy(source / name, tmp_path)
  ours = tokenizers.load(tmp_path)
  assert [ours.piece(i) for i in range(3)] == ['<unk>', '<s>', '</s>']
  assert (ours.bos_id, ours.eos_id, ours.unk_id) == (1, 2, 0)


def test_a_tokenizer_json_beside_that_knows_more_is_read(folder):
  """Only it names <x>; or it has more pieces than the .model of before."""
  path = folder(tokenizer_config=listed())
  theirs(path).save_pretrained(path)
  config = json.loads((path / 'tokenizer_config.json').read_text())
  assert 'added_tokens_decoder' not in config
  ours = check(path)
  assert [t.content for t in ours.added] == ['<x>', '<y>']
  record = json.loads((path / 'tokenizer.json').read_text())
  record['added_tokens'] = record['added_tokens'][:3]
  vocabulary = record['model']['vocab']
  vocabulary |= {'中文': len(vocabulary), '中': len(vocabulary) + 1}
  (path / 'tokenizer.json').write_text(json.dumps(record))
  assert tokenizers.load(path).kind == 'hf'


def test_tokens_that_a_tokenizer_json_lacks_are_read_beside_it(folder):
  path = folder(tokenizer_config=LLAMA)
  theirs(path).save_pretrained(path)
  (path / 'tokenizer.model').unlink()
  (path / 'tokenizer_config.json').write_text(json.dumps(listed()))
  ours = check(path)
  assert (ours.kind, ours.vocab_size) == ('hf', 312)
  assert ours.byte_lengths[310] == 3


def test_new_pieces_go_behind_added_tokens(folder):
  """They would have taken the ids of ChatML's tokens."""
  tokens = {'<x>': 311, '<|end|>': 313}
  path = folder(
    tokenizer_config={**LLAMA, 'eos_token': '<|end|>'}, added_tokens=tokens
  )
  base = tokenizers.load(path)
  texts = ['清晨的集市已经热闹起来 <x> 清晨的集市'] * 9
  found = continued.extend(base, texts, num_pieces=20, progress=False)
  grown = found.tokenizer
  assert grown.piece(314) == found.added[0]
  assert grown.vocab_size == 314 + len(found.added)
  tokenizers.check_extension(grown, base)
  assert grown.eos_id == 313
  assert base.specials.items() <= grown.specials.items()
  for text in TEXTS[:7]:
    assert grown.encode(text) == base.encode(text)
  assert max(grown.encode(texts[0])) >= 314
  assert grown.decode(grown.encode(texts[0])) == texts[0]
  (ids,) = rows.spell(base, grown)[0]
  assert base.decode(ids) == found.added[0]
  again = tokenizers.from_bytes(grown.kind, grown.to_bytes())
  assert again.fingerprint == grown.fingerprint
  assert again.encode(texts[0]) == grown.encode(texts[0])


def test_an_extended_chat_keeps_its_ids_in_an_export(folder, tmp_path):
  """Its tokens are control pieces then; transformers put a space behind."""
  tokens = {'<|im_end|>': 310, '<|im_start|>': 311}
  path = folder(
    tokenizer_config={
      **LLAMA,
      'legacy': False,
      'eos_token': '<|im_end|>',
      'additional_special_tokens': ['<|im_start|>'],
    },
    added_tokens=tokens,
  )
  base = tokenizers.load(path)
  texts = ['清晨的集市已经热闹起来 清晨的集市'] * 9
  grown = continued.extend(base, texts, num_pieces=9, progress=False).tokenizer
  chat = '<|im_start|>user\nthe river 清晨<|im_end|>\n<|im_start|>'
  for i in range(2):
    target = tmp_path / f'export{i}'
    target.mkdir()
    export.write(grown, target, max_positions=128)
    grown = tokenizers.load(target)
    their = theirs(target)
    text = grown.after_special().encode('user\nthe river 清晨')
    end = grown.after_special().encode('\n')
    wanted = [311, *text, 310, *end, 311]
    assert their.encode(chat, add_special_tokens=False) == wanted
    assert max(text) > 311 and their.eos_token_id == grown.eos_id == 310


def test_bos_is_the_tokenizers_habit_unless_told_otherwise(folder):
  """As AutoTokenizer begins a text; two programs began it differently."""
  for add, wanted in ((True, [1]), (False, [])):
    path = folder(tokenizer_config={**LLAMA, 'add_bos_token': add})
    their = theirs(path)
    their.save_pretrained(path / 'json')
    for one in (path, path / 'json'):
      ours = tokenizers.load(one)
      again = tokenizers.from_bytes(ours.kind, ours.to_bytes())
      ids = their.encode('river')
      assert tokenizers.prompt_ids(ours, 'river') == ids, one
      assert tokenizers.prompt_ids(again, 'river') == ids
      assert tokenizers.start_ids(ours) == wanted
      assert tokenizers.start_ids(ours, True) == [1]
      assert tokenizers.start_ids(ours, False) == []
      (pair,) = score.split(ours, [('the river', ' runs')], bos=None)
      assert pair[0][: len(wanted)] == wanted


@pytest.mark.parametrize('has_model', [True, False])
@pytest.mark.parametrize('bos', [True, False])
@pytest.mark.parametrize(
  'said',
  [
    {},
    {'add_bos_token': True},
    {'add_bos_token': False},
    {'add_bos_token': None},
    {'add_eos_token': False},
  ],
)
def test_a_post_processor_outweighs_what_is_said_of_bos(
  folder, tmp_path, said, bos, has_model
):
  """As AutoTokenizer reads a folder, which an export has to repeat."""
  path = folder(tokenizer_config=LLAMA | {'add_bos_token': bos})
  theirs(path).save_pretrained(path)
  config = {x: LLAMA[x] for x in LLAMA if x != 'add_bos_token'} | said
  config['tokenizer_class'] = 'LlamaTokenizerFast'
  (path / 'tokenizer_config.json').write_text(json.dumps(config))
  if not has_model:
    (path / 'tokenizer.model').unlink()
  ours = tokenizers.load(path)
  target = tmp_path / 'export'
  target.mkdir()
  kept = folder_lib.kept(path)
  export.write(ours, target, max_positions=128, kept=kept)
  ids = [1] * bos + ours.encode('river')
  assert theirs(path).encode('river') == ids
  assert tokenizers.prompt_ids(ours, 'river') == ids
  assert theirs(target).encode('river') == ids
  assert tokenizers.prompt_ids(tokenizers.load(target), 'river') == ids


@pytest.mark.parametrize('legacy', [None, False, True])
@pytest.mark.parametrize('name', ['LlamaTokenizer', 'LlamaTokenizerFast'])
def test_the_space_before_a_text_is_left_out_where_a_folder_says_so(
  folder, tmp_path, name, legacy
):
  """Every text began with a piece that the model had not learnt there."""
  plain = tokenizers.load(folder())
  config = {'tokenizer_class': name, 'add_prefix_space': False}
  if legacy is not None:
    config['legacy'] = legacy
  path = folder(tokenizer_config=listed() | config)
  ours = check(path)
  assert ours.encode('river') == plain.without_prefix().encode('river')
  target = tmp_path / 'export'
  target.mkdir()
  kept = folder_lib.kept(path)
  compared = export.write(ours, target, max_positions=128, kept=kept)
  assert compared['differing'] == 0
  assert check(target).fingerprint == ours.fingerprint
  for text in (' river', '  the <x> river', ' ', '<x> river'):
    ids = theirs(path).encode(text, add_special_tokens=False)
    assert ours.encode(text) == tokenizers.load(target).encode(text) == ids
    assert theirs(target).encode(text, add_special_tokens=False) == ids


@pytest.mark.parametrize(
  'config',
  [
    {'add_prefix_space': True},
    {'add_prefix_space': None},
    {'add_prefix_space': False, 'tokenizer_class': 'PreTrainedTokenizerFast'},
  ],
)
def test_what_leaves_the_space_before_a_text_changes_no_id(folder, config):
  """As transformers, where only LlamaTokenizer reads the field."""
  plain = tokenizers.load(folder(tokenizer_config=LLAMA))
  ours = check(folder(tokenizer_config=LLAMA | config))
  assert ours.fingerprint == plain.fingerprint


def test_a_role_makes_a_piece_a_control_string(folder):
  """A text with it would have ended every response."""
  pieces = tokenizers.load(folder()).proto.pieces
  piece = next(p.piece for p in pieces[260:] if p.piece.isalpha())
  path = folder(tokenizer_config={**LLAMA, 'eos_token': piece})
  ours, their = tokenizers.load(path), theirs(path)
  assert ours.eos_id == their.eos_token_id < 310
  assert ours.specials[piece] == ours.eos_id
  assert ours.eos_id not in ours.encode(f'{piece} the {piece}')


def test_added_tokens_without_a_row_are_named(folder):
  ours = tokenizers.load(folder(tokenizer_config=listed()))
  words = "only 311 rows; the added token '<y>' has the id 311; give"
  with pytest.raises(ValueError, match=words):
    tokenizers.check_rows(ours, 311)


@pytest.mark.parametrize('name', ['LlamaTokenizer', 'PreTrainedTokenizerFast'])
@pytest.mark.parametrize(
  'tokens', [{'<x>': 310, '<y>': 311}, {'<x>': 312, '<y>': 315}]
)
def test_an_export_gives_the_same_ids_to_all(folder, tmp_path, tokens, name):
  """Ids with gaps moved together, and `▁<x>` took the space before it."""
  config = {**LLAMA, 'tokenizer_class': name}
  source = tokenizers.load(folder(tokenizer_config=config, added_tokens=tokens))
  target = tmp_path / 'export'
  target.mkdir()
  export.write(source, target, max_positions=128)
  again, their = tokenizers.load(target), theirs(target)
  assert again.fingerprint == source.fingerprint
  for text in TEXTS:
    ids = source.encode(text)
    assert again.encode(text) == ids
    assert their.encode(text, add_special_tokens=False) == ids, text
  (target / 'tokenizer.model').unlink()
  assert tokenizers.load(target).encode(TEXTS[0]) == source.encode(TEXTS[0])


def test_padding_alone_changes_no_chat(folder):
  """What stands behind a special token, in an exported folder as well."""
  plain = tokenizers.load(folder())
  for files in ({'pad_token': '<unk>'}, {'pad_token': '<unk>', 'legacy': True}):
    path = folder(tokenizer_config={**LLAMA, **files})
    padded = tokenizers.load(path)
    assert padded.pad_id == 0
    text = 'the river'
    behind = padded.after_special().encode(text)
    assert behind == plain.after_special().encode(text)


@pytest.mark.parametrize('legacy', [True, False])
@pytest.mark.parametrize('name', ['LlamaTokenizer', 'PreTrainedTokenizerFast'])
def test_drawn_texts_and_flags_have_the_ids_of_transformers(
  folder, name, legacy
):
  """Tokens side by side, in words, and in all kinds of white space."""
  rng = random.Random(7)
  config = {**LLAMA, 'tokenizer_class': name, 'legacy': legacy}
  names = 'lstrip', 'rstrip', 'single_word', 'normalized'
  config['added_tokens_decoder'] = {
    str(310 + i): token(text, **{flag: rng.random() < 0.4 for flag in names})
    for i, text in enumerate(('<x>', '<y>', '<|im|>'))
  }
  path = folder(tokenizer_config=config)
  ours, their = tokenizers.load(path), theirs(path)
  parts = ['<x>', '<y>', '<|im|>', ' ', '  ', '\n', '\t', '\r\n', 'the', 'é']
  parts += ['▁', '中文', 'B', '_', '1', '-', '<', '>', '\u3000', '\u200b']
  for _ in range(300):
    text = ''.join(rng.choices(parts, k=rng.randint(1, 9)))
    if text[0] not in ' ▁':  # where transformers loses a space
      ids = their.encode(text, add_special_tokens=False)
      assert ours.encode(text) == ids, text


def test_ids_of_a_tokenizer_json_stay_where_they_have_gaps(folder):
  """The library counts on from the vocabulary's end and says nothing."""
  path = folder(tokenizer_config=LLAMA)
  theirs(path).save_pretrained(path)
  (path / 'tokenizer.model').unlink()
  record = json.loads((path / 'tokenizer.json').read_text())
  record['added_tokens'] += [
    {'id': 315, **token('<x>')},
    {'id': 313, **token('中', special=True)},
    {'id': 312, **token('文')},
  ]
  (path / 'tokenizer.json').write_text(json.dumps(record))
  ours = tokenizers.load(path)
  assert ours.encode('the<x>文')[-2:] == [315, 312]
  assert ours.vocab_size == 316 and ours.piece(314) == ''
  assert ours.decode([*ours.encode('the<x>'), 310, 314, 313, 999]) == 'the<x>'
  assert ours.byte_lengths[[312, 313, 314, 315]].tolist() == [3, 0, 0, 3]
  assert tokenizers.without_piece(ours, 318) == (310, 311, 314, 316, 317)
