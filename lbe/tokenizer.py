"""Tokenizers: trained, extended, measured, exported.

  python -m lbe.tokenizer train --texts=zh/ --vocab_size=8000 --output=DIR
  python -m lbe.tokenizer extend --base=llama/tokenizer.model \
    --corpus=zh/ --num_pieces=18000 --output=DIR
  python -m lbe.tokenizer extend --base=llama/tokenizer.model \
    --add=chinese_sp.model --output=DIR
  python -m lbe.tokenizer extend --base=llama3/tokenizer.json \
    --corpus=zh/ --num_pieces=18000 --output=DIR
  python -m lbe.tokenizer report --tokenizer=DIR --base=llama/tokenizer.model \
    --texts=zh.txt --texts=en.txt --output=DIR
  python -m lbe.tokenizer export --tokenizer=FILE --output=DIR

A folder that is written holds tokenizer.model (of SentencePiece models),
tokenizer.json and the files that transformers reads beside them. What became of
each piece stands in extension.json. Every tokenizer.json is compared with the
tokenizer itself on a set of odd texts; how many get other ids is told, and
written there or into export.json.
"""

import functools
import json
import os
import pathlib

from absl import flags

from lbe.convert import settings
from lbe.data import sources
from lbe.run import program
from lbe.run import progress
from lbe.text import bars
from lbe.text import files
from lbe.text import hub
from lbe.vocab import byte_level
from lbe.vocab import continued
from lbe.vocab import export as export_lib
from lbe.vocab import extend as extend_lib
from lbe.vocab import ranked
from lbe.vocab import report as report_lib
from lbe.vocab import tokenizers
from lbe.vocab import train as train_lib
from lbe.vocab import worth

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
  'texts',
  [],
  'train, report: a text or JSONL file or a folder; repeatable. extend, '
  'export: lines on which tokenizer.json is compared with the tokenizer.',
)
_CUT = flags.DEFINE_enum(
  'cut', 'line', list(sources.CUTS), 'How text files are cut into documents.'
)
_FIELD = flags.DEFINE_string('field', 'text', 'The text in JSONL records.')
_VOCAB_SIZE = flags.DEFINE_integer('vocab_size', None, 'train: pieces.')
_MODEL_TYPE = flags.DEFINE_enum(
  'model_type', 'bpe', ['bpe', 'unigram'], 'train: the kind of model.'
)
_REQUIRED = flags.DEFINE_string(
  'required_characters',
  '',
  'train: characters that are pieces however rare, or a file that holds them.',
)
_COVERAGE = flags.DEFINE_float(
  'character_coverage',
  0.9995,
  'train, extend: share of the characters of the text that have a piece (for a '
  'byte-level base: of the letters whose scripts are learnt from).',
)
_SCORE_MODE = flags.DEFINE_enum(
  'score_mode',
  'below_base',
  ['below_base', 'zero'],
  'extend: below_base leaves old text as it is; zero is the published recipe.',
)
_KEEP_LATIN = flags.DEFINE_bool(
  'keep_latin',
  False,
  'extend: also add pieces with Latin letters (and digits, of --add); old text '
  'that holds them is cut another way.',
)
_PER_SCRIPT = flags.DEFINE_bool(
  'per_script', False, 'report: also a table of the scripts in each set.'
)
_CONTEXT = flags.DEFINE_integer(
  'context', 2048, 'report: tokens of the context; export: model_max_length.'
)

# A larger share of Latin letters is told of where they are left out.
_MOSTLY = 0.5

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
  if command == 'report':
    report()
    return
  folder = pathlib.Path(_OUTPUT.value)
  _check_free(folder)
  with files.unfinished(folder):
    {'train': train, 'extend': extend, 'export': export}[command]()


def _check_free(folder):
  """Raises ValueError where a tokenizer or a model lies in the folder.

  What a call left that was killed is written over, file by file.
  """
  if (folder / files.UNFINISHED).exists():
    return
  held = tokenizers.find(folder)
  if held is None and (folder / 'config.json').exists():
    held = folder / 'config.json'
  if held is not None:
    raise ValueError(
      f'--output={folder} already holds {held.name}, which nothing writes '
      'over; give another folder, or delete it.'
    )


def _documents(path):
  source = sources.Source(
    name=path, path=path, cut=_CUT.value, field=_FIELD.value
  )
  return (text for text, _ in sources.documents(source))


def _all_documents(paths):
  return (text for path in paths for text in _documents(path))


