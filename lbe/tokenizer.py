"""Tokenizers: trained, extended, measured, exported.

  python -m lbe.tokenizer train --texts=zh/ --vocab_size=8000 --output=DIR
  python -m lbe.tokenizer extend --base=llama/tokenizer.model \
    --corpus=zh/ --num_pieces=18000 --output=DIR
  python -m lbe.tokenizer extend --base=llama/tokenizer.model \
    --add=chinese_sp.model --output=DIR
  python -m lbe.tokenizer report --tokenizer=DIR --base=llama/tokenizer.model \
    --texts=zh.txt --texts=en.txt --output=DIR
  python -m lbe.tokenizer export --tokenizer=FILE --output=DIR

A folder that is written holds tokenizer.model (of SentencePiece models),
tokenizer.json and the files that transformers reads beside them.
"""

import json
import pathlib

from absl import flags

from lbe import program
from lbe.data import sources
from lbe.vocab import continued as vocab_continued
from lbe.vocab import export as vocab_export
from lbe.vocab import extend as vocab_extend
from lbe.vocab import load as vocab
from lbe.vocab import report as vocab_report
from lbe.vocab import train as vocab_train

_OUTPUT = flags.DEFINE_string('output', None, 'The folder to write.')
_BASE = flags.DEFINE_string(
  'base', None, 'extend: the model that grows. report: what it is compared to.'
)
_ADD = flags.DEFINE_string('add', None, 'extend: the model with new pieces.')
_CORPUS = flags.DEFINE_multi_string(
  'corpus',
  [],
  'extend: text that new pieces are learnt from, on top of the merges of the '
  'base, instead of --add; repeatable.',
)
_NUM_PIECES = flags.DEFINE_integer(
  'num_pieces', None, 'extend: how many pieces to learn from --corpus.'
)
_TOKENIZER = flags.DEFINE_string(
  'tokenizer', None, 'report, export: a .model, a tokenizer.json, or a folder.'
)
_TEXTS = flags.DEFINE_multi_string(
  'texts', [], 'train, report: a text or JSONL file or a folder; repeatable.'
)
_CUT = flags.DEFINE_enum(
  'cut', 'line', list(sources.CUTS), 'How text files are cut into documents.'
)
_FIELD = flags.DEFINE_string('field', 'text', 'The text in JSONL records.')
_VOCAB_SIZE = flags.DEFINE_integer('vocab_size', None, 'train: pieces.')
_COVERAGE = flags.DEFINE_float(
  'character_coverage',
  0.9995,
  'train, extend: share of the characters of the text that have a piece.',
)
_SCORE_MODE = flags.DEFINE_enum(
  'score_mode',
  'below_base',
  ['below_base', 'zero'],
  'extend: below_base leaves old text as it is; zero is the published recipe.',
)
_KEEP_LATIN = flags.DEFINE_bool(
  'keep_latin', False, 'extend: also add pieces with Latin letters or digits.'
)
_CONTEXT = flags.DEFINE_integer(
  'context', 2048, 'report: tokens of the context; export: model_max_length.'
)

_NEEDED = {
  'train': ('texts', 'vocab_size', 'output'),
  'extend': ('base', 'output'),
  'report': ('tokenizer', 'texts'),
  'export': ('tokenizer', 'output'),
}


def main(argv):
  command = argv[1] if len(argv) == 2 else None
  if command not in _NEEDED:
    raise ValueError(
      f'{" ".join(argv[1:])!r} is no command; take one of '
      f'{", ".join(_NEEDED)}. --help shows an example of each.'
    )
  missing = [n for n in _NEEDED[command] if not flags.FLAGS[n].value]
  if missing:
    raise ValueError(f'{command} needs --{missing[0]}; see --help.')
  {'train': train, 'extend': extend, 'report': report, 'export': export}[
    command
  ]()


def _documents(path):
  source = sources.Source(
    name=path, path=path, cut=_CUT.value, field=_FIELD.value
  )
  return (text for text, _ in sources.documents(source))


def _write(tokenizer):
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  vocab_export.write(tokenizer, folder, max_positions=_CONTEXT.value)
  print(
    f'{folder}: {tokenizer.vocab_size:,} pieces, fingerprint '
    f'{tokenizer.fingerprint[:16]}'
  )
  return folder


