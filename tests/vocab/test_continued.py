"""Merges learnt on top of the base's: by hand, and against SentencePiece."""

import collections

import pytest
import sentencepiece

from lbe.data import sources
from lbe.vocab import continued
from lbe.vocab import extend
from lbe.vocab import tokenizers
from lbe.vocab import train


def learn(units, num_merges, known=()):
  given = {unit: (list(unit), n) for unit, n in units.items()}
  return joined(given, num_merges, known)


def joined(given, num_merges, known=(), allowed=lambda piece: True):
  return continued.learn(
    given, set(known), num_merges, allowed=allowed, progress=False
  )


def test_merges_by_hand():
  """ab 5, bc 4; with ab joined, abc is 3 and bc 1."""
  units = {'abc': 3, 'ab': 2, 'bc': 1}
  assert learn(units, 1) == ['ab']
  assert learn(units, 5) == ['ab', 'abc']
  # A join that is a piece already is made, but adds none.
  assert learn(units, 5, known={'ab'}) == ['abc']


def test_joins_are_counted_by_their_text():
  """`a`+`bc` and `ab`+`c` are one join for SentencePiece."""
  given = {'x': (['a', 'bc'], 2), 'y': (['ab', 'c'], 2), 'z': (['d', 'e'], 3)}
  assert joined(given, 1) == ['abc']


def test_what_is_not_allowed_is_never_joined():
  """The rule of scripts would hold for pieces but not for their parts."""
  given = {'abcd': (list('abcd'), 5), 'cd': (list('cd'), 1)}
  found = joined(given, 9, allowed=lambda piece: 'bc' not in piece)
  assert found == ['cd', 'ab']


def test_repeated_characters_join_from_the_left():
  """哈哈哈 is 哈哈 and 哈, not a join of overlapping places."""
  assert learn({'哈哈哈': 5}, 9) == ['哈哈', '哈哈哈']


@pytest.fixture(scope='module')
def corpus(test_data):
  """(training texts, held-out texts) of modern Chinese, about 1.5 MB."""
  source = sources.Source(
    name='zh', path=str(test_data / 'text_zh_niutrans_modern' / '左传.txt')
  )
  texts = [text for text, _ in sources.documents(source)]
  return [t for i, t in enumerate(texts) if i % 10], texts[::10]


@pytest.fixture(scope='module')
def base(test_data):
  return tokenizers.load(test_data / 'tok_llama_32000' / 'tokenizer.model')


@pytest.fixture(scope='module')
def learnt(base, corpus):
  return continued.extend(base, corpus[0], num_pieces=3000, progress=False)


def test_no_piece_has_a_character_that_is_none(base):
  """`▁ஓ` without `ஓ` is one token for SentencePiece, and bytes in its
  tokenizer.json: a common word got other ids in transformers."""
  texts = ['அம்மா வந்தாள் ' * 40 + 'ஓர் ஓர் ']
  found = continued.extend(
    base, texts, num_pieces=20, coverage=0.9, progress=False
  )
  pieces = {p.piece for p in found.tokenizer.proto.pieces}
  assert found.added and not set(''.join(found.added)) - pieces
  assert not any('ஓ' in piece for piece in found.added)


def test_pieces_are_as_many_as_asked_and_all_reachable(base, learnt):
  """Base ids unmoved, nothing that encoding never gives."""
  assert len(learnt.added) == 3000
  assert extend.unreachable(learnt.tokenizer) == {}
  pieces = learnt.tokenizer.proto.pieces
  assert list(pieces)[:32000] == list(base.proto.pieces)
  assert not any('▁' in piece for piece in learnt.added)


def test_old_text_is_cut_as_before(test_data, base, learnt):
  path = test_data / 'text_en_tinyshakespeare' / 'input.txt'
  texts = path.read_text().split('\n\n')
  assert len(texts) > 5000
  assert extend.changed(base, learnt.tokenizer, texts)[0] == 0


def test_words_keep_the_space_before_them_where_words_have_one(base):
  """Hindi without '▁word' pieces would spend a token on every space."""
  texts = ['यह एक बहुत अच्छा दिन है, यह अच्छा है'] * 20
  found = continued.extend(base, texts, num_pieces=60, progress=False)
  assert '▁अच्छा' in found.added
  before, after = extend.changed(base, found.tokenizer, texts)[1:]
  assert after < before / 3


def test_as_few_tokens_as_a_model_trained_on_the_same_text(
  tmp_path, base, corpus
):
  """SentencePiece's BPE, merged at the same count of added pieces."""
  path = tmp_path / 'zh.model'
  train.train_sentencepiece(corpus[0], path, vocab_size=6000)
  theirs = extend.extend(base, tokenizers.load(path))
  num = len(theirs.added)
  assert num > 4000
  ours = continued.extend(base, corpus[0], num_pieces=num, progress=False)
  assert len(ours.added) == num
  counts = [
    sum(map(len, found.tokenizer.encode_batch(corpus[1])))
    for found in (ours, theirs)
  ]
  assert counts[0] <= counts[1], counts


def test_sentencepiece_itself_encodes_alike(learnt, corpus):
  """What is learnt is a model file, not a program of ours."""
  theirs = sentencepiece.SentencePieceProcessor(
    model_proto=learnt.tokenizer.to_bytes()
  )
  assert theirs.encode(corpus[1][0]) == learnt.tokenizer.encode(corpus[1][0])
  lengths = collections.Counter(map(len, learnt.added))
  assert lengths[1] > 1000 and lengths[2] > 200


def test_latin_letters_are_learnt_where_they_are_asked_for(base):
  """Vietnamese, Indonesian, Swahili have no other."""
  texts = ['Hôm nay trời đẹp quá, trời đẹp', 'trời mưa'] * 20
  found = continued.extend(
    base, texts, num_pieces=40, keep_latin=True, progress=False
  )
  assert '▁trời' in found.added and '▁đẹp' in found.added
  assert extend.unreachable(found.tokenizer) == {}


def test_what_cannot_be_learnt_is_said(base, test_data):
  with pytest.raises(ValueError, match='no letter of a script other than'):
    continued.extend(base, ['only English'], num_pieces=5, progress=False)
  # A folder with 0 new pieces looked like one with many.
  with pytest.raises(ValueError, match='nothing to add'):
    continued.extend(base, ['only English в'], num_pieces=5, progress=False)
  unigram = tokenizers.load(
    test_data / 'tok_chinese_sp_20000' / 'chinese_sp.model'
  )
  with pytest.raises(ValueError, match='the base is no BPE model'):
    continued.extend(unigram, ['中文'], num_pieces=5, progress=False)
