"""A SentencePiece model that is trained here has seen all of the text."""

from lbe.vocab import sentencepiece
from lbe.vocab import train


def test_no_line_is_lost_in_silence(tmp_path):
  """SentencePiece drops every line that holds U+2585."""
  path = tmp_path / 'tokenizer.model'
  texts = ['the river runs to the sea and back again'] * 9
  train.train_sentencepiece(
    [*texts, '清晨▅的集市', '▅'],
    path,
    vocab_size=305,
    character_coverage=1.0,
  )
  model = sentencepiece.SentencePiece(path.read_bytes())
  assert {p.piece for p in model.proto.pieces} >= set('清晨的集市')
  assert model.decode(model.encode('清▅')) == '清▅'


def test_a_sentence_is_never_too_long():
  """SentencePiece drops one of more than a megabyte."""
  text = 'ж' * 700_000 + '\n▅' + 'a▅' * 3
  parts = list(train._lines(text))
  assert ''.join(parts) == text.replace('\n', '').replace('▅', '')
  assert max(len(part.encode()) for part in parts) <= 1 << 20
