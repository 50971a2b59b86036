"""Begins a config of one's own: a copy of one that comes with lbe.

  lbe init mine.py --from=small_zh

Edit it wherever it lies, and give it as --config=mine.py.
"""

import pathlib

from absl import flags

from lbe.run import arguments
from lbe.run import program

_FROM = flags.DEFINE_string(
  'from', 'quickstart', 'The config that is copied, by its short name.'
)


def main(argv):
  target = pathlib.Path(argv[1] if len(argv) > 1 else '')
  if target.suffix != '.py':
    raise ValueError(
      f'{str(target)!r} is no name of a config: write lbe init mine.py '
      '--from=small_zh.'
    )
  known = arguments.presets()
  name = _FROM.value.removeprefix('lbe:').removesuffix('.py')
  if name not in known:
    raise ValueError(
      f'--from={_FROM.value} does not come with lbe; take one of '
      f'{", ".join(known)}.'
    )
  if target.exists():
    raise ValueError(f'{target} is there; give another name, or delete it.')
  text = known[name].read_text('utf-8')
  # Its first lines hold the command that runs it.
  text = text.replace(f'configs/{name}.py', str(target))
  target.parent.mkdir(parents=True, exist_ok=True)
  target.write_text(text, encoding='utf-8')
  print(
    f'{target} is a copy of {name}; {known[name].with_name("common.py")} has '
    f'every field. Look at what it would do:\n  lbe train --config={target} '
    f'--workdir=runs/{target.stem} --dry_run'
  )


if __name__ == '__main__':
  program.run(main, num_words=1)
