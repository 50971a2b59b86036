"""Says what of a folder is damaged, and what depends on that.

  python -m lbe.check runs/zh

The folder is a workdir, a checkpoint, tokenized data, a Hugging Face folder
that export_hf wrote, or one with any of these below it. Everything is read and
compared with its checksums; lines of JSON are read as such. Status 1 where
something is damaged.
"""

import json
import pathlib
import sys

from lbe.run import aside
from lbe.run import checkpoint
from lbe.run import checksums
from lbe.run import program

# What a part of a checkpoint is for, in the order of what is lost.
_PARTS = {
  'meta': 'its model and tokenizer: no program can use it',
  'params': 'its weights: no program can use it',
  'opt': 'its moments: no run can go on from it; its weights are whole',
  'data': 'its place in the data: no run can go on from it; its weights are '
  'whole',
}
_DATA = (
  'rows of this data: delete its folder, and the same command tokenizes again'
)
_EXPORT = 'this model: export it again, or copy it again'


def main(argv):
  if len(argv) != 2:
    raise ValueError('give one folder: python -m lbe.check FOLDER')
  root = pathlib.Path(argv[1])
  if not root.is_dir():
    raise ValueError(f'{root} is no folder; give one that lbe has written.')
  damaged, num_looked_at = [], 0
  for folder in _folders(root):
    num_looked_at += 1
    compared = checksums.compare(folder)
    if not compared.kept:
      print(f'{folder}: no checksums (an older lbe wrote it): not compared')
    elif compared.damage:
      damaged.append(folder)
      print(f'{folder}: DAMAGED')
      for name, what in sorted(compared.damage.items()):
        print(f'  {name} {what}')
      print(f'  this concerns {_depends(folder, compared.damage)}')
    else:
      print(f'{folder}: whole; {compared.cost()}')
  for path in _texts(root):
    num_looked_at += 1
    what = _bad_text(path)
    if what:
      damaged.append(path)
      print(f'{path}: DAMAGED\n  {what}')
  if not num_looked_at:
    raise ValueError(
      f'{root} holds nothing that lbe keeps checksums of: no checkpoint, no '
      'tokenized data, no export.'
    )
  print(f'{num_looked_at} looked at, {len(damaged)} damaged')
  if damaged:
    sys.exit(1)


def _is_aside(path, root):
  return aside.FOLDER in path.relative_to(root).parts


def _folders(root):
  """Folders with checksums, and checkpoints without; what is set aside not."""
  found = {path.parent for path in root.rglob('checksums*.json')}
  found |= {path.parent for path in root.rglob('_CHECKPOINT_METADATA')}
  return sorted(x for x in found if not _is_aside(x, root))


def _texts(root):
  """The files of JSON that a run keeps beside its checkpoints, and such."""
  names = ('config.json', 'results.json', 'certificate.json', '*.jsonl')
  return sorted(
    path
    for name in names
    for path in root.rglob(name)
    if not _is_aside(path, root) and not checksums.is_there(path.parent)
  )


def _bad_text(path):
  """What is wrong with a file of JSON, or of a line each; '' where nothing."""
  data = path.read_bytes()
  whole = [data] if path.suffix == '.json' else data.split(b'\n')[:-1]
  for number, line in enumerate(whole, 1):
    try:
      json.loads(line.decode())
    except ValueError as error:
      return (
        f'line {number} is no JSON ({error}); a run that goes on moves such '
        f'lines into {path.name}.damaged'
        if path.suffix == '.jsonl'
        else f'it is no JSON ({error})'
      )
  return ''


def _depends(folder, damage):
  """What the damage of these files concerns, and the way out."""
  parts = {name.split('/')[0] for name in damage}
  if (folder / '_CHECKPOINT_METADATA').exists() or 'params' in parts:
    lost = [words for part, words in _PARTS.items() if part in parts]
    told = '; '.join(lost) or 'all of it'
    beside = [
      s for s in checkpoint.steps(folder.parent.parent) if s != _step(folder)
    ]
    beside = [s for s in beside if not _is_damaged(folder.parent / str(s))]
    if beside:
      told += f'. Whole beside it: {", ".join(map(str, beside))}'
    return told
  return _DATA if (folder / 'report.json').exists() else _EXPORT


def _step(folder):
  return int(folder.name) if folder.name.isdigit() else None


def _is_damaged(step):
  return bool(checksums.compare(step).damage)


if __name__ == '__main__':
  program.run(main, num_words=1)
