# shellcheck shell=bash
# Makes and enters the virtual environment; sourced by the scripts beside it
# with the wanted extras as arguments. Quick when nothing has changed.
#
#   LBE_EXTRAS       extras of setup.py beside those, as hf,plot
#   LBE_ACCELERATOR  cpu, cuda or tpu; detected where unset
#   LBE_PYTHON       the Python (3.11 or newer) that makes the environment
#   LBE_VENV         where the environment lies; .venv where unset

fail() { echo "lbe: $*" >&2; exit 1; }

is_python() { # a command that is Python 3.11 or newer and can make a venv
  "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
    >/dev/null 2>&1
}

find_python() {
  local name
  if [ -n "${LBE_PYTHON:-}" ]; then
    is_python "$LBE_PYTHON" || fail "LBE_PYTHON=$LBE_PYTHON is not a Python" \
      "3.11 or newer with the venv module; name one that is."
    echo "$LBE_PYTHON"; return
  fi
  for name in python3 python python3.12 python3.13 python3.11 python3.14; do
    if is_python "$name"; then echo "$name"; return; fi
  done
  fail "no Python 3.11 or newer with the venv module is on PATH; install one" \
    "(Debian: apt-get install python3 python3-venv) or set LBE_PYTHON."
}

detect_accelerator() {
  local gpus=
  if command -v nvidia-smi >/dev/null; then
    # Where the driver fails there may be GPUs, left idle by a run on the CPU;
    # in many an image there are none.
    gpus=$(nvidia-smi -L 2>&1) || case "$gpus" in
      *'No devices'*) ;;
      *) echo "lbe: warning: nvidia-smi fails ($gpus); this goes on without" \
        "GPUs. With them, mend the driver or set LBE_ACCELERATOR=cuda." >&2 ;;
    esac
  fi
  if grep -q '^GPU' <<<"$gpus"; then
    echo cuda
  elif compgen -G '/dev/accel[0-9]*' >/dev/null || {
    # TPU hosts of newer generations hand their chips out through vfio.
    compgen -G '/dev/vfio/[0-9]*' >/dev/null &&
      grep -qs 0x1ae0 /sys/bus/pci/devices/*/vendor; }; then
    echo tpu
  else
    echo cpu
  fi
}

# Runs an installer, which is silent for minutes, and says that it goes on:
# every 3 s on a terminal, every 30 s in a log.
heard() { # command
  local start=$SECONDS every=30 end='\n' status=0 beat
  if [ -t 2 ]; then every=3 end='\r'; fi
  # The sleep holds no pipe of ours open, and the loop ends with this script.
  while sleep "$every" >/dev/null 3>&- && kill -0 $$; do
    printf 'lbe: still installing, %s s %b' $((SECONDS - start)) "$end" >&3
  done 3>&2 2>/dev/null &
  beat=$!
  "$@" || status=$?
  kill "$beat" 2>/dev/null; wait "$beat" 2>/dev/null || true
  return $status
}

enter() { # extras
  local accelerator=${LBE_ACCELERATOR:-} venv=${LBE_VENV:-.venv} python
  local extras="$* ${LBE_EXTRAS:-}" driver stamp want start
  extras=${extras//,/ }
  [ -n "$accelerator" ] || accelerator=$(detect_accelerator)
  case "$accelerator" in
    cpu) ;;
    tpu) extras="$extras tpu" ;;
    cuda)
      driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader \
        2>/dev/null | head -n 1 || true)
      # CUDA 13 needs driver 580.
      if [ "${driver%%.*}" -lt 580 ] 2>/dev/null; then
        extras="$extras cuda12"
      else
        extras="$extras cuda"
      fi ;;
    *) fail "LBE_ACCELERATOR=$accelerator is unknown; take cpu, cuda or tpu." ;;
  esac
  if [ "$accelerator" = cpu ]; then
    export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
  fi

  # activate comes last: without it the making was interrupted.
  if [ ! -e "$venv/bin/activate" ]; then
    python=$(find_python)
    echo "lbe: making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
  fi
  is_python "$venv/bin/python" || fail "$venv holds a Python that does not" \
    "run or is older than 3.11; remove the folder and run this again."
  if [ -n "${LBE_PYTHON:-}" ]; then
    python=$(find_python)
    [ "$("$python" --version)" = "$("$venv/bin/python" --version)" ] ||
      fail "$venv holds $("$venv/bin/python" --version), LBE_PYTHON is" \
        "$("$python" --version); remove $venv or set LBE_VENV to another place."
  fi
  # shellcheck source=/dev/null
  source "$venv/bin/activate"

  # One stamp for each set of extras: what was installed, from which setup.py.
  stamp="$venv/lbe-installed-$(echo "$extras" | xargs | tr ' ' '-')"
  want="$PWD $(cat setup.py lbe/__init__.py | cksum)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    extras=$(echo "$extras" | xargs | tr ' ' ',')
    echo "lbe: installing lbe${extras:+[$extras]} into $venv, once: some" \
      "minutes, and about 1 GB without extras (docs/install.md)"
    start=$SECONDS
    # torch only checks our numbers: its CPU build is a tenth of the size.
    # A machine that cannot reach the index takes what its own index has.
    case ",$extras," in *,test,* | *,hf,*)
      if [ "$(uname)" = Linux ]; then
        heard sh -c '"$@" >/dev/null 2>&1' sh \
          python -m pip install --quiet --disable-pip-version-check --retries 0 \
          --no-deps --extra-index-url https://download.pytorch.org/whl/cpu \
          "$(sed -n "s/.*'\(torch==[^']*\)'.*/\1/p" setup.py)+cpu" ||
          echo "lbe: no CPU build of torch here; taking the usual one"
      fi ;;
    esac
    PYTHONWARNINGS=ignore heard python -m pip install --quiet \
      --disable-pip-version-check \
      -e ".${extras:+[$extras]}"
    echo "$want" >"$stamp"
    echo "lbe: installed in $((SECONDS - start)) s, $venv has" \
      "$(du -sh "$venv" | cut -f1)B; enter it by: source $venv/bin/activate"
    # A program that takes this process over is as old as what it does itself.
    LBE_ENTERED=$(date +%s)
    export LBE_ENTERED
  fi
}
