"""Models by spm_train's defaults, which strip the spaces of a text."""

import io

import pytest
import sentencepiece
import transformers

from lbe.vocab import added
from lbe.vocab import continued
from lbe.vocab import export
from lbe.vocab import extend
from lbe.vocab import report
from lbe.vocab import rows
from lbe.vocab import sentencepiece as sentencepiece_lib
from lbe.vocab import tokenizers


def trained(lines, **options):
  """A BPE model of 1,500 pieces by spm_train's defaults, with bytes."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines),
    model_writer=model,
    model_type='bpe',
    vocab_size=1500,
    byte_fallback=True,
    num_threads=1,
    minloglevel=2,
    **options,
  )
  return sentencepiece_lib.SentencePiece(model.getvalue())


def ntrex(test_data, name):
  path = test_data / 'text_ntrex' / f'newstest2019-{name}.txt'
  return path.read_text().splitlines()


@pytest.fixture(scope='module')
def english(test_data):
  return ntrex(test_data, 'src.eng')


@pytest.fixture(scope='module')
def hindi(test_data):
  return ntrex(test_data, 'ref.hin')


@pytest.fixture(scope='module')
def base(english):
  made = trained(english)
  assert made.proto.normalizer_spec.remove_extra_whitespaces
  return made


@pytest.fixture(scope='module')
def extended(base, hindi):
  return extend.extend(base, trained(hindi))


@pytest.fixture(scope='module')
def llama(test_data):
  return tokenizers.load(test_data / 'tok_llama_32000')


def produced(tokenizer, texts):
  return {
    tokenizer.piece(i) for ids in tokenizer.encode_batch(texts) for i in ids
  }


def spaced(pieces):
  return [piece for piece in pieces if piece.startswith('▁')]


def test_what_running_text_produces_is_never_called_unreachable(base, english):
  """' the' alone lost its space: 634 pieces of the text were counted."""
  used = produced(base, english)
  assert len(spaced(used)) > 500
  assert extend.unreachable(base) == {}
  assert report.summary(base)['unreachable'] == 0


def test_two_spaces_are_produced_only_where_they_are_kept(base, llama):
  """Such a model makes one of them wherever they stand."""
  runs = ['▁▁', '▁▁a']
  assert set(extend.unreachable(extend.below(base, runs))) == set(runs)
  assert base.encode('a  a') == base.encode('a a')
  assert '▁▁' not in extend.unreachable(llama)


def test_candidates_keep_the_space_before_them(extended, hindi):
  """All 649 that begin with a space were left out as never produced."""
  assert 'never produced by encoding' not in extended.left_out
  assert len(spaced(extended.added)) > 500
  used = produced(extended.tokenizer, hindi)
  assert len(used.intersection(spaced(extended.added))) > 500


def test_a_corpus_teaches_words_with_their_space(base, hindi):
  """A token of its own would be spent on every space."""
  found = continued.extend(base, hindi, num_pieces=500, progress=False)
  assert len(spaced(found.added)) > 200
  words = produced(found.tokenizer, hindi).intersection(spaced(found.added))
  assert len(words) > 0.9 * len(spaced(found.added))


def test_new_rows_are_spelt_with_their_space(base, extended):
  """The row of a word would begin as one from the middle of a word."""
  token = added.Token(base.vocab_size, '<x>', special=False, normalized=False)
  for one, other in (
    (base, extended.tokenizer),
    (
      added.AddedTokens(base, added=[token], behind='always'),
      extend.extend(
        added.AddedTokens(base, added=[token]), extended.tokenizer
      ).tokenizer,
    ),
  ):
    spellings = rows.spell(one, other)
    pieces = [other.piece(one.vocab_size + i) for i in range(len(spellings))]
    assert len(spaced(pieces)) > 500
    for piece, (ids,) in zip(pieces, spellings, strict=True):
      assert one.verbatim().decode(ids) == piece.replace('▁', ' ')


def test_a_tokenizer_json_keeps_the_spaces_of_a_piece(extended, tmp_path):
  """Its normaliser strips as the model does, and so does transformers'."""
  model = extended.tokenizer
  export.write(model, tmp_path, max_positions=512)
  theirs = tokenizers.load(tmp_path / 'tokenizer.json')
  strip = {'type': 'Strip', 'strip_left': True, 'strip_right': True}
  steps = [*theirs.record['normalizer']['normalizers'], strip]
  normalizer = {'type': 'Sequence', 'normalizers': steps}
  for made in (
    theirs,
    theirs.with_record({**theirs.record, 'normalizer': normalizer}),
  ):
    assert made.without_prefix().encode(' a') == made.without_prefix().encode(
      'a'
    )
    texts = [p.replace('▁', ' ') for p in extended.added] + ['a ', ' a', 'a']
    assert made.verbatim().encode_batch(texts) == (
      model.verbatim().encode_batch(texts)
    )


def test_tied_pieces_that_begin_with_a_space_are_cut_out(
  base, english, hindi, tmp_path
):
  """1,735 of these lines had other ids in transformers."""
  target = trained(hindi)
  zero = extend.extend(base, target, score_mode='zero').tokenizer
  assert export.write(zero, tmp_path, max_positions=512)['differing'] == 0
  theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
  lines = english + hindi
  found = theirs(lines, add_special_tokens=False)['input_ids']
  assert found == zero.encode_batch(lines)


def test_only_pieces_are_read_verbatim(base, llama):
  """What stands behind a special token is stripped as any text is."""
  plain = base.without_prefix()
  assert plain.encode(' river ') == plain.encode('river')
  assert base.after_special().encode(' river') == plain.encode('river')
  # A model that keeps its spaces has nothing else to keep.
  assert llama.verbatim().to_bytes() == llama.without_prefix().to_bytes()
  assert tokenizers.Bytes().verbatim().encode(' ') == [35]


@pytest.mark.parametrize('add_dummy_prefix', [True, False])
def test_a_translation_has_a_space_where_the_piece_has_one(
  add_dummy_prefix, english, tmp_path
):
  """Without a dummy prefix, 'river' alone goes on in the middle of a word."""
  own = trained(english, add_dummy_prefix=add_dummy_prefix)
  made = extend.below(own, ['घर', '▁घर'])
  path = tmp_path / 'words.tsv'
  path.write_text('घर\tpeople\n')
  spellings, num_found = rows.translate(own, made, path)
  assert num_found == 2
  [(alone,), (behind_space,)] = spellings
  assert alone == own.encode('people')
  assert own.piece(behind_space[0]) == '▁people'
  assert (alone == behind_space) == add_dummy_prefix
