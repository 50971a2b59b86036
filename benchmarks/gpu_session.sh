#!/usr/bin/env bash
# What is open about NVIDIA GPUs, measured on one in nine minutes, on a machine
# that has PyTorch, transformers, jax, flax, optax and orbax and no registry.
#
#   bash benchmarks/gpu_session.sh prepare            # here, with a registry
#   bash benchmarks/gpu_session.sh run OUT [EARLIER]  # there
#   LBE_REHEARSE=1 bash benchmarks/gpu_session.sh run OUT      # on a CPU, tiny
#
# `prepare` fetches as wheels what such a machine lacks (LBE_GPU_PYTHON, 3.12,
# is its Python) into .wheels/, which travels with the tree: all is under 64
# MiB. `run` takes the steps below, what is wanted most first, each with a limit
# of its own. After each, OUT has its output (session.log), its rows
# (results.jsonl, to be added to benchmarks/results.jsonl) and its name (done).
# What LBE_GPU_SECONDS (540) leave no time for, and what failed, is tried by
# another call; EARLIER is the OUT of the one before where OUT is a new folder.
#
# Goals: attention equal to the reference, documents apart (the benchmark fails
# otherwise); 7B in full at 50% MFU or more; 8B with adapters at 12,500 tokens/s
# (NeMo Automodel's published 12,473 on one H100, bf16, 4,096); the first step
# of 7B within 60 s, 10 s where it is found compiled; a killed run resumed to
# the bit; peaks as the compiler's (planned_mib).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WHEELS=.wheels
# In lbe's and tokamax's needs and not in such an image; `run` leaves out what
# is there after all.
LACKING=(
  array_record grain ml_collections tensorflow-datasets importlib_resources
  dm-tree docstring_parser immutabledict promise simple_parsing
  tensorflow-metadata googleapis-common-protos termcolor toml etils
  portpicker tokamax xprof fire einshape jaxtyping pydantic pydantic-core annotated-types
  typing-inspection qwix tensorboardx typeguard==2.13.3 wadler_lindig
  pytest-timeout
)

fail() { echo "gpu_session: $*" >&2; exit 1; }

prepare() {
  local python=${LBE_GPU_PYTHON:-3.12} platforms=() n pydantic
  for n in 2_5 2_12 2014 2_17 2_24 2_26 2_27 2_28 2_31 2_34 2_35; do
    platforms+=(--platform "manylinux${n/2_/_2_}_x86_64")
  done
  mkdir -p "$WHEELS"
  fetch() {
    python -m pip download --quiet --disable-pip-version-check --no-deps \
      --only-binary=:all: --python-version "$python" --implementation cp \
      "${platforms[@]}" --dest "$WHEELS" "$@"
  }
  for name in "${LACKING[@]}"; do
    [ "$name" = pydantic-core ] && continue
    # promise and fire are there as source distributions alone.
    fetch "$name" 2>/dev/null ||
      python -m pip wheel --quiet --disable-pip-version-check --no-deps \
        --wheel-dir "$WHEELS" "$name" || fail "$name has no wheel"
  done
  # pydantic takes one release of its core alone.
  pydantic=$(unzip -p "$WHEELS"/pydantic-[0-9]*.whl '*/METADATA' |
    sed -n 's/^Requires-Dist: \(pydantic-core==[0-9.]*\).*/\1/p')
  fetch "$pydantic"
  git rev-parse --short HEAD >"$WHEELS/commit"
  du -sm "$WHEELS"
}

