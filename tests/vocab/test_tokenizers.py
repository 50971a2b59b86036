"""Tokenizers read from disk, against published ids and each other."""

import json

import pytest
from sentencepiece import sentencepiece_model_pb2

from lbe.vocab import huggingface
from lbe.vocab import sentencepiece
from lbe.vocab import tokenizers


def test_the_published_vectors_of_the_llama_tokenizer_are_exact(test_data):
  """A wrong dummy prefix, byte fallback, or special changes some of these."""
  tokenizer = tokenizers.load(test_data / 'tok_llama_32000')
  path = test_data / 'fixtures_llama_tokenizer' / 'golden_llama32k.jsonl'
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(rows) == 78
  for row in rows:
    ids = tokenizer.encode(row['text'])
    if 'with BOS' in row['src']:
      ids = [tokenizer.bos_id, *ids]
    assert ids == row['ids'], row


@pytest.mark.parametrize(
  'name', ['tok_llama_32000', 'ckpt_stories260K/hf', 'bytes']
)
def test_byte_lengths_add_up_to_the_text(test_data, name):
  """Bits per byte in training would be off by what is missing here."""
  tokenizer = tokenizers.load(name if name == 'bytes' else test_data / name)
  for path in sorted((test_data / 'text_udhr').glob('*.txt')):
    text = path.read_text()
    ids = tokenizer.encode(text)
    dummy = getattr(tokenizer, 'add_dummy_prefix', False)
    total = int(tokenizer.byte_lengths[ids].sum())
    assert total - dummy == len(text.encode()), path


def test_a_checkpoint_carries_the_tokenizer_whole(test_data):
  """What to_bytes gives is the tokenizer, for each kind."""
  for path in (
    test_data / 'tok_llama_32000',
    test_data / 'ckpt_hf_tiny_random_llama' / 'tokenizer.json',
    'bytes',
  ):
    a = tokenizers.load(path)
    b = tokenizers.from_bytes(a.kind, a.to_bytes())
    assert a.fingerprint == b.fingerprint
    assert a.vocab_size == b.vocab_size
    assert (a.bos_id, a.eos_id) == (b.bos_id, b.eos_id) == (1, 2)
    text = '  Grüße,\t世界 \n<s>'
    assert a.encode(text) == b.encode(text)


def test_the_fingerprint_knows_meaning_not_bytes(test_data):
  """Unused settings may differ; a swapped pair of pieces may not."""
  data = (test_data / 'tok_llama_32000' / 'tokenizer.model').read_bytes()
  proto = sentencepiece_model_pb2.ModelProto()
  proto.ParseFromString(data)
  first = sentencepiece.SentencePiece(data).fingerprint

  def changed(edit):
    other = sentencepiece_model_pb2.ModelProto()
    other.CopyFrom(proto)
    edit(other)
    return sentencepiece.SentencePiece(other.SerializeToString()).fingerprint

  def scores(p):
    for piece in p.pieces:
      piece.score *= 2

  def swap(p):
    a, b = p.pieces[1000].piece, p.pieces[1001].piece
    p.pieces[1000].piece, p.pieces[1001].piece = b, a

  def rank(p):
    p.pieces[31999].score = 1.0

  def prefix(p):
    p.normalizer_spec.add_dummy_prefix = False

  assert changed(scores) == first
  assert changed(lambda p: p.trainer_spec.ClearField('input')) == first
  for edit in (swap, rank, prefix):
    assert changed(edit) != first


def extended(test_data, num):
  data = (test_data / 'tok_llama_32000' / 'tokenizer.model').read_bytes()
  proto = sentencepiece_model_pb2.ModelProto()
  proto.ParseFromString(data)
  for i in range(num):
    piece = proto.pieces.add()
    piece.piece = f'新{i}'
    piece.score = -40000.0 - i
  return sentencepiece.SentencePiece(proto.SerializeToString())


