"""Extension: the published file, old text untouched, every piece reachable."""

import hashlib
import json
import random
import unicodedata

import pytest
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

from lbe.data import sources
from lbe.vocab import export
from lbe.vocab import extend
from lbe.vocab import sentencepiece
from lbe.vocab import tokenizers


@pytest.fixture(scope='module')
def base(test_data):
  return tokenizers.load(test_data / 'tok_llama_32000' / 'tokenizer.model')


@pytest.fixture(scope='module')
def target(test_data):
  return tokenizers.load(
    test_data / 'tok_chinese_sp_20000' / 'chinese_sp.model'
  )


@pytest.fixture(scope='module')
def zero(base, target):
  return extend.extend(base, target, score_mode='zero')


@pytest.fixture(scope='module')
def below(base, target):
  return extend.extend(base, target)


def ntrex(test_data, name):
  path = test_data / 'text_ntrex' / f'newstest2019-{name}.txt'
  return path.read_text().splitlines()


def test_zero_mode_is_the_published_file(zero):
  """Chinese-LLaMA's tokenizer, byte for byte (49,953 pieces)."""
  data = zero.tokenizer.to_bytes()
  assert len(data) == 757_958
  assert zero.tokenizer.vocab_size == 49_953
  assert hashlib.sha256(data).hexdigest() == (
    'e2676d4ca29ca1750f6ff203328d73b189321dc5776ceede037cbd36541d70c0'
  )


def test_base_ids_do_not_move_and_new_scores_lie_below(base, below):
  """A moved id is another word to every trained row."""
  old, new = base.proto.pieces, below.tokenizer.proto.pieces
  assert list(new)[: len(old)] == list(old)
  added = [p.piece for p in list(new)[len(old) :]]
  assert added == below.added
  assert len(set(added)) == len(added)
  scores = [p.score for p in list(new)[len(old) :]]
  assert scores == sorted(scores, reverse=True)
  assert scores[0] == -31741, "one below LLaMA's last merge"


def test_every_piece_is_reachable(below, zero):
  """A row that no text ever trains; the published file has 345 of them."""
  assert extend.unreachable(below.tokenizer) == {}
  assert len(extend.unreachable(zero.tokenizer, first_id=32_000)) == 345
  assert '中华人民共和国' in below.added
  assert 0 < len(below.intermediates) < 400


def _is_han(character):
  return unicodedata.name(character, '').startswith('CJK UNIFIED')


def english(test_data):
  """Documents of four English sets."""
  for path, cut in (
    ('text_en_wikitext2/wiki.test.raw.txt', 'line'),
    ('text_en_tinyshakespeare/input.txt', 'blank_line'),
  ):
    source = sources.Source(name='en', path=str(test_data / path), cut=cut)
    yield from (text for text, _ in sources.documents(source))
  for path in sorted((test_data / 'bench_mmlu_2020').rglob('*.csv')):
    yield from path.read_text(encoding='utf-8').splitlines()
  for path in sorted(
    (test_data / 'sft_alpaca_en_zh' / 'en_original').glob('*.json')
  ):
    yield from _strings(path.read_text(encoding='utf-8'))


def _strings(text):
  def walk(x):
    if isinstance(x, str):
      yield x
    elif isinstance(x, dict):
      for value in x.values():
        yield from walk(value)
    elif isinstance(x, list):
      for value in x:
        yield from walk(value)

  yield from walk(json.loads(text))


@pytest.fixture(scope='module')
def by_script(test_data):
  """{whether a document has Han characters: the documents}."""
  found = {True: [], False: []}
  for text in english(test_data):
    found[any(map(_is_han, text))].append(text)
  return found


def test_old_text_is_cut_as_before(by_script, base, below):
  """Not one of tens of thousands of English documents may change."""
  assert len(by_script[False]) > 50_000
  assert extend.changed(base, below.tokenizer, by_script[False])[0] == 0


def test_tokens_outside_the_new_script_are_unchanged(
  test_data, by_script, base, below
):
  """Spaces and punctuation beside Chinese stay what they were."""
  assert len(by_script[True]) > 20
  texts = [
    *ntrex(test_data, 'ref.zho-CN'),
    *by_script[True],
    'We say 你好 , then 再见!',
    '我 have 3 只猫，2条狗。',
    ' 中\n国 ',
  ]

  def outside(tokenizer, text):
    """Runs of pieces between the Han characters."""
    runs, run = [], []
    for part in tokenizer.split(text):
      if all(map(_is_han, part)):
        runs.append(run)
        run = []
      else:
        assert not any(map(_is_han, part)), part
        run.append(part)
    return [r for r in (*runs, run) if r]

  for text in texts:
    assert outside(below.tokenizer, text) == outside(base, text)


