"""Byte-level BPE, extended: old text untouched, all libraries agree."""

import json
import unicodedata

import pytest
import transformers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import Regex
from tokenizers import Tokenizer
from tokenizers import trainers

from lbe.data import sources
from lbe.text import scripts
from lbe.vocab import byte_level
from lbe.vocab import export
from lbe.vocab import extend
from lbe.vocab import huggingface
from lbe.vocab import rows
from lbe.vocab import tokenizers

import runs

# LLaMA-3's.
PATTERN = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
SPECIALS = ('<|begin_of_text|>', '<|end_of_text|>', '<|用户|>')


def ntrex(test_data):
  """{language: its lines}."""
  return {
    path.stem.split('.')[-1]: path.read_text().splitlines()
    for path in sorted((test_data / 'text_ntrex').glob('newstest2019-*.txt'))
  }


def train(texts, specials=SPECIALS, ignore_merges=True):
  """A byte-level BPE of 2,000 pieces, special tokens behind them."""
  tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(PATTERN), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=2000,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  tokenizer.add_special_tokens(list(specials))
  return huggingface.HuggingFace(tokenizer.to_str())


@pytest.fixture(scope='module')
def texts(test_data):
  return ntrex(test_data)


@pytest.fixture(scope='module')
def base(texts):
  some = [x for name in ('zho-CN', 'arb', 'hin') for x in texts[name][:250]]
  return train(texts['eng'][:1000] + some)


@pytest.fixture(scope='module')
def chinese(test_data):
  source = sources.Source(
    name='zh', path=str(test_data / 'text_zh_niutrans_modern' / '左传.txt')
  )
  return [text for text, _ in sources.documents(source)][:500]


@pytest.fixture(scope='module')
def learnt(base, chinese):
  return byte_level.extend(base, chinese, num_pieces=1000, progress=False)


def test_ids_do_not_move_and_new_ones_lie_behind_the_special_tokens(
  base, learnt
):
  """Loaders number added tokens from the vocabulary's end, if they can."""
  new = learnt.tokenizer
  assert tokenizers.is_extension(new, base)
  assert (base.vocab_size, new.vocab_size) == (2003, 3003)
  assert (new.bos_id, new.eos_id) == (base.bos_id, base.eos_id) == (2000, 2001)
  assert [byte_level.readable(new.piece(i)) for i in range(2003, 3003)] == (
    learnt.added
  )
  assert '没有' in learnt.added
  merges = new.record['model']['merges']
  old = base.record['model']['merges']
  assert merges[: len(old)] == old and len(merges) >= len(old) + 1000


def test_every_piece_is_reachable(learnt):
  """Alone it comes whole, in a longer word by its merges."""
  for tokenizer in (
    learnt.tokenizer,
    huggingface.HuggingFace(
      json.dumps(learnt.tokenizer.record).replace(
        '"ignore_merges": true', '"ignore_merges": false'
      )
    ),
  ):
    assert byte_level.unreachable(tokenizer, first_id=2003) == {}
    for i in range(2003, 3003):
      if not huggingface.is_partial(tokenizer.piece(i)):
        text = byte_level.readable(tokenizer.piece(i))
        assert tokenizer.encode(text) == [i]


def scripts_of(text):
  return {scripts.first_word(c) for c in set(text)} - {''}


@pytest.fixture(scope='module')
def every(texts, base):
  """(text, its scripts, the base's ids): lines, and all characters."""
  every = [text for lines in texts.values() for text in lines[::2]]
  codes = (chr(i) for i in range(0x21, 0x32000))
  every += [c * 2 for c in codes if unicodedata.category(c) not in ('Cn', 'Cs')]
  ids = base.encode_batch(every)
  return list(zip(every, map(scripts_of, every), ids, strict=True))


