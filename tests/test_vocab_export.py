"""Exported tokenizer files, through the libraries that others use."""

import pytest
import transformers

from lbe.vocab import export
from lbe.vocab import load as vocab
from lbe.vocab import train

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
  tokenizer = vocab.load(test_data / name)
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


def test_a_byte_tokenizer_is_exported_too(tmp_path):
  """Every character must fall back to its bytes."""
  tokenizer = vocab.load('bytes')
  theirs = exported(tokenizer, tmp_path)
  for text in (*SPACES, 'naïve 世界 🙂'):
    ids = theirs(text, add_special_tokens=False)['input_ids']
    assert ids == tokenizer.encode(text)
    assert theirs.decode(ids) == text


def test_a_tokenizer_json_comes_out_as_it_went_in(test_data, tmp_path):
  """LLaMA-3 has no other file; nothing of it may change."""
  folder = test_data / 'ckpt_hf_tiny_random_llama'
  tokenizer = vocab.load(folder / 'tokenizer.json')
  exported(tokenizer, tmp_path)
  again = vocab.load(tmp_path)
  assert again.fingerprint == tokenizer.fingerprint
  assert again.encode('Hello 世界') == tokenizer.encode('Hello 世界')


def test_a_trained_model_is_deterministic_and_exports(tmp_path):
  """The quickstart trains its own; two runs must agree."""
  texts = ['今天天气很好。we like rain 12 34'] * 5 + ['下雨了 and so on'] * 7
  texts += [f'{i} words 很多 词 {chr(0x4E00 + i)}' for i in range(200)]
  paths = [tmp_path / 'a.model', tmp_path / 'b.model']
  for path in paths:
    train.train_sentencepiece(texts, path, vocab_size=520)
  assert paths[0].read_bytes() == paths[1].read_bytes()
  tokenizer = vocab.load(paths[0])
  assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
  text = '  今天 12  ok\n'
  assert tokenizer.decode(tokenizer.encode(text)) == text
  (tmp_path / 'hf').mkdir()
  theirs = exported(tokenizer, tmp_path / 'hf')
  for text in (*SPACES, *texts):
    ids = theirs(text, add_special_tokens=False)['input_ids']
    assert ids == tokenizer.encode(text)


def test_too_little_text_is_said(tmp_path):
  """SentencePiece's own message names neither rule nor way out."""
  with pytest.raises(ValueError, match='change the number of pieces'):
    train.train_sentencepiece(['ab'], tmp_path / 'x', vocab_size=5000)
  with pytest.raises(ValueError, match='take at least 300'):
    train.train_sentencepiece(['ab'], tmp_path / 'x', vocab_size=100)
