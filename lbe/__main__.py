"""All programs as one command: `lbe train --config=... --workdir=...`."""

import difflib
import pathlib
import re
import runpy
import sys

_HOME = pathlib.Path(__file__).parent
_HELP = """lbe carries LLaMA into other languages. lbe PROGRAM --FLAG=VALUE ...

{programs}

lbe PROGRAM --help has its flags; `python -m lbe.PROGRAM` is the same.
eval "$(lbe --completion)" completes programs, flags and files in bash; in zsh
behind `autoload -U bashcompinit && bashcompinit`."""
_COMPLETION = """_lbe() {{
  local words="{programs}"
  case "$COMP_CWORD:${{COMP_WORDS[1]}}" in
    1:*) ;;
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$2"))
}}
complete -o default -o nospace -F _lbe lbe"""


def main() -> int | None:
  """Runs the program that is named, as `python -m lbe.PROGRAM` would."""
  known = programs()
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('-h', '--help', 'help'):
    width = max(map(len, known))
    told = (f'  {x.ljust(width)}  {_says(path)}' for x, path in known.items())
    print(_HELP.format(programs='\n'.join(told)))
  elif name == '--version':
    from lbe import __version__

    print(f'lbe {__version__}')
  elif name == '--completion':
    print(completion(known))
  elif name in known:
    del sys.argv[1]
    # Under its own name, and as what is run: both count for its flags.
    runpy.run_module(f'lbe.{name}', run_name='__main__', alter_sys=True)
  else:
    near = difflib.get_close_matches(name, known, n=1)
    print(
      f'error: {name!r} is no program'
      + f'; did you mean lbe {near[0]}?' * bool(near)
      + f'\nthere are {", ".join(known)}; lbe --help says what they do.',
      file=sys.stderr,
    )
    return 1
  return None


def programs() -> dict[str, pathlib.Path]:
  """The files beside this one, by the name that follows `lbe`."""
  paths = sorted(_HOME.glob('[!_]*.py'))
  return {path.stem: path for path in paths}


def _says(path):
  """The first sentence of a program's docstring."""
  text = path.read_text('utf-8').split('"""')[1]
  return ' '.join(text.split('\n\n')[0].split())


def completion(known: dict[str, pathlib.Path]) -> str:
  """Lines of bash: programs, and behind one the flags that its file has."""
  cases = []
  for name, path in known.items():
    text = path.read_text('utf-8')
    flags = re.findall(r"DEFINE_(\w+)\(\s*'(\w+)'", text)
    words = (f'--{flag}{"=" * (kind != "bool")}' for kind, flag in flags)
    cases.append(f'    *:{name}) words="{" ".join(words)}" ;;')
  return _COMPLETION.format(programs=' '.join(known), cases='\n'.join(cases))


if __name__ == '__main__':
  sys.exit(main())