def _write(tokenizer, came_from=None):
  """(the folder, how its tokenizer.json differs from the tokenizer).

  What lies beside the tokenizer at `came_from` stays; a --context wins.
  """
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  kept = settings.tokenizer_files({}, came_from)
  if flags.FLAGS['context'].present:
    kept['tokenizer_config'].pop('model_max_length', None)
  with progress.doing('comparing the tokenizer with its tokenizer.json'):
    compared = {
      'fuzz': export_lib.write(
        tokenizer, folder, max_positions=_CONTEXT.value, kept=kept
      )
    }
  print(
    f'{folder}: {tokenizer.vocab_size:,} pieces, fingerprint '
    f'{tokenizer.fingerprint[:16]}'
  )
  print(export_lib.told(compared['fuzz']))
  return folder, compared


def _compare(tokenizer, folder):
  """{'texts': as export.compare} of --texts, said; {} where none are given."""
  if not _TEXTS.value:
    return {}
  with progress.doing('comparing the ids of --texts'):
    compared = export_lib.compare(
      tokenizer, folder / 'tokenizer.json', _all_documents(_TEXTS.value)
    )
  print(export_lib.told(compared, 'lines of --texts'))
  return {'texts': compared}


def _save(record, path):
  path.write_text(
    json.dumps(record, ensure_ascii=False, indent=1), encoding='utf-8'
  )


def train():
  """A SentencePiece model with LLaMA's settings."""
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  required = _REQUIRED.value
  if required and os.path.isfile(required):
    required = files.text(required)
  with progress.doing('training the tokenizer'):
    train_lib.train_sentencepiece(
      _all_documents(_TEXTS.value),
      folder / 'tokenizer.model',
      vocab_size=_VOCAB_SIZE.value,
      model_type=_MODEL_TYPE.value,
      character_coverage=_COVERAGE.value,
      required_characters=required,
      progress=True,
    )
  _, compared = _write(tokenizers.load(folder / 'tokenizer.model'))
  _save({'tokenizer_json': compared}, folder / 'export.json')


def _load_sentencepiece(flag, path):
  tokenizer = tokenizers.load(path)
  if tokenizer.kind != 'sentencepiece':
    raise ValueError(
      f'--{flag}={path} is no SentencePiece model but of the kind '
      f'{tokenizer.kind!r}; give a .model file, or a byte-level tokenizer.json '
      'as --base of --corpus.'
    )
  return tokenizer


def extend():
  """The base and new pieces behind it; extension.json says which."""
  if bool(_ADD.value) == bool(_CORPUS.value):
    raise ValueError(
      'extend needs --corpus (text to learn pieces from) or --add (a model '
      'that has them), and not both.'
    )
  _check_first_time()
  with progress.doing('extending: minutes for 10 MB of text'):
    extension = _added() if _ADD.value else _learnt()
  for notice in extension.notices:
    print(f'notice: {notice}')
  print(
    f'{len(extension.added):,} pieces added, '
    f'{len(extension.intermediates):,} of them to lead to others'
    + '; left out:'
    * bool(extension.left_out)
  )
  for reason, pieces in extension.left_out.items():
    print(f'  {len(pieces):,} {reason}, as {" ".join(pieces[:5])}')
  lost = {}
  if extension.tokenizer.kind == 'sentencepiece':
    lost = extend_lib.unreachable(extension.tokenizer.model)
  if lost:
    print(
      f'warning: {len(lost):,} pieces are never produced by encoding, as '
      f'{" ".join(list(lost)[:5])}; --score_mode=below_base has none.'
    )
  folder, compared = _write(extension.tokenizer, _BASE.value)
  record = {
    'base': str(_BASE.value),
    'add': _ADD.value,
    'corpus': _CORPUS.value,
    'score_mode': _SCORE_MODE.value,
    'added': extension.added,
    'intermediates': extension.intermediates,
    'left_out': extension.left_out,
    'unreachable': list(lost),
    'notices': extension.notices,
    'tokenizer_json': compared | _compare(extension.tokenizer, folder),
  }
  _save(record, folder / 'extension.json')
  texts = worth.head(_all_documents(_CORPUS.value or _TEXTS.value))
  print(worth.told(tokenizers.load(_BASE.value), extension, texts))


def _check_first_time():
  """Raises ValueError where the base was extended with this corpus before.

  (That of --add is told by its pieces.) More pieces of one text would be
  learnt after the rare ones of the first time.
  """
  path = pathlib.Path(hub.local(_BASE.value, weights=False))
  record = (path if path.is_dir() else path.parent) / 'extension.json'
  if not _CORPUS.value or not record.is_file():
    return
  known = json.loads(record.read_text(encoding='utf-8'))
  if known['corpus'] == _CORPUS.value:
    raise ValueError(
      f'--base={_BASE.value} was extended with {", ".join(_CORPUS.value)} '
      f'before, by {len(known["added"]):,} pieces ({record}); extend '
      f'{known["base"]} by more pieces at once, or give another corpus.'
    )


