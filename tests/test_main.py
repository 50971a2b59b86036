"""One command for all programs."""

import re
import subprocess
import sys

import pytest

from lbe import __main__ as command

import conftest


def say(capsys, monkeypatch, *arguments):
  monkeypatch.setattr(sys, 'argv', ['lbe', *arguments])
  status = command.main()
  return status, capsys.readouterr()


def test_help_has_every_program_that_the_pages_have(capsys, monkeypatch):
  """A program that is not found where people look for it."""
  status, said = say(capsys, monkeypatch)
  found = re.findall(r'^  (\w+)  +\S', said.out, re.M)
  page = (conftest.ROOT / 'docs' / 'programs.md').read_text('utf-8')
  told = dict.fromkeys(re.findall(r'^\| `(\w+)', page, re.M))
  assert not status and found == sorted(told)
  assert max(map(len, said.out.splitlines())) < 100


def test_a_program_that_is_not_there_is_told_with_the_nearest(
  capsys, monkeypatch
):
  status, said = say(capsys, monkeypatch, 'tran')
  assert status == 1 and "'tran' is no program; did you mean lbe train?" in (
    said.err
  )
  assert say(capsys, monkeypatch, '--version')[1].out.startswith('lbe 0.')


@pytest.mark.parametrize(
  'words, expected',
  [
    (['tr'], ['train']),
    (['train', '--wo'], ['--workdir=']),
    (['train', '--dry'], ['--dry_run']),
    (['tokenizer', 'x', '--num_p'], ['--num_pieces=']),
  ],
)
def test_completion_knows_programs_and_their_flags(words, expected):
  """Bash itself completes."""
  typed = ' '.join(['lbe', *words])
  script = (
    f'{command.completion(command.programs())}\n'
    f'COMP_WORDS=({typed}); COMP_CWORD={len(words)}\n'
    f'_lbe lbe {words[-1]} x; echo "${{COMPREPLY[@]}}"'
  )
  done = subprocess.run(
    ['bash', '-c', script], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == expected


def test_a_program_runs_as_by_its_own_name(tmp_path):
  """Its flags and its help are found, from any folder."""
  done = subprocess.run(
    [sys.executable, '-m', 'lbe', 'judge', '--table=no.jsonl'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert (
    done.stderr == "error: there is no file 'no.jsonl'; give a JSONL file.\n"
  )