bring() { # installs what lacks; sets PYTHONPATH
  local missing
  mkdir -p "$WHEELS/site"
  missing=$(python - "$WHEELS"/*.whl <<'PY'
import importlib.metadata
import sys

for wheel in sys.argv[1:]:
  name = wheel.split('/')[-1].split('-')[0]
  try:
    importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    print(wheel)
PY
  )
  [ -z "$missing" ] || echo "$missing" | xargs python -m pip install --quiet \
    --no-index --no-deps --no-compile --upgrade --target "$WHEELS/site"
  LBE_COMMIT=${LBE_COMMIT:-$(cat "$WHEELS/commit")}
  export LBE_COMMIT PYTHONPATH="$PWD:$PWD/$WHEELS/site"
}

FAILED=0
step() { # name, seconds at most, command
  local name=$1 left=$((END - SECONDS)) limit=$2 start=$SECONDS
  shift 2
  if grep -qx "$name" "$OUT/done"; then
    echo "$name: done before"
    return
  fi
  if [ $left -lt 30 ]; then
    echo "$name: no time left"
    FAILED=1
    return
  fi
  echo "== $name: $*" >>"$OUT/session.log"
  if timeout --kill-after=5 $((limit < left ? limit : left)) "$@" \
    >>"$OUT/session.log" 2>&1; then
    echo "$name" >>"$OUT/done"
    echo "$name: done in $((SECONDS - start)) s"
  else
    echo "$name: FAILED after $((SECONDS - start)) s, see $OUT/session.log"
    FAILED=1
  fi
}

attention() {
  python benchmarks/attention.py --dtype=bfloat16 "$@"
}

ladder() { # shape, rung, more flags
  python benchmarks/train_step.py --ladder --shape="$1" --rung="$2" "${@:3}"
}

resume() {
  LBE_TEST_PLATFORM=$PLATFORM LBE_TEST_XLA_FLAGS="$DETERMINISTIC" python -m \
    pytest -q -p no:cacheprovider tests/test_resume.py -k killed "$@"
}

run() { # OUT [EARLIER]
  OUT=$(mkdir -p "$1" && cd "$1" && pwd)
  END=$((SECONDS + ${LBE_GPU_SECONDS:-540}))
  touch "$OUT/done"
  if [ -n "${2:-}" ]; then
    cp "$2"/{done,results.jsonl,session.log} "$OUT/"
  fi
  export LBE_RESULTS="$OUT/results.jsonl" PYTHONUNBUFFERED=1
  export -f attention ladder resume
  if [ -n "${LBE_REHEARSE:-}" ]; then
    export JAX_PLATFORMS=cpu PLATFORM=cpu DETERMINISTIC= PYTHONPATH="$PWD"
    export LBE_COMMIT=rehearsed
    step attention 300 bash -c 'attention --rows=1 --seq_len=128 --heads=2 \
      --kv_heads=1 --head_dim=16 --documents=2 --turns=1'
    # That of `full` as well, but for the shape.
    step lora 300 bash -c 'ladder 8b_lora base --rehearse --dtype=float32 \
      --pairs=1 --steps=1'
    step decode_1 300 python benchmarks/decode.py --shape=tiny --pairs=1 \
      --new_tokens=4
    step resume 200 bash -c 'resume --collect-only'
    return $FAILED
  fi
  bring
  export PLATFORM=cuda DETERMINISTIC=--xla_gpu_deterministic_ops=true
  export JAX_COMPILATION_CACHE_DIR="$PWD/$WHEELS/compiled"
  step attention 150 bash -c 'attention --rows=2 --seq_len=2048 --heads=32 \
    --kv_heads=8 --turns=5 --head_dim={128,64,80,96}'
  step full 150 bash -c 'ladder 7b "attention: tokamax" --pairs=2'
  # The same program, found compiled: first_step_after_s.
  step full_warm 60 bash -c 'ladder 7b "attention: tokamax" --pairs=1 --steps=1'
  step lora 120 bash -c 'ladder 8b_lora "attention: tokamax" --pairs=2'
  step full_4096 120 bash -c \
    'ladder 7b "attention: tokamax" --pairs=2 --seq_len=4096 --batch_size=4'
  step resume 150 bash -c resume
  step decode_1 90 python benchmarks/decode.py --shape=1b --dtype=bfloat16 \
    --pairs=3
  step decode_64 90 python benchmarks/decode.py --shape=1b --dtype=bfloat16 \
    --pairs=3 --prompts=64
  for rung in base 'attention: tokamax, remat: dots and attention' \
    'remat: full' 'all logits at once' 'first moment in float32'; do
    export RUNG="$rung"
    step "ladder_${rung//[^a-z0-9]/_}" 150 bash -c 'ladder 7b "$RUNG" --pairs=2'
  done
  return $FAILED
}

case ${1:-} in
  prepare) prepare ;;
  run) [ -n "${2:-}" ] || fail 'name the folder for what is measured'
    run "${@:2}" ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
