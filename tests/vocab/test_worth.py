"""What an extension brings and costs, told to people."""

from lbe.vocab import continued
from lbe.vocab import tokenizers
from lbe.vocab import worth


def test_what_latin_pieces_bring_and_cost_is_told(test_data):
  """Vietnamese gave 1 piece of 300, and no word of a flag."""
  base = tokenizers.load(test_data / 'tok_llama_32000' / 'tokenizer.model')
  path = test_data / 'text_ntrex' / 'newstest2019-ref.vie.txt'
  texts = worth.head(path.read_text('utf-8').splitlines()[:300])
  assert len(texts) == 300 and worth.latin_share(texts) > 0.99
  kept = continued.extend(
    base, texts, num_pieces=40, keep_latin=True, progress=False
  )
  offer = worth.latin_offer(base, kept, texts)
  assert offer.startswith('40 candidates are left out because they have Latin')
  before = worth.bytes_per_token(base, texts)
  after = worth.bytes_per_token(kept.tokenizer, texts)
  assert f'--keep_latin takes them ({before:.2f} → {after:.2f} by' in offer
  english = len(worth.english())
  assert 'Its price: English' in offer and f'the {english} lines' in offer
  lines = worth.told(base, kept, texts).splitlines()
  assert lines[0].endswith(f'{before:.2f} before, {after:.2f} after')
  assert lines[1].startswith('bytes per token of English: ')
  assert len(lines[2].removeprefix('new pieces, as ').split('  ')) == 10
