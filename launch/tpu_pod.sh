#!/usr/bin/env bash
# Trains on a Cloud TPU pod, from this machine, through gcloud.
#
#   bash launch/tpu_pod.sh run --config=... --workdir=gs://BUCKET/FOLDER ...
#
# does everything: creates the TPU, installs, starts train on all workers, and
# watches; when the TPU is preempted it is made anew and the run resumes from
# its last checkpoint, when train fails it is started again at most
# LBE_TPU_RETRIES times. Interrupting it leaves the TPU running: run the same
# line again to go on watching, or to install and start where that was not
# done yet. The steps one by one:
#
#   create | install | start FLAGS | watch FLAGS | tail | stop | delete
#
# --print as first argument shows the gcloud commands and runs none of them.
# `delete` ends the cost; nothing else does.
#
#   LBE_TPU_NAME     lbe
#   LBE_TPU_ZONE     us-east5-a
#   LBE_TPU_TYPE     v5p-128, as it is sold
#   LBE_TPU_RUNTIME  v2-alpha-tpuv5; v5e: v2-alpha-tpuv5-lite, v6e:
#                    v2-alpha-tpuv6e, v4: tpu-ubuntu2204-base
#   LBE_TPU_SLICES   1; more are joined by the data center's network
#   LBE_TPU_SPOT     1 for spot capacity, which can be preempted
#   LBE_TPU_RETRIES  3
#   LBE_TPU_POLL     60 seconds between two looks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "lbe: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' launch/tpu_pod.sh; }

name=${LBE_TPU_NAME:-lbe}
place=(--zone="${LBE_TPU_ZONE:-us-east5-a}")
type=${LBE_TPU_TYPE:-v5p-128} runtime=${LBE_TPU_RUNTIME:-v2-alpha-tpuv5}
slices=${LBE_TPU_SLICES:-1} retries=${LBE_TPU_RETRIES:-3}
poll=${LBE_TPU_POLL:-60}
printing=

resources() { # a verb and its arguments
  local command=(gcloud compute tpus queued-resources "$@" "${place[@]}")
  if [ -n "$printing" ]; then
    printf '%q ' "${command[@]}"; echo
  else
    "${command[@]}"
  fi
}

everywhere() { # a command for the shell of every worker
  resources ssh "$name" --worker=all --node=all --command="$1"
}

create() {
  local nodes=(--node-id="$name")
  [ "$slices" = 1 ] || nodes=(--node-count="$slices" --node-prefix="$name")
  [ -z "${LBE_TPU_SPOT:-}" ] || nodes+=(--spot)
  resources create "$name" --accelerator-type="$type" \
    --runtime-version="$runtime" "${nodes[@]}"
}

describe() { resources describe "$name" --format='value(state.state)'; }

state= # ACTIVE, SUSPENDED, ..., NONE, or UNKNOWN
find_state() {
  local words known=$state
  words=$(mktemp)
  if ! state=$(describe 2>"$words"); then
    # Only what is not there may be made anew. Where gcloud was refused or did
    # not get through, the TPU may well be training.
    state=UNKNOWN
    if grep -q ' NOT_FOUND: ' "$words"; then
      state=NONE
    elif [ "$known" != UNKNOWN ]; then
      cat "$words" >&2
      echo "lbe: the state of $name is unknown; looking again every $poll s" >&2
    fi
  fi
  rm "$words"
}

wait_until_active() {
  if [ -n "$printing" ]; then describe; return; fi
  while find_state; [ "$state" != ACTIVE ]; do
    case "$state" in
      FAILED | NONE | SUSPEND*) fail "the TPU $name is $state; see" \
        "gcloud compute tpus queued-resources describe $name ${place[*]}" ;;
    esac
    echo "lbe: $name is $state"
    sleep "$poll"
  done
}