@pytest.mark.parametrize('name', ['zho-CN', 'tam'])
def test_text_without_the_added_script_is_cut_as_before(
  base, texts, every, name
):
  """A join of two bytes may be in another script's characters."""
  found = byte_level.extend(base, texts[name], num_pieces=500, progress=False)
  assert len(found.added) == 500
  told = found.notices[0].removeprefix('learnt from ').split(';')[0]
  scripts = set(told.split(', '))
  old = [(text, ids) for text, its, ids in every if not its & scripts]
  assert len(old) > 30_000
  new = found.tokenizer.encode_batch([text for text, _ in old])
  pairs = zip(old, new, strict=True)
  assert [text for (text, ids), other in pairs if ids != other][:3] == []
  before, after = extend.changed(base, found.tokenizer, texts[name])[1:]
  assert after < 0.9 * before


def test_a_beginning_is_learnt_only_if_nothing_else_begins_so(base, texts):
  """E0 A7 begins Bengali digits, too; E0 A6 only letters of Bengali."""
  found = byte_level.extend(base, texts['ben'], num_pieces=500, progress=False)
  assert found.intermediates == [r'\xe0\xa6', r' \xe0\xa6']
  stuck = found.left_out['letters whose first bytes begin other text']
  assert '\u09c7' in stuck and '\u0995' not in stuck
  assert unicodedata.category('\u09e6') == 'Nd'


def test_a_stray_word_of_another_script_teaches_nothing(base):
  """One Russian name in a Chinese corpus must not change Russian."""

  def added(num_chinese):
    corpus = ['没有中国人'] * num_chinese + ['Москва'] * 3
    return byte_level.extend(base, corpus, num_pieces=100, progress=False).added

  assert 'Москва' not in added(10_000) and '没有中国人' in added(10_000)
  assert 'Москва' in added(1000)


def test_all_libraries_give_the_same_ids(base, learnt, texts, tmp_path):
  """What is written is read by others, special tokens included."""
  export.write(learnt.tokenizer, tmp_path, max_positions=512)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  plain = Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_file=str(tmp_path / 'tokenizer.json')
  )
  lines = [line for text in texts.values() for line in text[:150]]
  ours = learnt.tokenizer.encode_batch(lines)
  assert tokenizers.load(tmp_path).encode_batch(lines) == ours
  found = plain.encode_batch(lines, add_special_tokens=False)
  assert [e.ids for e in found] == ours
  assert theirs(lines, add_special_tokens=False)['input_ids'] == ours
  assert fast(lines, add_special_tokens=False)['input_ids'] == ours
  assert theirs.decode(ours[-1]) == lines[-1]
  assert tokenizers.load(tmp_path).fingerprint == learnt.tokenizer.fingerprint
  marked = f'{SPECIALS[0]}没有{SPECIALS[2]}'
  ids = [2000, *learnt.tokenizer.encode('没有'), 2002]
  for encode in (theirs.encode, fast.encode):
    assert encode(marked, add_special_tokens=False) == ids
  # As text, ours keep being text.
  assert 2000 not in learnt.tokenizer.encode(marked)


def test_new_pieces_are_spelt_by_the_base(base, learnt):
  """A row without parts would be the mean of nothing."""
  parts = byte_level.spell(base, learnt.tokenizer)
  assert len(parts) == 1000
  for piece, ids in zip(learnt.added, parts, strict=True):
    assert len(ids) > 1
    spelt = b''.join(huggingface.spelled(base.piece(i)) for i in ids)
    assert spelt.decode(errors='backslashreplace') == piece
  whole = learnt.added.index('没有')
  assert parts[whole] == base.encode('没有')


def test_a_translation_has_a_space_where_the_piece_has_one(
  base, texts, tmp_path
):
  """The row of a word would begin as 'water' from the middle of a word."""
  found = byte_level.extend(base, texts['hin'], num_pieces=300, progress=False)
  whole = [p for p in found.added if p not in found.intermediates]
  spaced = next(p for p in whole if p[0] == ' ' and len(p) > 3)
  alone = next(p for p in whole if p[0] != ' ' and f' {p}' not in whole)
  path = tmp_path / 'hi-en.tsv'
  path.write_text(f'{spaced.strip()}\twater\n{alone}\twater\n')
  spellings = rows.translate(base, found.tokenizer, path)[0]
  assert base.encode(' water') != base.encode('water')
  assert spellings[found.added.index(spaced)] == [base.encode(' water')]
  assert spellings[found.added.index(alone)] == [base.encode('water')]


