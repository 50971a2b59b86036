#!/usr/bin/env bash
# Runs one program as N real processes on this machine's CPU: what a cluster
# does with N hosts, to be tried before there is a cluster.
#
#   bash launch/multihost_local.sh 2 train --config=... --workdir=DIR
#
# Each process gets LBE_DEVICES_PER_PROCESS CPU devices (1 where unset); they
# meet through jax.distributed and talk through gloo. Process 0 writes to the
# terminal, the others into LBE_LOG_DIR (a new folder where unset). When one
# fails, all are ended; SIGTERM is passed on to all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] && [ $# -ge 2 ] ||
  fail "usage: bash launch/multihost_local.sh NUM_PROCESSES PROGRAM [FLAGS]"
num_processes=$1 program=${2#lbe.}; shift 2
[ -f "lbe/$program.py" ] || fail "there is no program lbe/$program.py."

export LBE_ACCELERATOR=cpu JAX_PLATFORMS=cpu
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

pids=()
# On the way out nothing stays behind; asked to stop, train saves first.
trap 'kill "${pids[@]}" 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT TERM
for ((i = num_processes - 1; i >= 0; i--)); do
  command=(python -m "lbe.$program" "$@"
    --coordinator_address="127.0.0.1:$port"
    --num_processes="$num_processes" --process_id="$i")
  if [ "$i" -gt 0 ]; then
    "${command[@]}" >"$logs/process_$i.log" 2>&1 &
  else
    "${command[@]}" &
  fi
  pids+=($!)
done
for ((i = 0; i < num_processes; i++)); do
  wait -n || {
    status=$?
    echo "lbe: a process failed with status $status; the logs of the others" \
      "than process 0 lie in $logs" >&2
    # The rest would wait for it, and jax.distributed keeps SIGTERM to itself.
    kill -KILL "${pids[@]}" 2>/dev/null || true
    exit "$status"
  }
done
