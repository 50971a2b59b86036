"""Programs of ours, each in a fork of a process that has imported a lot.

  python -m tests.forked

It reads a line of JSON for each, and writes its status when it has ended: what
Popen's returncode would be. Of the two or three seconds that a small program
takes, imports are one.
"""

import json
import os
import runpy
import signal
import sys

# They start no thread and no device.
import lbe.assemble.data
import lbe.assemble.evaluators
import lbe.assemble.model
import lbe.assemble.step
import lbe.convert.hf
import lbe.run.checkpoint
import lbe.run.progress  # noqa: F401


def main():
  for line in sys.stdin:
    it = json.loads(line)
    if pid := os.fork():
      _, told = os.waitpid(pid, 0)
      print(os.waitstatus_to_exitcode(told), flush=True)
      continue
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    output = os.open(it['output'], os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(it['environment'])
    # What starts the tests may ignore them.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = it['command']
    # It ends as a program ends, by what it raises, too.
    runpy.run_module(it['command'][0], run_name='__main__', alter_sys=True)
    return


if __name__ == '__main__':
  main()