def test_an_extension_is_extended_again(learnt, texts):
  """Ids of the first extension stay where they are."""
  found = byte_level.extend(
    learnt.tokenizer, texts['hin'], num_pieces=100, progress=False
  )
  assert tokenizers.is_extension(found.tokenizer, learnt.tokenizer)
  assert found.tokenizer.vocab_size == 3103


def test_other_forms_of_the_file(texts, chinese):
  """Merges as text, as older files have them; no ignore_merges."""
  made = train(texts['eng'][:300] + chinese[:20], ignore_merges=False)
  record = made.record
  model = record['model']
  model['merges'] = [' '.join(pair) for pair in model['merges']]
  base = huggingface.HuggingFace(json.dumps(record))
  found = byte_level.extend(base, chinese, num_pieces=300, progress=False)
  assert all(
    isinstance(x, str) for x in found.tokenizer.record['model']['merges']
  )
  assert extend.changed(base, found.tokenizer, texts['arb'])[0] == 0


def edited(base, change):
  record = json.loads(json.dumps(base.record))
  change(record)
  return huggingface.HuggingFace(json.dumps(record))


def test_what_cannot_be_extended_is_said(base, texts, test_data, learnt):
  """Each names what is wrong."""

  def extend_by(tokenizer, lines):
    byte_level.extend(tokenizer, lines, num_pieces=5, progress=False)

  other = tokenizers.load(
    test_data / 'ckpt_hf_tiny_random_llama/tokenizer.json'
  )
  with pytest.raises(ValueError, match="no byte-level BPE .kind 'hf'"):
    extend_by(other, texts['zho-CN'])
  with pytest.raises(ValueError, match="no byte-level BPE .kind 'bytes'"):
    extend_by(tokenizers.load('bytes'), texts['zho-CN'])
  with pytest.raises(ValueError, match='no letter of a script other than'):
    extend_by(base, ['only English'])
  with pytest.raises(ValueError, match='no join that the base has not'):
    extend_by(base, ['中'])

  def same_id(record):
    record['model']['vocab']['new'] = 300

  with pytest.raises(ValueError, match='pieces of one id'):
    extend_by(edited(base, same_id), texts['zho-CN'])

  def empty(record):
    record['model']['vocab'][''] = 2003

  with pytest.raises(ValueError, match='an empty piece'):
    extend_by(edited(base, empty), texts['zho-CN'])
  with pytest.raises(ValueError, match='2003 pieces, its base 3003: it must'):
    byte_level.spell(learnt.tokenizer, base)
  word = train(texts['eng'][:300], specials=('PAD',))
  with pytest.raises(ValueError, match="'PAD' is one word"):
    extend_by(word, texts['zho-CN'])


def test_the_command_extends_a_tokenizer_json(base, chinese, tmp_path):
  """From a folder as LLaMA-3's to one that transformers reads."""
  (tmp_path / 'base').mkdir()
  export.write(base, tmp_path / 'base', max_positions=512)
  corpus = tmp_path / 'zh.txt'
  corpus.write_text('\n'.join(chinese[:200]))
  output = runs.run(
    'tokenizer',
    'extend',
    f'--base={tmp_path}/base',
    f'--corpus={corpus}',
    '--num_pieces=50',
    f'--output={tmp_path}/new',
  )
  assert 'notice: learnt from CJK; text without letters of these' in output
  assert '50 pieces added' in output
  record = json.loads((tmp_path / 'new' / 'extension.json').read_text())
  assert (
    len(record['added']) == 50
    and record['tokenizer_json']['fuzz']['differing'] == 0
  )
  assert tokenizers.is_extension(tokenizers.load(tmp_path / 'new'), base)