def test_another_tokenizer_is_refused_and_an_extension_by_its_name(test_data):
  """Ids that mean other pieces train and score nonsense."""
  base = tokenizers.load(test_data / 'tok_llama_32000')
  tokenizers.check_same(base.fingerprint, base, where='here')
  other = tokenizers.load(test_data / 'ckpt_stories260K' / 'hf')
  with pytest.raises(ValueError, match='ids would mean other pieces'):
    tokenizers.check_same(base.fingerprint, other, where='the model', base=base)
  with pytest.raises(ValueError, match='an extension of it by 3 pieces'):
    tokenizers.check_same(
      base.fingerprint, extended(test_data, 3), where='the model', base=base
    )


def test_rows_and_pieces(test_data):
  """Fewer rows than pieces would index outside the embedding."""
  base = tokenizers.load(test_data / 'tok_llama_32000')
  assert 'each with a row' in tokenizers.check_rows(base, 32000)
  assert 'the last 64 are kept' in tokenizers.check_rows(base, 32064)
  with pytest.raises(ValueError, match='32000 pieces but the model only 512'):
    tokenizers.check_rows(base, 512)


def test_what_is_no_tokenizer_is_refused(tmp_path):
  """A wrong path must be said as one."""
  with pytest.raises(ValueError, match='there is no tokenizer at'):
    tokenizers.load(tmp_path / 'none.model')
  with pytest.raises(ValueError, match='neither tokenizer.model nor'):
    tokenizers.load(tmp_path)
  (tmp_path / 'tokenizer.model').write_bytes(b'nothing of the kind')
  with pytest.raises(ValueError, match='cannot be read'):
    tokenizers.load(tmp_path)


def test_pieces_without_a_text_of_their_own_are_refused(test_data, tmp_path):
  """SentencePiece names the piece but neither its ids nor the file."""
  data = (test_data / 'tok_llama_32000' / 'tokenizer.model').read_bytes()
  for text, words in (
    (
      '▁the',
      "zh.model: .* has the piece '▁the' twice, at the ids 278 and 32000",
    ),
    ('', 'has an empty piece at id 32000'),
  ):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(data)
    proto.pieces.add().piece = text
    (tmp_path / 'zh.model').write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=words):
      tokenizers.load(tmp_path / 'zh.model')


def test_what_does_not_extend_its_base_is_refused(test_data):
  """Swapped, or an extension of something else: rows would be moved."""
  base = tokenizers.load(test_data / 'tok_llama_32000')
  new = extended(test_data, 3)
  tokenizers.check_extension(new, base)
  with pytest.raises(ValueError, match='32000 pieces, its base 32003: it must'):
    tokenizers.check_extension(base, new)
  other = tokenizers.load(test_data / 'ckpt_stories260K' / 'hf')
  with pytest.raises(ValueError, match='id 259 is .* in it and .* in the base'):
    tokenizers.check_extension(new, other)


def test_parts_of_characters_are_the_bytes_of_a_byte_level_vocabulary():
  """Its letters are not bytes, and one byte may be a whole character."""
  assert huggingface.spelled('ä¸Ń').decode() == '中'
  assert all(map(huggingface.is_partial, ('ä¸', 'Ń', 'Ńa')))
  assert not any(map(huggingface.is_partial, ('a', 'Ġa', 'ä¸Ń', '中')))
  assert len(set(huggingface.LETTERS)) == 256 and ' ' not in huggingface.LETTERS


