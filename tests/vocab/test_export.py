"""Exported tokenizer files, through the libraries that others use."""

import json

import pytest
import transformers

from lbe.vocab import export
from lbe.vocab import tokenizers
from lbe.vocab import train

import runs

SPACES = (
  '',
  ' ',
  '   leading',
  'inner   runs    of spaces',
  'trailing   ',
  '\ttab\t\ttabs',
  'line\nlines\n\n\nend\n',
  ' \n \t mixed \r\n',
  '  中文  空格 ',
)


def exported(tokenizer, folder):
  export.write(tokenizer, folder, max_positions=512)
  return transformers.AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize('name', ['tok_llama_32000', 'ckpt_stories260K/hf'])
def test_transformers_gives_the_same_ids_on_every_line(
  test_data, tmp_path, name
):
  """Merges in another order, or a swapped normaliser, differ on these."""
  tokenizer = tokenizers.load(test_data / name)
  theirs = exported(tokenizer, tmp_path)
  assert (tmp_path / 'tokenizer.model').exists()
  lines = list(SPACES)
  for path in sorted((test_data / 'text_ntrex').glob('newstest2019-*.txt')):
    lines += path.read_text().splitlines()
  assert len(lines) > 16 * 1900
  ours = tokenizer.encode_batch(lines)
  got = theirs(lines, add_special_tokens=False)['input_ids']
  differing = [x for x, a, b in zip(lines, ours, got, strict=True) if a != b]
  assert differing == []
  assert theirs('ab')['input_ids'] == [1, *tokenizer.encode('ab')]
  for line in lines[:2000]:
    ids = tokenizer.encode(line)
    assert theirs.decode(ids) == tokenizer.decode(ids)


def test_a_plain_model_keeps_the_spaces_that_a_text_begins_with(
  test_data, tmp_path
):
  """LLaMA-2 says legacy=false; without a chat nothing stands behind tokens."""
  tokenizer = tokenizers.load(test_data / 'tok_llama_32000')
  kept = {'tokenizer_config': {'legacy': False}}
  compared = export.write(tokenizer, tmp_path, max_positions=9, kept=kept)
  assert compared['differing'] == 0
  config = json.loads((tmp_path / 'tokenizer_config.json').read_text())
  assert config['legacy'] is False


def test_a_byte_tokenizer_is_exported_too(tmp_path):
  """Every character must fall back to its bytes."""
  tokenizer = tokenizers.load('bytes')
  theirs = exported(tokenizer, tmp_path)
  for text in (*SPACES, 'naïve 世界 🙂'):
    ids = theirs(text, add_special_tokens=False)['input_ids']
    assert ids == tokenizer.encode(text)
    assert theirs.decode(ids) == text


def test_a_tokenizer_json_comes_out_as_it_went_in(test_data, tmp_path):
  """LLaMA-3 has no other file; nothing of it may change."""
  folder = test_data / 'ckpt_hf_tiny_random_llama'
  record = json.loads((folder / 'tokenizer.json').read_text())
  for token in record['added_tokens']:
    token['normalized'] = False
  (tmp_path / 'tokenizer.json').write_text(json.dumps(record))
  tokenizer = tokenizers.load(tmp_path / 'tokenizer.json')
  exported(tokenizer, tmp_path)
  again = tokenizers.load(tmp_path)
  assert again.fingerprint == tokenizer.fingerprint
  assert again.encode('Hello 世界') == tokenizer.encode('Hello 世界')


def test_special_tokens_are_told_by_their_ids(test_data, tmp_path):
  """Normalised ones were exported as `▁<s>`: bos 32000 of 32,000 rows."""
  folder = test_data / 'ckpt_hf_tiny_random_llama'
  tokenizer = tokenizers.load(folder / 'tokenizer.json')
  theirs = exported(tokenizer, tmp_path)
  assert (theirs.bos_token, theirs.bos_token_id) == ('<s>', 1)
  assert (theirs.eos_token, theirs.eos_token_id) == ('</s>', 2)
  assert len(theirs) == 32_000
  assert theirs.convert_ids_to_tokens([0, 1, 2]) == ['<unk>', '<s>', '</s>']
  ids = theirs('Hello')['input_ids']
  assert ids == [1, 15043]
  assert theirs.decode(ids, skip_special_tokens=True) == 'Hello'