def _added():
  base = tokenizers.load(_BASE.value)
  ranks = base.kind == 'hf' and not base.byte_level
  if not ranks:
    base = _load_sentencepiece('base', _BASE.value)
  elif _SCORE_MODE.value != 'below_base':
    raise ValueError(
      f'--score_mode={_SCORE_MODE.value} is for a tokenizer.model; '
      f'{_BASE.value} is a tokenizer.json, whose new merges follow its own.'
    )
  target = _load_sentencepiece('add', _ADD.value)

  def make(keep_latin):
    find = functools.partial(
      extend_lib.extend,
      target=target,
      score_mode=_SCORE_MODE.value,
      keep_latin=keep_latin,
    )
    return ranked.extend(base, find) if ranks else find(base)

  extension = make(_KEEP_LATIN.value)
  if len(extension.left_out.get(extend_lib.LATIN, ())) > len(extension.added):
    texts = worth.head(_all_documents(_TEXTS.value))
    bars.say(f'warning: {worth.latin_offer(base, make(True), texts)}')
  return extension


def _learnt():
  if not _NUM_PIECES.value or _NUM_PIECES.value < 1:
    raise ValueError(
      f'--num_pieces={_NUM_PIECES.value}: say how many pieces to learn from '
      '--corpus, at least 1.'
    )
  if _SCORE_MODE.value != 'below_base':
    raise ValueError(
      f'--score_mode={_SCORE_MODE.value} goes with --add; what is learnt from '
      '--corpus always follows the base.'
    )
  base = tokenizers.load(_BASE.value)

  scored = base.kind == 'sentencepiece'
  ranks = base.kind == 'hf' and not base.byte_level

  def make(texts, keep_latin):
    find = functools.partial(
      (continued if scored or ranks else byte_level).extend,
      texts=texts,
      num_pieces=_NUM_PIECES.value,
      coverage=_COVERAGE.value,
      keep_latin=keep_latin,
    )
    return ranked.extend(base, find) if ranks else find(base)

  texts = worth.head(_all_documents(_CORPUS.value))
  share = worth.latin_share(texts)
  if share > _MOSTLY and not _KEEP_LATIN.value:
    bars.say(f'{share:.1%} of the letters of --corpus are Latin')
    bars.say(f'warning: {worth.latin_offer(base, make(texts, True), texts)}')
  return make(_all_documents(_CORPUS.value), _KEEP_LATIN.value)


def report():
  """Tables on the screen; with --output also Markdown, JSON, and a plot."""
  tokenizer = tokenizers.load(_TOKENIZER.value)
  base = tokenizers.load(_BASE.value) if _BASE.value else None
  figures = {'context': _CONTEXT.value, 'sets': {}}
  sides = {'before': tokenizer}
  if base is None:
    figures['before'] = report_lib.summary(tokenizer)
  else:
    sides = {'before': base, 'after': tokenizer}
    figures['before'] = report_lib.summary(base)
    figures['after'] = report_lib.summary(tokenizer, base)
  for name, path in _names(_TEXTS.value).items():
    with progress.doing(f'cutting {path} into pieces'):
      row = _measured(list(_documents(path)), sides)
    figures['sets'][name] = row
  print(report_lib.markdown(figures))
  if _OUTPUT.value:
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    report_lib.save(figures, folder)


def _names(paths):
  """{name: path}: the last part of each; where two have the same, the whole."""
  paths = list(dict.fromkeys(paths))
  short = [pathlib.Path(path).name for path in paths]
  return {
    name if short.count(name) == 1 else path: path
    for name, path in zip(short, paths, strict=True)
  }


def _measured(texts, sides):
  """What the tokenizers, 'before' and perhaps 'after', make of texts."""
  how = {'context': _CONTEXT.value}
  if 'after' in sides:
    row = report_lib.compare(*sides.values(), texts, **how)
  else:
    row = {'before': report_lib.measure(sides['before'], texts, **how)}
  if _PER_SCRIPT.value:
    row['scripts'] = {
      side: report_lib.by_script(one, texts) for side, one in sides.items()
    }
  return row


def export():
  """The files that transformers, tokenizers and SentencePiece load."""
  tokenizer = tokenizers.load(_TOKENIZER.value)
  folder, compared = _write(tokenizer, _TOKENIZER.value)
  compared |= _compare(tokenizer, folder)
  _save({'tokenizer_json': compared}, folder / 'export.json')


if __name__ == '__main__':
  program.run(main, num_words=1)
