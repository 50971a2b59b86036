#!/usr/bin/env bash
# Runs one program as N real processes on this machine's CPU: what a cluster
# does with N hosts, to be tried before there is a cluster.
#
#   bash launch/multihost_local.sh 2 train --config=... --workdir=DIR
#
# Each process gets LBE_DEVICES_PER_PROCESS CPU devices (1 where unset); they
# meet through jax.distributed and talk through gloo. Process 0 writes to the
# terminal, the others into LBE_LOG_DIR (a new folder where unset). When one
# fails, it is named with its status, host and last step, and all are ended;
# the same command again resumes. SIGTERM is passed on to all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ ]] || [ $# -lt 2 ]; then
  fail "usage: bash launch/multihost_local.sh NUM_PROCESSES PROGRAM [FLAGS]"
fi
num_processes=$1 program=${2#lbe.}; shift 2
[ -f "lbe/$program.py" ] || fail "there is no program lbe/$program.py."

export LBE_ACCELERATOR=cpu JAX_PLATFORMS=cpu
# shellcheck disable=SC2119 # no extras
enter
export JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
export XLA_FLAGS="${XLA_FLAGS:-} \
--xla_force_host_platform_device_count=${LBE_DEVICES_PER_PROCESS:-1}"
port=$(python -c 'import socket
with socket.socket() as s:
  s.bind(("127.0.0.1", 0))
  print(s.getsockname()[1])')
logs=${LBE_LOG_DIR:-$(mktemp -d)}
mkdir -p "$logs"

declare -A process_of # pid → number of the process
# On the way out nothing stays behind; asked to stop, train saves first.
trap 'kill "${!process_of[@]}" 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT TERM
for ((i = num_processes - 1; i >= 0; i--)); do
  command=(python -m "lbe.$program" "$@"
    --coordinator_address="127.0.0.1:$port"
    --num_processes="$num_processes" --process_id="$i")
  export LBE_HEARTBEAT="$logs/process_$i.heartbeat"
  rm -f "$LBE_HEARTBEAT"
  if [ "$i" -gt 0 ]; then
    "${command[@]}" >"$logs/process_$i.log" 2>&1 &
  else
    "${command[@]}" &
  fi
  process_of[$!]=$i
done

describe() { # status of a process: what a person would call it
  if [ "$1" -gt 128 ]; then
    echo "$1 (SIG$(kill -l "$1"))"
  else
    echo "$1"
  fi
}

last_step() { # number of a process: where it runs and how far it came
  local host step
  if read -r _ host step 2>/dev/null <"$logs/process_$1.heartbeat"; then
    echo "on $host after step $step"
  else
    echo "on $(uname -n) before its first step"
  fi
}

for ((n = 0; n < num_processes; n++)); do
  wait -n -p pid || {
    status=$?
    i=${process_of[$pid]}
    echo "lbe: process $i ended first, with status $(describe "$status")," \
      "$(last_step "$i"); the logs of the others than process 0 lie in" \
      "$logs. The same command again resumes." >&2
    # The rest would wait for it until their heartbeat's limit.
    kill -KILL "${!process_of[@]}" 2>/dev/null || true
    exit "$status"
  }
done