def test_a_trained_model_is_deterministic_and_exports(tmp_path):
  """The quickstart trains its own; two runs must agree."""
  texts = ['今天天气很好。we like rain 12 34'] * 5 + ['下雨了 and so on'] * 7
  texts += [f'{i} words 很多 词 {chr(0x4E00 + i)}' for i in range(200)]
  paths = [tmp_path / 'a.model', tmp_path / 'b.model']
  for path in paths:
    train.train_sentencepiece(texts, path, vocab_size=520)
  assert paths[0].read_bytes() == paths[1].read_bytes()
  tokenizer = tokenizers.load(paths[0])
  assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
  text = '  今天 12  ok\n'
  assert tokenizer.decode(tokenizer.encode(text)) == text
  (tmp_path / 'hf').mkdir()
  theirs = exported(tokenizer, tmp_path / 'hf')
  for text in (*SPACES, *texts):
    ids = theirs(text, add_special_tokens=False)['input_ids']
    assert ids == tokenizer.encode(text)


def prose(test_data):
  """English and Chinese, 60,000 characters."""
  english = test_data / 'text_en_tinyshakespeare' / 'input.txt'
  chinese = test_data / 'text_zh_niutrans_modern' / '左传.txt'
  return [path.read_text()[:30_000] for path in (english, chinese)]


@pytest.mark.parametrize('model_type', ['bpe', 'unigram'])
def test_both_kinds_of_model_are_deterministic_and_export(
  test_data, tmp_path, model_type
):
  """Unigram has no merges: its scores must travel instead."""
  texts = prose(test_data)
  paths = [tmp_path / 'a.model', tmp_path / 'b.model']
  for path in paths:
    train.train_sentencepiece(
      texts, path, vocab_size=2000, model_type=model_type
    )
  assert paths[0].read_bytes() == paths[1].read_bytes()
  tokenizer = tokenizers.load(paths[0])
  kind = tokenizer.proto.trainer_spec.model_type
  assert kind == {'unigram': 1, 'bpe': 2}[model_type]
  theirs = exported(tokenizer, tmp_path)
  for text in (*SPACES, *'\n'.join(texts).splitlines(), 'naïve 世界 🙂'):
    ids = theirs(text, add_special_tokens=False)['input_ids']
    assert ids == tokenizer.encode(text), text


def test_required_characters_are_pieces_however_rare(test_data, tmp_path):
  """Without them a rare character is spelt in bytes for ever."""
  path = tmp_path / 'x.model'
  texts = [*prose(test_data), '鿋鿌~']
  train.train_sentencepiece(texts, path, vocab_size=2000)
  plain = tokenizers.load(path).without_prefix()
  assert [len(plain.encode(c)) for c in '鿋鿌~'] == [3, 3, 1]
  train.train_sentencepiece(
    texts, path, vocab_size=2000, required_characters='鿋 ,"\n鿌鿌'
  )
  plain = tokenizers.load(path).without_prefix()
  assert [len(plain.encode(c)) for c in '鿋鿌,"'] == [1, 1, 1, 1]


