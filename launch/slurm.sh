#!/usr/bin/env bash
#SBATCH --job-name=lbe
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
# Trains on a GPU cluster under SLURM, one process for each GPU, from the
# folder of this project on a file system that all nodes mount:
#
#   sbatch launch/slurm.sh --config=... --workdir=DIR ...
#   sbatch --nodes=4 --gpus-per-node=4 --ntasks-per-node=4 launch/slurm.sh ...
#
# Keep ntasks-per-node equal to gpus-per-node: jax gives each task the GPU of
# its number. When one process dies, all are ended; a node that fails or a job
# that is preempted puts the job back into the queue (--requeue), and five
# minutes before its time is over train saves and the job queues again: it
# resumes from the last checkpoint. A failure of train itself ends the job.
set -euo pipefail
# SLURM runs a copy of this file; the project is where sbatch was typed.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
[ -f launch/env.sh ] || {
  echo "lbe: $PWD is not the project's folder; type sbatch there." >&2
  exit 1
}
source launch/env.sh
[ $# -gt 0 ] || fail 'usage: sbatch launch/slurm.sh --config=... --workdir=DIR'
[ -n "${SLURM_JOB_ID:-}" ] || fail 'this is a job script: sbatch launch/slurm.sh'

# shellcheck disable=SC2119 # no extras
enter # once, on the first node; the others find it there

stopping=
step=
# srun hands the signal on, and train saves and ends. It may come as soon as
# srun runs, before its number is known here.
trap 'stopping=1; [ -z "$step" ] || kill -TERM "$step" || true' TERM
srun --kill-on-bad-exit=1 python -m lbe.train --distributed "$@" &
step=$!
[ -z "$stopping" ] || kill -TERM "$step" || true
status=0
wait "$step" || status=$?
if [ -n "$stopping" ]; then
  status=0
  wait "$step" || status=$? # the first wait ended with the signal
  echo 'lbe: the time is over; the job queues again and resumes'
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
