"""How long do 18,000 pieces from 10 MB of Chinese take, and are they good?

  PYTHONPATH=. python benchmarks/extend_vocab.py --data=FOLDER \
    --base=llama/tokenizer.model

Continued BPE training on nine tenths of the documents; the others are counted
in tokens, beside a SentencePiece BPE model that is trained on the same text and
merged at the same count of added pieces.
"""

import tempfile
import time

from absl import app
from absl import flags

from benchmarks import record
from lbe.data import sources
from lbe.vocab import continued
from lbe.vocab import extend
from lbe.vocab import tokenizers
from lbe.vocab import train

_DATA = flags.DEFINE_string('data', None, 'A folder of Chinese text.')
_BASE = flags.DEFINE_string('base', None, "LLaMA's tokenizer.model.")
_BYTES = flags.DEFINE_integer('bytes', 10_000_000, 'Of text to learn from.')
_PIECES = flags.DEFINE_integer('pieces', 18_000, 'To add.')


def main(argv):
  del argv
  source = sources.Source(name='zh', path=_DATA.value)
  texts = [text for text, _ in sources.documents(source)]
  heldout, corpus, size = texts[::10], [], 0
  for i, text in enumerate(texts):
    if i % 10 and size < _BYTES.value:
      corpus.append(text)
      size += len(text.encode())
  base = tokenizers.load(_BASE.value)

  def count(tokenizer):
    return sum(map(len, tokenizer.encode_batch(heldout)))

  start = time.perf_counter()
  ours = continued.extend(base, corpus, num_pieces=_PIECES.value)
  seconds = time.perf_counter() - start
  with tempfile.NamedTemporaryFile(suffix='.model') as f:
    train.train_sentencepiece(corpus, f.name, vocab_size=_PIECES.value + 1500)
    theirs = extend.extend(base, tokenizers.load(f.name))
  equal = continued.extend(base, corpus, num_pieces=len(theirs.added))
  record.write(
    'extend_vocab',
    {
      'corpus_bytes': size,
      'pieces': len(ours.added),
      'seconds': round(seconds, 1),
      'heldout_tokens': {
        'base': count(base),
        'extended': count(ours.tokenizer),
      },
      'at_equal_count': {
        'pieces': len(theirs.added),
        'ours': count(equal.tokenizer),
        'sentencepiece': count(theirs.tokenizer),
      },
    },
    packages=('sentencepiece',),
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['data', 'base'])
  app.run(main)