@pytest.mark.parametrize(
  ('part', 'behind'),
  [
    ({'type': 'Prepend', 'prepend': '▁'}, True),
    ({'type': 'Metaspace', 'replacement': '▁', 'add_prefix_space': True}, True),
    (
      {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always'},
      True,
    ),
    (
      {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'first'},
      False,
    ),
  ],
)
def test_the_prefix_of_a_text_can_be_left_out(test_data, part, behind):
  """A space that no one wrote before a response, or behind a control token."""
  path = test_data / 'ckpt_hf_tiny_random_llama' / 'tokenizer.json'
  record = json.loads(path.read_text(encoding='utf-8'))
  if part['type'] == 'Prepend':
    record['normalizer']['normalizers'][0] = part
  else:
    record |= {'normalizer': None, 'pre_tokenizer': {**part, 'split': False}}
  tokenizer = huggingface.HuggingFace(json.dumps(record))
  model = tokenizers.load(test_data / 'tok_llama_32000')
  spaceless = model.without_prefix()
  for text in ('Hello you', '世界'):
    with_prefix, without = model.encode(text), spaceless.encode(text)
    assert with_prefix != without
    assert tokenizer.encode(text) == with_prefix
    assert tokenizer.without_prefix().encode(text) == without
    expected = with_prefix if behind else without
    assert tokenizer.after_special().encode(text) == expected
    assert model.after_special().encode(text) == without


def test_a_tokenizer_without_a_prefix_stays_itself(test_data):
  """Byte-level tokenizers are large; none is built twice for nothing."""
  path = test_data / 'ckpt_hf_tiny_random_llama' / 'tokenizer.json'
  record = json.loads(path.read_text(encoding='utf-8'))
  level = {'type': 'ByteLevel', 'add_prefix_space': False}
  level |= {'trim_offsets': True, 'use_regex': True}
  record |= {
    'normalizer': None,
    'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [level]},
  }
  tokenizer = huggingface.HuggingFace(json.dumps(record | {'decoder': None}))
  assert tokenizer.without_prefix() is tokenizer
  level['add_prefix_space'] = True
  tokenizer = huggingface.HuggingFace(json.dumps(record | {'decoder': None}))
  assert tokenizer.encode('a') != tokenizer.without_prefix().encode('a')
  assert tokenizers.Bytes().without_prefix().encode('a') == [100]


def test_a_panic_of_the_library_is_told_as_any_error(test_data, tmp_path):
  """Rust's are no Exception: they would end a program in a traceback."""
  path = test_data / 'ckpt_hf_tiny_random_llama' / 'tokenizer.json'
  record = json.loads(path.read_text(encoding='utf-8'))
  # Longer than what is merged.
  record['model']['continuing_subword_prefix'] = 'x' * 50
  broken = tmp_path / 'tokenizer.json'
  broken.write_text(json.dumps(record), encoding='utf-8')
  with pytest.raises(ValueError, match='it is no tokenizer.json .range end'):
    tokenizers.load(broken)


def test_specials_are_what_no_text_encodes_to(test_data):
  """The ids that a template may write and a message may not."""
  for path in (
    test_data / 'tok_llama_32000',
    test_data / 'ckpt_hf_tiny_random_llama' / 'tokenizer.json',
    'bytes',
  ):
    tokenizer = tokenizers.load(path)
    assert tokenizer.specials['<s>'] == 1
    assert tokenizer.specials['</s>'] == 2
    for text in tokenizer.specials:
      ids = tokenizer.encode(f'a{text}b')
      assert set(ids).isdisjoint(tokenizer.specials.values())


@pytest.mark.parametrize('name', ['tokenizer.model', 'tokenizer.json', 'bytes'])
def test_half_a_character_is_told(test_data, name):
  """A traceback of pybind: JSON can hold what no UTF-8 text has."""
  folder = test_data / 'ckpt_hf_tiny_random_llama'
  tokenizer = tokenizers.load(name if name == 'bytes' else folder / name)
  for encode in (
    tokenizer.encode,
    lambda text: tokenizer.encode_batch(['a', text]),
  ):
    with pytest.raises(
      ValueError, match=r"'half \\ud83d pair' has half a char"
    ):
      encode('half \ud83d pair')
    assert encode('whole 😀 pair') is not None
  # Arrays are of UTF-8, which has no halves.
  ids = tokenizer.encode_arrays([b'a', 'whole 😀 pair'.encode()])
  assert [x.tolist() for x in ids] == tokenizer.encode_batch(
    ['a', 'whole 😀 pair']
  )