install() {
  local archive
  archive=$(mktemp -d)/lbe.tar.gz
  git ls-files -z | tar --null -czf "$archive" -T -
  resources scp "$archive" "$name:" --worker=all --node=all
  rm -r "$(dirname "$archive")"
  # Images with an older Python than we need get one from deadsnakes.
  everywhere 'set -e; mkdir -p lbe; tar -xzf lbe.tar.gz -C lbe; cd lbe
source launch/env.sh
(find_python) >/dev/null 2>&1 || {
  sudo add-apt-repository -y ppa:deadsnakes/ppa
  sudo apt-get install -y python3.12-venv; }
enter remote'
}

start() { # flags of train
  local job
  # The status is there once train has ended.
  job=".venv/bin/python -m lbe.train --distributed $(printf '%q ' "$@")
echo \$? >~/lbe.status"
  # setsid: it lives on when ssh ends. Only what is redirected stands in the
  # background: ssh waits for whatever holds its pipes. lbe.pid is there when
  # this returns, for look.
  everywhere "cd lbe && rm -f ~/lbe.status && {
nohup setsid bash -c $(printf '%q' "$job") >>~/lbe.log 2>&1 </dev/null &
echo \$! >~/lbe.pid; }"
}

look() { # at train on worker 0 of slice 0: its status, running, or absent
  resources ssh "$name" --worker=0 --node=0 \
    --command='cat lbe.status 2>/dev/null || {
[ -e lbe.pid ] && echo running || echo absent; }'
}

watch() { # flags of train
  local failed=0 now
  if [ -n "$printing" ]; then describe; look; return; fi
  while true; do
    find_state
    case "$state" in
      ACTIVE) ;;
      SUSPEND* | FAILED | NONE)
        echo "lbe: $name is gone; making it anew"
        delete 2>/dev/null || true
        create; wait_until_active; install; start "$@" ;;
      *) sleep "$poll"; continue ;;
    esac
    now=$(look 2>/dev/null || echo unreachable)
    case "$now" in
      0) echo 'lbe: train has ended'; return ;;
      running | unreachable) ;;
      absent) # interrupted before it, or made by create
        echo "lbe: train was never started on $name; installing"
        install; start "$@" ;;
      *)
        failed=$((failed + 1))
        [ "$failed" -le "$retries" ] || fail "train ended with status $now" \
          "$failed times; see: bash launch/tpu_pod.sh tail"
        echo "lbe: train ended with status $now; starting it again"
        stop; start "$@" ;;
    esac
    sleep "$poll"
  done
}

tail_log() {
  resources ssh "$name" --worker=0 --node=0 --command='tail -n 100 -F lbe.log'
}

stop() { # train saves first
  # shellcheck disable=SC2016 # expanded there, not here
  everywhere 'pkill -TERM -s "$(cat lbe.pid)" python; while
pgrep -s "$(cat lbe.pid)" >/dev/null; do sleep 1; done'
}

delete() { resources delete "$name" --force --quiet; }

if [ "${1:-}" = --print ]; then printing=1; shift; fi
verb=${1:-}; [ $# -eq 0 ] || shift
[ -n "$printing" ] || command -v gcloud >/dev/null ||
  fail 'gcloud is not installed; see https://cloud.google.com/sdk, or look' \
    'at the commands with --print.'
case "$verb" in
  run | start | watch)
    case " $* " in
      *' --config'*) ;;
      *) fail "$verb takes the flags of train: --config=... --workdir=..." ;;
    esac
    case " $* " in
      *' --workdir=gs://'*) ;;
      *) fail 'a pod has no folder that all its hosts see; give' \
        '--workdir=gs://BUCKET/FOLDER' ;;
    esac ;;
esac
case "$verb" in
  run)
    [ -n "$printing" ] || find_state
    [ "$state" != UNKNOWN ] || fail "gcloud does not say what $name is"
    if [ -n "$printing" ] || [ "$state" = NONE ]; then
      create; wait_until_active; install; start "$@"
    fi
    watch "$@" ;;
  create) create; wait_until_active ;;
  install | start | watch | stop | delete) "$verb" "$@" ;;
  tail) tail_log ;;
  *) usage; [ "$verb" = --help ] || [ "$verb" = -h ] || exit 2 ;;
esac