def train():
  """A SentencePiece BPE model with LLaMA's settings."""
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  vocab_train.train_sentencepiece(
    (text for path in _TEXTS.value for text in _documents(path)),
    folder / 'tokenizer.model',
    vocab_size=_VOCAB_SIZE.value,
    character_coverage=_COVERAGE.value,
  )
  _write(vocab.load(folder / 'tokenizer.model'))


def _load_sentencepiece(flag, path):
  tokenizer = vocab.load(path)
  if tokenizer.kind != 'sentencepiece':
    raise ValueError(
      f'--{flag}={path} is no SentencePiece model but of the kind '
      f'{tokenizer.kind!r}; give a .model file.'
    )
  return tokenizer


def extend():
  """The base and new pieces behind it; extension.json says which."""
  if bool(_ADD.value) == bool(_CORPUS.value):
    raise ValueError(
      'extend needs --corpus (text to learn pieces from) or --add (a model '
      'that has them), and not both.'
    )
  base = _load_sentencepiece('base', _BASE.value)
  if _ADD.value:
    found = vocab_extend.extend(
      base,
      _load_sentencepiece('add', _ADD.value),
      score_mode=_SCORE_MODE.value,
      keep_latin=_KEEP_LATIN.value,
    )
  else:
    if not _NUM_PIECES.value or _NUM_PIECES.value < 1:
      raise ValueError(
        f'--num_pieces={_NUM_PIECES.value}: say how many pieces to learn from '
        '--corpus, at least 1.'
      )
    found = vocab_continued.extend(
      base,
      (text for path in _CORPUS.value for text in _documents(path)),
      num_pieces=_NUM_PIECES.value,
      coverage=_COVERAGE.value,
    )
  for notice in found.notices:
    print(f'notice: {notice}')
  print(
    f'{len(found.added):,} pieces added, {len(found.intermediates):,} of them '
    'to lead to others' + '; left out:' * bool(found.left_out)
  )
  for reason, pieces in found.left_out.items():
    print(f'  {len(pieces):,} {reason}, as {" ".join(pieces[:5])}')
  lost = vocab_extend.unreachable(found.tokenizer)
  if lost:
    print(
      f'warning: {len(lost):,} pieces are never produced by encoding, as '
      f'{" ".join(list(lost)[:5])}; --score_mode=below_base has none.'
    )
  folder = _write(found.tokenizer)
  record = {
    'base': str(_BASE.value),
    'add': _ADD.value,
    'corpus': _CORPUS.value,
    'score_mode': _SCORE_MODE.value,
    'added': found.added,
    'intermediates': found.intermediates,
    'left_out': found.left_out,
    'unreachable': list(lost),
    'notices': found.notices,
  }
  (folder / 'extension.json').write_text(
    json.dumps(record, ensure_ascii=False, indent=1), encoding='utf-8'
  )


def report():
  """A table on the screen; with --output also Markdown, JSON, and a plot."""
  tokenizer = vocab.load(_TOKENIZER.value)
  base = vocab.load(_BASE.value) if _BASE.value else None
  rows = {}
  for path in _TEXTS.value:
    texts = list(_documents(path))
    name = pathlib.Path(path).name
    if base is None:
      measured = vocab_report.measure(tokenizer, texts, context=_CONTEXT.value)
      rows[name] = {'before': measured}
    else:
      rows[name] = vocab_report.compare(
        base, tokenizer, texts, context=_CONTEXT.value
      )
  table = vocab_report.markdown(rows, context=_CONTEXT.value)
  print(table)
  if _OUTPUT.value:
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'report.md').write_text(table + '\n', encoding='utf-8')
    (folder / 'report.json').write_text(
      json.dumps(rows, ensure_ascii=False, indent=1), encoding='utf-8'
    )
    vocab_report.plot(rows, folder / 'report.png')


def export():
  """The files that transformers, tokenizers and SentencePiece load."""
  _write(vocab.load(_TOKENIZER.value))


if __name__ == '__main__':
  program.run(main)
