#!/usr/bin/env bash
# Runs a program of lbe on this machine, making its environment where needed.
#
#   bash launch/local.sh                     the quickstart, into runs/quickstart
#   bash launch/local.sh train --config=configs/small_zh.py --workdir=DIR ...
#   bash launch/local.sh PROGRAM [FLAGS]     any `lbe PROGRAM`
#
# Variables: LBE_EXTRAS (as hf,plot), LBE_ACCELERATOR, LBE_PYTHON, LBE_VENV
# (see launch/env.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

case "${1:-}" in
  -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' launch/local.sh; exit ;;
  '') set -- train --config=configs/quickstart.py --workdir=runs/quickstart ;;
  -*) set -- train "$@" ;;
esac
program=${1#lbe.}; shift
[ -f "lbe/$program.py" ] || fail "there is no program lbe/$program.py; take" \
  "one of: $(printf '%s\n' lbe/[!_]*.py | xargs -n 1 basename -s .py |
    xargs)."

# shellcheck disable=SC2119 # no extras of its own
enter
exec python -m "lbe.$program" "$@"