def test_chinese_takes_half_the_tokens(test_data, base, below, zero):
  """At least 1.9 times fewer, and within 3% of the published file."""
  for name in ('ref.zho-CN', 'ref.zho-TW'):
    texts = ntrex(test_data, name)
    before, after = extend.changed(base, below.tokenizer, texts)[1:]
    published = extend.changed(base, zero.tokenizer, texts)[2]
    assert before / after >= 1.9
    assert after / published <= 1.03


@pytest.fixture(scope='module')
def exported(below, tmp_path_factory):
  folder = tmp_path_factory.mktemp('extended')
  export.write(below.tokenizer, folder, max_positions=2048)
  return transformers.AutoTokenizer.from_pretrained(folder)


def random_unicode(num):
  """Strings over all scripts, with runs of white space between."""
  rng = random.Random(0)
  ranges = [(0x20, 0x7F), (0xA0, 0x2000), (0x3000, 0x9FFF), (0xAC00, 0xD7A3)]
  ranges += [(0x1F300, 0x1FAFF), (0x20000, 0x2A6DF)]
  for _ in range(num):
    parts = []
    for _ in range(rng.randint(1, 20)):
      low, high = rng.choice(ranges)
      parts.append(chr(rng.randint(low, high)) * rng.choice((1, 1, 2, 5)))
      parts.append(rng.choice(('', '', ' ', '   ', '\t', '\n\n', '\u3000')))
    yield ''.join(parts)


def test_the_export_gives_the_same_ids_everywhere(test_data, below, exported):
  """Real and random text, spaces, and all the added pieces themselves."""
  chinese = (test_data / 'text_zh_niutrans_modern' / '史记.txt').read_text()
  english_text = (
    test_data / 'text_en_tinyshakespeare' / 'input.txt'
  ).read_text()
  texts = [
    *(
      line
      for path in sorted((test_data / 'text_ntrex').glob('newstest*.txt'))
      for line in path.read_text().splitlines()
    ),
    *chinese[:350_000].split('\n\n'),
    *english_text[:1_000_000].split('\n\n'),
    *random_unicode(2000),
    *below.added,
    *(' ' * n + '中' + ' ' * n for n in range(9)),
    '  two  spaces\t\n\n  中 国  ',
  ]
  assert sum(map(len, texts)) > 4_000_000
  theirs = exported(texts, add_special_tokens=False)['input_ids']
  plain = Tokenizer.from_str(exported.backend_tokenizer.to_str())
  ours = below.tokenizer.encode_batch(texts)
  pairs = zip(theirs, ours, texts, strict=True)
  assert [text for a, b, text in pairs if a != b][:3] == []
  found = plain.encode_batch(texts, add_special_tokens=False)
  assert [e.ids for e in found] == ours


def edited(tokenizer, change):
  proto = sentencepiece_model_pb2.ModelProto()
  proto.ParseFromString(tokenizer.to_bytes())
  change(proto)
  return sentencepiece.SentencePiece(proto.SerializeToString())


def test_models_that_do_not_go_together_are_refused(base, target, below):
  """Each says what is wrong."""
  with pytest.raises(ValueError, match='the base is no BPE model'):
    extend.extend(target, base)
  with pytest.raises(ValueError, match='adds nothing .* was the base extended'):
    extend.extend(below.tokenizer, target)
  with pytest.raises(ValueError, match="score_mode='top' is unknown"):
    extend.extend(base, target, score_mode='top')

  def make_symbol(proto):
    proto.pieces[500].type = 4

  with pytest.raises(ValueError, match='user-defined symbols .* as '):
    extend.extend(base, edited(target, make_symbol))


def test_normalisers_that_disagree_are_said(below, base, test_data):
  """nmt_nfkc folds full-width letters; LLaMA does not."""
  assert 'nmt_nfkc in the target, identity in the base' in below.notices[0]


def test_what_is_left_out_is_told_by_reason(below):
  """A user must find the piece that is missing."""
  reasons = {reason: len(pieces) for reason, pieces in below.left_out.items()}
  assert reasons == {
    'already in the base': 2047,
    'with Latin letters or digits': 665,
    'only punctuation, symbols or space': 93,
    'the script joined with other characters': 166,
  }
