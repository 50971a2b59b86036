"""tokenizer.json against SentencePiece itself, where the two part ways."""

import io

import pytest
import sentencepiece
import transformers

from lbe.vocab import export
from lbe.vocab import extend
from lbe.vocab import fuzz
from lbe.vocab import sentencepiece as sentencepiece_lib
from lbe.vocab import tokenizers

WORDS = 'river stone water winter summer quiet market 清晨的集市 热闹'.split()
# Each was wrong in some form of tokenizer.json.
TEXTS = (
  *('river<sym>stone', '<sym>', '<sym>river', 'a [SEP] b', '[SEP][SEP]'),
  *(
    '\triver',
    'river\n',
    ' river \u3000',
    'river\r\nstone',
    '\r\n',
    '\v',
    '  ',
  ),
  *('ｶﾞ', 'ﾊﾟ', 'Ze\u0301', 'A\u064e', 'Ａ\u0301', 'か\u3099', '\u1112\u1161'),
  *('e\u0323\u0302', 'ê\u0323', '\u0628\u0651\u064e', 'x \u0301', '①ﬁ㌔'),
  *('<s>', '<0x0A>', '[SEP]<0x0A>[SEP]', '[SEP]<s>', '', 'river stone'),
)


def trained(**options):
  """A small model, with the settings of spm_train that are asked for."""
  lines = [
    ' '.join(WORDS[i % 9 :] + WORDS[: i % 7] + WORDS[i % 5 : i % 11])
    for i in range(400)
  ]
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines),
    model_writer=model,
    minloglevel=2,
    **{
      'vocab_size': 360,
      'model_type': 'bpe',
      'byte_fallback': True,
      'normalization_rule_name': 'identity',
      'remove_extra_whitespaces': False,
      'hard_vocab_limit': False,
      **options,
    },
  )
  return sentencepiece_lib.SentencePiece(model.getvalue())


def assert_same(tokenizer, folder, texts):
  compared = export.write(tokenizer, folder, max_positions=512)
  assert compared['texts'] > 2000 and compared['differing'] == 0, compared
  theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
  got = theirs(
    list(texts), add_special_tokens=False, split_special_tokens=True
  )['input_ids']
  ours = tokenizer.encode_batch(list(texts))
  for text, a, b in zip(texts, ours, got, strict=True):
    assert a == b, text
    if tokenizer.unk_id not in a:  # which SentencePiece writes as ⁇
      assert theirs.decode(a) == tokenizer.decode(a), text


SYMBOLS = {'user_defined_symbols': ['<sym>', '[SEP]']}


@pytest.mark.parametrize('model_type', ['bpe', 'unigram'])
@pytest.mark.parametrize(
  'options',
  [
    {'user_defined_symbols': ['\n', '<sym>', '<sym', '[SEP]']},
    {'normalization_rule_name': 'nmt_nfkc', **SYMBOLS},
    {'normalization_rule_name': 'nfkc_cf', 'remove_extra_whitespaces': True},
    {'treat_whitespace_as_suffix': True},
    {'model_type': 'char', **SYMBOLS},
    {'add_dummy_prefix': False, 'remove_extra_whitespaces': True},
    {'byte_fallback': False, 'remove_extra_whitespaces': True},
  ],
  ids=lambda options: ' '.join(options) or 'plain',
)
def test_every_setting_of_sentencepiece_has_its_twin(
  options, model_type, tmp_path
):
  """User symbols, folded characters and stripped spaces were lost."""
  assert_same(trained(**{'model_type': model_type, **options}), tmp_path, TEXTS)


def test_pieces_of_one_score_are_cut_out_of_the_text(test_data, tmp_path):
  """The published recipe's: 741 of 1,997 Chinese lines had other ids."""
  base = tokenizers.load(test_data / 'tok_llama_32000')
  target = tokenizers.load(
    test_data / 'tok_chinese_sp_20000' / 'chinese_sp.model'
  )
  zero = extend.extend(base, target, score_mode='zero').tokenizer
  lines = []
  for name in ('zho-CN', 'zho-TW'):
    path = test_data / 'text_ntrex' / f'newstest2019-ref.{name}.txt'
    lines += path.read_text().splitlines()
  path = test_data / 'text_en_wikitext2' / 'wiki.test.raw.txt'
  lines += path.read_text().splitlines()[:200]
  assert_same(zero, tmp_path, lines)


def test_scores_that_all_tie_are_read_from_left_to_right(test_data, tmp_path):
  """Years: 12 before 23 before 31 before 12 is no order of ranks."""
  proto = tokenizers.load(test_data / 'ckpt_stories260K' / 'hf').proto
  for piece in proto.pieces:
    piece.score = 0.0
  tokenizer = sentencepiece_lib.SentencePiece(proto.SerializeToString())
  assert_same(tokenizer, tmp_path, fuzz.texts(tokenizer))


def test_what_cannot_be_said_is_counted_with_an_example(tmp_path):
  """Ties below other scores have no form: the number says how much it is."""
  proto = trained().proto
  below = [p for p in proto.pieces if p.type == 1 and len(p.piece) > 1][20:]
  for piece in below:
    piece.score = -50.0
  tokenizer = sentencepiece_lib.SentencePiece(proto.SerializeToString())
  compared = export.write(tokenizer, tmp_path, max_positions=512)
  assert compared['differing'] > 0
  text = compared['example']['text']
  assert compared['example']['training'] == tokenizer.encode(text)[:40]
  assert 'warning: tokenizer.json: ' in export.told(compared)