def test_the_command_trains_either_kind(test_data, tmp_path):
  """The file of characters is read, not spelt."""
  (tmp_path / 'text.txt').write_text('\n'.join(prose(test_data)))
  (tmp_path / 'characters.txt').write_text('鿋\n鿌\n')
  output = runs.run(
    'tokenizer',
    'train',
    f'--texts={tmp_path}/text.txt',
    '--vocab_size=2000',
    '--model_type=unigram',
    f'--required_characters={tmp_path}/characters.txt',
    f'--output={tmp_path}/out',
  )
  assert 'reading: ' in output
  tokenizer = tokenizers.load(tmp_path / 'out')
  assert tokenizer.proto.trainer_spec.model_type == 1
  pieces = {p.piece for p in tokenizer.proto.pieces}
  assert {'鿋', '鿌'} <= pieces and 'characters.txt' not in pieces


def test_the_command_takes_more_characters_than_a_path_may_have(
  test_data, tmp_path
):
  """Above 255 bytes asking whether they are a file was an error."""
  (tmp_path / 'text.txt').write_text('\n'.join(prose(test_data)))
  characters = ''.join(map(chr, range(0x9F00, 0x9F60)))
  runs.run(
    'tokenizer',
    'train',
    f'--texts={tmp_path}/text.txt',
    '--vocab_size=2400',
    f'--required_characters={characters}',
    f'--output={tmp_path}/out',
  )
  tokenizer = tokenizers.load(tmp_path / 'out')
  assert set(characters) <= {p.piece for p in tokenizer.proto.pieces}


def test_padding_and_legacy_are_stated(test_data, tmp_path):
  """A missing entry means another thing to each library and version."""
  tokenizer = tokenizers.load(test_data / 'tok_llama_32000')
  theirs = exported(tokenizer, tmp_path)
  config = json.loads((tmp_path / 'tokenizer_config.json').read_text())
  assert config['legacy'] is True
  assert config['pad_token'] is None and theirs.pad_token is None
  assert config['padding_side'] == theirs.padding_side == 'right'
  # Legacy: a text behind a special token begins with the prefix again.
  ids = [15043, 29871, 1, 869]
  assert theirs('Hello <s>.', add_special_tokens=False)['input_ids'] == ids


def test_what_a_model_takes_is_stated_unless_the_source_says_it(
  test_data, tmp_path
):
  """transformers 4 adds token_type_ids, and `generate` of a LLaMA raises."""
  tokenizer = tokenizers.load(test_data / 'tok_llama_32000')
  for kept in ([], ['attention_mask', 'input_ids', 'token_type_ids']):
    config = {'model_input_names': kept} if kept else {}
    export.write(
      tokenizer, tmp_path, max_positions=9, kept={'tokenizer_config': config}
    )
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    wanted = kept or ['input_ids', 'attention_mask']
    record = json.loads((tmp_path / 'tokenizer_config.json').read_text())
    assert record['model_input_names'] == wanted
    assert theirs.model_input_names == wanted
    assert sorted(theirs('Hello')) == sorted(wanted)


def test_the_command_says_how_tokenizer_json_differs(test_data, tmp_path):
  """On the fuzz set always, on lines of one's own where some are given."""
  path = test_data / 'text_ntrex' / 'newstest2019-ref.zho-CN.txt'
  output = runs.run(
    'tokenizer',
    'export',
    f'--tokenizer={test_data}/ckpt_stories260K/hf',
    f'--texts={path}',
    f'--output={tmp_path}',
  )
  assert 'tokenizer.json: 0 of 1,997 lines of --texts get other' in output
  assert ' texts of the fuzz set get other ids than from the' in output
  record = json.loads((tmp_path / 'export.json').read_text())
  assert record['tokenizer_json']['fuzz']['texts'] > 2000
  assert record['tokenizer_json']['texts'] == {'texts': 1997, 'differing': 0}


def test_too_little_text_is_said(tmp_path):
  """SentencePiece's own message names neither rule nor way out."""
  with pytest.raises(ValueError, match='change the number of pieces'):
    train.train_sentencepiece(['ab'], tmp_path / 'x', vocab_size=5000)
  with pytest.raises(ValueError, match='take at least 300'):
    train.train_sentencepiece(['ab'], tmp_path / 'x', vocab_size=100)
